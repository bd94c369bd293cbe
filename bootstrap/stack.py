"""The stack that `make up` applies: state, secrets' passphrase and stack file in `.mlhub`.

With a file backend the CLI writes a salt into the stack file it is given. The tracked one stays as
it is: the CLI gets a copy, and takes the salt from the state (docs/engine.md).
"""

import contextlib
import json
import os
import secrets
import shutil
import subprocess
import sys
import time
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from bootstrap import processes
from bootstrap.errors import BootstrapError
from bootstrap.files import write_private
from bootstrap.paths import LOGIN_URL, Layout, environment
from bootstrap.schedule import Task
from components import names

STACK = "local"
RELEASE = "kubernetes:helm.sh/v3:Release"


def stack_file(layout: Layout) -> Path:
    return layout.checkout / "stacks" / f"Pulumi.{STACK}.yaml"


def own_context(layout: Layout) -> str | None:
    """The kube context of a cluster of the person's own; None for the embedded one."""
    return _setting(layout, "cluster", "context")


def hub_namespace(layout: Layout) -> str:
    return _setting(layout, "hub", "namespace") or names.HUB_NAMESPACE


def foundation_namespace(layout: Layout) -> str:
    return _setting(layout, "foundation", "namespace") or names.FOUNDATION_NAMESPACE


def _setting(layout: Layout, section: str, key: str) -> str | None:
    """A text of the stack file, which need not be right otherwise; None where it is not there."""
    path = stack_file(layout)
    if not path.exists():
        return None
    try:
        config = (yaml.safe_load(path.read_text()) or {}).get("config") or {}
        said = config.get(f"mlhub:{section}") or {}
        found = said.get(key) or config.get(f"mlhub:{section}.{key}")
    except (yaml.YAMLError, AttributeError) as error:
        raise BootstrapError(f"{path} is not a stack file: {error}") from error
    return str(found) if found else None


def _pulumi(layout: Layout, *arguments: str, folder: Path) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [str(layout.bin / "pulumi"), "-C", str(folder), *arguments],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **environment(layout, own_context(layout))},
    )


def kubectl(
    layout: Layout, context: str | None, *arguments: str
) -> "subprocess.CompletedProcess[str]":
    """Of the cluster that the stack is on, whichever the current context is; `context` is
    `own_context`'s."""
    return subprocess.run(
        ["kubectl", *(["--context", context] if context else []), *arguments],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **environment(layout, context)},
    )


def _must(layout: Layout, *arguments: str, folder: Path) -> str:
    done = _pulumi(layout, *arguments, folder=folder)
    if done.returncode:
        said = (done.stderr or done.stdout).strip()
        raise BootstrapError(f"`pulumi {' '.join(arguments)}` failed: {said}")
    return done.stdout


def ensure(layout: Layout, task: Task) -> str:
    """The stack exists in the backend and is selected; what a killed `up` left is cleared."""
    (layout.data / "state").mkdir(parents=True, exist_ok=True)
    if not layout.passphrase.exists():
        if any((layout.data / "state").rglob(f"{STACK}.json")):
            raise BootstrapError(
                f"{layout.passphrase} is gone, and the stack's secrets cannot be read without it. "
                "Put it back: each archive of the stack has it (docs/recovery.md), "
                '`eval "$(.venv/bin/python -m bootstrap env)" && python -m tools.recovery prepare '
                "--from ARCHIVE --identity KEY`. Without an archive begin anew, which removes all "
                "data: `make down ARGS='--purge-data --yes'`."
            )
        write_private(layout.passphrase, secrets.token_urlsafe(32))
    project = layout.data / "stacks"
    project.mkdir(exist_ok=True)
    (project / "Pulumi.yaml").write_text("name: mlhub\nruntime: python\n")
    listed = json.loads(_must(layout, "stack", "ls", "--json", folder=project) or "[]")
    known = any(entry["name"].rpartition("/")[2] == STACK for entry in listed)
    if not known:
        _must(layout, "stack", "init", STACK, folder=project)
    shutil.copyfile(stack_file(layout), project / f"Pulumi.{STACK}.yaml")
    _must(layout, "stack", "select", STACK, folder=layout.checkout)
    cleared = _unlock(layout) + (_clear_releases(layout) if known else [])
    return "; ".join(["there" if known else "made", *cleared])


def _unlock(layout: Layout) -> list[str]:
    """Takes away the stack's locks of updates that were killed.

    BootstrapError while an update is under way, and where nobody here can tell: what the state
    says is pending is then no leftover but what Helm works on.
    """
    locks = []
    for path in (layout.data / "state").glob(f".pulumi/locks/**/{STACK}/*.json"):
        with contextlib.suppress(FileNotFoundError):  # its update has just ended
            locks.append(json.loads(path.read_text()))
    for lock in locks:
        pid, host = int(lock.get("pid", 0)), lock.get("hostname")
        if host != os.uname().nodename or processes.identify(pid) is not None:
            raise BootstrapError(
                f"An update of {STACK} is under way (process {pid} on {host}). Wait until it ends, "
                "then run this again. If no such `pulumi` runs, take its lock away: "
                '`eval "$(.venv/bin/python -m bootstrap env)"`, '
                f"`pulumi cancel --yes --stack {STACK}`."
            )
    if locks:
        _must(layout, "cancel", "--yes", "--stack", STACK, folder=layout.checkout)
    return ["unlocked after a killed update"] if locks else []


def interrupted(deployment: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Helm releases that an update was about: (operation, namespace, name)."""
    pending = deployment.get("deployment", {}).get("pending_operations") or []
    found = []
    for operation in pending:
        resource = operation.get("resource", {})
        if resource.get("type") == RELEASE:
            inputs = resource.get("inputs", {})
            found.append((operation["type"], inputs.get("namespace", ""), inputs.get("name", "")))
    return found


def _clear_releases(layout: Layout) -> list[str]:
    """Removes Helm's records of an install that was killed; Helm then adopts what it made."""
    exported = _must(layout, "stack", "export", "--stack", STACK, folder=layout.checkout)
    cleared = []
    for operation, namespace, name in interrupted(json.loads(exported)):
        selector = f"owner=helm,name={name}"
        if operation != "creating":
            selector += ",status in (pending-install,pending-upgrade,pending-rollback)"
        selected = ("-n", namespace, "delete", "secret", "-l", selector)
        done = kubectl(layout, own_context(layout), *selected)
        if "deleted" in done.stdout:
            cleared.append(f"cleared the interrupted release {name}")
    return cleared


def half_restored(layout: Layout) -> str | None:
    """The archive of a restore of this stack that has begun and not ended."""
    asked = ("get", "namespace", hub_namespace(layout), "-o", "json", "--ignore-not-found")
    done = kubectl(layout, own_context(layout), *asked)
    if done.returncode:
        *_, why = done.stderr.strip().splitlines() or ["kubectl says nothing"]
        raise BootstrapError(f"the cluster does not tell of its namespaces: {why}")
    marks = json.loads(done.stdout.strip() or "{}").get("metadata", {}).get("annotations", {})
    archive: str | None = marks.get(names.RESTORING)
    return archive


def apply(layout: Layout) -> None:
    """`pulumi up` of the stack, its output shown as it comes and kept in the log.

    Not in the middle of a restore, which has stopped the hub for as long: the services would start
    on half of their data, and the log-in page would never come.
    """
    if archive := half_restored(layout):
        raise BootstrapError(
            f"a restore of {archive} has begun and not ended. Run the same `make restore` again, "
            f"or give it up: `make resume STACK={STACK}`"
        )
    argv = [
        str(layout.bin / "pulumi"),
        "up",
        "--stack",
        STACK,
        "--config-file",
        str(layout.data / "stacks" / f"Pulumi.{STACK}.yaml"),
        "--policy-pack",
        str(layout.checkout / "policies"),
        "--yes",
        "--skip-preview",
    ]
    env = {**os.environ, **environment(layout, own_context(layout))}
    log = layout.log / "pulumi.log"
    if sys.stdout.isatty():
        status = subprocess.run(argv, cwd=layout.checkout, env=env, check=False).returncode
    else:
        argv += ["--non-interactive", "--color", "never"]
        with (
            log.open("w") as kept,
            subprocess.Popen(
                argv,
                cwd=layout.checkout,
                env=env,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            ) as child,
        ):
            assert child.stdout  # noqa: S101 - it is a pipe
            for line in child.stdout:
                kept.write(line)
                kept.flush()
                print(line, end="", flush=True)
        status = child.returncode
    if status:
        raise BootstrapError(
            "`pulumi up` failed; what it said is above. What was made before stays, and "
            "`make up` goes on from there."
        )
    _forget_interruptions(layout)


def made_since(deployment: Mapping[str, Any]) -> bool:
    """Whether creating was interrupted, and whatever it was about is in the state by now."""
    state = deployment.get("deployment", {})
    known = {resource["urn"] for resource in state.get("resources", [])}
    begun = [
        operation["resource"]["urn"]
        for operation in state.get("pending_operations") or []
        if operation["type"] == "creating"
    ]
    return bool(begun) and known.issuperset(begun)


def _forget_interruptions(layout: Layout) -> None:
    """Otherwise every update to come warns of what a killed one was about, though it is there."""
    exported = _must(layout, "stack", "export", "--stack", STACK, folder=layout.checkout)
    if made_since(json.loads(exported)):
        options = ["--yes", "--skip-preview", "--clear-pending-creates", "--stack", STACK]
        options += ["--config-file", str(layout.data / "stacks" / f"Pulumi.{STACK}.yaml")]
        _must(layout, "refresh", *options, folder=layout.checkout)


def wait_for_login(seconds: float = 180) -> None:
    """Waits until the hub's public address leads to Keycloak's log-in page.

    Both have to be there: a Deployment whose image has changed counts as updated before its new
    pod answers.
    """
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    deadline = time.monotonic() + seconds
    said = "nothing"
    while time.monotonic() < deadline:
        try:
            with opener.open(f"{LOGIN_URL}/hub/oauth_login", timeout=5):
                return
        except OSError as error:  # HTTPError is one
            said = str(error)
        time.sleep(1)
    raise BootstrapError(
        f"{LOGIN_URL} led to no log-in page for {seconds:.0f} s; last: {said}. See `make status`, "
        "`kubectl -n jupyterhub logs deploy/hub` and `kubectl -n foundation logs deploy/keycloak`."
    )
