"""An upgrade of every image of the running stack at once, beneath what people have in it, and back.

The images have another version; those of Keycloak, Postgres and SeaweedFS, whose version is their
program's, another tag. What is tried is that each program stops, starts again from what `up` gives
it and finds its data, not that its next release can read them.
"""

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from bootstrap.paths import here
from tests.e2e.platform import Kubectl, Person, notebook, runs_are_served, wait_until
from tests.e2e.test_mlflow import ROUND_TRIP, result
from tests.e2e.test_recovery import SUMS, limits, place, precious  # noqa: F401 (a fixture)
from tests.e2e.test_restart import workloads
from tests.e2e.test_stack import CONFIG, kept, must, pulumi
from tools.recovery.agents import ROOT, mounted
from tools.recovery.place import Claim, Place

pytestmark = [pytest.mark.alone, pytest.mark.long]

TAG = "e2e-upgrade"
NOTEBOOK = "e2e-upgrade.ipynb"
RUNS = ("python", "-m", "notebooks.cli", "--json", "runs")
LOADED = """
import os, mlflow, numpy
loaded = mlflow.pyfunc.load_model(f"models:/{os.environ['E2E_NAME']}@champion")
print("RESULT", float(loaded.predict(numpy.array([[10.0]]))[0]))
"""


def images(kubectl: Kubectl) -> dict[str, str]:
    """By its name, each image of ours that a pod runs: tag and digest."""
    found = {}
    running = ("get", "pods", "-A", "--field-selector", "status.phase=Running")
    for pod in kubectl.json(*running)["items"]:
        for container in pod["spec"]["containers"]:
            if named := re.search(r"/mlhub/([\w-]+):(.*)", container["image"]):
                found[named[1]] = named[2]
    return found


@pytest.fixture
def upgraded(tmp_path: Path) -> Iterator[Callable[[], None]]:
    """`upgraded()` applies the stack with another version of each image; afterwards as it was."""

    def up(config: Path) -> None:
        argv = ("up", "--yes", "--skip-preview", "--config-file", str(config))
        print(must(pulumi(*argv, seconds=1500)))

    def apply() -> None:
        text = Path(CONFIG[1]).read_text()
        changed = text.replace("tag: local\n", f"tag: {TAG}\n")
        assert changed != text
        other = tmp_path / "Pulumi.local.yaml"
        other.write_text(changed)
        up(other)

    yield apply
    up(here().checkout / CONFIG[1])


def volumes(place: Place) -> dict[str, str]:  # noqa: F811
    """What lies on each volume that a pod may mount beside others: names, modes and checksums."""
    claims = [
        Claim(place.hub, name) for name in ("claim-alice", "datasets", "workspace-forecasting")
    ]
    with mounted(place.kubectl, claims, place.image()) as pod:
        return {
            claim.name: place.kubectl.execute(pod, "sh", "-c", f"cd {ROOT}/{claim.name} && {SUMS}")
            for claim in claims
        }


@pytest.mark.timeout(3600)
def test_T13_every_image_is_upgraded_and_people_find_all_that_they_had(
    person: Callable[[str], Person],
    place: Place,  # noqa: F811
    kubectl: Kubectl,
    upgraded: Callable[[], None],
):
    alice = person("alice").log_in().start_server()
    alice.write(NOTEBOOK, notebook("year = 1", "print('year', year)"))
    alice.run("open('/home/jovyan/datasets/raw/e2e-upgrade', 'w').write('kept')")
    logged: dict[str, Any] = json.loads(result(alice.run(f"%env E2E_NAME={TAG}\n{ROUND_TRIP}")))
    start = (*RUNS, "start", NOTEBOOK.removesuffix(".ipynb"))
    run = json.loads(kubectl.exec(alice.pod, *start))
    assert run["status"] == "succeeded", run
    before = limits(alice)
    alice.stop_server()
    rows, files = precious(place), volumes(place)
    identities = kept(kubectl)
    parts = {"execution", "hub", "keycloak", "mlflow", "postgres", "proxy", "seaweedfs"}
    assert parts <= images(kubectl).keys()

    upgraded()

    def all_upgraded() -> bool:
        after = images(kubectl)
        return all(after.get(name, "").startswith(f"{TAG}@sha256:") for name in parts)

    wait_until("each part is another image", all_upgraded, 300)
    wait_until("every part is ready", lambda: not workloads(kubectl), 300)
    wait_until("the execution service answers", runs_are_served, 120)
    assert kept(kubectl).items() >= identities.items()
    assert precious(place) == rows
    assert volumes(place) == files

    again = person("alice").log_in()
    assert limits(again) == before
    again.start_server()
    (server,) = kubectl.pod(again.pod)["spec"]["containers"]
    assert f"/ml-cpu:{TAG}@" in server["image"]
    predicted = float(result(again.run(f"%env E2E_NAME={TAG}\n{LOADED}")))
    assert predicted == pytest.approx(logged["predicted"])
    asked = (
        f"import mlflow; print('RESULT', mlflow.get_run('{logged['run']}').data.params['depth'])"
    )
    assert result(again.run(asked)) == "3"
    found = json.loads(kubectl.exec(again.pod, *RUNS, "show", run["run_id"]))
    assert (found["status"], found["output_notebook"]) == ("succeeded", run["output_notebook"])
    anew = json.loads(kubectl.exec(again.pod, *start))
    assert anew["status"] == "succeeded", anew
    again.stop_server()
