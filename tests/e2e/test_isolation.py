"""What somebody's own code reaches, sees and may do, asked by that code: in a kernel of theirs."""

import json
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import requests
from playwright.sync_api import Browser
from websocket import create_connection

from bootstrap.paths import NODE_ADDRESS
from tests.e2e.beyond import server_beyond
from tests.e2e.everyday import INTERNET, WORKED, WORKS, WRITES, WRITTEN, index_of_packages
from tests.e2e.platform import HUB_URL, NAMESPACE, Kubectl, Person, wait_until

METADATA = "169.254.169.254"
"""Where clouds tell a machine its credentials; the fixture makes it answer."""
AGENT = "169.254.170.21"
"""Beside the address at which EKS gives pods credentials (that one is a broadcast address here)."""
SHARED = "100.77.77.5"
"""An address such as pods of EKS and GKE may have (RFC 6598)."""
WITHIN = "10.77.77.5"
"""A private address (RFC 1918) outside the cluster, where a company has its mirror."""

REACHES = """
import concurrent.futures, json, socket
def reach(target):
    try:
        socket.create_connection(tuple(target), timeout=4).close()
        return "reached"
    except socket.gaierror:
        return "no such name"
    except OSError:
        return "refused"
targets = json.loads({targets!r})
with concurrent.futures.ThreadPoolExecutor(32) as pool:
    print(json.dumps(dict(zip(targets, pool.map(reach, targets.values())))))
"""
SEES = """
import json, os, pathlib
status = dict(line.split(":", 1) for line in open("/proc/self/status"))
texts = []
for folder in ("/home", "/mnt", "/tmp", "/var"):
    for path in pathlib.Path(folder).rglob("*.mark"):
        texts.append(path.read_text())
print(json.dumps({
    "uid": os.getuid(),
    "tokens": os.path.exists("/var/run/secrets/kubernetes.io"),
    "no_new_privileges": status["NoNewPrivs"].strip(),
    "seccomp": status["Seccomp"].strip(),
    "capabilities": int(status["CapEff"], 16) | int(status["CapBnd"], 16),
    "kubernetes": sorted(key for key in os.environ if "TOKEN" in key and "KUBE" in key),
    "marks": texts,
    "set_user_id": [str(p) for d in ("/usr/bin", "/bin", "/usr/local/bin")
                    for p in pathlib.Path(d).iterdir() if p.stat().st_mode & 0o6000],
}))
"""


class Way(NamedTuple):
    """A port, and why it is open or closed to people's pods in `local`."""

    host: str | None
    port: int
    why: str


@dataclass
class Kernel:
    """A kernel in somebody's server, by a token of theirs."""

    name: str
    token: str

    def __post_init__(self) -> None:
        self._session = requests.Session()
        self._session.headers["Authorization"] = f"token {self.token}"
        made = self._session.post(f"{HUB_URL}/user/{self.name}/api/kernels", timeout=30)
        made.raise_for_status()
        self._id = made.json()["id"]

    def run(self, code: str, seconds: float = 60) -> Any:
        """What the code prints, which is JSON."""
        server = f"{HUB_URL.replace('http', 'ws')}/user/{self.name}"
        socket = create_connection(
            f"{server}/api/kernels/{self._id}/channels",
            header=[f"Authorization: token {self.token}"],
            timeout=seconds,
        )
        content = {"code": code, "silent": False, "store_history": False, "allow_stdin": False}
        header = {"msg_id": "1", "msg_type": "execute_request", "version": "5.3", "username": ""}
        header |= {"session": "e2e", "date": "2026-01-01T00:00:00Z"}
        message = {"header": header, "parent_header": {}, "metadata": {}, "content": content}
        socket.send(json.dumps(message | {"channel": "shell", "buffers": []}))
        said, deadline = "", time.monotonic() + seconds
        while time.monotonic() < deadline:
            heard = json.loads(socket.recv())
            kind, body = heard["msg_type"], heard["content"]
            assert kind != "error", body
            if kind == "stream" and body["name"] == "stdout":
                said += body["text"]
            if kind == "execute_reply":
                # What was printed comes on another channel, before the kernel is idle.
                deadline = min(deadline, time.monotonic() + 5)
            if said.endswith("\n") and kind == "status" and body["execution_state"] == "idle":
                break
        socket.close()
        return json.loads(said)

    def terminal(self, line: str, until: str, seconds: float = 60) -> str:
        """What a terminal of the same server says to a line, up to a text."""
        terminals = f"{HUB_URL}/user/{self.name}/api/terminals"
        made = self._session.post(terminals, timeout=30)
        made.raise_for_status()
        name = made.json()["name"]
        socket = create_connection(
            f"{HUB_URL.replace('http', 'ws')}/user/{self.name}/terminals/websocket/{name}",
            header=[f"Authorization: token {self.token}"],
            timeout=seconds,
        )
        try:
            socket.send(json.dumps(["stdin", f"{line}\n"]))
            said = ""
            while until not in said:
                kind, *content = json.loads(socket.recv())
                said += content[0] if kind == "stdout" else ""
            return said
        finally:
            socket.close()
            self._session.delete(f"{terminals}/{name}", timeout=30)

    def end(self) -> None:
        self._session.delete(f"{HUB_URL}/user/{self.name}/api/kernels/{self._id}", timeout=30)


@pytest.fixture(scope="module")
def kernels(browser: Browser, kubectl: Kubectl) -> Iterator[dict[str, Kernel]]:
    """Alice's and bob's, in servers that run already or are started side by side."""
    tokens = {}
    for name in ("alice", "bob"):
        context = browser.new_context(base_url=HUB_URL)
        secret = kubectl.secret("foundation", "demo-users")[name]
        person = Person(name, secret, context).log_in()
        if not person.hub("GET", f"users/{name}")["body"]["servers"]:
            assert person.hub("POST", f"users/{name}/server")["status"] in (201, 202)
        tokens[name] = person.hub("POST", f"users/{name}/tokens")["body"]["token"]
        context.close()

    def ready(name: str) -> bool:
        headers = {"Authorization": f"token {tokens[name]}"}
        user = requests.get(f"{HUB_URL}/hub/api/users/{name}", headers=headers, timeout=30).json()
        return bool(user["servers"].get("", {}).get("ready"))

    for name in tokens:
        wait_until(f"{name}'s server runs", lambda name=name: ready(name), 180)
    made = {name: Kernel(name, token) for name, token in tokens.items()}
    yield made
    for kernel in made.values():
        kernel.end()


def address(kubectl: Kubectl, namespace: str, label: str) -> str | None:
    pods = kubectl.json("-n", namespace, "get", "pods", "-l", label)["items"]
    running = [p["status"]["podIP"] for p in pods if p["status"]["phase"] == "Running"]
    return running[0] if running else None


def ways(kubectl: Kubectl) -> tuple[dict[str, Way], dict[str, Way]]:
    """Closed and open ones, as `components.values.user_egress` and the policies of those at the
    other end have them."""
    keycloak = address(kubectl, "foundation", "app.kubernetes.io/name=keycloak")
    postgres = address(kubectl, "foundation", "app.kubernetes.io/name=postgres")
    seaweedfs = address(kubectl, "foundation", "app.kubernetes.io/name=seaweedfs")
    proxy = address(kubectl, NAMESPACE, "component=proxy")
    bob = kubectl.pod("jupyter-bob")["status"]["podIP"]
    s3 = "seaweedfs-s3.foundation.svc.cluster.local"
    closed = {
        "bob's server": Way(bob, 8888, "only hub and proxy reach a server"),
        "the metadata address": Way(METADATA, 80, "it tells a cloud's machine its credentials"),
        "an agent of the node": Way(AGENT, 80, "it gives pods a cloud's credentials"),
        "a pod of a cloud's cluster": Way(SHARED, 80, "as other people's pods here"),
        "the Kubernetes API": Way(
            "kubernetes.default.svc.cluster.local", 443, "people have no rights there"
        ),
        "the Kubernetes API at the node": Way(NODE_ADDRESS, 6443, "as by its Service"),
        "the kubelet": Way(NODE_ADDRESS, 10250, "it runs commands in pods"),
        "Postgres": Way(postgres, 5432, "services alone have accounts there"),
        "Keycloak's pod": Way(keycloak, 8080, "people log in by browser, their code does not"),
        "the proxy's API": Way(proxy, 8001, "who sets routes gets others' cookies"),
        "S3": Way(s3, 8333, "MLflow alone has a key, and gives artifacts to whom they are for"),
        "S3's pod": Way(seaweedfs, 8333, "as by its Service"),
        "SeaweedFS's filer": Way(seaweedfs, 8888, "it asks nobody who they are"),
        "SeaweedFS's volume server": Way(seaweedfs, 8080, "as the filer"),
        "SeaweedFS's master": Way(seaweedfs, 9333, "as the filer"),
        "a mirror at a private address": Way(
            WITHIN, 80, "of private ones only those of the platform and of network.mirrors"
        ),
    }
    opened = {
        "the hub": Way("hub", 8081, "a server reports its activity"),
        "a name, so DNS, and the proxy": Way("proxy-public", 80, "runs are started through it"),
        "a mirror at a public address": Way(INTERNET, 80, "packages, models and git come from one"),
    }
    if mlflow := address(kubectl, "mlflow", "app.kubernetes.io/name=mlflow"):
        opened["MLflow"] = Way(mlflow, 5000, "runs are logged by code")
    return closed, opened


@pytest.fixture
def mirror(tmp_path: Path) -> Path:
    return index_of_packages(tmp_path)


def test_T11_a_person_reaches_what_is_meant_for_them_and_nothing_else(
    kernels, kubectl: Kubectl, mirror: Path
):
    closed, opened = ways(kubectl)
    code = REACHES.format(targets=json.dumps({n: w[:2] for n, w in (closed | opened).items()}))
    with (
        server_beyond(METADATA, "meta", mirror),
        server_beyond(AGENT, "agent", mirror),
        server_beyond(SHARED, "shared", mirror),
        server_beyond(INTERNET, "inet", mirror),
        server_beyond(WITHIN, "priv", mirror),
        ThreadPoolExecutor(3) as pool,
    ):
        # The same from where some of it is allowed: a check that cannot fail is none.
        hub = pool.submit(elsewhere, kubectl, NAMESPACE, "deploy/hub", code)
        mlflow = pool.submit(elsewhere, kubectl, "mlflow", "deploy/mlflow", code)
        found = kernels["alice"].run(code)
    assert {n: w.why for n, w in opened.items() if found[n] != "reached"} == {}, found
    assert {n: w.why for n, w in closed.items() if found[n] == "reached"} == {}, found
    for name in ("bob's server", "the Kubernetes API", "Postgres", "Keycloak's pod"):
        assert hub.result()[name] == "reached", name
    for name in ("S3", "S3's pod"):
        assert mlflow.result()[name] == "reached", name


def elsewhere(kubectl: Kubectl, namespace: str, pod: str, code: str) -> Mapping[str, str]:
    found = kubectl("-n", namespace, "exec", pod, "--", "python3", "-c", code)
    return json.loads(found)


def test_T14_T7_V2_code_of_a_person_has_no_rights_and_sees_nobody_elses_files(kernels):
    for name, kernel in kernels.items():
        mark = f"/home/jovyan/{name}.mark"
        kernel.run(f"open({mark!r}, 'w').write({name!r}); print(1)")
    for name, kernel in kernels.items():
        assert kernel.run(SEES) == {
            "uid": 1000,
            "tokens": False,
            "no_new_privileges": "1",
            "seccomp": "2",
            "capabilities": 0,
            "kubernetes": [],
            "marks": [name],
            "set_user_id": [],
        }


def test_T14_T7_nothing_of_the_image_can_be_written_to_and_each_folder_that_can_is_known(
    kernels, kubectl: Kubectl
):
    assert kernels["alice"].run(WRITES.format(folders=[*WRITTEN])) == WRITTEN
    spec = kubectl.pod("jupyter-alice")["spec"]
    for container in [*spec["containers"], *spec.get("initContainers", [])]:
        assert container["securityContext"]["readOnlyRootFilesystem"] is True
    empty = {v["name"]: v["emptyDir"] for v in spec["volumes"] if "emptyDir" in v}
    assert {name for name, given in empty.items() if "sizeLimit" in given} == {"tmp", "scratch"}
    assert len(empty) == 2, "the node's disk has no other"


def test_M8_datasets_are_read_by_everybody_at_a_place_where_nobody_changes_them(kernels):
    mine, seen = "/home/jovyan/datasets/raw/e2e.csv", "/datasets/raw/e2e.csv"
    kernels["alice"].run(f"open({mine!r}, 'w').write('a,b'); print(1)")
    assert kernels["bob"].run(f"import json; print(json.dumps(open({seen!r}).read()))") == "a,b"
    for how in ("open({0!r}, 'a')", "os.unlink({0!r})", "os.truncate({0!r}, 0)"):
        refused = kernels["alice"].run(
            f"import errno, json, os\ntry:\n    {how.format(seen)}\nexcept OSError as error:\n"
            "    print(json.dumps(errno.errorcode[error.errno]))"
        )
        assert refused == "EROFS", how
    kernels["alice"].run(f"import os; os.unlink({mine!r}); print(1)")


def test_J6_V5_plots_packages_from_a_mirror_and_git_need_nothing_of_the_image(
    kernels, mirror: Path
):
    with server_beyond(INTERNET, "inet", mirror) as url:
        found = kernels["alice"].run(WORKS.format(mirror=url), seconds=180)
    assert found == WORKED


def test_V5_a_terminal_opens_and_cannot_write_to_the_image(kernels):
    said = kernels["bob"].terminal("touch /usr/local/bin/x; echo over-$((6 * 7))", "over-42")
    assert "Read-only file system" in said
