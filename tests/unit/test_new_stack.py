"""`make new-stack` gives a file that the model takes, and takes nothing away."""

import jsonschema
import pytest
import yaml

from components.stackfile import schema
from tools.new_stack import checked, new_stack


def test_the_file_is_one_that_the_model_and_the_schema_take(tmp_path):
    file = new_stack("team-a", tmp_path)
    assert file.name == "Pulumi.team-a.yaml"
    assert checked("team-a", file.read_text()) == ["keycloak_client_secret", "harbor_password"]
    jsonschema.validate(yaml.safe_load(file.read_text()), schema())


def test_a_stack_that_is_there_is_left_as_it_is(tmp_path):
    (tmp_path / "Pulumi.team-a.yaml").write_text("mine")
    with pytest.raises(ValueError, match="is there already; edit it, or choose another name"):
        new_stack("team-a", tmp_path)
    assert (tmp_path / "Pulumi.team-a.yaml").read_text() == "mine"


@pytest.mark.parametrize("name", ["", "Team", "../x", "1st", "a" * 32])
def test_a_name_that_pulumi_or_a_file_could_not_have_is_refused(name, tmp_path):
    with pytest.raises(ValueError, match="are required"):
        new_stack(name, tmp_path)
    assert not any(tmp_path.iterdir())
