"""What `make new-stack` writes and prints keeps every rule, as it stands."""

from pathlib import Path

import pulumi
import yaml

from components.platform import Platform
from components.stackfile import load as stack_file
from mlhub_policies.limits import FILE, load
from tests.policies.stack import refusals, remarks, resources_of
from tests.unit.recorder import given_secrets, raw, run
from tools.new_stack import LIMITS, TEMPLATE

NAME = "team-a"


def test_the_template_with_the_limits_beside_it_breaks_no_rule(tmp_path: Path) -> None:
    file = tmp_path / "limits.yaml"
    file.write_text(FILE.read_text() + LIMITS.format(name=NAME))
    limits = load(file)
    assert limits.stacks[NAME].at_least == "staging"
    secrets = given_secrets()
    pulumi.runtime.set_all_config(secrets, list(secrets))
    config = raw(yaml.safe_load(TEMPLATE.format(name=NAME)))
    made = run(lambda: Platform(stack_file(NAME, config | secrets, secrets)), NAME)
    resources = resources_of(made, NAME)
    assert any(r.type.endswith(":Release") for r in resources)
    assert refusals(resources, limits) == []
    assert remarks(resources, limits) == []
