"""`make new-stack` gives a file that the model takes, and takes nothing away."""

import re

import jsonschema
import pytest
import yaml

from components.stackfile import schema
from tests.unit.recorder import ROOT
from tools.new_stack import LIMITS, TEMPLATE, checked, main, new_stack


def test_the_file_is_one_that_the_model_and_the_schema_take(tmp_path):
    file = new_stack("team-a", tmp_path)
    assert file.name == "Pulumi.team-a.yaml"
    assert checked("team-a", file.read_text()) == ["keycloak_client_secret", "harbor_password"]
    jsonschema.validate(yaml.safe_load(file.read_text()), schema())


def test_no_two_stacks_share_a_realm_whose_clients_and_groups_have_fixed_names(tmp_path):
    files = [new_stack("team-a", tmp_path), new_stack("team-b", tmp_path)]
    files += sorted((ROOT / "stacks").glob("Pulumi.*.yaml"))
    found = [yaml.safe_load(file.read_text())["config"]["mlhub:identity"] for file in files]
    realms = [(one["keycloak"]["url"], one["realm"]) for one in found if "keycloak" in one]
    assert len(realms) >= 5
    assert len(set(realms)) == len(realms)


def test_the_database_is_not_where_shared_files_are(tmp_path):
    text = new_stack("team-a", tmp_path).read_text()
    foundation = yaml.safe_load(text)["config"]["mlhub:foundation"]
    assert foundation["provisioner"] == "ebs.csi.aws.com"


def test_what_the_file_only_suggests_is_right_as_well():
    text = TEMPLATE.format(name="team-a")
    suggested = (
        r"^( *)# (mlhub:mlflow:|  artifacts:|    (?:endpoint|bucket|access_key):|s3:|build:)"
    )
    given, count = re.subn(suggested, r"\1\2", text, flags=re.MULTILINE)
    assert count == 7
    given = re.sub("^ *promote:.*\n", "", given, flags=re.MULTILINE)
    assert checked("team-a", given)[-1] == "s3_secret_key"
    assert "mlhub:s3_secret_key --stack team-a" in text
    assert yaml.safe_load(given)["config"]["mlhub:mlflow"]["artifacts"]["bucket"] == "mlflow-team-a"


def test_the_context_is_the_one_that_the_workflows_make():
    config = yaml.safe_load(TEMPLATE.format(name="team-a"))["config"]
    assert config["mlhub:cluster"] == {"context": "mlhub-team-a"}
    for workflow in ("preview", "up", "backup"):
        text = (ROOT / ".github" / "workflows" / f"{workflow}.yaml").read_text()
        assert 'prepare --context "mlhub-$STACK"' in text


def test_the_steps_that_follow_and_the_limits_are_printed(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("tools.new_stack.STACKS", tmp_path)
    monkeypatch.setattr("sys.argv", ["new_stack", "team-a"])
    assert main() == 0
    printed = capsys.readouterr().out
    assert "  pulumi config set --secret mlhub:harbor_password --stack team-a\n" in printed
    assert printed.endswith(LIMITS.format(name="team-a"))


def test_the_page_of_policies_shows_the_limits_of_a_new_stack():
    shown = LIMITS.format(name="team-a")
    page = (ROOT / "docs" / "policies.md").read_text()
    assert "".join(f"      {line}\n" for line in shown.splitlines()) in page


def test_a_stack_that_is_there_is_left_as_it_is(tmp_path):
    (tmp_path / "Pulumi.team-a.yaml").write_text("mine")
    with pytest.raises(ValueError, match="is there already; edit it, or choose another name"):
        new_stack("team-a", tmp_path)
    assert (tmp_path / "Pulumi.team-a.yaml").read_text() == "mine"


@pytest.mark.parametrize("name", ["", "Team", "../x", "1st", "team-", "a" * 32])
def test_a_name_that_pulumi_or_a_file_could_not_have_is_refused(name, tmp_path):
    with pytest.raises(ValueError, match="are required"):
        new_stack(name, tmp_path)
    assert not any(tmp_path.iterdir())
