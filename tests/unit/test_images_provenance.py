"""An image says what it was made from, and a commit elsewhere does not make it another image."""

import subprocess
from pathlib import Path

import pytest

from components import provenance
from tests.unit import recorder
from tests.unit.recorder import ROOT

PREFIX = "org.opencontainers.image"
WHO = ("-c", "user.name=a", "-c", "user.email=a@example.com")


def git(folder: Path, *arguments: str) -> str:
    command = ["git", *WHO, *arguments]
    return subprocess.run(
        command, cwd=folder, check=True, capture_output=True, text=True
    ).stdout.strip()


def commit(folder: Path, path: str, text: str) -> str:
    (folder / path).parent.mkdir(parents=True, exist_ok=True)
    (folder / path).write_text(text)
    git(folder, "add", "-A")
    git(folder, "commit", "-qm", path)
    return git(folder, "rev-parse", "HEAD")


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    folder = tmp_path / "checkout"
    folder.mkdir()
    git(folder, "init", "-q")
    commit(folder, "images/a/Dockerfile", "FROM scratch\n")
    commit(folder, "images/a/Dockerfile.dockerignore", "*\n!shared\n**/__pycache__\n")
    return folder


def revision(checkout: Path) -> str | None:
    return provenance.labels(checkout / "images/a", "1").get(f"{PREFIX}.revision")


def test_T10_the_revision_is_the_last_commit_of_what_the_image_is_made_of(checkout):
    first = commit(checkout, "images/shared/file", "one")
    commit(checkout, "images/b/Dockerfile", "FROM scratch\n")
    commit(checkout, "README.md", "else")
    assert revision(checkout) == first
    assert revision(checkout) != commit(checkout, "images/shared/file", "two")
    assert revision(checkout) == git(checkout, "rev-parse", "HEAD")


def test_what_is_not_committed_is_said(checkout):
    (checkout / "images/a/Dockerfile").write_text("FROM else\n")
    assert revision(checkout) == f"{git(checkout, 'log', '-1', '--format=%H')}-dirty"


def test_a_shallow_clone_and_a_plain_folder_name_no_revision(checkout, tmp_path):
    shallow = tmp_path / "shallow"
    git(tmp_path, "clone", "-q", "--depth=1", f"file://{checkout}", str(shallow))
    assert revision(shallow) is None
    git(checkout, "archive", "-o", str(tmp_path / "a.tar"), "HEAD")
    plain = tmp_path / "plain"
    plain.mkdir()
    subprocess.run(["tar", "-xf", str(tmp_path / "a.tar"), "-C", str(plain)], check=True)
    assert revision(plain) is None


@pytest.mark.parametrize(
    ("remote", "said"),
    [
        ("https://me:hunter2@git.example.com/team/mlhub.git", "https://git.example.com/team/mlhub"),
        ("https://git.example.com:8443/mlhub", "https://git.example.com:8443/mlhub"),
        # Cloned by SSH it is the same repository, and must be the same image.
        ("git@git.example.com:team/mlhub.git", "https://git.example.com/team/mlhub"),
        ("ssh://git@git.example.com:2222/team/mlhub.git", "https://git.example.com/team/mlhub"),
        ("/srv/mlhub", None),
        ("/srv/me@git.example.com:team/mlhub", None),
        ("file:///srv/mlhub", None),
    ],
)
def test_V9_the_source_is_a_web_address_without_an_account(checkout, remote, said):
    git(checkout, "remote", "add", "origin", remote)
    assert provenance.source(checkout) == said


def test_packed_software_keeps_its_own_version():
    assert f"{PREFIX}.version" not in provenance.labels(ROOT / "images/keycloak", "2026.11.0")
    assert provenance.labels(ROOT / "images/hub", "2026.11.0")[f"{PREFIX}.version"] == "2026.11.0"


def test_every_image_that_the_program_builds_has_the_labels():
    images = {r.name: r for r in recorder.platform("dev").of_type("docker-build:index:Image")}
    for name in ("base", "hub", "ml-cpu", "ml-gpu"):
        assert images[name].plain["labels"] == provenance.labels(
            ROOT / "images" / name, "2026.11.0"
        )
    assert images["financial-predictor"].plain["labels"][f"{PREFIX}.title"] == (
        "mlhub financial-predictor"
    )
