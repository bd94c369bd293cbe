"""Gets a part from the first place that has it: PATH, the official release, the cache, a build."""

import hashlib
import json
import lzma
import os
import shutil
import subprocess
import tarfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from bootstrap import gobuild
from bootstrap.downloads import CHUNK, Hosts, UnavailableError, download
from bootstrap.errors import BootstrapError
from bootstrap.files import write_private
from bootstrap.parts import Check, Part
from bootstrap.paths import Layout
from bootstrap.schedule import Task

CACHE_VARIABLE = "MLHUB_TOOLCHAIN_CACHE"


@dataclass(frozen=True)
class Place:
    """What a source works with: staging is an empty folder for the binaries it finds."""

    layout: Layout
    task: Task
    part: Part
    staging: Path
    hosts: Hosts


def satisfies(binary: Path, check: Check) -> bool:
    """Whether the binary runs and tells the version that is expected."""
    try:
        done = subprocess.run(
            [str(binary), *check.argv],
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
            env={**os.environ, "PULUMI_SKIP_UPDATE_CHECK": "true"},
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return check.says in f" {done.stdout}{done.stderr} ".replace("\n", " ")


def from_path(place: Place) -> str:
    """The machine's own, where every binary is there in the right version."""
    if not place.part.on_path:
        raise UnavailableError("PATH is not asked")
    folders = [
        folder
        for folder in os.environ.get("PATH", "").split(os.pathsep)
        if folder and Path(folder).resolve() != place.layout.bin.resolve()
    ]
    for name in place.part.binaries:
        found = shutil.which(name, path=os.pathsep.join(folders))
        if found is None:
            raise UnavailableError(f"no {name} on PATH")
        if not satisfies(Path(found), place.part.check[name]):
            raise UnavailableError(f"{found} is another version")
        (place.staging / name).symlink_to(Path(found).resolve())
    return "from PATH"


def from_release(place: Place) -> str:
    release = place.part.release
    if release is None:
        raise UnavailableError("no official release is pinned")
    aside = place.layout.cache / f"{place.part.name}.download"
    archive = download(place.hosts, place.task, release.url, release.sha512, aside)
    with tarfile.open(archive) as members:
        for path, name in release.members.items():
            source = members.extractfile(path)
            if source is None:
                raise BootstrapError(f"{release.url} has no file {path}.")
            with source, (place.staging / name).open("wb") as target:
                shutil.copyfileobj(source, target, CHUNK)
    archive.unlink()
    for target_build in release.also:
        gobuild.build(place.layout, place.task, target_build, place.staging, gobuild.expected(60))
    return "official release"


def sums(text: str) -> Mapping[str, str]:
    """SHA256SUMS as sha256sum(1) writes it: sum, two characters, name."""
    lines = (line.split(maxsplit=1) for line in text.splitlines() if line.strip())
    return {name.lstrip("*"): digest for digest, name in lines}


def from_cache(place: Place) -> str:
    """`<binary>.xz` beside a SHA256SUMS of the unpacked binaries."""
    given = os.environ.get(CACHE_VARIABLE)
    if not given:
        raise UnavailableError(f"{CACHE_VARIABLE} is not set")
    folder = Path(given)
    listed = folder / "SHA256SUMS"
    expected = sums(listed.read_text()) if listed.exists() else {}
    for name in place.part.binaries:
        packed = folder / f"{name}.xz"
        if not packed.exists() or name not in expected:
            raise UnavailableError(f"{folder} has no {name}.xz with a sum")
    for name in place.part.binaries:
        place.task.say(f"unpacking {name}")
        digest = hashlib.sha256()
        try:
            with (
                lzma.open(folder / f"{name}.xz") as source,
                (place.staging / name).open("wb") as target,
            ):
                while chunk := source.read(CHUNK):
                    place.task.check()
                    digest.update(chunk)
                    target.write(chunk)
        except (lzma.LZMAError, EOFError) as error:
            raise UnavailableError(f"{folder / name}.xz is broken") from error
        if digest.hexdigest() != expected[name]:
            raise UnavailableError(f"{folder / name}.xz does not have the sum in {listed}")
    return "from the cache"


def from_build(place: Place) -> str:
    seconds = gobuild.expected(place.part.cpu_seconds / len(place.part.targets))
    for target in place.part.targets:
        gobuild.build(place.layout, place.task, target, place.staging, seconds)
    return "built from source"


Source = Callable[[Place], str]
Sources = tuple[Source, ...]
SOURCES: Sources = (from_path, from_release, from_cache, from_build)


def key(layout: Layout, part: Part) -> str:
    """What a part is made from; another key, another part."""
    digest = hashlib.sha256(
        repr(
            (
                part.release,
                [
                    (t.folder, sorted(t.packages.items()), sorted(t.variables.items()), t.tags)
                    for t in part.targets
                ],
            )
        ).encode()
    )
    for folder in sorted({target.folder for target in part.targets}):
        for file in sorted((layout.toolchain / folder).rglob("*")):
            if file.is_file():
                digest.update(f"{file.relative_to(layout.toolchain)}\0".encode())
                digest.update(file.read_bytes())
    return digest.hexdigest()


def _record(layout: Layout, part: Part) -> Path:
    return layout.bin / ".parts" / f"{part.name}.json"


def _state(layout: Layout, names: list[str]) -> dict[str, list[int]]:
    """Size and time of each binary: enough to see that none was replaced or cut short."""
    stats = {name: (layout.bin / name).stat() for name in names}
    return {name: [stat.st_size, stat.st_mtime_ns] for name, stat in stats.items()}


def installed(layout: Layout, part: Part) -> str | None:
    """Where the part that is there came from; None where it has to be got."""
    try:
        found = json.loads(_record(layout, part).read_text())
        if found["key"] == key(layout, part) and found["files"] == _state(
            layout, list(found["files"])
        ):
            return str(found["source"])
    except (OSError, ValueError, KeyError, TypeError):
        pass
    return None


def ensure(
    layout: Layout,
    task: Task,
    part: Part,
    hosts: Hosts,
    order: Sources = SOURCES,
) -> str:
    """Puts the part's binaries into `.mlhub/bin`, all of them or none."""
    there = installed(layout, part)
    if there:
        return f"there ({there})"
    staging = layout.cache / "staging" / part.name
    tried = []
    for source in order:
        shutil.rmtree(staging, ignore_errors=True)
        staging.mkdir(parents=True)
        try:
            origin = source(Place(layout, task, part, staging, hosts))
        except UnavailableError as reason:
            tried.append(str(reason))
            continue
        return _install(layout, part, staging, origin)
    raise BootstrapError(f"{part.name} is nowhere to be had: {'; '.join(tried)}.")


def _install(layout: Layout, part: Part, staging: Path, origin: str) -> str:
    names = sorted(file.name for file in staging.iterdir())
    for name in names:
        if not (staging / name).is_symlink():
            (staging / name).chmod(0o755)
    for name, binary in part.links.items():
        if binary in names:
            (staging / name).symlink_to(binary)
            names.append(name)
    for name, check in part.check.items():
        if not satisfies(staging / name, check):
            raise BootstrapError(
                f"{name} ({origin}) does not run or is another version than {check.says.strip()}."
            )
    _record(layout, part).unlink(missing_ok=True)
    for name in names:
        (staging / name).replace(layout.bin / name)
    shutil.rmtree(staging)
    content = {"key": key(layout, part), "source": origin, "files": _state(layout, names)}
    write_private(_record(layout, part), json.dumps(content, indent=1), mode=0o644)
    return origin
