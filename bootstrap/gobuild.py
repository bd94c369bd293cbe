"""Builds parts from their pinned Go modules, and says how far it is.

`go build -v` names each package when it begins to compile it. Weighed by the size of their sources,
the packages tell how much is done; the time that is left follows from the time so far, and at the
beginning from the time that the build took when it was measured.
"""

import json
import os
import re
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from bootstrap import apt
from bootstrap.commands import run, start, tail
from bootstrap.errors import BootstrapError
from bootstrap.paths import Layout
from bootstrap.schedule import Task

LEAST = "go1.26.0"
"""What the newest of the modules asks for (toolchain/dockerbuild/go.mod)."""

FETCHED = "go1.26.8"
FETCHED_SUM = "h1:ZOmGe1OnfREDMIdb1Qi4G9JSuDPBLGExZMQ4nis1RXM="
"""The Go that is fetched where the machine's is older, and the hash of its module."""

FINDING = threading.Lock()
AT_ONCE = 2
SLOTS = threading.Semaphore(AT_ONCE)
"""Builds at once: more would only share the same cores, and the memory of the linkers adds up."""

LINK_SHARE = 0.12
"""How much of a build linking is, roughly; it names no packages."""


@dataclass(frozen=True)
class Target:
    """One `go build`: packages of a module, and the binaries they become.

    folder: below bootstrap/toolchain.
    packages: import paths by the name of the binary.
    variables: values set at link time, by the full name of the Go variable.
    prepare: lays what the module's folder lacks, given the folder, Go and its environment.
    """

    folder: str
    packages: Mapping[str, str]
    variables: Mapping[str, str] = field(default_factory=dict)
    tags: str = ""
    prepare: Callable[[Path, str, Mapping[str, str]], None] | None = None


def expected(cpu_seconds: float) -> float:
    """Seconds that a build takes while as many others as may share the machine's cores."""
    return cpu_seconds * AT_ONCE / (os.cpu_count() or 1)


def version_of(text: str) -> tuple[int, ...]:
    found = re.search(r"go(\d+)\.(\d+)(?:\.(\d+))?", text)
    return tuple(int(part or 0) for part in found.groups()) if found else ()


def environment(layout: Layout) -> dict[str, str]:
    """Go's environment: caches below `.mlhub` unless the person has set their own.

    So is its work folder: gigabytes that a killed build would leave in /tmp.
    """
    caches = layout.cache / "go"
    return {
        "GOMODCACHE": os.environ.get("GOMODCACHE", str(caches / "mod")),
        "GOCACHE": os.environ.get("GOCACHE", str(caches / "build")),
        "GOPATH": str(caches / "path"),
        "GOTMPDIR": str(caches / "tmp"),
        "GOFLAGS": "-mod=readonly -modcacherw -buildvcs=false -trimpath",
        "CGO_ENABLED": "0",
        "GOWORK": "off",
        "GOTOOLCHAIN": "local",
    }


def _asks(go: str) -> tuple[int, ...]:
    done = subprocess.run(
        [go, "version"],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "GOTOOLCHAIN": "local"},
    )
    return version_of(done.stdout)


def own_go() -> str | None:
    return shutil.which("go") or shutil.which("go", path="/usr/local/go/bin:/usr/lib/go/bin")


def find_go(layout: Layout, task: Task) -> str:
    """A Go that is new enough: the machine's own, or the one its module proxy has.

    Debian 12's Go is too old to build the parts, but can fetch the newer one as a module.
    """
    with FINDING:
        if own_go() is None:
            apt.install(layout, task, ["golang-go"])
        go = own_go()
        if go is None:
            raise BootstrapError(
                "Parts have to be built from source, and golang-go brought no Go. Install Go, or "
                "give MLHUB_TOOLCHAIN_CACHE a folder with prebuilt parts."
            )
        return go if _asks(go) >= version_of(LEAST) else _fetched(layout, task, go)


def _fetched(layout: Layout, task: Task, go: str) -> str:
    """The pinned Go, which the machine's older one fetches and checks."""
    task.say(f"fetching {FETCHED}")
    log = layout.log / "go-toolchain.log"
    argv = [go, "mod", "download", "-json", f"golang.org/toolchain@v0.0.1-{FETCHED}.linux-amd64"]
    run(layout, task, argv, log=log, env=environment(layout), cwd=layout.cache)
    try:
        answer = json.loads(log.read_text())
    except ValueError:
        answer = {"Error": tail(log)}
    if answer.get("Sum") != FETCHED_SUM:
        why = answer.get("Error") or f"its sum is {answer.get('Sum')}, {FETCHED_SUM} is pinned"
        raise BootstrapError(
            f"Go {LEAST[2:]} or newer is needed, this machine's is older, and "
            f"`{' '.join(argv[1:])}` did not bring it: {why}"
        )
    folder = Path(answer["Dir"])
    for tool in (*(folder / "bin").iterdir(), *(folder / "pkg" / "tool").rglob("*")):
        if tool.is_file():
            tool.chmod(0o755)
    return str(folder / "bin" / "go")


class Progress:
    """How much of a build is done, from what `go build -v` has named so far."""

    def __init__(self, weights: Mapping[str, int], seconds: float):
        self.weights = weights
        self.total = sum(weights.values())
        self.expected = seconds
        self.began = time.monotonic()
        self.read = 0
        self.done = 0

    def follow(self, log: Path, task: Task) -> None:
        with log.open(errors="replace") as file:
            file.seek(self.read)
            text = file.read()
        whole, newline, _ = text.rpartition("\n")
        self.read += len((whole + newline).encode())
        named = [line for line in whole.splitlines() if line in self.weights]
        self.done += sum(self.weights[name] for name in named)
        task.note = "compiling"
        task.fraction, task.remaining = self.at(time.monotonic() - self.began)

    def at(self, elapsed: float) -> tuple[float, float]:
        """Fraction done, and seconds left.

        At first the measured time says more than a few packages do; the further the build is, or
        the later, the more its own pace counts.
        """
        compiled = self.done / self.total if self.total else 1.0
        fraction = min(0.99, compiled * (1 - LINK_SHARE))
        by_time = max(0.0, self.expected - elapsed)
        if fraction < 0.01:
            return fraction, by_time
        by_pace = elapsed * (1 - fraction) / fraction
        trust = min(1.0, max(2 * fraction, elapsed / self.expected))
        return fraction, trust * by_pace + (1 - trust) * by_time


def weights(listing: str) -> dict[str, int]:
    """Bytes of source by import path, of the packages that have to be compiled."""
    found = {}
    for line in listing.splitlines():
        path, *rest = line.split("\t")
        if len(rest) == 2:
            sizes = (Path(rest[0]) / name for name in rest[1].split(",") if name)
            found[path] = sum(file.stat().st_size for file in sizes if file.exists())
    return found


def build(layout: Layout, task: Task, target: Target, out: Path, seconds: float) -> None:
    """Builds a target's binaries into `out`. seconds: what it took when it was measured.

    The module is copied first, so that what is prepared in it does not stay in the checkout.
    """
    task.say("waiting for another build to end")
    while not SLOTS.acquire(timeout=0.5):
        task.check()
    try:
        _build(layout, task, target, out, seconds)
    finally:
        SLOTS.release()


def _build(layout: Layout, task: Task, target: Target, out: Path, seconds: float) -> None:
    go = find_go(layout, task)
    env = environment(layout)
    Path(env["GOTMPDIR"]).mkdir(parents=True, exist_ok=True)
    folder = layout.cache / "build" / target.folder
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(layout.toolchain / target.folder, folder)
    log = layout.log / f"build-{task.name}.log"

    def must(argv: list[str], each: Callable[[], None] = lambda: None) -> None:
        if run(layout, task, argv, log=log, env=env, cwd=folder, each=each):
            raise BootstrapError(
                f"`{' '.join(argv[:2])}` failed for {target.folder}. It needs a Go module proxy "
                f"that has the modules of its go.mod. The end of {log}:\n{tail(log, 8)}"
            )

    task.say("fetching modules")
    if target.prepare:
        target.prepare(folder, go, env)
    tags = ["-tags", target.tags] if target.tags else []
    packages = list(target.packages.values())
    shape = '{{if .Stale}}{{.ImportPath}}\t{{.Dir}}\t{{join .GoFiles ","}}{{end}}'
    must([go, "list", "-deps", *tags, "-f", shape, *packages])
    progress = Progress(weights(log.read_text(errors="replace")), seconds)
    flags = " ".join(["-s -w", *(f"-X {name}={value}" for name, value in target.variables.items())])
    for binary, package in target.packages.items():
        progress.read = 0
        must(
            [go, "build", "-v", *tags, "-ldflags", flags, "-o", str(out / binary), package],
            each=lambda: progress.follow(log, task),
        )
    shutil.rmtree(folder)


def drop_caches(layout: Layout) -> None:
    """Removes what building has left; only a part with new pins is ever built again.

    Hundreds of thousands of small files: a process of its own does it while the run goes on.
    """
    left = [layout.cache / name for name in ("go", "build", "staging")]
    left = [path for path in left if path.exists()]
    if left:
        start(layout, "prune", ["nice", "rm", "-rf", *(str(path) for path in left)])
