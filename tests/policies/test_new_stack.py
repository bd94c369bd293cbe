"""What `make new-stack` writes and prints keeps every rule, and so does a chart in a folder with
the limits that the pages tell of.
"""

import subprocess
from pathlib import Path

import pulumi
import pytest
import yaml

from components.platform import Platform
from components.stackfile import load as stack_file
from components.stackfile import with_chart
from mlhub_policies.limits import FILE, Limits, LimitsError, load
from mlhub_policies.rule import Resource
from tests.pages import ROOT, text, told
from tests.policies.stack import HUB, changed, program, refusals, remarks, resources_of
from tests.unit.recorder import given_secrets, raw, registered, run
from tests.unit.recorder import stack_file as stack_of
from tools.new_stack import LIMITS, TEMPLATE

NAME = "team-a"
LITE = "charts/jupyterhub-lite"
OF_A_FOLDER = f"charts: [{{chart: {LITE}}}]"


def limits_of(folder: Path, added: str) -> Limits:
    file = folder / "limits.yaml"
    file.write_text(FILE.read_text() + added)
    return load(file)


def made_of(template: str) -> list[Resource]:
    secrets = given_secrets()
    pulumi.runtime.set_all_config(secrets, list(secrets))
    config = raw(yaml.safe_load(template))
    made = run(lambda: Platform(stack_file(NAME, config | secrets, secrets)), NAME)
    return resources_of(made, NAME)


def test_the_template_with_the_limits_beside_it_breaks_no_rule(tmp_path: Path) -> None:
    limits = limits_of(tmp_path, LIMITS.format(name=NAME))
    assert limits.stacks[NAME].at_least == "staging"
    resources = made_of(TEMPLATE.format(name=NAME))
    assert any(r.type.endswith(":Release") for r in resources)
    assert refusals(resources, limits) == []
    assert remarks(resources, limits) == []


def test_a_site_without_a_chart_repository_is_told_what_its_limits_need(tmp_path: Path) -> None:
    lines = TEMPLATE.format(name=NAME).splitlines()
    (chart,) = [line for line in lines if line.startswith("    chart: ")]
    resources = made_of("\n".join(lines).replace(chart, f"    chart: {{path: {LITE}}}"))
    printed = LIMITS.format(name=NAME)
    ((broken, _),) = refusals(resources, limits_of(tmp_path, printed))
    assert broken == "pinned-chart"

    named = printed.replace("charts: *released", OF_A_FOLDER)
    with pytest.raises(LimitsError, match="at least as safe as staging, and its charts"):
        limits_of(tmp_path, named)
    limits = limits_of(tmp_path, named.replace("    at_least: staging\n", ""))
    assert refusals(resources, limits) == []
    (item,) = [
        part
        for part in text(ROOT / "docs/platform-engineer.md").split("\n- ")
        if part.startswith("Chart: ")
    ]
    assert f"`{OF_A_FOLDER}`" in item
    assert "`at_least`" in item


def test_a_preview_with_an_unpacked_chart_breaks_the_rule_that_the_page_names() -> None:
    made = registered(with_chart(stack_of("prod"), LITE), "prod")
    ((broken, _),) = refusals(resources_of(made, "prod"))
    page = text(ROOT / "docs/charts.md")
    (told_of,) = [part for part in page.split("\n\n") if "MLHUB_HUB_CHART=" in part]
    assert f"`{broken}`" in told_of


def test_the_switch_of_charts_on_its_page_breaks_no_rule(tmp_path: Path) -> None:
    switched = changed(program("local"), HUB, {("chart",): "charts/jupyterhub"})
    assert [name for name, _ in refusals(switched)] == ["pinned-chart"]
    (tmp_path / "policies").mkdir()
    (tmp_path / "stacks").mkdir()
    file = tmp_path / "policies/limits.yaml"
    file.write_text(FILE.read_text())
    (tmp_path / "stacks/Pulumi.local.yaml").touch()
    for sed in told("docs/charts.md", "sed"):
        subprocess.run(sed.arguments, cwd=tmp_path, check=True)
    assert refusals(switched, load(file)) == []
