"""A project's image is a few lines of a stack file: its name, what it stands on, its lock."""

import pytest

from components import preflight
from components.config import Project
from tests.unit import recorder
from tests.unit.recorder import ROOT

IMAGE = "docker-build:index:Image"
LOCK = "images/financial-predictor/requirements.txt"


def built() -> dict[str, recorder.Registration]:
    return {r.name: r for r in recorder.platform("dev").of_type(IMAGE)}


def test_J2_a_project_image_stands_on_its_user_image_and_sees_the_folder_of_its_lock() -> None:
    project = built()["financial-predictor"].plain
    assert project["buildArgs"]["BASE_IMAGE"].startswith("harbor.example.com/mlhub/ml-cpu:")
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


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"base": "ml-tpu"}, "images.build.projects[0].base is ml-tpu; one of agent-dev, base, "),
        (
            {"requirements": "images/gone/requirements.txt"},
            "images.build.projects[0].requirements is images/gone/requirements.txt, which is "
            "not there; write its requirements.in and run `make lock`",
        ),
    ],
)
def test_a_project_that_cannot_be_built_is_said_before_anything_is_made(given, said) -> None:
    stack = recorder.stack_file("dev")
    assert stack.images.build is not None
    mine = {"name": "financial-predictor", "base": "ml-cpu", "requirements": LOCK} | given
    build = stack.images.build
    build = build.model_copy(update={"projects": (Project(**mine), *build.projects[1:])})
    images = stack.images.model_copy(update={"build": build})
    found = list(preflight.missing_files(stack.model_copy(update={"images": images}), ROOT))
    assert len(found) == 1
    assert found[0].startswith(said)
