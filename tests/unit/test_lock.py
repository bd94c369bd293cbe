"""What `make lock` locks: the program's, the images', and the projects' of any stack file."""

from pathlib import Path

import pytest

from tools import audit, lock

STACK = """config:
  mlhub:images:
    build:
      projects:
        - {name: mine, base: ml-cpu, requirements: projects/mine/requirements.txt}
"""


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    for folder in ("stacks", "images/ml-cpu", "projects/mine", "projects/of-nobody"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "stacks/Pulumi.dev.yaml").write_text(STACK)
    (tmp_path / "stacks/Pulumi.prod.yaml").write_text("config:\n  mlhub:images: {promote: {}}\n")
    (tmp_path / "images/ml-cpu/requirements.in").write_text("pandas\n")
    mine = "-r ../../images/ml-cpu/requirements.in\nnumpy\n"
    (tmp_path / "projects/mine/requirements.in").write_text(mine)
    (tmp_path / "projects/of-nobody/requirements.in").write_text("numpy\n")
    return tmp_path


def test_J2_a_projects_lock_is_made_wherever_its_folder_is(checkout: Path) -> None:
    found = [str(source.relative_to(checkout)) for source in lock.sources(checkout)]
    assert found == ["images/ml-cpu/requirements.in", "projects/mine/requirements.in"]


def test_a_project_in_images_is_locked_once() -> None:
    found = lock.sources()
    assert len(set(found)) == len(found)


def test_a_project_without_a_source_is_said(checkout: Path) -> None:
    (checkout / "projects/mine/requirements.in").unlink()
    with pytest.raises(SystemExit, match=r"^stacks/Pulumi\.dev\.yaml: .* write projects/mine/"):
        lock.sources(checkout)


def test_what_is_locked_is_audited(checkout: Path) -> None:
    assert checkout / "projects/mine/requirements.txt" in audit.locks(checkout)
