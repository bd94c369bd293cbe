"""The harbor plug-in against a small Harbor; tests/engine does the same by the real CLI."""

import os
import re
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
from pulumi.runtime.proto import provider_pb2

from bootstrap.plugins import harbor_api
from bootstrap.plugins.harbor import Harbor, account
from bootstrap.plugins.harbor_api import Harbor as Server
from bootstrap.plugins.harbor_retention import rule_body, rule_of, same_rules
from bootstrap.plugins.process import EngineLog
from bootstrap.plugins.provider import Servicer
from bootstrap.plugins.schema import Call, Made, PluginError, ResourceType
from bootstrap.plugins.values import UNKNOWN, encode_map
from tests.doubles.harbor import HarborDouble, serving

ROOT = Path(__file__).resolve().parents[2]
PASSWORD = "correct-horse-9"
GIB = 2**30
PROJECT = {"name": "mlhub", "storageQuota": 50, "deploymentSecurity": "high"}
PULL = {
    "name": "pull",
    "level": "project",
    "description": "pulls",
    "secret": "Abcdefg1",
    "permissions": [
        {
            "kind": "project",
            "namespace": "mlhub",
            "accesses": [{"resource": "repository", "action": "pull"}],
        }
    ],
}
KEEP = {
    "scope": "/projects/1",
    "schedule": "Daily",
    "rules": [
        {"mostRecentlyPushed": 5, "repoMatching": "**", "tagMatching": "**"},
        {"alwaysRetain": True, "repoMatching": "**", "tagMatching": "{prod}",
         "untaggedArtifacts": False},
    ],
}  # fmt: skip


@pytest.fixture
def double() -> Iterator[HarborDouble]:
    with serving("admin", PASSWORD) as running:
        yield running


@pytest.fixture
def plug_in(double: HarborDouble) -> Harbor:
    return configured(double.url)


def configured(url: str, **other: str) -> Harbor:
    package = Harbor()
    settings = {"url": url, "username": "admin", "password": PASSWORD, "insecure": "false"}
    package._config = settings | other
    return package


def kind(package: Harbor, name: str) -> ResourceType:
    return next(t for token, t in package.types.items() if token.endswith(f":{name}"))


def call(name: str) -> Call:
    return Call(urn=f"urn:pulumi:prod::mlhub::mlhub:registry:Registry$harbor::{name}")


def make(package: Harbor, name: str, given: dict[str, Any], called: str = "x") -> Made:
    resource = kind(package, name)
    assert resource.check(given) == []
    return resource.create({**given, **resource.defaults(given)}, call(called))


def changes(package: Harbor, name: str, made: Made, given: dict[str, Any]) -> set[str]:
    """What a preview after a refresh would change."""
    resource = kind(package, name)
    found = resource.read(made.id, made.state)
    assert found is not None
    return set(resource.diff(found.state, {**given, **resource.defaults(given)}))


def test_a_project_is_made_as_described_and_seen_unchanged(
    plug_in: Harbor, double: HarborDouble
) -> None:
    made = make(plug_in, "Project", PROJECT)
    assert made.id == "/projects/1"
    assert double.project("mlhub")["metadata"] == {
        "public": "false", "auto_scan": "true", "severity": "high", "prevent_vul": "true",
    }  # fmt: skip
    assert double.quotas == {1: 50 * GIB}
    assert changes(plug_in, "Project", made, PROJECT) == set()


@pytest.mark.parametrize(
    ("tamper", "seen"),
    [
        (lambda d: d.project("mlhub")["metadata"].update(public="true"), "public"),
        (lambda d: d.project("mlhub")["metadata"].update(auto_scan="false"),
         "vulnerabilityScanning"),
        (lambda d: d.project("mlhub")["metadata"].update(prevent_vul="false"),
         "deploymentSecurity"),
        (lambda d: d.quotas.update({1: 51 * GIB}), "storageQuota"),
    ],
)  # fmt: skip
def test_drift_of_a_project_is_seen_and_put_right(
    plug_in: Harbor, double: HarborDouble, tamper: Any, seen: str
) -> None:
    made = make(plug_in, "Project", PROJECT)
    tamper(double)
    assert changes(plug_in, "Project", made, PROJECT) == {seen}
    project = kind(plug_in, "Project")
    project.update(made.id, made.state, {**PROJECT, **project.defaults(PROJECT)}, call("x"))
    assert changes(plug_in, "Project", made, PROJECT) == set()


def test_a_quota_that_harbor_does_not_keep_is_no_endless_change(
    plug_in: Harbor, double: HarborDouble
) -> None:
    made = make(plug_in, "Project", PROJECT)
    double.quotas.clear()
    assert changes(plug_in, "Project", made, PROJECT) == set()


def test_a_project_with_images_that_others_made_is_refused_and_left_alone(
    plug_in: Harbor, double: HarborDouble
) -> None:
    make(plug_in, "Project", PROJECT)
    double.push("mlhub", "base")
    with pytest.raises(PluginError) as refusal:
        make(plug_in, "Project", {**PROJECT, "public": True})
    assert f"`{call('x').import_command('/projects/1')}`" in str(refusal.value)
    assert double.project("mlhub")["metadata"]["public"] == "false"


def test_a_project_is_taken_over_by_the_provider_that_was_configured_and_below_its_component(
    plug_in: Harbor, double: HarborDouble, tmp_path: Path
) -> None:
    """The words that a shell makes of the command, with a CLI that knows one component."""
    make(plug_in, "Project", PROJECT)
    double.push("mlhub", "base")
    provider = "urn:pulumi:prod::mlhub::pulumi:providers:harbor::harbor"
    above = "urn:pulumi:prod::mlhub::mlhub:registry:Registry"
    servicer, context = Servicer(plug_in, EngineLog("")), Mock()
    context.abort.side_effect = lambda _, message: (_ for _ in ()).throw(PluginError(message))
    settings = encode_map(plug_in._config)
    servicer.Configure(provider_pb2.ConfigureRequest(urn=provider, args=settings), context)
    request = provider_pb2.CreateRequest(
        urn=f"{above}$harbor:index/project:Project::mlhub",
        properties=encode_map({**PROJECT, **kind(plug_in, "Project").defaults(PROJECT)}),
    )
    with pytest.raises(PluginError) as refusal:
        servicer.Create(request, context)
    command = re.search(r"`(pulumi import [^`]+)`", str(refusal.value))
    assert command

    cli = tmp_path / "pulumi"
    cli.write_text(
        f"#!/bin/sh\n[ $1 = stack ] || printf '%s\\n' \"$@\"\n"
        f"[ $1 = import ] || echo '   │  URN: {above}::registry'\n"
    )
    cli.chmod(0o755)
    path = f"{tmp_path}:{os.environ['PATH']}"
    said = subprocess.run(
        ["sh", "-c", command[1]], env={"PATH": path}, capture_output=True, text=True, check=True
    )
    assert said.stdout.splitlines() == [
        "import", "harbor:index/project:Project", "mlhub", "/projects/1", "--stack", "prod",
        "--generate-code=false", "--provider", f"provider={provider}",
        "--parent", f"parent={above}::registry",
    ]  # fmt: skip


def test_the_page_shows_the_command_that_is_printed() -> None:
    of_dev = Call(
        "urn:pulumi:dev::mlhub::mlhub:registry:Registry$harbor:index/project:Project::mlhub",
        provider="urn:pulumi:dev::mlhub::pulumi:providers:harbor::harbor",
    )
    page = re.sub(r"\s*\\\n\s*", " ", (ROOT / "docs" / "engine.md").read_text())
    assert f"$ {of_dev.import_command('/projects/7')}\n" in page


def test_what_has_no_component_above_it_is_taken_over_without_a_parent() -> None:
    at_the_top = Call("urn:pulumi:prod::mlhub::harbor:index/project:Project::mlhub")
    assert "--parent" not in at_the_top.import_command("/projects/1")


def test_a_project_that_a_killed_run_made_is_taken_up_again(
    plug_in: Harbor, double: HarborDouble
) -> None:
    first = make(plug_in, "Project", {"name": "mlhub"})
    assert make(plug_in, "Project", PROJECT).id == first.id
    assert double.project("mlhub")["metadata"]["prevent_vul"] == "true"


def test_a_project_with_images_is_not_deleted(plug_in: Harbor, double: HarborDouble) -> None:
    made = make(plug_in, "Project", PROJECT)
    double.push("mlhub", "base")
    with pytest.raises(PluginError, match="has 1 repositories, and forceDestroy is not set"):
        kind(plug_in, "Project").delete(made.id, made.state)
    assert double.project("mlhub")


def test_force_destroy_empties_the_project_first(plug_in: Harbor, double: HarborDouble) -> None:
    made = make(plug_in, "Project", {**PROJECT, "forceDestroy": True})
    double.push("mlhub", "base")
    double.push("mlhub", "cache/base")
    kind(plug_in, "Project").delete(made.id, made.state)
    assert not double.projects


@pytest.mark.parametrize("name", ["Project", "RobotAccount", "RetentionPolicy"])
def test_what_is_gone_reads_as_gone_and_its_deletion_is_done(plug_in: Harbor, name: str) -> None:
    resource = kind(plug_in, name)
    id = {"Project": "/projects/7", "RobotAccount": "/robots/7"}.get(name, "/retentions/7")
    assert resource.read(id, {}) is None
    resource.delete(id, KEEP if name == "RetentionPolicy" else {})


def test_a_robot_has_the_rights_and_the_secret_that_were_given(
    plug_in: Harbor, double: HarborDouble
) -> None:
    make(plug_in, "Project", PROJECT)
    made = make(plug_in, "RobotAccount", PULL)
    robot = double.robot("robot$mlhub+pull")
    assert robot["permissions"][0]["access"] == [{"resource": "repository", "action": "pull"}]
    assert double.robot_secrets[robot["id"]] == PULL["secret"]
    assert made.state["fullName"] == "robot$mlhub+pull"
    assert changes(plug_in, "RobotAccount", made, PULL) == set()


def test_without_a_secret_harbors_own_is_kept(plug_in: Harbor, double: HarborDouble) -> None:
    make(plug_in, "Project", PROJECT)
    given = {key: value for key, value in PULL.items() if key != "secret"}
    made = make(plug_in, "RobotAccount", given)
    assert made.state["secret"] == double.robot_secrets[int(made.state["robotId"])]
    assert changes(plug_in, "RobotAccount", made, given) == set()


def test_a_robot_that_was_given_more_rights_is_drift(plug_in: Harbor, double: HarborDouble) -> None:
    make(plug_in, "Project", PROJECT)
    made = make(plug_in, "RobotAccount", PULL)
    double.robot("robot$mlhub+pull")["permissions"][0]["access"].append(
        {"resource": "repository", "action": "push", "effect": "allow"}
    )
    assert changes(plug_in, "RobotAccount", made, PULL) == {"permissions"}
    robot = kind(plug_in, "RobotAccount")
    robot.update(made.id, made.state, {**PULL, **robot.defaults(PULL)}, call("x"))
    assert changes(plug_in, "RobotAccount", made, PULL) == set()


def test_a_new_secret_is_given_to_the_same_robot(plug_in: Harbor, double: HarborDouble) -> None:
    make(plug_in, "Project", PROJECT)
    made = make(plug_in, "RobotAccount", PULL)
    robot = kind(plug_in, "RobotAccount")
    given = {**PULL, **robot.defaults(PULL), "secret": "Another2x"}
    assert set(robot.diff(made.state, given)) == {"secret"}
    robot.update(made.id, made.state, given, call("x"))
    assert double.robot_secrets == {int(made.state["robotId"]): "Another2x"}


def test_a_robot_that_a_killed_run_made_is_taken_up_again(
    plug_in: Harbor, double: HarborDouble
) -> None:
    make(plug_in, "Project", PROJECT)
    first = make(plug_in, "RobotAccount", {**PULL, "secret": "Forgotten1"})
    again = make(plug_in, "RobotAccount", PULL)
    assert again.id == first.id
    assert list(double.robot_secrets.values()) == [PULL["secret"]]


def test_a_robot_whose_secret_nobody_heard_is_made_anew(
    plug_in: Harbor, double: HarborDouble
) -> None:
    make(plug_in, "Project", PROJECT)
    given = {key: value for key, value in PULL.items() if key != "secret"}
    first, again = (make(plug_in, "RobotAccount", given) for _ in range(2))
    assert again.id != first.id
    assert len(double.robots) == 1


def test_somebody_elses_robot_keeps_its_secret(plug_in: Harbor, double: HarborDouble) -> None:
    make(plug_in, "Project", PROJECT)
    first = make(plug_in, "RobotAccount", PULL, "theirs")
    with pytest.raises(PluginError) as refusal:
        make(plug_in, "RobotAccount", {**PULL, "secret": "Another2x"}, "ours")
    assert f"`{call('ours').import_command(first.id)}`" in str(refusal.value)
    assert list(double.robot_secrets.values()) == [PULL["secret"]]


def test_a_retention_policy_says_what_stays(plug_in: Harbor, double: HarborDouble) -> None:
    make(plug_in, "Project", PROJECT)
    made = make(plug_in, "RetentionPolicy", KEEP)
    (policy,) = double.retentions.values()
    assert policy["trigger"]["settings"] == {"cron": "0 0 0 * * *"}
    assert [rule["template"] for rule in policy["rules"]] == ["latestPushedK", "always"]
    assert policy["rules"][1]["tag_selectors"] == [
        {"kind": "doublestar", "decoration": "matches", "pattern": "{prod}",
         "extras": '{"untagged":false}'},
    ]  # fmt: skip
    assert changes(plug_in, "RetentionPolicy", made, KEEP) == set()


def test_a_policy_that_is_there_is_taken_over(plug_in: Harbor, double: HarborDouble) -> None:
    make(plug_in, "Project", PROJECT)
    first, again = (make(plug_in, "RetentionPolicy", KEEP) for _ in range(2))
    assert first.id == again.id
    assert len(double.retentions) == 1


def test_a_rule_made_looser_by_hand_is_drift(plug_in: Harbor, double: HarborDouble) -> None:
    make(plug_in, "Project", PROJECT)
    made = make(plug_in, "RetentionPolicy", KEEP)
    next(iter(double.retentions.values()))["rules"][0]["params"]["latestPushedK"] = 1
    assert changes(plug_in, "RetentionPolicy", made, KEEP) == {"rules"}


def test_a_deleted_policy_deletes_nothing_any_more(plug_in: Harbor, double: HarborDouble) -> None:
    make(plug_in, "Project", PROJECT)
    made = make(plug_in, "RetentionPolicy", KEEP)
    kind(plug_in, "RetentionPolicy").delete(made.id, made.state)
    (policy,) = double.retentions.values()
    assert (policy["rules"], policy["trigger"]["settings"]["cron"]) == ([], "")


@pytest.mark.parametrize(
    "rule",
    [
        {"mostRecentlyPulled": 3, "repoExcluding": "c/**", "tagExcluding": "x", "disabled": True},
        {"nDaysSinceLastPull": 90, "repoMatching": "**", "tagMatching": "**"},
        {"nDaysSinceLastPush": 7, "repoMatching": "a", "tagMatching": "**",
         "untaggedArtifacts": False},
    ],
)  # fmt: skip
def test_a_rule_comes_back_as_it_went(rule: dict[str, Any]) -> None:
    assert rule_of(rule_body(rule)) == rule


def test_a_rule_with_its_defaults_spelled_out_is_the_same_rule() -> None:
    rule = {"mostRecentlyPushed": 5, "repoMatching": "**", "tagMatching": "**"}
    assert same_rules([rule], [{**rule, "untaggedArtifacts": True, "disabled": False}])
    assert not same_rules([rule], [{**rule, "untaggedArtifacts": False}])


@pytest.mark.parametrize(
    ("name", "given", "named"),
    [
        ("Project", {**PROJECT, "deploymentSecurity": "severe"}, "deploymentSecurity"),
        ("RobotAccount", {**PULL, "secret": "short"}, "secret"),
        ("RobotAccount", {**PULL, "permissions": PULL["permissions"] * 2}, "permissions"),
        ("RetentionPolicy",
         {**KEEP, "rules": [{"repoMatching": "**", "tagMatching": "**"}]}, "rules"),
        ("RetentionPolicy",
         {**KEEP, "rules": [{**KEEP["rules"][0], "alwaysRetain": True}]}, "rules"),
    ],
)  # fmt: skip
def test_a_mistake_is_refused_before_anything_is_made(
    name: str, given: dict[str, Any], named: str
) -> None:
    failures = kind(Harbor(), name).check(given)
    assert [failure.property for failure in failures] == [named]
    assert "short" not in failures[0].reason


@pytest.mark.parametrize("name", ["Project", "RobotAccount", "RetentionPolicy"])
def test_unknown_values_pass_every_check(name: str) -> None:
    resource = kind(Harbor(), name)
    inputs = {name: UNKNOWN for name, p in resource.inputs.items() if p.required or p.named}
    assert resource.check(inputs) == []


# The server


def test_a_wrong_password_is_said_without_the_password(double: HarborDouble) -> None:
    package = configured(double.url, password="not-the-password-9")
    with pytest.raises(PluginError, match="refused the log-in of admin") as refusal:
        make(package, "Project", PROJECT)
    assert "not-the-password-9" not in str(refusal.value)


def test_harbors_own_words_reach_the_person(plug_in: Harbor) -> None:
    with pytest.raises(PluginError, match="HTTP 400: invalid project name MLHUB"):
        make(plug_in, "Project", {"name": "MLHUB"})


def test_an_unreachable_server_is_one_sentence_with_the_address(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(harbor_api, "POLL_SECONDS", 0.01)
    at = replace(account(configured("http://127.0.0.1:9")._config), wait_seconds=0)
    with pytest.raises(PluginError) as refusal:
        Server(at, lambda message: None).get("/projects/1")
    assert str(refusal.value) == (
        "Harbor at http://127.0.0.1:9 did not answer within 0 s (Connection refused); check the "
        "provider's url and that the server is running, then run the same command again"
    )


def test_cancelling_ends_the_wait() -> None:
    server = Server(account(configured("http://127.0.0.1:9")._config), lambda message: None)
    server.cancel()
    with pytest.raises(PluginError, match="cancelled"):
        server.get("/projects/1")


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"url": UNKNOWN}, "url will be known only after"),
        ({"password": ""}, "no password"),
        ({"apiVersion": "1"}, "apiVersion is 1"),
    ],
)
def test_a_provider_that_cannot_work_says_why(settings: dict[str, Any], said: str) -> None:
    config = {"url": "http://x", "username": "admin", "password": PASSWORD} | settings
    with pytest.raises(PluginError, match=said):
        account(config)


def test_a_setting_of_the_official_plug_in_that_is_unknown_elsewhere_does_no_harm() -> None:
    config = {"url": "http://x/", "username": "a", "password": "b", "version": UNKNOWN}
    assert account(config).url == "http://x"


def test_a_password_is_in_no_representation_of_the_account() -> None:
    assert PASSWORD not in repr(account(configured("http://x")._config))


@pytest.mark.parametrize(("insecure", "verify"), [("true", False), ("false", True), (True, False)])
def test_certificates_are_checked_unless_the_stack_says_otherwise(
    insecure: Any, verify: bool
) -> None:
    config = {"url": "http://x", "username": "a", "password": "b", "insecure": insecure}
    assert account(config).verify is verify
