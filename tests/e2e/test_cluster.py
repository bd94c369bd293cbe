"""The embedded node itself: who reaches whom, what outlives what, and what heals.

Needs root and the embedded cluster, as `make e2e` has after `make up`.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bootstrap import network, processes
from bootstrap.paths import NODE_ADDRESS, here
from tests.e2e.beyond import connects, server_beyond
from tests.e2e.platform import WRITER, Kubectl, wait_until

SPACE = "e2e-cluster"
IMAGE = "localhost:5000/mlhub/debian:bookworm"
BEYOND = "198.51.100.1"
"""An address beyond the node (TEST-NET-2, RFC 5737), which the fixture makes answer."""
NODE_PORT = 31998
REFUSED = "000"
"""What curl says instead of a status when no connection came about."""


def pod(name: str, *command: str, claim: str = "", restart: str = "Always") -> dict:
    container: dict[str, Any] = {
        "name": "main",
        "image": IMAGE,
        "command": list(command),
        "resources": {"requests": {"cpu": "10m", "memory": "32Mi"}, "limits": {"memory": "128Mi"}},
        "securityContext": {"runAsUser": 1000, "runAsGroup": 100},
    }
    spec: dict[str, Any] = {
        "containers": [container],
        "restartPolicy": restart,
        "terminationGracePeriodSeconds": 1,
        "securityContext": {"fsGroup": 100},
    }
    if claim:
        container["volumeMounts"] = [{"name": "data", "mountPath": "/data"}]
        spec["volumes"] = [{"name": "data", "persistentVolumeClaim": {"claimName": claim}}]
    metadata = {"name": name, "namespace": SPACE, "labels": {"app": name}}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}


def policy(name: str, spec: dict) -> dict:
    metadata = {"name": name, "namespace": SPACE}
    selector = {"podSelector": {"matchLabels": {"app": name}}}
    kind = {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy"}
    return {**kind, "metadata": metadata, "spec": {**selector, **spec}}


OBJECTS = [
    {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": SPACE}},
    policy(
        "server",
        {
            "policyTypes": ["Ingress"],
            "ingress": [
                {
                    "from": [{"podSelector": {"matchLabels": {"app": "friend"}}}],
                    "ports": [{"port": 8000}],
                }
            ],
        },
    ),
    policy("confined", {"policyTypes": ["Egress"], "egress": []}),
    {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "open", "namespace": SPACE},
        "spec": {
            "type": "NodePort",
            "selector": {"app": "open"},
            "ports": [{"port": 80, "targetPort": 8000, "nodePort": NODE_PORT}],
        },
    },
    {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "empty", "namespace": SPACE},
        "spec": {"selector": {"app": "nobody"}, "ports": [{"port": 80}]},
    },
    {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": "data", "namespace": SPACE},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}},
    },
    pod("server", "python3", "-m", "http.server", "8000"),
    pod("open", "python3", "-m", "http.server", "8000", claim="data"),
    *(pod(name, "sleep", "infinity") for name in ("friend", "stranger", "confined")),
]


class Place:
    """The pods of this file, and what one of them gets from an address."""

    def __init__(self, kubectl: Kubectl):
        self.kubectl = kubectl

    def apply(self, *objects: dict) -> None:
        listed = {"apiVersion": "v1", "kind": "List", "items": objects}
        self.kubectl("apply", "-f", "-", stdin=json.dumps(listed))

    def exec(self, name: str, *command: str) -> str:
        return self.kubectl("-n", SPACE, "exec", name, "--", *command)

    def address(self, name: str) -> str:
        return self.kubectl.json("-n", SPACE, "get", "pod", name)["status"]["podIP"]

    def answer(self, name: str, url: str) -> str:
        """`status` where there has to be one, on a busy machine later than it can be waited for
        wherever there is none."""
        return self.status(name, url, 30)

    def status(self, name: str, url: str, seconds: int = 3) -> str:
        """The HTTP status that a pod gets, REFUSED where it gets none."""
        call = f"curl -sk -o /dev/null -m {seconds} -w '%{{http_code}}' {url} || true"
        return self.exec(name, "sh", "-c", call)[-3:]

    def ready(self, *names: str, seconds: int = 120) -> None:
        pods = [f"pod/{name}" for name in names]
        wait = ["wait", "--for=condition=Ready", f"--timeout={seconds}s", *pods]
        self.kubectl("-n", SPACE, *wait, timeout=seconds + 10)


@pytest.fixture(scope="module")
def place(kubectl: Kubectl) -> Iterator[Place]:
    made = Place(kubectl)
    kubectl("delete", "namespace", SPACE, "--ignore-not-found", timeout=180)
    try:
        made.apply(*OBJECTS)
        made.ready("server", "open", "friend", "stranger", "confined")
        yield made
    finally:
        kubectl("delete", "namespace", SPACE, timeout=180)


@pytest.fixture(scope="module", autouse=True)
def volumes(kubectl: Kubectl) -> Iterator[None]:
    """Removes the retained volumes of this file with what is in them."""
    yield
    for volume in kubectl.json("get", "pv")["items"]:
        if volume["spec"].get("claimRef", {}).get("namespace") == SPACE:
            kubectl("delete", "pv", volume["metadata"]["name"])
            subprocess.run(["rm", "-rf", volume["spec"]["local"]["path"]], check=True)


@pytest.fixture
def beyond(tmp_path: Path) -> Iterator[str]:
    """A web server at an address beyond the node."""
    with server_beyond(BEYOND, "e2e", tmp_path) as url:
        yield url


def test_T11_only_the_pods_that_a_policy_names_come_in(place: Place):
    url = f"http://{place.address('server')}:8000"
    assert place.answer("friend", url) == "200"
    assert place.status("stranger", url) == REFUSED


def test_T11_a_port_that_the_policy_does_not_name_stays_closed(place: Place):
    place.exec("server", "sh", "-c", "python3 -m http.server 8001 >/dev/null 2>&1 &")
    inside = ("server", "http://127.0.0.1:8001")
    wait_until("it listens within its own pod", lambda: place.status(*inside) == "200")
    assert place.status("friend", f"http://{place.address('server')}:8001") == REFUSED


def test_T11_a_pod_without_policies_reaches_pods_node_and_beyond(place: Place, beyond: str):
    assert place.answer("stranger", f"http://{place.address('open')}:8000") == "200"
    assert place.answer("stranger", "http://open") == "200"
    assert place.answer("stranger", "https://kubernetes.default.svc.cluster.local") == "401"
    assert place.answer("stranger", f"https://{NODE_ADDRESS}:6443") == "401"
    assert place.answer("stranger", beyond) == "200"


def test_T11_a_confined_pod_reaches_nothing_beyond_itself(place: Place, beyond: str):
    service = place.kubectl.json("-n", SPACE, "get", "service", "open")["spec"]["clusterIP"]
    for url in (
        f"http://{place.address('open')}:8000",
        f"http://{service}",
        f"http://{NODE_ADDRESS}:{NODE_PORT}",
        f"https://{NODE_ADDRESS}:6443",
        f"https://{NODE_ADDRESS}:10250",
        "https://10.96.0.1",
        "http://169.254.169.254",
        beyond,
    ):
        assert place.status("confined", url) == REFUSED, url


def test_T11_a_program_that_connects_at_once_is_not_ahead_of_its_policies(place: Place):
    url = f"http://{place.address('open')}:8000"
    call = f"curl -s -o /dev/null -m 8 -w '%{{http_code}}' {url}; true"
    for number in range(3):
        name = f"hasty-{number}"
        hasty = pod(name, "sh", "-c", call, restart="Never")
        hasty["metadata"]["labels"]["app"] = "confined"
        place.apply(hasty)
        ended = ["wait", "--for=jsonpath={.status.phase}=Succeeded", "--timeout=90s"]
        place.kubectl("-n", SPACE, *ended, f"pod/{name}")
        assert place.kubectl("-n", SPACE, "logs", name) == REFUSED


NAMESPACES = """
import subprocess, sys
from pathlib import Path
from bootstrap import network
folder = Path(sys.argv[1])
for _ in range(3):
    network.ensure_namespaces(folder)
    print(network.mounts(folder))
for _ in range(3):
    subprocess.run(["mount", "--bind", str(folder), str(folder)], check=True)
network.ensure_namespaces(folder)
print(network.mounts(folder))
(folder / "somebodys").touch()
network.remove_namespaces(folder)
print(network.mounts(folder))
(folder / "somebodys").unlink()
network.remove_namespaces(folder)
print(network.mounts(folder))
"""


def test_the_folder_of_network_namespaces_is_mounted_once_however_often_up_runs(tmp_path: Path):
    """In mounts of the test's own. Each further one doubled those of all pods; after a dozen `up`s
    the kernel had 65,000, and each container's start took it seconds."""
    done = subprocess.run(
        ["unshare", "--mount", sys.executable, "-c", NAMESPACES, tmp_path / "netns"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.split() == ["1", "1", "1", "1", "1", "0"], done.stderr
    assert network.mounts(network.NAMESPACES) == 1


@pytest.mark.parametrize("name", ["stranger", "confined"])
def test_a_service_without_a_pod_refuses_at_once(place: Place, name: str):
    """As in any cluster: who calls a part that restarts shall not wait for a time-out."""
    service = place.kubectl.json("-n", SPACE, "get", "service", "empty")["spec"]["clusterIP"]
    call = f"curl -s -m 10 http://{service}; echo $?"
    assert place.exec(name, "sh", "-c", call).strip() == "7", "28 would be curl's time-out"


@pytest.mark.alone
def test_T11_while_the_agent_does_not_answer_no_new_connection_passes(place: Place):
    url = f"http://{place.address('open')}:8000"
    agents = [
        int(entry.name)
        for entry in Path("/proc").iterdir()
        if entry.name.isdigit() and _command(entry).startswith("/netpol ")
    ]
    assert agents
    for agent in agents:
        os.kill(agent, signal.SIGSTOP)
    try:
        assert place.status("stranger", url) == REFUSED
    finally:
        for agent in agents:
            os.kill(agent, signal.SIGCONT)
    assert place.answer("stranger", url) == "200"


def _command(entry: Path) -> str:
    try:
        return (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
    except OSError:
        return ""


def test_T14_the_kubelet_refuses_strangers_and_pods_alike(place: Place):
    url = f"https://{NODE_ADDRESS}:10250/pods"
    assert place.answer("stranger", url) == "401"
    token = "$(cat /var/run/secrets/kubernetes.io/serviceaccount/token)"
    assert place.answer("stranger", f'-H "Authorization: Bearer {token}" {url}') == "403"


def test_names_of_services_resolve_and_unknown_ones_do_not(place: Place):
    found = place.exec("friend", "getent", "hosts", f"open.{SPACE}.svc.cluster.local")
    service = place.kubectl.json("-n", SPACE, "get", "service", "open")
    assert found.split()[0] == service["spec"]["clusterIP"]
    with pytest.raises(subprocess.CalledProcessError):
        place.exec("friend", "getent", "hosts", f"nobody.{SPACE}.svc.cluster.local")


def test_J1_a_node_port_answers_on_loopback_and_not_on_the_machines_other_addresses(place: Place):
    assert connects("127.0.0.1", NODE_PORT)
    listing = subprocess.run(["ip", "-j", "-4", "address"], capture_output=True, check=True).stdout
    others = [
        address["local"]
        for device in json.loads(listing)
        if device["ifname"] not in ("lo", "mlhub0") and not device["ifname"].startswith("veth")
        for address in device["addr_info"]
    ]
    assert others
    assert not any(connects(address, NODE_PORT) for address in others)


def test_V3_a_volume_and_its_files_outlive_the_claim(place: Place):
    place.exec("open", "sh", "-c", "echo kept > /data/file")
    claim = place.kubectl.json("-n", SPACE, "get", "pvc", "data")
    name = claim["spec"]["volumeName"]
    place.kubectl("-n", SPACE, "delete", "pod/open", "pvc/data")
    volume = wait_until(
        "the volume is released",
        lambda: (
            (found := place.kubectl.json("get", "pv", name))["status"]["phase"] == "Released"
            and found
        ),
    )
    assert volume["spec"]["persistentVolumeReclaimPolicy"] == "Retain"
    assert (Path(volume["spec"]["local"]["path"]) / "file").read_text() == "kept\n"
    again = [one for one in OBJECTS if one["metadata"]["name"] in ("open", "data")]
    place.apply(*again)
    place.ready("open")
    assert place.exec("open", "ls", "/data") == ""


@pytest.mark.alone
@pytest.mark.parametrize("part", ["containerd", "kubelet", "apiserver", "etcd"])
def test_V1_T13_a_killed_part_is_healed_by_up_with_everything_there(place: Place, part: str):
    load = 'rm -rf /data/load; python3 -u -c "$0" /data/load > /data/kept 2>/dev/null &'
    place.exec("open", "sh", "-c", load, WRITER)
    wait_until("files are written", lambda: len(place.exec("open", "cat", "/data/kept")) > 500)
    (identity,) = [
        one
        for one, mark in processes.marked().items()
        if mark.part == part and processes.leads(one)
    ]
    os.kill(identity.pid, signal.SIGKILL)
    began = time.monotonic()
    up = [sys.executable, "-m", "bootstrap", "up", "--only-cluster"]
    done = subprocess.run(
        up, cwd=here().checkout, capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert time.monotonic() - began < 60
    place.ready("open", "friend", "server")
    place.exec("open", "touch", "/data/load/stop")
    check = "sleep 1; sha256sum --check --strict --quiet /data/kept && wc -l < /data/kept"
    assert int(place.exec("open", "sh", "-c", check)) > 5
    assert place.answer("friend", f"http://{place.address('server')}:8000") == "200"
