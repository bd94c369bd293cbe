"""Where an image comes from, as OCI labels (opencontainers/image-spec, annotations.md).

The revision is the last commit that touched what the image is made of, not the checkout's: a commit
elsewhere leaves the label, and with it the image's digest, as it is.
"""

import re
import subprocess
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit

PREFIX = "org.opencontainers.image"
TITLE = f"{PREFIX}.title"


def labels(folder: Path, version: str, beside: Sequence[Path] = ()) -> dict[str, str]:
    """For the image of `folder`, made of its part of the context and of `beside`.

    A Dockerfile that packs one piece of software says that one's version itself. Without git, or in
    a shallow clone, where the last commit of a path is not known, there is no revision.
    """
    found = {}
    if f"{PREFIX}.version=" not in (folder / "Dockerfile").read_text(encoding="utf-8"):
        found["version"] = version
    if commit := revision(folder.parent, [*inputs(folder), *map(str, beside)]):
        found["revision"] = commit
    if address := source(folder.parent):
        found["source"] = address
    return {f"{PREFIX}.{key}": value for key, value in found.items()}


def inputs(folder: Path) -> list[str]:
    """What the image's build sees, as its .dockerignore lets it in; relative to the context."""
    allowed = (folder / "Dockerfile.dockerignore").read_text(encoding="utf-8").splitlines()
    files = [f"{folder.name}/Dockerfile", f"{folder.name}/Dockerfile.dockerignore"]
    return [*files, *(line.removeprefix("!") for line in allowed if line.startswith("!"))]


def revision(context: Path, paths: list[str]) -> str | None:
    if _git(context, "rev-parse", "--is-shallow-repository") != "false":
        return None
    commit = _git(context, "log", "-1", "--format=%H", "--", *paths)
    if not commit:
        return None
    changed = _git(context, "status", "--porcelain", "--", *paths)
    return f"{commit}-dirty" if changed else commit


def source(context: Path) -> str | None:
    """The repository's address for a browser, without the account that a checkout may have in it.

    The same however it was cloned: with another label each image would be built again.
    """
    remote = _git(context, "remote", "get-url", "origin") or ""
    if short := re.fullmatch(r"[\w.-]+@([\w.-]+):(.+)", remote):
        remote = f"ssh://{short[1]}/{short[2]}"
    parts = urlsplit(remote)
    if parts.scheme not in ("http", "https", "ssh") or not parts.hostname:
        return None
    path = parts.path.removesuffix(".git")
    if parts.scheme == "ssh":
        return f"https://{parts.hostname}{path}"
    host = re.sub(r"^.*@", "", parts.netloc)
    return f"{parts.scheme}://{host}{path}"


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", *arguments], cwd=folder, capture_output=True, text=True, check=True, timeout=10
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
