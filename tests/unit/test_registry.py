"""The Harbor project of the stacks: who has it, who may do what in it, and what stays."""

import base64
import json
from typing import Any

import pytest

from components import names
from components.registry import docker_config, gibibytes, retention_rules, robot_permissions
from tests.unit import recorder
from tests.unit.recorder import Monitor, is_secret, readable

PROJECT = "harbor:index/project:Project"
POLICY = "harbor:index/retentionPolicy:RetentionPolicy"
ROBOT = "harbor:index/robotAccount:RobotAccount"
SECRET = "kubernetes:core/v1:Secret"
HARBOR_STACKS = ["dev", "staging", "prod"]


def kept(rules: list[dict[str, Any]], artifact: dict[str, Any]) -> bool:
    """What Harbor's retention decides, for patterns that are `**`, a name, or a prefix with `*`."""

    def matches(pattern: str, name: str) -> bool:
        if pattern.endswith("*"):
            return name.startswith(pattern.rstrip("*"))
        return name == pattern

    def keeps(rule: dict[str, Any]) -> bool:
        inside = (
            matches(rule["repo_matching"], artifact["repository"])
            if "repo_matching" in rule
            else not matches(rule["repo_excluding"], artifact["repository"])
        )
        tags = artifact["tags"]
        named = any(matches(rule["tag_matching"], tag) for tag in tags)
        if not inside or not (named or (not tags and rule["untagged_artifacts"])):
            return False
        return bool(
            rule.get("always_retain")
            or artifact["newer"] < rule.get("most_recently_pushed", 0)
            or artifact["days"] < rule.get("n_days_since_last_pull", 0)
        )

    return any(keeps(rule) for rule in rules)


def artifact(repository: str, *tags: str, newer: int, days: int = 10_000) -> dict[str, Any]:
    """`newer`: how many were pushed after it; `days`: since it was last pulled."""
    return {"repository": repository, "tags": tags, "newer": newer, "days": days}


@pytest.mark.parametrize(
    "found",
    [
        artifact("hub", names.in_use_tag("prod"), newer=500),
        artifact("hub", "2026.11.0", names.in_use_tag("prod"), newer=500),
        artifact("hub", newer=19),
        artifact("hub", newer=500, days=29),
        artifact("cache", "hub", newer=500),
    ],
)
def test_what_a_stack_runs_and_what_is_recent_stays(found: dict[str, Any]) -> None:
    assert kept(retention_rules(20), found)


@pytest.mark.parametrize(
    "found",
    [
        artifact("hub", "2026.1.0", newer=20),
        artifact("hub", newer=20, days=30),
        artifact("cache", newer=0, days=0),
    ],
)
def test_what_is_old_and_nobody_runs_goes(found: dict[str, Any]) -> None:
    assert not kept(retention_rules(20), found)


@pytest.mark.parametrize(("size", "quota"), [("500Gi", 500), ("1Ti", 1024), ("1Mi", 1)])
def test_a_quota_is_in_whole_gibibytes(size: str, quota: int) -> None:
    assert gibibytes(size) == quota


def test_the_project_belongs_to_the_stack_that_builds() -> None:
    owners = [s for s in HARBOR_STACKS if recorder.platform(s).of_type(PROJECT)]
    assert owners == ["dev"]
    for stack in HARBOR_STACKS:
        assert len(recorder.platform(stack).of_type(POLICY)) == (stack in owners)


def test_the_project_is_private_scanned_bounded_and_never_deleted() -> None:
    project = recorder.platform("dev").one(PROJECT, "mlhub")
    wanted = {
        "name": "mlhub",
        "public": False,
        "vulnerabilityScanning": True,
        "deploymentSecurity": "critical",
        "storageQuota": 500.0,
        "forceDestroy": False,
    }
    assert project.plain == wanted
    assert (project.protect, project.retain_on_delete) == (True, True)
    assert recorder.platform("dev").one(POLICY, "mlhub").retain_on_delete


@pytest.mark.parametrize("stack", HARBOR_STACKS)
def test_the_cluster_may_pull_and_nothing_else(stack: str) -> None:
    platform = recorder.platform(stack)
    rights = {
        robot.name: {
            (permission["namespace"], access["resource"], access["action"])
            for permission in robot.plain["permissions"]
            for access in permission["accesses"]
        }
        for robot in platform.of_type(ROBOT)
    }
    pull = ("mlhub", "repository", "pull")
    assert rights == {
        f"{stack}-pull": {pull},
        f"{stack}-push": {pull, ("mlhub", "repository", "push")},
    }
    assert {robot.plain["level"] for robot in platform.of_type(ROBOT)} == {"project"}
    assert all(is_secret(robot.inputs["secret"]) for robot in platform.of_type(ROBOT))


@pytest.mark.parametrize("stack", HARBOR_STACKS)
def test_J8_each_namespace_that_pulls_has_the_secret_under_its_fixed_name(stack: str) -> None:
    platform = recorder.platform(stack)
    found = [s for s in platform.of_type(SECRET)
             if s.plain["metadata"]["name"] == names.PULL_SECRET]  # fmt: skip
    assert {s.plain["metadata"]["namespace"] for s in found} >= {"jupyterhub", "foundation"}
    for secret in found:
        assert secret.plain["type"] == "kubernetes.io/dockerconfigjson"
        assert is_secret(secret.inputs["stringData"])
        (config,) = secret.plain["stringData"].values()
        ((host, account),) = json.loads(config)["auths"].items()
        assert host == "harbor.example.com"
        assert account["username"] == f"robot${stack}-pull"
        pair = f"{account['username']}:{account['password']}"
        assert base64.b64decode(account["auth"]).decode() == pair


def test_a_robots_secret_is_one_that_harbor_takes() -> None:
    for stack in HARBOR_STACKS:
        passwords = recorder.platform(stack).of_type("random:index/randomPassword:RandomPassword")
        ours = [p.plain for p in passwords if p.name.startswith("registry-")]
        assert len(ours) == 2
        for given in ours:
            assert given["length"] == 32
            assert min(given["minUpper"], given["minLower"], given["minNumeric"]) == 1


@pytest.mark.parametrize("stack", HARBOR_STACKS)
def test_certificates_are_checked_and_the_password_is_secret(stack: str) -> None:
    (provider,) = recorder.platform(stack).of_type("pulumi:providers:harbor")
    # The SDK's own default is to trust any.
    assert provider.plain["insecure"] == "false"
    assert is_secret(provider.inputs["password"])


@pytest.mark.parametrize("stack", HARBOR_STACKS)
def test_V9_no_generated_or_given_secret_is_in_plain(stack: str) -> None:
    platform = recorder.platform(stack)
    ours = [
        r
        for r in platform.registrations
        if r.type.startswith(("harbor:", "docker", "mlhub:registry", "pulumi:providers:"))
    ]
    assert ours  # fmt: skip
    for resource in ours:
        for text in readable(resource.inputs):
            assert recorder.MADE_UP not in text, resource.urn
            assert f"{recorder.GIVEN}-harbor_password" not in text, resource.urn


def test_a_stack_without_harbor_has_none_of_it(
    local: Monitor,
) -> None:
    names_ = {r.type.split(":")[0] for r in local.registrations}
    providers = {r.type for r in local.registrations if r.type.startswith("pulumi:providers:")}
    assert "harbor" not in names_
    assert not providers & {"pulumi:providers:harbor", "pulumi:providers:docker"}


@pytest.fixture
def local() -> Monitor:
    return recorder.platform("local")


def test_a_pull_secret_is_what_kubelet_reads() -> None:
    config = json.loads(docker_config("h.example:8443", "robot$a+b", "x"))
    assert list(config["auths"]) == ["h.example:8443"]


def test_permissions_name_one_project() -> None:
    (permission,) = robot_permissions("mlhub", "pull")
    assert (permission["kind"], permission["namespace"]) == ("project", "mlhub")
