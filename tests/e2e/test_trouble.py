"""Why a server does not start, from what this Kubernetes really says about pods that cannot.

The hub's own part, a sentence on the page within seconds, is held by tests/services; here are the
words that it reads. No GPU is needed to have none free.
"""

import json
import subprocess
import time
from collections.abc import Iterator
from typing import Any

import pytest

from mlhub.hub import trouble
from tests.e2e.platform import Kubectl

SPACE = "e2e-trouble"
IMAGE = "localhost:5000/mlhub/debian:bookworm"


def pod(name: str, *, image: str = IMAGE, claim: str = "", **limits: str) -> dict[str, Any]:
    container: dict[str, Any] = {
        "name": "notebook",
        "image": image,
        "command": ["sleep", "60"],
        "resources": {"limits": {"cpu": "10m", "memory": "32Mi", **limits}},
    }
    spec: dict[str, Any] = {"containers": [container], "terminationGracePeriodSeconds": 0}
    if claim:
        spec["volumes"] = [{"name": "home", "persistentVolumeClaim": {"claimName": claim}}]
    about = {"name": name, "namespace": SPACE}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": about, "spec": spec}


PODS = [
    pod("image", image="localhost:5000/mlhub/nothing-of-that-name:1"),
    pod("gpu", **{"nvidia.com/gpu": "1"}),
    pod("memory", memory="4000Gi"),
    pod("volume", claim="never-bound"),
]
OTHERS = [
    {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": SPACE}},
    {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": "never-bound", "namespace": SPACE},
        "spec": {
            "accessModes": ["ReadWriteOnce"],
            "storageClassName": "no-such-class",
            "resources": {"requests": {"storage": "1Gi"}},
        },
    },
    {
        "apiVersion": "v1",
        "kind": "ResourceQuota",
        "metadata": {"name": "namespace", "namespace": SPACE},
        "spec": {"hard": {"limits.cpu": "2"}},
    },
]


@pytest.fixture(scope="module")
def asked(kubectl: Kubectl) -> Iterator[float]:
    """When the pods were asked for."""
    listed = {"apiVersion": "v1", "kind": "List", "items": [*OTHERS, *PODS]}
    kubectl("apply", "-f", "-", stdin=json.dumps(listed))
    yield time.monotonic()
    kubectl("delete", "namespace", SPACE, "--wait=false")


@pytest.mark.parametrize(
    ("name", "reason", "sentence"),
    [
        ("image", "image", "nothing-of-that-name:1 cannot be pulled"),
        ("gpu", "capacity", "No GPU is free for the server. The scheduler says:"),
        ("memory", "capacity", "No node has enough memory free for the server."),
        ("volume", "volume", "The server's volume cannot be used:"),
    ],
)
def test_a_pod_that_cannot_start_says_why_within_seconds(
    kubectl: Kubectl, *, asked, name, reason, sentence
):
    concerned = {name, "never-bound"} if name == "volume" else {name}
    found, deadline = None, time.monotonic() + 60
    while found is None:
        assert time.monotonic() < deadline
        time.sleep(1)
        state = kubectl.json("-n", SPACE, "get", "pod", name)
        events = kubectl.json("-n", SPACE, "get", "events")["items"]
        about = [e for e in events if e["involvedObject"]["name"] in concerned]
        ordered = sorted(about, key=trouble.event_time)
        found = trouble.find(state, ordered, time.monotonic() - asked)
    assert (found.reason, sentence in found.sentence) == (reason, True), found


def test_M9_the_namespaces_quota_says_that_it_is_full(kubectl: Kubectl, asked):
    with pytest.raises(subprocess.CalledProcessError) as refused:
        kubectl("create", "-f", "-", stdin=json.dumps(pod("quota", cpu="3")))
    message = refused.value.stderr
    assert "(Forbidden)" in message
    found = trouble.refused(403, message)
    assert found
    assert (found.reason, "has no room for the server" in found.sentence) == ("quota", True)
