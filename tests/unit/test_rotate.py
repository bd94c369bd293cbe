"""Rotation of one secret: what `up` is asked for, what is refused, and what starts anew."""

from typing import Any

import pytest

from components import names
from components.platform import Platform
from tests.unit import recorder
from tests.unit.recorder import MADE_UP, STACKS, Monitor, platform, run, stack_file
from tools.rotate import PASSWORD, RotationError, Stack, rotate, value_in

URN = "urn:pulumi:local::mlhub::x$random:index/randomPassword:RandomPassword::"


class Asked(Stack):
    """A stack whose state is made up, and which keeps what `up` is asked for."""

    def __init__(self, *secrets: str):
        super().__init__("local", None)
        self.asked: list[tuple[str, ...]] = []
        self.state = [{"type": PASSWORD, "urn": URN + name} for name in secrets]

    def up(self, *options: str) -> None:
        self.asked.append(options)

    def resources(self, *, with_secrets: bool = False) -> list[dict[str, Any]]:
        return self.state


def test_one_secret_is_replaced_and_no_other() -> None:
    stack = Asked("hub-cookie", "hub-crypt-key")
    rotate(stack, "hub-cookie", ["--yes"])
    assert stack.asked == [("--replace", f"{URN}hub-cookie", "--yes")]


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("hub-cokie", "SECRET is 'hub-cokie'; the stack local has: hub-cookie, postgres-mlflow"),
        ("user-alice", "user-alice is the first password of a person, who changes it in Keycloak"),
    ],
)
def test_what_cannot_be_rotated_is_said_and_nothing_is_touched(name: str, sentence: str) -> None:
    stack = Asked("hub-cookie", "postgres-mlflow", "user-alice")
    with pytest.raises(RotationError, match=sentence):
        rotate(stack, name, [])
    assert stack.asked == []


def test_a_secret_is_read_as_the_program_and_as_a_refresh_leave_it() -> None:
    sealed = {"plaintext": '{"password": "old"}'}
    encoded = {"plaintext": '{"password": "b2xk"}'}
    assert value_in({"inputs": {"stringData": sealed}}, "password") == "old"
    assert value_in({"inputs": {"data": encoded}}, "password") == "old"


def referred(value: Any) -> set[str]:
    """The Secrets that a pod takes words from."""
    if isinstance(value, list):
        return {name for part in value for name in referred(part)}
    if not isinstance(value, dict):
        return set()
    named = {value["secretKeyRef"]["name"]} if "secretKeyRef" in value else set()
    named |= {value["secretName"]} if "secretName" in value else set()
    return named.union(*(referred(part) for part in value.values()))


@pytest.mark.parametrize("name", STACKS)
def test_V9_whatever_uses_a_generated_secret_carries_its_fingerprint(name: str) -> None:
    stack = platform(name)
    generated = {
        (s.plain["metadata"]["namespace"], s.plain["metadata"]["name"])
        for s in stack.of_type("kubernetes:core/v1:Secret")
        if MADE_UP in str(s.plain["stringData"])
    }
    looked_at = []
    for each in stack.registrations:
        if each.type.rpartition(":")[2] in ("Deployment", "StatefulSet"):
            template = each.plain["spec"]["template"]
            space = each.plain["metadata"]["namespace"]
            if {(space, used) for used in referred(template["spec"])} & generated:
                assert template["metadata"]["annotations"].get(names.FINGERPRINT), each.name
                looked_at.append(each.name)
    assert {"postgres", "mlflow", "execution"} <= set(looked_at)


def fingerprints(stack: Monitor) -> dict[str, str]:
    """By what starts anew when it changes."""
    values = stack.one("kubernetes:helm.sh/v3:Release", "jupyterhub").plain["values"]
    found = {part: values[part]["annotations"][names.FINGERPRINT] for part in ("hub", "proxy")}
    for each in stack.registrations:
        if each.type.rpartition(":")[2] in ("Deployment", "StatefulSet"):
            annotations = each.plain["spec"]["template"]["metadata"].get("annotations", {})
            if names.FINGERPRINT in annotations:
                found[each.name] = annotations[names.FINGERPRINT]
    return found


def test_V9_another_secret_is_another_fingerprint(monkeypatch: pytest.MonkeyPatch) -> None:
    before = fingerprints(platform("local"))
    monkeypatch.setattr(recorder, "MADE_UP", f"{MADE_UP}-anew")
    after = fingerprints(run(lambda: Platform(stack_file("local"))))
    assert {"hub", "proxy", "postgres", "mlflow", "execution", "workspaces"} <= set(before)
    assert set(after) == set(before)
    assert [name for name in before if after[name] == before[name]] == []
