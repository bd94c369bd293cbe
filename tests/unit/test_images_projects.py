"""A project's image is a few lines of a stack file: its name, what it stands on, its lock."""

import shutil
from pathlib import Path

import pytest

from components import names, preflight
from components.config import Project, StackFile
from components.stackfile import contradictions
from tests.unit import recorder
from tests.unit.recorder import ROOT

IMAGE = "docker-build:index:Image"
LOCK = "images/financial-predictor/requirements.txt"


def built() -> dict[str, recorder.Registration]:
    return {r.name: r for r in recorder.platform("dev").of_type(IMAGE)}


def test_J2_a_project_image_stands_on_its_user_image_and_sees_the_folder_of_its_lock() -> None:
    project = built()["financial-predictor"].plain
    assert project["buildArgs"]["BASE_IMAGE"].startswith("harbor.example.com/mlhub/ml-cpu:")
    assert project["buildArgs"]["PROJECT"] == "financial-predictor"
    assert project["dockerfile"]["location"] == "images/project/Dockerfile"
    assert project["context"] == {
        "location": "images",
        "named": {"project": {"location": "images/financial-predictor"}},
    }


def test_J7_a_project_image_is_for_both_architectures() -> None:
    assert built()["financial-predictor"].plain["platforms"] == ["linux/amd64", "linux/arm64"]


def test_no_other_image_is_built_again_for_a_projects_sake() -> None:
    for name, image in built().items():
        if name not in ("financial-predictor", "tensorflow-ray"):
            assert image.plain["context"] == {"location": "images"}


def test_a_profile_may_run_a_projects_image() -> None:
    assert list(preflight.missing_files(recorder.stack_file("dev"), ROOT)) == []


def with_projects(*given: dict[str, str]) -> StackFile:
    """`dev` with these projects instead of its first."""
    stack = recorder.stack_file("dev")
    build = stack.images.build
    assert build is not None
    mine = {"name": "financial-predictor", "base": "ml-cpu", "requirements": LOCK}
    projects = (*(Project(**mine | each) for each in given), *build.projects[1:])
    images = stack.images.model_copy(
        update={"build": build.model_copy(update={"projects": projects})}
    )
    return stack.model_copy(update={"images": images})


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (
            {"base": "ml-tpu"},
            "images.build.projects[0].base is ml-tpu; one of agent-dev, fine-tuning, ml-cpu, "
            "ml-gpu is required, the folders of images/ with a Dockerfile for people's servers",
        ),
        ({"base": "postgres"}, "images.build.projects[0].base is postgres; one of agent-dev, "),
        ({"base": "project"}, "images.build.projects[0].base is project; one of agent-dev, "),
        ({"base": "tensorflow-ray"}, "images.build.projects[0].base is tensorflow-ray; one of "),
        (
            {"requirements": "images/gone/requirements.txt"},
            "images.build.projects[0].requirements is images/gone/requirements.txt, which is "
            "not there; write its requirements.in and run `make lock`",
        ),
    ],
)
def test_a_project_that_cannot_be_built_is_said_before_anything_is_made(given, said) -> None:
    found = list(preflight.missing_files(with_projects(given), ROOT))
    assert len(found) == 1
    assert found[0].startswith(said)


@pytest.mark.parametrize("taken", ["hub", "proxy", "postgres", "ml-cpu", "project", "cache"])
def test_a_project_takes_no_other_images_place(taken: str) -> None:
    found = list(preflight.missing_files(with_projects({}, {"name": taken}), ROOT))
    assert found == [
        f"images.build.projects[1].name is {taken}, which the registry has for an image of "
        "images/ or for the builds' cache; another is required"
    ]


def test_two_projects_of_one_name_are_said_since_one_would_be_lost() -> None:
    assert list(contradictions(with_projects({}, {"base": "ml-gpu"}))) == [
        'images.build.projects[].name is "financial-predictor" 2 times; each must differ'
    ]


def test_a_lock_without_its_source_is_said_since_the_builds_last_step_reads_it(tmp_path: Path):
    shutil.copytree(ROOT / "images", tmp_path / "images")
    (tmp_path / LOCK).with_suffix(".in").unlink()
    assert list(preflight.missing_files(recorder.stack_file("dev"), tmp_path)) == [
        f"images.build.projects[0].requirements is {LOCK}, which has no requirements.in beside it; "
        "write there what the project needs and run `make lock`"
    ]


@pytest.mark.parametrize("stack", ["dev", "prod"])
@pytest.mark.parametrize("image", ["hub", "project", "execution"])
def test_no_profile_runs_an_image_of_the_platforms_own(stack: str, image: str) -> None:
    given = recorder.stack_file(stack)
    first = given.profiles[0].model_copy(update={"image": image})
    changed = given.model_copy(update={"profiles": (first, *given.profiles[1:])})
    assert list(contradictions(changed)) == [
        f"profiles[0].image is {image}, which is of the platform's own; "
        "an image for people's servers is required, such as ml-cpu"
    ]


def test_every_image_is_for_peoples_servers_or_of_the_platforms_own() -> None:
    for dockerfile in ROOT.glob("images/*/Dockerfile"):
        for_people = "/usr/local/bin/mlhub-start" in dockerfile.read_text(encoding="utf-8")
        assert for_people != (dockerfile.parent.name in names.PLATFORM_IMAGES), dockerfile
