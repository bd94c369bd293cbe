"""`doctor`: what is missing on this machine, and what to do about it. Changes nothing."""

import os
import shutil
from pathlib import Path

from bootstrap import apt, gobuild, leftovers, preflight, processes, sources, stack
from bootstrap.errors import BootstrapError
from bootstrap.parts import ENGINE_PARTS, NODE_PARTS, WEED
from bootstrap.paths import Layout
from bootstrap.preflight import Finding


def packages() -> Finding:
    lacking = apt.missing()
    told = f"Debian packages: {', '.join(lacking)} missing" if lacking else "Debian packages: there"
    fine = not lacking or (os.geteuid() == 0 and shutil.which("apt-get") is not None)
    note = "; `make up` installs them" if lacking and fine else ""
    return Finding(told + note, fine, f"as root: apt-get install {' '.join(lacking)}")


def cache() -> Finding:
    given = os.environ.get(sources.CACHE_VARIABLE)
    if not given:
        return Finding(f"{sources.CACHE_VARIABLE}: not set; parts are downloaded or built", True)
    fine = (Path(given) / "SHA256SUMS").exists()
    do = "give it a folder with `<binary>.xz` files and a SHA256SUMS, or unset it"
    return Finding(f"{sources.CACHE_VARIABLE}: {given}", fine, do)


def parts(layout: Layout, context: str | None) -> list[Finding]:
    """Which parts are there; for the others, whether Go can build them."""
    found = []
    lacking = []
    for part in (*((WEED,) if context else NODE_PARTS), *ENGINE_PARTS):
        source = sources.installed(layout, part)
        found.append(Finding(f"{part.name}: {source or 'not there yet'}", True))
        if source is None:
            lacking.append(part)
    if lacking:
        cores = os.cpu_count() or 1
        minutes = sum(part.cpu_seconds for part in lacking) / 60 / cores
        own = gobuild.own_go() or "none yet; `make up` installs golang-go where it has to build"
        told = f"Go ({gobuild.LEAST} or newer, an older one fetches it): {own}. Building what is "
        told += f"missing would take about {minutes:.0f} min on {cores} idle cores"
        found.append(Finding(told, True))
    return found


def cluster(layout: Layout) -> Finding:
    others = leftovers.living(processes.marked(), leftovers.owner_of(layout))
    if others:
        return Finding("another checkout's cluster runs", False, leftovers.refusal(others))
    return Finding("no other checkout's cluster runs", True)


def run(layout: Layout) -> None:
    context = stack.own_context(layout)
    found = []
    if context:
        found.append(Finding(f"cluster: {context}, your own; no node is made here", True))
    else:
        found += preflight.findings(layout)
        if found[0].fine:
            found += [packages(), cluster(layout)]
    found += [cache(), *parts(layout, context)]
    for finding in found:
        print(f"{'ok  ' if finding.fine else 'MISS'}  {finding.what}")
        if not finding.fine:
            print(f"      to do: {finding.do}")
    wrong = sum(not finding.fine for finding in found)
    if wrong:
        raise BootstrapError(f"{wrong} things to do before `make up` can work.")
