"""The workflows: pinned actions, least rights, one `up` at a time, an approval before prod."""

import base64
import json
import re
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import pytest
import yaml

from tests.unit.recorder import STACKS, stack_file
from tools import ci_identity
from tools.report import markdown

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / ".github" / "workflows"
FILES = sorted(FOLDER.glob("*.y*ml"))
ALLOWED = {"contents": "read", "id-token": "write", "pull-requests": "write"}
PROGRAMS = {
    "mkdir",
    "touch",
    "gh",
    "pulumi",
    "docker",
    "if",
    "then",
    "else",
    "fi",
    "known",
    "head",
    ".",
}


def read(name: str) -> dict[str, Any]:
    # YAML 1.1 reads the key `on` as true.
    text = (FOLDER / name).read_text().replace("\non:", "\n'on':")
    return dict(yaml.safe_load(text))


def jobs() -> Iterator[tuple[str, str, dict[str, Any]]]:
    for file in FILES:
        for name, job in read(file.name)["jobs"].items():
            yield file.name, name, job


def steps() -> Iterator[tuple[str, dict[str, Any]]]:
    for file, name, job in jobs():
        for step in job.get("steps", []):
            yield f"{file} {name}", step


def test_every_action_is_pinned_by_a_commit_with_its_version_beside_it() -> None:
    lines = [line for file in FILES for line in file.read_text().splitlines() if "uses:" in line]
    assert len(lines) > 10
    for line in lines:
        pinned = re.search(r"uses: [\w.-]+/[\w.-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+$", line)
        own = re.search(r"uses: \./\.github/workflows/([\w.-]+)$", line)
        assert pinned or (own and (FOLDER / own[1]).is_file()), line


def test_one_action_has_one_pin() -> None:
    pins: dict[str, set[str]] = {}
    for file in FILES:
        for action, pin in re.findall(r"uses: ([\w.-]+/[\w.-]+)@(.*)", file.read_text()):
            pins.setdefault(action, set()).add(pin)
    assert all(len(each) == 1 for each in pins.values()), pins


def test_a_job_has_the_rights_it_names_and_no_others() -> None:
    for file in FILES:
        assert read(file.name)["permissions"] == {}, file.name
    for file, name, job in jobs():
        assert job["permissions"], f"{file} {name}"
        for right, level in job["permissions"].items():
            assert ALLOWED.get(right) == level, f"{file} {name}: {right}: {level}"


def test_the_code_of_a_pull_request_never_has_a_token_that_writes_comments() -> None:
    writing = [job for _, _, job in jobs() if "pull-requests" in job["permissions"]]
    assert len(writing) == 1
    assert "id-token" not in writing[0]["permissions"]
    checkout = next(s for s in writing[0]["steps"] if "actions/checkout" in s.get("uses", ""))
    assert checkout["with"]["ref"] == "${{ github.event.pull_request.base.sha }}"


def test_a_fork_gets_no_preview_and_no_secret() -> None:
    document = read("preview.yaml")
    assert set(document["on"]) == {"pull_request"}, "pull_request_target hands secrets to forks"
    condition = "github.event.pull_request.head.repo.full_name == github.repository"
    assert document["jobs"]["preview"]["if"] == condition
    assert document["jobs"]["comment"]["needs"] == "preview"
    assert "!= 'skipped'" in document["jobs"]["comment"]["if"]


def test_a_preview_for_each_cluster_stack_with_the_policy_pack() -> None:
    job = read("preview.yaml")["jobs"]["preview"]
    known = {path.name.split(".")[1] for path in (ROOT / "stacks").glob("Pulumi.*.yaml")}
    previewed = job["strategy"]["matrix"]["stack"]
    assert set(STACKS) - {"local"} <= set(previewed) <= known - {"local"}
    script = " ".join(
        step.get("run", "") for step in read("preview.yaml")["jobs"]["comment"]["steps"]
    )
    assert re.findall(r"previews/([\w-]+)\.jsonl", script) == previewed
    assert "--policy-pack policies" in next(s["run"] for s in job["steps"] if s.get("name"))
    assert job["concurrency"]["cancel-in-progress"] is True


def test_up_goes_through_the_stacks_in_order_after_a_merge() -> None:
    document = read("deploy.yaml")
    assert document["on"] == {"push": {"branches": ["main"]}}
    order = {name: job.get("needs") for name, job in document["jobs"].items()}
    assert order | {"dev": None, "staging": "dev", "prod": "staging"} == order
    for name, job in document["jobs"].items():
        assert job["uses"] == "./.github/workflows/up.yaml"
        builds = {"builds": True} if stack_file(name).images.build else {}
        assert job["with"] == {"stack": name} | builds


def test_an_up_that_builds_has_a_builder_for_every_platform_and_room_and_time_for_it() -> None:
    job = read("up.yaml")["jobs"]["up"]
    # GitHub's own runners have 14 GB for certain, and one platform of the images takes 18.
    assert job["runs-on"] == "${{ inputs.builds && 'mlhub-build' || 'ubuntu-24.04' }}"
    assert job["timeout-minutes"] >= 300
    checkout, *others = job["steps"]
    assert checkout["with"]["fetch-depth"] == 0, "it knows which commit touched an image"
    before = others[: [step.get("run", "")[:9] for step in others].index("pulumi up")]
    preparing = [step for step in before if step.get("if") == "inputs.builds"]
    emulation, builder = preparing
    deployed = map(stack_file, read("deploy.yaml")["jobs"])
    built = [config.images.build for config in deployed if config.images.build]
    assert {build.builder for build in built} == {"mlhub"}
    assert "docker buildx create --name mlhub " in builder["run"]
    emulated = {f"linux/{kind}" for kind in emulation["with"]["platforms"].split(",")}
    for build in built:
        assert set(build.platforms) - {"linux/amd64"} == emulated
    assert re.search(r":[\w.-]+@sha256:[0-9a-f]{64}$", emulation["with"]["image"])


def test_a_runner_that_is_not_githubs_is_known_to_actionlint_and_the_page_says_what_it_needs() -> (
    None
):
    config = yaml.safe_load((ROOT / ".github" / "actionlint.yaml").read_text())
    page = (ROOT / "docs" / "previews.md").read_text()
    for label in ("mlhub-build", "mlhub-backup"):
        assert label in config["self-hosted-runner"]["labels"]
        assert f"the label `{label}`" in page


def test_T12_staging_is_verified_before_prod_begins() -> None:
    assert read("deploy.yaml")["jobs"]["prod"]["needs"] == "staging"
    *_, applied, verified = read("up.yaml")["jobs"]["up"]["steps"]
    assert applied["run"].startswith("pulumi up")
    assert verified["run"] == 'make verify STACK="$STACK"'
    assert verified["if"] == "inputs.stack != 'dev'"
    assert "continue-on-error" not in verified


def test_prod_waits_for_an_approval_and_no_up_meets_another_or_is_cut_off() -> None:
    up = read("up.yaml")["jobs"]["up"]
    assert up["environment"] == "${{ inputs.stack }}"
    assert up["concurrency"] == {"group": "up-${{ inputs.stack }}", "cancel-in-progress": False}
    assert any("--policy-pack policies" in step.get("run", "") for step in up["steps"])


def test_T13_no_backup_waits_for_an_up_and_none_is_cancelled_by_it() -> None:
    """GitHub keeps one waiting job of a group and cancels it when another comes."""
    groups: dict[str, set[str]] = {}
    for file, name, job in jobs():
        if group := job.get("concurrency", {}).get("group"):
            groups.setdefault(group.partition("-${{")[0], set()).add(f"{file} {name}")
    assert groups["up"] == {"up.yaml up"}
    assert groups["backup"] == {"backup.yaml backup"}
    backup = read("backup.yaml")["jobs"]["backup"]
    assert backup["concurrency"]["cancel-in-progress"] is False


def test_no_long_lived_key_is_asked_for() -> None:
    for file in FILES:
        named = set(re.findall(r"secrets\.(\w+)", file.read_text()))
        assert named <= {"PULUMI_CONFIG_PASSPHRASE"}, file.name


def test_the_checkout_leaves_no_token_behind() -> None:
    found = [step for _, step in steps() if "actions/checkout" in step.get("uses", "")]
    assert found
    assert all(step["with"]["persist-credentials"] is False for step in found)


def test_what_a_pull_request_says_is_never_part_of_a_script() -> None:
    for where, step in steps():
        assert "${{" not in step.get("run", ""), f"{where}: hand it over as a variable"


def test_every_command_of_a_workflow_exists() -> None:
    for where, step in steps():
        script = step.get("run", "").replace("\\\n", " ")
        for line in script.splitlines():
            words = line.split()
            if not words or words[0].startswith(("|", "--")):
                continue
            program = words[0].split("=")[0]
            if program == "make":
                assert f"\n{words[1]}: " in (ROOT / "Makefile").read_text(), f"{where}: {line}"
                continue
            assert (
                program in PROGRAMS
                or (ROOT / program).exists()
                or program.startswith(".venv/bin/python")
            ), f"{where}: {line}"
            if found := re.search(r"python -m ([\w.]+)(?: (\w+))?", line):
                place = ROOT / found[1].replace(".", "/")
                assert place.with_suffix(".py").is_file() or (place / "__main__.py").is_file()
            for file in re.findall(r"(?:^|\s)((?:tools|policies)/[\w./-]+)", line):
                if not file.endswith(".venv"):
                    assert (ROOT / file).exists(), f"{where}: {file}"


@pytest.mark.parametrize(
    "command",
    [
        "tools.report preview",
        "tools.report comment",
        "tools.ci_identity prepare",
        "tools.recovery backup",
    ],
)
def test_every_option_that_a_workflow_gives_is_known(command: str) -> None:
    module, verb = command.split()
    asked = [str(ROOT / ".venv" / "bin" / "python"), "-m", module, verb, "--help"]
    known = subprocess.run(asked, capture_output=True, text=True, check=True, cwd=ROOT).stdout
    scripts = [step.get("run", "").replace("\\\n", " ") for _, step in steps()]
    lines = [
        line for script in scripts for line in script.splitlines() if f"{module} {verb}" in line
    ]
    assert lines
    for option in {option for line in lines for option in re.findall(r" (--[\w-]+)", line)}:
        assert option in known, f"{command} {option}"


def test_the_comment_is_found_again_by_its_marker() -> None:
    assert markdown.MARKER in (FOLDER / "preview.yaml").read_text()


def test_the_versions_are_those_of_the_lock() -> None:
    locked = re.search(r"^pulumi==([\d.]+)", (ROOT / "requirements.in").read_text(), re.M)
    assert locked
    given = [
        s["with"]["pulumi-version"] for _, s in steps() if "pulumi/actions" in s.get("uses", "")
    ]
    assert given == [locked[1]] * 3
    page = (ROOT / "docs" / "platform-engineer.md").read_text()
    assert f"](https://www.pulumi.com/docs/install/) {locked[1]}," in page


def test_the_kubeconfig_holds_no_token_and_asks_for_one() -> None:
    config = ci_identity.kubeconfig("mlhub-dev", "https://10.0.0.1:6443", "PEM", ROOT)
    user = config["users"][0]["user"]
    assert set(user) == {"exec"}
    assert user["exec"]["args"][-1] == "credential"
    assert config["current-context"] == "mlhub-dev"


def test_what_is_missing_in_the_environment_is_named() -> None:
    with pytest.raises(ci_identity.IdentityError, match="CLUSTER_SERVER and CLUSTER_CA"):
        ci_identity.kubeconfig("mlhub-dev", "", "", ROOT)


def test_outside_a_workflow_the_reason_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ACTIONS_ID_TOKEN_REQUEST_URL", raising=False)
    with pytest.raises(ci_identity.IdentityError, match="id-token: write"):
        ci_identity.token("mlhub")


def test_the_identity_is_written_for_the_user_alone(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name, value in {
        "RUNNER_TEMP": tmp_path, "GITHUB_ENV": tmp_path / "env", "CLUSTER_SERVER": "https://a",
        "CLUSTER_CA": "PEM", "AWS_ROLE_ARN": "arn:aws:iam::role/state",
    }.items():  # fmt: skip
        monkeypatch.setenv(name, str(value))
    ci_identity.prepare("mlhub-dev")
    exported = dict(line.split("=", 1) for line in (tmp_path / "env").read_text().splitlines())
    for path in (Path(exported["AWS_CONFIG_FILE"]), Path(exported["KUBECONFIG"])):
        assert path.stat().st_mode & 0o777 == 0o600


def test_the_cluster_is_given_a_new_token_before_the_one_it_has_ends(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Without a time, kubectl and the plug-in hand on the 401 of an ended one, then ask anew."""
    claims = json.dumps({"aud": "mlhub", "sub": "repo:a/b", "exp": 1_796_000_000}).encode()
    for filler in range(3):  # The payload comes in base64 of each length, without its padding.
        payload = base64.urlsafe_b64encode(claims + b" " * filler).decode().rstrip("=")
        given = f"e30.{payload}.c2ln"
        monkeypatch.setattr(ci_identity, "token", lambda audience, given=given: given)
        status = json.loads(json.dumps(ci_identity.credential()))["status"]
        assert status == {"token": given, "expirationTimestamp": "2026-11-30T00:52:20Z"}


STS_ANSWER = """
<AssumeRoleWithWebIdentityResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/">
  <AssumeRoleWithWebIdentityResult>
    <Credentials>
      <SessionToken>session</SessionToken><SecretAccessKey>secret</SecretAccessKey>
      <Expiration>2026-11-30T03:15:00Z</Expiration><AccessKeyId>key</AccessKeyId>
    </Credentials>
  </AssumeRoleWithWebIdentityResult>
</AssumeRoleWithWebIdentityResponse>
"""


def test_the_state_is_reached_by_a_token_of_the_moment_however_long_the_job_runs(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A token lives for five minutes: whoever reads the state asks for one when it needs it."""
    tokens, asked = iter(("first", "second")), list[dict[str, list[str]]]()

    class Sts(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"])).decode()
            asked.append(parse_qs(body))
            self.send_response(200)
            self.end_headers()
            self.wfile.write(STS_ANSWER.encode())

        def log_message(self, *_: object) -> None:
            pass

    monkeypatch.setattr(ci_identity, "token", lambda _: next(tokens))
    with ThreadingHTTPServer(("127.0.0.1", 0), Sts) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        for name, value in {
            "RUNNER_TEMP": tmp_path, "GITHUB_ENV": tmp_path / "env", "CLUSTER_SERVER": "https://a",
            "CLUSTER_CA": "PEM", "AWS_ROLE_ARN": "arn:aws:iam::role/state",
            "AWS_ENDPOINT_URL_STS": f"http://127.0.0.1:{server.server_port}/",
        }.items():  # fmt: skip
            monkeypatch.setenv(name, str(value))
        ci_identity.prepare("mlhub-prod")
        given = [ci_identity.state_credentials() for _ in range(2)]
        server.shutdown()
    assert [each["WebIdentityToken"] for each in asked] == [["first"], ["second"]]
    assert asked[0]["RoleArn"] == ["arn:aws:iam::role/state"]
    assert given[0] == {
        "Version": 1, "AccessKeyId": "key", "SecretAccessKey": "secret",
        "SessionToken": "session", "Expiration": "2026-11-30T03:15:00Z",
    }  # fmt: skip
    config = (tmp_path / "aws-config").read_text()
    assert config.startswith("[default]\ncredential_process = ")
    assert config.endswith("tools/ci_identity.py state\n")


def owners(file: str) -> list[str]:
    """Of a file, as GitHub finds them: the last line that fits it counts."""
    found: list[str] = []
    for line in (ROOT / ".github" / "CODEOWNERS").read_text().splitlines():
        if line and not line.startswith("#"):
            place, *teams = line.split()
            whole = place.removeprefix("/")
            if place == "*" or file == whole or (place.endswith("/") and file.startswith(whole)):
                found = teams
    return found


def test_who_may_change_a_stack_may_not_loosen_its_limits_by_that() -> None:
    anybodys = owners("stacks/Pulumi.dev.yaml")
    assert anybodys
    for file in ("policies/limits.yaml", "policies/mlhub_policies/rules.py"):
        assert owners(file)
        assert not set(owners(file)) & set(anybodys), file
    for file in ("stacks/Pulumi.prod.yaml", ".github/workflows/up.yaml", ".github/CODEOWNERS"):
        assert owners(file) not in ([], anybodys), file


def test_every_place_that_has_owners_is_there() -> None:
    for line in (ROOT / ".github" / "CODEOWNERS").read_text().splitlines():
        if line.startswith("/"):
            assert (ROOT / line.split()[0].removeprefix("/")).exists(), line
