"""What somebody's own code reaches, sees and may do, asked by that code: in a kernel of theirs."""

import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import pytest
import requests
from playwright.sync_api import Browser
from websocket import create_connection

from bootstrap.paths import NODE_ADDRESS
from tests.e2e.beyond import server_beyond
from tests.e2e.platform import HUB_URL, NAMESPACE, Kubectl, Person, wait_until

METADATA = "169.254.169.254"
"""Where clouds tell a machine its credentials; the fixture makes it answer."""
INTERNET = "198.51.100.5"
"""Of TEST-NET-2 (RFC 5737), as public as any; a mirror of packages would be there."""

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
def writes(path):
    try:
        open(path, "w").close()
        return True
    except OSError:
        return False
print(json.dumps({
    "uid": os.getuid(),
    "tokens": os.path.exists("/var/run/secrets/kubernetes.io"),
    "no_new_privileges": status["NoNewPrivs"].strip(),
    "seccomp": status["Seccomp"].strip(),
    "capabilities": int(status["CapEff"], 16) | int(status["CapBnd"], 16),
    "kubernetes": sorted(key for key in os.environ if "TOKEN" in key and "KUBE" in key),
    "marks": texts,
    "writes": [path for path in ("/usr/local/bin/x", "/etc/x", "/opt/x") if writes(path)],
    "set_user_id": [str(p) for d in ("/usr/bin", "/bin", "/usr/local/bin")
                    for p in pathlib.Path(d).iterdir() if p.stat().st_mode & 0o6000],
}))
"""


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


def test_T11_a_person_reaches_what_is_meant_for_them_and_nothing_else(kernels, kubectl: Kubectl):
    keycloak = address(kubectl, "foundation", "app.kubernetes.io/name=keycloak")
    postgres = address(kubectl, "foundation", "app.kubernetes.io/name=postgres")
    closed = {
        "bob's server": (kubectl.pod("jupyter-bob")["status"]["podIP"], 8888),
        "the metadata address": (METADATA, 80),
        "the Kubernetes API": ("kubernetes.default.svc.cluster.local", 443),
        "the Kubernetes API at the node": (NODE_ADDRESS, 6443),
        "the kubelet": (NODE_ADDRESS, 10250),
        "Postgres": (postgres, 5432),
        "Keycloak's pod": (keycloak, 8080),
        "the proxy's API": (address(kubectl, NAMESPACE, "component=proxy"), 8001),
    }
    opened = {
        "the hub": ("hub", 8081),
        "a name, so DNS, and the proxy": ("proxy-public", 80),
        "an address of the internet": (INTERNET, 80),
    }
    if mlflow := address(kubectl, "mlflow", "app.kubernetes.io/name=mlflow"):
        opened["MLflow"] = (mlflow, 5000)
    with server_beyond(METADATA, "meta"), server_beyond(INTERNET, "inet"):
        code = REACHES.format(targets=json.dumps(closed | opened))
        with ThreadPoolExecutor(2) as pool:
            # The same from the hub, which may: a check that cannot fail is none.
            hub = pool.submit(in_the_hub, kubectl, code)
            found = kernels["alice"].run(code)
    assert {name for name in opened if found[name] != "reached"} == set(), found
    assert {name for name in closed if found[name] == "reached"} == set(), found
    for name in ("bob's server", "the Kubernetes API", "Postgres", "Keycloak's pod"):
        assert hub.result()[name] == "reached", name


def in_the_hub(kubectl: Kubectl, code: str) -> dict[str, str]:
    pod = kubectl("-n", NAMESPACE, "get", "pods", "-l", "component=hub", "-o", "name").strip()
    return json.loads(kubectl("-n", NAMESPACE, "exec", pod, "--", "python3", "-c", code))


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
            "writes": [],
            "set_user_id": [],
        }
