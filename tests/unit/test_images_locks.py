"""What the images install is pinned, hashed, and one version where versions meet."""

import re
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
IMAGES = ROOT / "images"
SOURCES = sorted([*IMAGES.glob("*/requirements.in"), *IMAGES.glob("packages/*requirements.in")])
USER_IMAGES = [f for f in SOURCES if re.search("^jupyterlab", f.read_text(), re.MULTILINE)]


def entries(lock: Path) -> list[tuple[Requirement, list[str]]]:
    """Requirement and hashes of each entry of a lock."""
    text = lock.read_text().replace("\\\n", " ")
    found = []
    for line in text.splitlines():
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        requirement, *hashes = line.split("--hash=")
        found.append((Requirement(requirement.strip()), [h.strip() for h in hashes]))
    return found


def pinned(lock: Path) -> dict[str, str]:
    """Name to version for this project's Python on Linux."""
    environment = {"python_version": "3.11", "python_full_version": "3.11.2"}
    environment |= {"sys_platform": "linux", "os_name": "posix", "platform_machine": "x86_64"}
    return {
        canonicalize_name(requirement.name): str(requirement.specifier).removeprefix("==")
        for requirement, _ in entries(lock)
        if not requirement.marker or requirement.marker.evaluate(environment)
    }


def wanted(source: Path) -> list[Requirement]:
    lines = (line.split(" #")[0].strip() for line in source.read_text().splitlines())
    return [Requirement(line) for line in lines if line and not line.startswith("#")]


def test_every_image_with_a_lock_is_found():
    assert {"base", "hub", "proxy", "ml-cpu", "packages"} <= {f.parent.name for f in SOURCES}
    assert USER_IMAGES


@pytest.mark.parametrize("source", SOURCES, ids=lambda f: f.parent.name)
def test_every_requirement_is_one_version_with_hashes(source):
    locked = entries(source.with_suffix(".txt"))
    assert locked
    for requirement, hashes in locked:
        assert re.fullmatch(r"==[^,*]+", str(requirement.specifier)), requirement
        assert hashes, f"{requirement} has no hash"
        assert all(re.fullmatch("sha256:[0-9a-f]{64}", h) for h in hashes), requirement
        assert requirement.url is None, f"{requirement} does not come from the package index"


@pytest.mark.parametrize("source", SOURCES, ids=lambda f: f.parent.name)
def test_the_lock_answers_its_source(source):
    versions = pinned(source.with_suffix(".txt"))
    for requirement in wanted(source):
        name = canonicalize_name(requirement.name)
        assert name in versions, f"{source}: {name} is not in the lock; run `make lock`"
        assert versions[name] in requirement.specifier, (
            f"{requirement} is locked at {versions[name]}"
        )


@pytest.mark.parametrize("source", SOURCES, ids=lambda f: f.parent.name)
def test_a_lock_names_no_host_and_no_path(source):
    text = source.with_suffix(".txt").read_text()
    assert "://" not in text
    assert "--index-url" not in text
    assert "--find-links" not in text


def test_T4_hub_and_single_user_servers_are_the_same_jupyterhub():
    hub = pinned(IMAGES / "hub/requirements.txt")["jupyterhub"]
    for source in USER_IMAGES:
        assert pinned(source.with_suffix(".txt"))["jupyterhub"] == hub, source.parent.name


def test_the_services_tested_here_are_those_of_the_hub_image():
    hub = pinned(IMAGES / "hub/requirements.txt")
    tested = pinned(ROOT / "requirements-dev.txt")
    for name in (
        "jupyterhub",
        "jupyterhub-kubespawner",
        "oauthenticator",
        "jupyterhub-idle-culler",
    ):
        assert tested[name] == hub[name], name


def test_T10_the_standard_image_has_the_table_of_packages():
    versions = pinned(IMAGES / "ml-cpu/requirements.txt")
    table = {"jupyterlab", "pandas", "scikit-learn", "matplotlib", "transformers", "litellm"}
    assert table | {"mlflow", "ipykernel", "papermill", "jupyterhub"} <= versions.keys()


def test_the_npm_lock_is_in_step_and_has_integrity_without_hosts():
    import json

    package = json.loads((IMAGES / "proxy/package.json").read_text())
    lock = json.loads((IMAGES / "proxy/package-lock.json").read_text())["packages"]
    assert lock[""]["dependencies"] == package["dependencies"]
    for name, entry in lock.items():
        if name:
            assert entry["integrity"].startswith("sha512-"), name
            assert "resolved" not in entry, name
    for name, version in package["dependencies"].items():
        assert lock[f"node_modules/{name}"]["version"] == version
