"""Pulumi's side: the stack's state, what of it outlives a cluster, and `up`."""

import copy
import json
import os
import subprocess
from pathlib import Path
from typing import Any

from tools.recovery.errors import RecoveryError

Deployment = dict[str, Any]
"""What `pulumi stack export` prints."""

OF_THE_CLUSTER = ("kubernetes:", "docker-build:")
"""Types of what goes with a cluster, or is made again from what is there."""
KEYCLOAK = ("keycloak:", "pulumi:providers:keycloak")
HEAD, DIRTY = "git.head", "git.dirty"
"""What the CLI writes of the program into a stack's history."""


class Stack:
    """The CLI on one stack; `config_file` as in docs/engine.md."""

    def __init__(self, name: str, config_file: str | None, folder: Path | None = None):
        self.name = name
        self.config_file = config_file
        self._folder = folder

    def _run(self, *arguments: str, stdin: str | None = None) -> str:
        command = ["pulumi", *arguments, "--stack", self.name, "--non-interactive"]
        done = subprocess.run(command, input=stdin, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RecoveryError(f"`{' '.join(command)}` failed: {done.stderr.strip()}")
        return done.stdout

    def export(self) -> Deployment:
        """The state, its secrets encrypted as they are."""
        found: Deployment = json.loads(self._run("stack", "export"))
        return found

    def replace_state(self, deployment: Deployment) -> None:
        self._run("stack", "import", stdin=json.dumps(deployment))

    def updates(self) -> list[dict[str, Any]]:
        """The stack's history, the newest first."""
        text = self._run("stack", "history", "--json", "--page-size", "1000")
        return list(json.loads(text or "[]"))

    def change(self, verb: str, *options: str) -> None:
        """`up` or `destroy`, its output shown as it comes."""
        config = (
            ["--config-file", str(Path(self.config_file).absolute())] if self.config_file else []
        )
        command = ["pulumi", verb, "--stack", self.name, *config, "--yes", "--skip-preview"]
        command += ["--policy-pack", "policies"] if verb == "up" else []
        command += ["--non-interactive", *options]
        # A destroy goes by the state alone; the program would bind again what was unbound.
        settings = {"PULUMI_RUN_PROGRAM": "false"} if verb == "destroy" else {}
        done = subprocess.run(
            command, cwd=self._folder, env={**os.environ, **settings}, check=False
        )
        if done.returncode:
            raise RecoveryError(
                f"`pulumi {verb}` of {self.name} did not end; mend what it says above and run the "
                "same again, which goes on from there"
            )


def resources(deployment: Deployment) -> list[dict[str, Any]]:
    return list((deployment.get("deployment") or {}).get("resources") or [])


def half_made(deployment: Deployment) -> list[str]:
    """What a killed `up` began to make and no later one has made.

    The state has it as pending alone, which an import drops.
    """
    pending = deployment["deployment"].get("pending_operations") or []
    begun = [one["resource"]["urn"] for one in pending if one["type"] == "creating"]
    known = {resource["urn"] for resource in resources(deployment)}
    return [urn.rpartition("::")[2] for urn in begun if urn not in known]


def demand_whole(name: str, deployment: Deployment) -> None:
    """Raises RecoveryError where an import would forget what is half made."""
    if begun := half_made(deployment):
        raise RecoveryError(
            f"an `up` of {name} was killed while it was making {', '.join(begun)}, which the "
            "state would forget and the cluster would keep; run the `up` first, which goes on from "
            "there, then this again"
        )


def lineage(deployment: Deployment) -> str:
    """How a state's secrets are encrypted; two states with one lineage are one stack's."""
    return json.dumps((deployment.get("deployment") or {}).get("secrets_providers"), sort_keys=True)


def outliving(deployment: Deployment, *, own_keycloak: bool) -> Deployment:
    """The state without what went with its cluster: generated secrets and what lives elsewhere.

    An `up` on it makes all the rest anew, with the same secrets. A Keycloak of the stack's own went
    with the cluster, one that others run did not.
    """
    gone = (*OF_THE_CLUSTER, *(KEYCLOAK if own_keycloak else ()))
    found = copy.deepcopy(deployment)
    kept = [r for r in resources(found) if not r["type"].startswith(gone)]
    urns = {r["urn"] for r in kept}
    for resource in kept:
        resource["dependencies"] = [u for u in resource.get("dependencies") or [] if u in urns]
        properties = resource.get("propertyDependencies") or {}
        resource["propertyDependencies"] = {
            key: [u for u in of or [] if u in urns] for key, of in properties.items()
        }
        if resource.get("deletedWith") not in urns:
            resource.pop("deletedWith", None)
    found["deployment"]["resources"] = kept
    found["deployment"].pop("pending_operations", None)
    return found


def with_keycloak_of(present: Deployment, archived: Deployment) -> Deployment:
    """The present state, its Keycloak objects known by the ids that the restored database has."""
    found = copy.deepcopy(present)
    former = {r["urn"]: r for r in resources(archived) if r["type"].startswith(KEYCLOAK[0])}
    for resource in resources(found):
        if (was := former.get(resource["urn"])) is not None:
            resource |= {key: was[key] for key in ("id", "inputs", "outputs") if key in was}
    return found


def keycloak_url(deployment: Deployment) -> str:
    """Where an `up` finds Keycloak."""
    provider, *_ = (r for r in resources(deployment) if r["type"] == KEYCLOAK[1])
    return str(provider["inputs"]["url"])


def own_passphrase() -> Path | None:
    """The passphrase that `make up` made for this machine's own stack; None for a person's own."""
    path = Path(os.environ.get("PULUMI_CONFIG_PASSPHRASE_FILE", ""))
    return path if path.parent.name == ".mlhub" else None


def revision() -> str:
    """The commit of the checkout, with `-dirty` where tracked files differ."""
    commit = git("rev-parse", "HEAD")
    return f"{commit}-dirty" if git("status", "--porcelain", "--untracked-files=no") else commit


def git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RecoveryError(f"`git {' '.join(arguments)}` failed: {done.stderr.strip()}")
    return done.stdout.strip()
