"""What the images install is pinned, hashed, and one version where versions meet."""

import re
from itertools import product
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tools.lock import of_projects

ROOT = Path(__file__).parents[2]
IMAGES = ROOT / "images"
SOURCES = sorted(
    {
        *IMAGES.glob("*/requirements.in"),
        *IMAGES.glob("packages/*requirements.in"),
        *of_projects(),
    }
)


def below(source: Path) -> Path | None:
    """The source that `source` includes."""
    included = re.search(r"^-r (\S+)$", source.read_text(), re.MULTILINE)
    return (source.parent / included[1]).resolve() if included else None


def wanted(source: Path) -> list[Requirement]:
    """What `source` and those below it ask for."""
    lines = (line.split("#")[0].strip() for line in source.read_text().splitlines())
    own = [Requirement(line) for line in lines if line and not line.startswith("-r ")]
    included = below(source)
    return [*own, *(wanted(included) if included else [])]


USER_IMAGES = [f for f in SOURCES if "jupyterlab" in {each.name for each in wanted(f)}]
ON_ANOTHER = [f for f in USER_IMAGES if below(f)]
ARCHITECTURES = ("x86_64", "aarch64")


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


def pinned(lock: Path, architecture: str = "x86_64") -> dict[str, str]:
    """Name to version for this project's Python on Linux."""
    environment = {"python_version": "3.11", "python_full_version": "3.11.2"}
    environment |= {"sys_platform": "linux", "os_name": "posix", "platform_system": "Linux"}
    environment |= {"platform_machine": architecture, "implementation_name": "cpython"}
    return {
        canonicalize_name(requirement.name): str(requirement.specifier).removeprefix("==")
        for requirement, _ in entries(lock)
        if not requirement.marker or requirement.marker.evaluate(environment)
    }


def test_every_image_with_a_lock_is_found():
    assert {"base", "hub", "proxy", "packages"} <= {f.parent.name for f in SOURCES}
    profiles = {"ml-cpu", "ml-gpu", "fine-tuning", "agent-dev", "financial-predictor"}
    profiles |= {"tensorflow-ray"}
    assert profiles <= {f.parent.name for f in USER_IMAGES}


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
    for requirement, architecture in product(wanted(source), ARCHITECTURES):
        machine = {"platform_machine": architecture}
        if requirement.marker and not requirement.marker.evaluate(machine):
            continue
        versions = pinned(source.with_suffix(".txt"), architecture)
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


TABLE = {
    "ml-cpu": "jupyterlab pandas scikit-learn matplotlib transformers litellm mlflow",
    "ml-gpu": "torch accelerate nvitop gpustat",
    "fine-tuning": "torch unsloth trl peft deepspeed bitsandbytes",
    "agent-dev": "langchain langgraph crewai autogen-agentchat chromadb qdrant-client faiss-cpu",
}
"""The packages of row T, column by column."""


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("image", TABLE)
def test_T10_every_image_has_its_column_of_the_table(image, architecture):
    versions = pinned(IMAGES / image / "requirements.txt", architecture)
    server = {"jupyterhub", "ipykernel", "papermill"}
    assert server | set(f"{TABLE['ml-cpu']} {TABLE[image]}".split()) <= versions.keys()


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_T10_the_gpu_images_have_cudas_libraries(architecture):
    for image in ("ml-gpu", "fine-tuning"):
        versions = pinned(IMAGES / image / "requirements.txt", architecture)
        assert {"nvidia-cublas", "nvidia-cudnn-cu13", "triton"} <= versions.keys()


def test_J7_a_lock_differs_between_architectures_only_where_the_docs_say_so():
    for source in SOURCES:
        lock = source.with_suffix(".txt")
        amd64, arm64 = (pinned(lock, architecture) for architecture in ARCHITECTURES)
        apart = set(amd64.items()) ^ set(arm64.items())
        assert {name for name, _ in apart} <= ONE_ARCHITECTURE, source.parent.name


ONE_ARCHITECTURE = {"xformers", "tensorflow", "tensorflow-cpu"}
"""Faster attention for older GPUs; Unsloth does without where there is no wheel of it. TensorFlow
for CPUs has the plain name on arm64."""


@pytest.mark.parametrize("source", ON_ANOTHER, ids=lambda f: f.parent.name)
def test_an_image_on_another_replaces_little_of_it(source):
    """What it replaces is stored and pulled twice: at most one package in twenty."""
    lower = pinned(below(source).with_suffix(".txt"))
    upper = pinned(source.with_suffix(".txt"))
    assert lower.keys() <= upper.keys()
    replaced = {name for name, version in lower.items() if upper[name] != version}
    assert len(replaced) <= len(lower) / 20, replaced


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
