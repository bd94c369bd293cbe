"""An edited chart is a change of the Release, though pulumi-kubernetes sees its version alone."""

from pathlib import Path

import pytest

from components.jupyterhub import chart_digest, chart_version


@pytest.fixture
def chart(tmp_path: Path) -> Path:
    (tmp_path / "templates").mkdir()
    (tmp_path / "Chart.yaml").write_text("name: x\nversion: 1.2.3\n")
    (tmp_path / "templates" / "hub.yaml").write_text("kind: Deployment\n")
    return tmp_path


def test_the_version_is_the_charts_own(chart: Path):
    assert chart_version(chart) == "1.2.3"


def test_an_edited_added_or_moved_file_changes_the_digest(chart: Path):
    seen = [chart_digest(chart)]
    (chart / "templates" / "hub.yaml").write_text("kind: StatefulSet\n")
    seen.append(chart_digest(chart))
    (chart / "templates" / "proxy.yaml").write_text("")
    seen.append(chart_digest(chart))
    (chart / "templates" / "proxy.yaml").rename(chart / "templates" / "chp.yaml")
    seen.append(chart_digest(chart))
    assert len(set(seen)) == 4


def test_the_same_files_have_the_same_digest_wherever_they_lie(chart: Path, tmp_path: Path):
    before = chart_digest(chart)
    assert before == chart_digest(chart.rename(tmp_path.parent / "elsewhere"))
