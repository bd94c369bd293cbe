"""The Pulumi plug-ins that the mirrors lack, and how they come beside the `pulumi` binary.

`install` is called by the bootstrap once the engine is there. Official plug-ins win: where one is
found, ours is not laid.
"""

import hashlib
import json
import os
import shlex
import shutil
import subprocess
from pathlib import Path

SDK = "github.com/pulumi/pulumi/sdk/v3"
SDK_VERSION = "v3.259.0"

SCRIPTS = {
    "pulumi-language-python-exec": (
        "python/cmd/pulumi-language-python-exec",
        "f33d1a121a49d5b042b472990f56de858a35ec12a7f9c67e620519fd86c8a37d",
    ),
    "pulumi-resource-pulumi-python": (
        "python/dist/pulumi-resource-pulumi-python",
        "1710c9875292c6a1d399d9e27fa9cf2917f2335bc6ef5abcab96220c4485e215",
    ),
}
"""What the official release has beside its language host: the path in the SDK's module, SHA-256."""

PROVIDERS = ("random", "keycloak", "harbor", "docker")
MARK = "# Laid by bootstrap.plugins"
ROOT = Path(__file__).resolve().parents[2]


class InstallError(Exception):
    """A plug-in cannot be laid; says what was tried."""


def install(bin_dir: Path, python: Path, go: str = "go") -> list[str]:
    """Lays the plug-ins into `bin_dir`, run by `python`; gives the names of those laid anew.

    `go` is asked for the SDK's module only when the two scripts are not there yet.
    """
    bin_dir.mkdir(parents=True, exist_ok=True)
    laid = []
    if official("pulumi-language-python", bin_dir) is None:
        for name, (path, digest) in SCRIPTS.items():
            target = bin_dir / name
            if not target.is_file() or sha256(target) != digest:
                write(target, module_file(path, digest, go))
                laid.append(name)
        call = f"language_host import run; run({str(bin_dir / 'pulumi-language-python-exec')!r})"
        laid += lay(bin_dir / "pulumi-language-python", wrapper(python, call))
    else:
        withdraw(bin_dir / "pulumi-language-python")
    for name in PROVIDERS:
        target = bin_dir / f"pulumi-resource-{name}"
        if official(target.name, bin_dir) is None and not downloaded(name):
            laid += lay(target, starter(python, name))
        else:
            withdraw(target)
    return laid


def official(name: str, bin_dir: Path) -> Path | None:
    """An executable of that name on PATH that is not one of ours."""
    for folder in os.environ.get("PATH", "").split(os.pathsep):
        found = Path(folder) / name
        if folder and found.is_file() and os.access(found, os.X_OK) and not ours(found):
            return found
    return None


def ours(path: Path) -> bool:
    with path.open("rb") as file:
        return MARK.encode() in file.read(200)


def downloaded(provider: str) -> bool:
    """Whether `pulumi plugin install` has put the official provider in PULUMI_HOME."""
    home = Path(os.environ.get("PULUMI_HOME") or Path.home() / ".pulumi")
    return any((home / "plugins").glob(f"resource-{provider}-v*/pulumi-resource-{provider}"))


def wrapper(python: Path, call: str) -> str:
    """A shell script that becomes the plug-in: one process, whose id the engine knows.

    `-P` keeps the working directory, a user's program, out of the module path; so does an explicit
    path instead of PYTHONPATH, which the program would inherit.
    """
    code = f"import sys; sys.path.insert(0, {str(ROOT)!r}); from bootstrap.plugins.{call}"
    return script(python, "-P", "-c", code)


def starter(python: Path, name: str) -> str:
    """The same for a provider, which the language host may have prepared."""
    return script(python, "-IS", str(ROOT / "bootstrap" / "plugins" / "start.py"), name)


def script(python: Path, *arguments: str) -> str:
    command = " ".join(shlex.quote(part) for part in (str(python), *arguments))
    return f'#!/bin/sh\n{MARK}\nexec {command} --parent=$PPID "$@"\n'


def lay(target: Path, text: str) -> list[str]:
    if target.is_file() and target.read_text() == text:
        return []
    write(target, text.encode())
    return [target.name]


def write(target: Path, content: bytes) -> None:
    """Whole or not at all, so that a killed run leaves no half of a script."""
    part = target.with_name(target.name + ".part")
    part.write_bytes(content)
    part.chmod(0o755)
    part.replace(target)


def withdraw(target: Path) -> None:
    if target.is_file() and ours(target):
        target.unlink()


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def module_file(path: str, digest: str, go: str) -> bytes:
    """A file of the SDK's Go module, from the module cache or the proxy."""
    command = [go, "mod", "download", "-json", f"{SDK}@{SDK_VERSION}"]
    if shutil.which(go) is None:
        raise InstallError(f"{path} of {SDK} {SDK_VERSION} is needed and there is no {go} on PATH")
    done = subprocess.run(command, capture_output=True, text=True, cwd="/", check=False)
    try:
        answer = json.loads(done.stdout)
    except ValueError:
        answer = {"Error": done.stderr.strip()}
    if "Error" in answer:
        raise InstallError(f"`{' '.join(command)}` failed: {answer['Error']}")
    source = Path(answer["Dir"]) / path
    if sha256(source) != digest:
        raise InstallError(f"{source} is not the file that is pinned (SHA-256 {digest})")
    return source.read_bytes()
