"""The images that the registry of the running stack holds, and what all are locked to."""

import os
import re
import subprocess
import sys
import zlib
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import requests
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from tests.e2e.platform import Kubectl

CHECKOUT = Path(__file__).parents[2]
REGISTRY = "localhost:5000"
OURS = f"{REGISTRY}/mlhub/"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
LABELS = {f"org.opencontainers.image.{key}" for key in ("title", "description", "version")}
LOCAL = (
    "base",
    "hub",
    "proxy",
    "ml-cpu",
    "mlflow",
    "execution",
    "keycloak",
    "postgres",
    "seaweedfs",
)


def ask(image: str, what: str, **options: Any) -> requests.Response:
    url, trusted = f"https://{REGISTRY}/v2/mlhub/{image}/{what}", os.environ["SSL_CERT_FILE"]
    accept = {"Accept": MANIFEST}
    answer = requests.get(url, headers=accept, verify=trusted, timeout=60, **options)
    answer.raise_for_status()
    return answer


@cache
def config(image: str) -> Any:
    manifest = ask(image, "manifests/local").json()
    return ask(image, f"blobs/{manifest['config']['digest']}").json()["config"]


@cache
def compressed(digest: str) -> int:
    """Bytes of a plain layer under gzip at its quickest: a registry that packs it has no more."""
    packer = zlib.compressobj(1, wbits=31)
    answer = ask("base", f"blobs/{digest}", stream=True)
    size = sum(len(packer.compress(chunk)) for chunk in answer.iter_content(2**20))
    return size + len(packer.flush())


@pytest.mark.parametrize(("image", "megabytes"), [("hub", 250), ("ml-cpu", 1200)])
def test_T10_an_image_is_small(image: str, megabytes: int) -> None:
    layers = ask(image, "manifests/local").json()["layers"]
    sizes = [
        layer["size"] if layer["mediaType"].endswith("gzip") else compressed(layer["digest"])
        for layer in layers
    ]
    assert sum(sizes) <= megabytes * 10**6, sizes


@pytest.mark.parametrize("image", LOCAL)
def test_T10_an_image_says_what_it_is_and_starts_without_rights_under_tini(image: str) -> None:
    made = config(image)
    assert made["Labels"].keys() >= LABELS
    assert made["User"] == "1000:100"
    assert made["Entrypoint"][0] == "tini"


def test_T10_each_pod_has_its_bill_and_its_image_knows_when_it_is_well(kubectl: Kubectl) -> None:
    """Kubernetes reads no image's health check: the pods' probes are what it goes by."""
    seen = set()
    for pod in kubectl.json("get", "pods", "--all-namespaces")["items"]:
        place = ("-n", pod["metadata"]["namespace"], "exec", pod["metadata"]["name"])
        ready = {s["name"] for s in pod["status"].get("containerStatuses", []) if s["ready"]}
        for container in pod["spec"]["containers"]:
            image, _, tag = container["image"].removeprefix(OURS).partition(":")
            if image not in LOCAL or not tag or container["name"] not in ready or image in seen:
                continue
            enter = (*place, "--container", container["name"], "--")
            bill = kubectl(*enter, "cat", "/usr/local/share/sbom/mlhub.cdx.json")
            assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(bill) is None, image
            assert "pkg:deb/debian/tini@" in bill
            # One program of the four that are in it, so that it has no check of its own.
            if image != "seaweedfs":
                kind, *command = config(image)["Healthcheck"]["Test"]
                assert kind in ("CMD", "CMD-SHELL")
                kubectl(*enter, *(["sh", "-c"] if kind == "CMD-SHELL" else []), *command)
            seen.add(image)
    assert {"hub", "proxy", "mlflow", "execution", "keycloak", "postgres", "seaweedfs"} <= seen


# The other architecture

LOCKS = sorted((CHECKOUT / "images").glob("*/requirements.txt"))
FROM_SOURCE = re.compile(r"^(?:deepspeed|gpustat)==(?:.*\\\n)*.*\n", re.MULTILINE)
"""Plain Python that is published without a wheel; the Dockerfiles make one."""


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: lock.parent.name)
def test_J7_all_that_is_locked_has_a_wheel_for_arm64(lock: Path, tmp_path: Path) -> None:
    """By the package index, hashes compared, so that it needs no machine of that kind."""
    wheels = tmp_path / "requirements.txt"
    wheels.write_text(FROM_SOURCE.sub("", lock.read_text()))
    command = [sys.executable, "-m", "uv", "pip", "install", "--dry-run", "--only-binary=:all:"]
    command += ["--require-hashes", "--no-deps", "--python-version=3.11", "--no-config"]
    command += ["--python-platform=aarch64-manylinux_2_36", f"--target={tmp_path / 'none'}"]
    done = subprocess.run(
        [*command, "--requirement", str(wheels)], check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "Would install" in done.stderr
