"""What a session was asked to begin with: a repository cloned into the home, a template copied.

Once for a session, by the record in `~/.local/share/mlhub/begun.json`: what a person deleted stays
deleted when the session is restored. Nothing that is there is ever written over. What could not be
had is said in a file beside where it would be, for nobody reads a server's log.
"""

import hashlib
import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path

from notebooks.seed import read_record, write_record

GIT_REPO = "MLHUB_GIT_REPO"
TEMPLATE = "MLHUB_TEMPLATE"
"""Variables of a server's environment; the hub has checked what they hold (`mlhub.hub.begin`)."""

REPOS = "repos"
RECORD = Path(".local/share/mlhub/begun.json")
CLONE_SECONDS = 120
"""Well below the time that the hub gives a server to start."""
LEFTOVER_SECONDS = 3600
"""A half clone of this age is a killed one's: the home's other servers clone, too."""
_UNFINISHED = ".cloning-"
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.~-]*")

Say = Callable[[str], None]


class NotBegunError(Exception):
    """The sentence says what could not be had, and why."""


def begin(home: Path, environ: Mapping[str, str], say: Say) -> None:
    """Do what the session asks for and was not done; raises OSError and seed's RecordError."""
    server = environ.get("JUPYTERHUB_SERVER_NAME", "")
    record = home / RECORD
    done = read_record(record)
    for variable, what in ((GIT_REPO, _clone), (TEMPLATE, _copy)):
        given = environ.get(variable)
        key = f"{server} {given}"
        if not given or key in done:
            continue
        notice = home / f"{_readable(given)} is missing.txt"
        try:
            say(what(home, given))
        except (NotBegunError, OSError) as error:  # such as a `repos` that is no folder
            why = f"{given} was not cloned: {error}." if isinstance(error, OSError) else str(error)
            say(why)
            notice.write_text(f"{why}\n", encoding="utf-8")
            continue
        notice.unlink(missing_ok=True)
        # Read anew: a clone takes minutes, in which the home's other servers wrote theirs.
        done = read_record(record) | {key}
        write_record(record, done)


def _readable(given: str) -> str:
    """A repository's or a template's name, as a person knows it."""
    name = given.rstrip("/").rpartition("/")[2].removesuffix(".git")
    return name if _NAME.fullmatch(name) else "What you began with"


def _clone(home: Path, url: str) -> str:
    """What was done, in words; raises NotBegunError."""
    name = _readable(url)
    if not url.startswith("https://") or not _NAME.fullmatch(name):
        raise NotBegunError("What was asked to be cloned is no repository's https address.")
    folder = home / REPOS
    folder.mkdir(exist_ok=True)
    _remove_leftovers(folder)
    # Another repository of the same name lies beside it.
    for target in (
        folder / name,
        folder / f"{name}-{hashlib.sha256(url.encode()).hexdigest()[:6]}",
    ):
        if not os.path.lexists(target):
            break
        if _bare(_origin(target)) == _bare(url):
            return f"{url} is in {target} already, left as it is"
    else:
        raise NotBegunError(f"{url} was not cloned: {target} is there already and something else.")
    unfinished = Path(tempfile.mkdtemp(prefix=_UNFINISHED, dir=folder))
    start = time.monotonic()
    try:
        _git_clone(url, unfinished)
        unfinished.chmod(0o755)
        unfinished.rename(target)
    except OSError as error:
        raise NotBegunError(f"{url} was not cloned: {error}.") from error
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return f"cloned {url} to {target} ({time.monotonic() - start:.1f} s)"


def _bare(url: str) -> str:
    return url.rstrip("/").removesuffix(".git")


def _git_clone(url: str, into: Path) -> None:
    """The newest commit alone, from the host that was checked; raises NotBegunError."""
    said = _git(url, into)
    if re.search(r"redirect|error: 30[0-9]", said) and not url.endswith(".git"):
        said = _git(f"{_bare(url)}.git", into)  # where GitLab would send us
    if said:
        raise NotBegunError(f"{url} was not cloned: {said}")


def _git(url: str, into: Path) -> str:
    """git's last words where it failed, or nothing."""
    environment = os.environ | {
        "GIT_ALLOW_PROTOCOL": "https",
        "GIT_TERMINAL_PROMPT": "0",
        "LC_ALL": "C",
        "GIT_ASKPASS": "true",
        "GIT_LFS_SKIP_SMUDGE": "1",
    }
    clone = ["git", "-c", "http.followRedirects=false", "clone", "--quiet", "--depth=1"]
    process = subprocess.Popen(
        [*clone, "--no-recurse-submodules", "--", url, str(into)],
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        _, said = process.communicate(timeout=CLONE_SECONDS)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)  # git's helpers, too
        process.communicate()
        return f"it took longer than {CLONE_SECONDS} s. Clone it in a terminal."
    if process.returncode == 0:
        return ""
    return (said.strip().splitlines() or [f"git ended with {process.returncode}"])[-1]


def _origin(folder: Path) -> str:
    found = subprocess.run(
        ["git", "-C", str(folder), "config", "--get", "remote.origin.url"],
        capture_output=True,
        text=True,
        check=False,
    )
    return found.stdout.strip()


def _remove_leftovers(folder: Path) -> None:
    for leftover in folder.glob(f"{_UNFINISHED}*"):
        if time.time() - leftover.stat().st_mtime > LEFTOVER_SECONDS:
            shutil.rmtree(leftover, ignore_errors=True)


def _copy(home: Path, name: str) -> str:
    """What was done, in words; raises NotBegunError."""
    target = home / f"{name}.ipynb"
    if os.path.lexists(target):
        return f"{target} is there already, left as it is"
    try:
        # Here, for most servers begin with none.
        import_module("notebooks.templates").copy(name, target)
    except Exception as error:
        raise NotBegunError(f"The template {name} was not copied: {error}") from error
    return f"copied the template {name} to {target}"
