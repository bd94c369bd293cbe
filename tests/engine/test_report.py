"""The report's own ends of the engine: a chart rendered by the plug-in, two programs compared."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.services.hub import CHART, VALUES
from tools.render import Chart, RenderError, identity, renderer
from tools.report import charts
from tools.report.previews import Preview, Side, Step

pytestmark = [pytest.mark.engine, pytest.mark.timeout(300)]


@pytest.fixture
def on_path(bin_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(bin_dir), prepend=":")


def release(values: Any) -> Side:
    return Side({"chart": str(CHART), "values": values, "name": "hub", "namespace": "hub"}, {})


def test_T4_a_changed_value_is_a_changed_manifest(on_path: None) -> None:
    urn = "urn:pulumi:s::p::kubernetes:helm.sh/v3:Release::hub"
    more = {**VALUES, "proxy": {**VALUES["proxy"], "service": {"type": "NodePort"}}}
    step = Step("update", urn, True, release(VALUES), release(more))
    (change,) = charts.of(Preview(steps=(step,)), Path(), Path())
    assert change.problem == ""
    changed = {each.key[0:3:2]: each.diff for each in change.objects}
    assert "+  type: NodePort" in changed["Service", "proxy-public"]
    assert "network" in {danger.kind for danger in change.dangers}


def test_a_chart_that_refuses_its_values_says_what_helm_said(on_path: None) -> None:
    with renderer() as running, pytest.raises(RenderError, match=r"nonsense"):
        running.render(Chart(str(CHART), {**VALUES, "nonsense": True}))


def test_the_command_prints_manifests_without_secrets(on_path: None, tmp_path: Path) -> None:
    values = tmp_path / "values.yaml"
    values.write_text(yaml.safe_dump(VALUES))
    command = [sys.executable, "-m", "tools.render", str(CHART), str(values)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    objects = [each for each in yaml.safe_load_all(done.stdout) if each]
    assert ("Deployment", "hub") in {identity(each)[0:3:2] for each in objects}
    for each in objects:
        if each["kind"] == "Secret":
            assert set({**each.get("data", {}), **each.get("stringData", {})}.values()) == {
                "[secret]"
            }
