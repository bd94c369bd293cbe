"""The builds of what only other stacks use, each with its smoke test; no image is kept.

BuildKit has the layers of `local` already, so that what stands on them costs its own packages and
its smoke test. `make e2e` runs these beside the tests by a browser. The other images for GPUs are
built by hand (docs/images.md).
"""

import os
import re
import subprocess

import pytest

from tests.e2e.test_images import CHECKOUT, OURS, ask

pytestmark = pytest.mark.timeout(900)


def build(folder: str, base: str, project: str | None = None) -> str:
    """The whole build with its smoke test; the image is kept nowhere. Returns what that said, which
    is nothing where BuildKit knows of the same build that it went well."""
    digest = ask(base, "manifests/local").headers["Docker-Content-Digest"]
    command = [
        "buildctl",
        "--addr",
        "unix:///run/mlhub/buildkitd.sock",
        "build",
        "--progress=plain",
    ]
    command += ["--frontend=dockerfile.v0", "--local=context=images"]
    command += [f"--local=dockerfile=images/{folder}", "--opt=platform=linux/amd64"]
    command += [f"--opt=build-arg:BASE_IMAGE={OURS}{base}@{digest}"]
    if project:
        command += [f"--local=project=images/{project}", "--opt=context:project=local:project"]
        command += [f"--opt=build-arg:PROJECT={project}"]
    if bundle := os.environ.get("SSL_CERT_FILE"):
        command += [f"--secret=id=ca,src={bundle}"]
    done = subprocess.run(
        command, cwd=CHECKOUT, check=False, capture_output=True, text=True, timeout=900
    )
    assert done.returncode == 0, done.stderr[-4000:]
    if done.stderr.rstrip().endswith(" CACHED"):
        return ""
    assert "import notebooks.start" in done.stderr
    return done.stderr


def test_T10_agent_dev_builds_and_passes_its_smoke_test() -> None:
    build("agent-dev", "base")


def test_T10_M5_ml_gpu_builds_and_pytorchs_template_learns_in_it() -> None:
    """Without a GPU. The build's last step executes the template (images/jupyter/template.py)."""
    if not (said := build("ml-gpu", "base")):
        return  # nothing has changed since it was read here
    learnt = re.search(r"template model-training-pytorch .*'test_accuracy': ([0-9.]+)", said)
    assert learnt is not None, said[-2000:]
    assert float(learnt[1]) > 0.85


def test_J2_the_projects_image_builds_and_its_requirements_import() -> None:
    build("project", "ml-cpu", "financial-predictor")
