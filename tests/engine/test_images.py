"""What an `up` builds and what it leaves alone, by the real plug-in, BuildKit and registry.

The images are of a few bytes and run nothing, so that both architectures are built on any machine;
those of the platform are built by `make up` itself.
"""

import json
import os
import subprocess
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import requests

from tests.engine.conftest import CHECKOUT, own_stacks
from tests.engine.environment import REGISTRY
from tests.engine.stack import Stack

# Alone, since whatever else builds is counted with it, and slows it down.
pytestmark = [pytest.mark.engine, pytest.mark.timeout(600), pytest.mark.alone]

INDEX = "application/vnd.oci.image.index.v1+json"
PROGRAM = f"""
    import sys
    sys.path.insert(0, {str(CHECKOUT)!r})
    import pulumi
    import pulumi_random as random
    from components.config import Build
    from components.images import Images, ImagesArgs

    build = Build(
        tag="1",
        builder="mlhub",
        debian="localhost:5000/mlhub/debian:bookworm",
        platforms=("linux/amd64", "linux/arm64"),
    )
    repository = pulumi.Config().require("repository")
    images = Images("images", ImagesArgs(repository, build, ["hub", "proxy"]))
    # Stands for what runs the image: it is made anew where it is given another digest.
    random.RandomId("runs", byte_length=8, keepers={{"image": images.built["hub"].reference}})
"""


@dataclass
class Built:
    stack: Stack
    repository: str

    @property
    def images(self) -> Path:
        return self.stack.project / "images"

    def state(self) -> tuple[dict[str, str], str]:
        """The digest of each image, and what runs one."""
        made = {r["urn"].rpartition("::")[2]: r for r in self.stack.resources()}
        images = {name: made[name]["outputs"]["digest"] for name in ("base", "hub", "proxy")}
        return images, made["runs"]["id"]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory, bin_dir: Path) -> Iterator[Built]:
    repository = f"engine/images-{uuid.uuid4().hex[:8]}"
    with own_stacks(tmp_path_factory.mktemp("images"), bin_dir) as new:
        made = Built(new(PROGRAM), repository)
        made.stack.configure(repository=f"{REGISTRY}/{repository}")
        for image in ("base", "hub", "proxy"):
            folder = made.images / image
            folder.mkdir(parents=True)
            below = "scratch" if image == "base" else "${BASE_IMAGE}"
            (folder / "Dockerfile").write_text(
                f"ARG BASE_IMAGE\nFROM {below}\nCOPY {image}/file /{image}\n"
            )
            (folder / "Dockerfile.dockerignore").write_text(f"*\n!{image}/file\n")
            (folder / "file").write_text("first\n")
        made.stack.up()
        yield made


def builds() -> set[str]:
    """Every build that BuildKit remembers, failed ones too."""
    command = ["buildctl", "--addr", "unix:///run/mlhub/buildkitd.sock", "debug", "histories"]
    lines = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    return {line.split()[1] for line in lines[1:]}


def asked(built: Built, method: str, image: str, reference: str) -> requests.Response:
    """What the registry answers of that image's index."""
    url = f"https://{REGISTRY}/v2/{built.repository}/{image}/manifests/{reference}"
    trusted = os.environ["SSL_CERT_FILE"]
    return requests.request(method, url, headers={"Accept": INDEX}, verify=trusted, timeout=30)


def test_J7_both_architectures_are_in_the_one_digest_that_is_deployed(built: Built) -> None:
    for image, digest in built.state()[0].items():
        index = asked(built, "GET", image, digest).json()
        found = {entry["platform"]["architecture"] for entry in index["manifests"]}
        assert {"amd64", "arm64"} <= found, json.dumps(index)


def test_T10_unchanged_inputs_build_nothing_and_take_no_time(built: Built) -> None:
    before, start = builds(), time.monotonic()
    built.stack.up("--expect-no-changes")
    took = time.monotonic() - start
    assert builds() == before
    assert took < 10, f"{took:.1f} s"


def test_T10_a_changed_file_builds_its_image_and_what_stands_on_it(built: Built) -> None:
    (first, ran), earlier = built.state(), builds()
    (built.images / "hub" / "file").write_text("second\n")
    built.stack.up()
    second, runs = built.state()
    assert {image for image in first if first[image] != second[image]} == {"hub"}
    assert len(builds() - earlier) == 1
    assert runs != ran

    (built.images / "base" / "file").write_text("second\n")
    built.stack.up()
    third, _ = built.state()
    assert {image for image in second if second[image] != third[image]} == {"base", "hub", "proxy"}


def test_T10_a_failed_build_leaves_what_runs_as_it_was(built: Built) -> None:
    before = built.state()
    dockerfile = built.images / "hub" / "Dockerfile"
    whole = dockerfile.read_text()
    dockerfile.write_text(f"{whole}COPY nothing-of-that-name /\n")
    said = built.stack.fails("up", "--yes", "--skip-preview")
    assert "nothing-of-that-name" in said
    assert built.state() == before

    dockerfile.write_text(whole)
    built.stack.up("--expect-no-changes")
    assert built.state() == before


def test_T10_an_image_that_the_registry_lost_is_built_again(built: Built) -> None:
    """Nothing else would tell before a pod starts on a node that has not got it."""
    digest = built.state()[0]["proxy"]
    assert asked(built, "DELETE", "proxy", digest).status_code == 202
    assert asked(built, "GET", "proxy", digest).status_code == 404
    built.stack.up("--refresh")
    assert asked(built, "GET", "proxy", built.state()[0]["proxy"]).status_code == 200
