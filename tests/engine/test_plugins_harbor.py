"""The registry component by the real CLI, against a small Harbor."""

import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import requests

from tests.doubles.harbor import HarborDouble, serving
from tests.engine.stack import Stack

pytestmark = [pytest.mark.engine, pytest.mark.timeout(600)]

PASSWORD = "correct-horse-9"
CHECKOUT = Path(__file__).resolve().parents[2]
PROGRAM = f"""
    import sys
    sys.path.insert(0, {str(CHECKOUT)!r})
    import pulumi
    import pulumi_random as random
    from components.config import Harbor
    from components.registry import Registry, RegistryArgs, harbor_provider

    config = pulumi.Config()
    harbor = Harbor(url=config.require("url"), username="admin", keep_tags=5, storage="50Gi")
    registry = Registry(
        "registry",
        RegistryArgs(
            config=harbor,
            repository="127.0.0.1/mlhub",
            stack=config.require("of"),
            builds=config.require("of") == "dev",
            pullers={{}},
        ),
        pulumi.ResourceOptions(
            providers=[
                random.Provider("random"),
                harbor_provider(harbor, config.require_secret("password")),
            ]
        ),
    )
    pulumi.export("robot", registry.pull.username)
    pulumi.export("pull", registry.pull.password)
"""
MADE = 10
"""The stack, two providers, the component, project, policy, two robots and their secrets."""


@pytest.fixture
def harbor() -> Iterator[HarborDouble]:
    with serving("admin", PASSWORD) as double:
        yield double


@pytest.fixture
def platform(stack: Callable[[str], Stack], harbor: HarborDouble) -> Stack:
    return of("dev", stack, harbor)


def of(name: str, stack: Callable[[str], Stack], harbor: HarborDouble) -> Stack:
    made = stack(PROGRAM)
    made.configure(url=harbor.url, password=PASSWORD, of=name)
    return made


def test_a_preview_reaches_no_server(platform: Stack, harbor: HarborDouble) -> None:
    assert platform.changes() == {"create": MADE}
    assert harbor.requests == []


def test_an_up_makes_all_of_it_once_and_no_secret_is_in_plain(
    platform: Stack, harbor: HarborDouble, bin_dir: Path
) -> None:
    printed = platform.up("--diff")
    said = "the official pulumi-resource-harbor is not installed" in printed
    assert said == (bin_dir / "pulumi-resource-harbor").is_file()
    robot = harbor.robot("robot$mlhub+dev-pull")
    secret = platform.secret("pull")
    assert harbor.robot_secrets[robot["id"]] == secret
    (policy,) = harbor.retentions.values()
    assert policy["scope"]["ref"] == harbor.project("mlhub")["project_id"]
    assert [rule["template"] for rule in policy["rules"]] == [
        "latestPushedK", "always", "nDaysSinceLastPull", "always",
    ]  # fmt: skip
    platform.up("--expect-no-changes")
    platform("refresh", "--yes", "--skip-preview", "--expect-no-changes")
    files = [f.read_text() for f in platform.folder.glob("state/**/*") if f.is_file()]
    assert any("robot$mlhub+dev-pull" in text for text in files), "the state lies elsewhere"
    for word in (secret, PASSWORD):
        assert word not in platform.export()
        assert word not in printed
        assert not any(word in text for text in files)


def test_drift_is_seen_and_put_right_by_the_next_up(platform: Stack, harbor: HarborDouble) -> None:
    platform.up()
    harbor.project("mlhub")["metadata"] |= {"public": "true", "prevent_vul": "false"}
    harbor.robot("robot$mlhub+dev-pull")["permissions"][0]["access"].append(
        {"resource": "repository", "action": "push", "effect": "allow"}
    )
    next(iter(harbor.retentions.values()))["rules"] = []
    printed = platform.up("--refresh", "--diff")
    metadata = harbor.project("mlhub")["metadata"]
    assert (metadata["public"], metadata["prevent_vul"]) == ("false", "true"), printed
    (permission,) = harbor.robot("robot$mlhub+dev-pull")["permissions"]
    assert [access["action"] for access in permission["access"]] == ["pull"]
    assert len(next(iter(harbor.retentions.values()))["rules"]) == 4
    platform.up("--refresh", "--expect-no-changes")


def test_what_somebody_deleted_is_made_again(platform: Stack, harbor: HarborDouble) -> None:
    platform.up()
    harbor.robots.clear()
    platform.up("--refresh")
    robot = harbor.robot("robot$mlhub+dev-pull")
    assert harbor.robot_secrets[robot["id"]] == platform.secret("pull")


@pytest.mark.parametrize("late", ["POST /projects", "POST /robots", "POST /retentions"])
def test_an_up_killed_before_it_heard_the_answer_is_finished_by_the_next(
    platform: Stack, harbor: HarborDouble, late: str
) -> None:
    harbor.late = {late: 30}  # after it has made what is asked for
    process = platform.start("up", "--yes", "--skip-preview")
    deadline = time.monotonic() + 180
    while late not in harbor.requests:
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline, "the request never came"
        time.sleep(0.1)
    platform.kill(process)
    platform.wait_for_no_process()
    harbor.late = {}
    platform("cancel", "--yes")
    platform.up()
    assert platform.changes() == {}
    assert (len(harbor.projects), len(harbor.robots), len(harbor.retentions)) == (1, 2, 1)
    robot = harbor.robot("robot$mlhub+dev-pull")
    assert harbor.robot_secrets[robot["id"]] == platform.secret("pull")


def test_a_project_of_others_is_taken_over_by_the_very_command_that_is_printed(
    platform: Stack, harbor: HarborDouble
) -> None:
    platform.refuse_default_providers()
    made = requests.post(
        f"{harbor.url}/api/v2.0/projects",
        json={"project_name": "mlhub", "metadata": {"public": "true"}},
        auth=("admin", PASSWORD),
        timeout=30,
    )
    assert made.status_code == 201
    harbor.push("mlhub", "base")
    refusal = platform.fails("up", "--yes", "--skip-preview")
    assert harbor.project("mlhub")["metadata"]["public"] == "true"
    command = re.search(r"`(pulumi import [^`]+)`", refusal)
    assert command, refusal
    platform.shell(command[1])
    platform.up()
    assert harbor.project("mlhub")["metadata"]["public"] == "false"
    (project,) = (r for r in platform.resources() if r["type"].endswith(":Project"))
    assert "mlhub:registry:Registry$" in project["urn"]
    assert platform.changes() == {}


def test_destroy_is_refused_by_the_projects_protection(
    platform: Stack, harbor: HarborDouble
) -> None:
    platform.up()
    assert "protected" in platform.fails("destroy", "--yes", "--skip-preview")
    assert harbor.project("mlhub")


def test_a_stack_that_promotes_shares_the_project_and_leaves_it_alone(
    platform: Stack, harbor: HarborDouble, stack: Callable[[str], Stack]
) -> None:
    platform.up()
    harbor.push("mlhub", "hub")
    before = [harbor.project("mlhub")["metadata"].copy(), str(harbor.retentions)]
    prod = of("prod", stack, harbor)
    prod.up()
    assert [harbor.project("mlhub")["metadata"], str(harbor.retentions)] == before
    assert {robot["name"].partition("+")[2] for robot in harbor.robots.values()} == {
        "dev-pull", "dev-push", "prod-pull", "prod-push",
    }  # fmt: skip
    prod("destroy", "--yes", "--skip-preview")
    assert {robot["name"].partition("+")[2] for robot in harbor.robots.values()} == {
        "dev-pull", "dev-push",
    }  # fmt: skip
    platform.up("--refresh", "--expect-no-changes")


def test_a_wrong_password_is_one_sentence_that_does_not_repeat_it(platform: Stack) -> None:
    platform.configure(password="not-the-password-9")
    refusal = platform.fails("up", "--yes", "--skip-preview")
    assert "refused the log-in of admin" in refusal
    assert "not-the-password-9" not in refusal
    assert "Traceback" not in refusal


def test_a_program_that_uses_nothing_of_harbor_never_configures_it(
    stack: Callable[[str], Stack],
) -> None:
    """The package is installed, so the plug-in has to be there; nothing more."""
    made = stack("import pulumi\npulumi.export('x', 1)\n")
    printed = made.up()
    assert "harbor:" not in printed
    assert "docker:" not in printed
