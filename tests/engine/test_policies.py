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
        """The types of what is in the state."""
        return {r["type"] for r in self.stack.resources()}


@pytest.fixture
def policed(stack: Callable[[str], Stack]) -> Policed:
    program = stack((HERE / "__main__.py").read_text())
    program("stack", "init", "local")
    return Policed(program)


UP = ("up", "--yes", "--skip-preview")


def override(of: Resources) -> dict[str, Any]:
    values = one(of, "Release", "jupyterhub")["inputs"]["values"]
    return dict(values["singleuser"]["profileList"][1])["kubespawner_override"]


OVERRIDE = "singleuser.profileList[1].kubespawner_override"
CPU = f"{OVERRIDE}.cpu_limit"


def test_the_programs_own_stack_passes_and_its_state_passes_again(policed: Policed) -> None:
    policed.of(resources()).passes(*UP)
    assert RELEASE in policed.made()
    state = policed.stack.folder / "state.json"
    state.write_text(policed.stack.export())
    policed.passes("policy", "analyze", "--file", str(state))
    edited = json.loads(state.read_text())
    for each in edited["deployment"]["resources"]:
        if each["type"] == RELEASE:
            profile = each["inputs"]["values"]["singleuser"]["profileList"][1]
            profile["kubespawner_override"]["cpu_limit"] = 32
    state.write_text(json.dumps(edited))
    assert f"{CPU} is 32" in policed.fails("policy", "analyze", "--file", str(state))


def test_a_breach_is_refused_before_it_is_made_and_every_breach_is_told(policed: Policed) -> None:
    broken = resources()
    override(broken)["cpu_limit"] = 32
    one(broken, "Release", "jupyterhub")["protect"] = False
    one(broken, "Secret", "mlhub-hub")["inputs"]["stringData"] = {"hub.db.password": "hush-hush"}
    preview = policed.of(broken).fails("preview")
    assert f"Release jupyterhub: {CPU} is 32; a limit above 0 and at most 8 cores" in preview
    assert "Release jupyterhub: protect is false; true is required" in preview
    assert "Secret mlhub-hub: stringData.hub.db.password is readable" in preview
    assert preview.count("[mandatory]") == 3
    update = policed.fails(*UP)
    assert "Secret mlhub-hub: stringData.hub.db.password is readable" in update
    assert "kubernetes:core/v1:Namespace" in policed.made()
    assert RELEASE not in policed.made()
    assert "hush-hush" not in preview + update


def test_what_a_preview_cannot_know_is_refused_in_the_update_before_it_is_made(
    policed: Policed,
) -> None:
    """An image whose build has not run, and a limit that something else computes."""
    later = resources()
    override(later)["cpu_limit"] = {"unknown": 32}
    override(later)["image"] = {"unknown": "localhost:5000/mlhub/ml-cpu:1.0"}
    printed = policed.of(later).fails("up", "--yes")
    preview, update = printed.split("Updating (local)")
    assert "[mandatory]" not in preview
    for rule, key in (("server-limits", "cpu_limit"), ("images-by-digest", "image")):
        assert f"can't run policy '{rule}' from policy pack" in preview
        assert f"Release jupyterhub: {OVERRIDE}.{key} can't be known during preview" in preview
    assert f"{CPU} is 32" in update
    assert "image is localhost:5000/mlhub/ml-cpu:1.0; an image by its digest" in update
    assert "random:index/randomUuid:RandomUuid" in policed.made()
    assert RELEASE not in policed.made()
    override(later)["cpu_limit"] = {"unknown": 4}
    override(later)["image"] = {"unknown": override(resources())["image"]}
    policed.of(later).passes(*UP)
    assert RELEASE in policed.made()


def test_what_is_missing_is_refused_in_the_preview_and_ends_an_update(policed: Policed) -> None:
    missing = [
        r for r in resources() if r["name"] not in ("foundation-nothing", "quotas-namespace")
    ]
    policed.of(missing)
    for told in (policed.fails("preview"), policed.fails(*UP)):
        assert "Namespace foundation: metadata.name is foundation; a NetworkPolicy in it" in told
        assert "Release jupyterhub: namespace is jupyterhub; a ResourceQuota is required" in told
        assert told.count("[mandatory]") == 2


def test_a_stack_that_the_limits_do_not_know_is_refused(policed: Policed) -> None:
    policed.of(resources()).stack("stack", "select", "test")
    refusal = policed.fails(*UP)
    assert "Stack engine-test: stack is test; policies/limits.yaml knows no stack test" in refusal
    assert policed.made() <= {"pulumi:pulumi:Stack"}


def test_a_pack_whose_limits_are_wrong_refuses_to_start(policed: Policed) -> None:
    pack = policed.stack.folder / "pack"
    shutil.copytree(PACK, pack, ignore=shutil.ignore_patterns(".venv", "__pycache__"))
    (pack / ".venv").symlink_to(PACK / ".venv")
    (pack / "limits.yaml").write_text("stacks: {local: {idle_timeout: 0}}")
    refusal = policed.of(resources()).stack.fails("preview", "--policy-pack", str(pack))
    assert "policies/limits.yaml: stacks.local.idle_timeout: " in refusal
