"""The real policy pack under the real CLI: what it refuses, when, and in which words.

The resources are the program's own, as the mocks of the unit tests record them, registered again
with a provider that keeps them nowhere: neither a cluster nor a Keycloak is needed.
"""

import copy
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.engine.conftest import CHECKOUT
from tests.engine.stack import Stack
from tests.unit.recorder import platform

pytestmark = [pytest.mark.engine, pytest.mark.timeout(300)]

PACK = CHECKOUT / "policies"
HERE = Path(__file__).parent / "policed"
RELEASE = "kubernetes:helm.sh/v3:Release"

Resources = list[dict[str, Any]]


@pytest.fixture(scope="session", autouse=True)
def pack_environment() -> None:
    if not (PACK / ".venv" / "bin" / "python").exists():
        pytest.exit(f"{PACK}/.venv is missing; run `make policies/.venv/run.stamp`", 3)


def resources() -> Resources:
    """The Kubernetes part of the local stack; the Release comes last, as it does in the program."""
    found = [
        {"type": r.type, "name": r.name, "inputs": copy.deepcopy(r.inputs), "protect": r.protect}
        for r in platform("local").registrations
        if r.type.startswith("kubernetes:")
    ]
    return sorted(found, key=lambda each: each["type"] == RELEASE)


def one(of: Resources, kind: str, name: str) -> dict[str, Any]:
    (found,) = [r for r in of if r["type"].endswith(f":{kind}") and r["name"] == name]
    return found


class Policed:
    """A stack named `local`, so that the limits of the real one hold."""

    def __init__(self, stack: Stack):
        self.stack = stack
        provider = stack.project / "kubernetes"
        provider.mkdir()
        shutil.copy(HERE / "kubernetes.py", provider / "__main__.py")
        runtime = {"name": "python", "options": {"virtualenv": sys.prefix}}
        (provider / "PulumiPlugin.yaml").write_text(yaml.safe_dump({"runtime": runtime}))
        project = stack.project / "Pulumi.yaml"
        settings = yaml.safe_load(project.read_text())
        settings["plugins"] = {"providers": [{"name": "kubernetes", "path": "./kubernetes"}]}
        project.write_text(yaml.safe_dump(settings))

    def of(self, wanted: Resources) -> "Policed":
        (self.stack.project / "stack.json").write_text(json.dumps(wanted))
        return self

    def passes(self, *args: str) -> str:
        return self.stack(*args, "--policy-pack", str(PACK))

    def fails(self, *args: str) -> str:
        return self.stack.fails(*args, "--policy-pack", str(PACK))

    def made(self) -> set[str]:
        return {r["urn"].rpartition("::")[2] for r in self.stack.resources()}


@pytest.fixture
def policed(stack: Callable[[str], Stack]) -> Policed:
    program = stack((HERE / "__main__.py").read_text())
    program("stack", "init", "local")
    return Policed(program)


UP = ("up", "--yes", "--skip-preview")


def test_the_programs_own_stack_passes_and_its_state_passes_again(policed: Policed) -> None:
    policed.of(resources()).passes(*UP)
    assert "jupyterhub" in policed.made()
    state = policed.stack.folder / "state.json"
    state.write_text(policed.stack.export())
    policed.passes("policy", "analyze", "--file", str(state))
    edited = json.loads(state.read_text())
    for each in edited["deployment"]["resources"]:
        if each["type"] == RELEASE:
            each["inputs"]["values"]["singleuser"]["profileList"][1]["kubespawner_override"][
                "cpu_limit"
            ] = 32
    state.write_text(json.dumps(edited))
    refusal = policed.fails("policy", "analyze", "--file", str(state))
    assert "singleuser.profileList[1].kubespawner_override.cpu_limit is 32" in refusal
