"""Who may do what in the cluster, asked of the cluster itself: docs/rights.md, row by row."""

import copy
import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.platform import Kubectl

PAGE = Path(__file__).resolve().parents[2] / "docs" / "rights.md"
SPACES = ("jupyterhub", "foundation", "mlflow")
ROW = re.compile(r"^\| `([\w-]+)` \| `([\w-]+)` \| ([^|]+) \|", re.MULTILINE)

Rights = dict[str, set[str]]
"""Verbs by resource, e.g. `{"jobs.batch": {"get"}}`."""

FORBIDDEN = (
    ("get", "secrets"),
    ("list", "secrets"),
    ("create", "pods", "--subresource=exec"),
    ("create", "rolebindings.rbac.authorization.k8s.io"),
    ("create", "serviceaccounts", "--subresource=token"),
    ("delete", "networkpolicies.networking.k8s.io"),
    ("impersonate", "users"),
    ("*", "*"),
)
"""What no part of the platform needs, whatever the page says one day."""

HARMLESS: dict[str, Any] = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"name": "rights-tried"},
    "spec": {
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": 1000,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [
            {
                "name": "main",
                "image": "none.invalid/none",
                "resources": {"limits": {"cpu": "10m", "memory": "16Mi"}},
                "securityContext": {
                    "allowPrivilegeEscalation": False,
                    "capabilities": {"drop": ["ALL"]},
                },
            }
        ],
    },
}


def promised() -> dict[tuple[str, str], Rights]:
    """The page's table: (namespace, account) and what it may."""
    found: dict[tuple[str, str], Rights] = {}
    table = PAGE.read_text(encoding="utf-8").split("## In Kubernetes")[1].split("\n## ")[0]
    for account, space, rights in ROW.findall(table):
        parts = re.findall(r"`([\w./ -]+)`: ([\w, ]+)", rights)
        assert parts or rights.strip() == "nothing", rights
        found[space, account] = {resource: set(verbs.split(", ")) for resource, verbs in parts}
    return found


def accounts(kubectl: Kubectl) -> list[tuple[str, str]]:
    return [
        (space, found["metadata"]["name"])
        for space in SPACES
        for found in kubectl.json("-n", space, "get", "serviceaccounts")["items"]
    ]


def user(space: str, account: str) -> str:
    return f"system:serviceaccount:{space}:{account}"


def granted(kubectl: Kubectl, space: str, account: str) -> Rights:
    """What the API server says that an account may in its namespace, without what everyone may."""
    listed = kubectl("auth", "can-i", "--list", "--as", user(space, account), "-n", space)
    rights: Rights = {}
    for line in listed.splitlines()[1:]:
        match = re.match(r"(\S*)\s+\[(.*?)\]\s+\[(.*?)\]\s+\[(.*?)\]$", line)
        assert match, line
        resource, paths, named, verbs = match.groups()
        if paths or resource.endswith((".authorization.k8s.io", ".authentication.k8s.io")):
            continue
        rights.setdefault(f"{resource}{f' {named}' if named else ''}", set()).update(verbs.split())
    return rights


def may(kubectl: Kubectl, *asked: str) -> bool:
    """`kubectl auth can-i`, whose exit status is 1 for no."""
    try:
        answer = kubectl("auth", "can-i", *asked)
    except subprocess.CalledProcessError as error:
        answer = error.stdout or error.stderr
    word = answer.split()[0]
    assert word in ("yes", "no"), answer
    return word == "yes"


def test_T14_every_account_may_what_the_page_says_and_nothing_else(kubectl: Kubectl):
    said = promised()
    assert set(accounts(kubectl)) == set(said)
    for (space, account), rights in said.items():
        assert granted(kubectl, space, account) == rights, (space, account)


def test_T14_no_account_reads_secrets_or_gives_itself_more(kubectl: Kubectl):
    assert may(kubectl, "get", "secrets", "-n", "jupyterhub"), "who asks may do all of it"
    for space, account in accounts(kubectl):
        for forbidden in FORBIDDEN:
            asked = (*forbidden, "-n", space, "--as", user(space, account))
            assert not may(kubectl, *asked), asked


def test_T14_no_account_reaches_into_another_namespace(kubectl: Kubectl):
    for verb, resource in [("create", "pods"), ("list", "pods"), ("get", "secrets")]:
        for account in ("hub", "execution", "workspaces"):
            asked = (verb, resource, "-n", "kube-system", "--as", user("jupyterhub", account))
            assert not may(kubectl, *asked), asked


def tried(kubectl: Kubectl, space: str, pod: dict[str, Any]) -> str:
    """What the API server says to a pod that it makes nothing of."""
    try:
        kubectl("-n", space, "create", "--dry-run=server", "-f", "-", stdin=json.dumps(pod))
    except subprocess.CalledProcessError as error:
        return str(error.stderr)
    return ""


@pytest.mark.parametrize("space", SPACES)
def test_T14_a_namespace_refuses_pods_with_any_privilege(kubectl: Kubectl, space: str):
    assert tried(kubectl, space, HARMLESS) == ""
    for part, privilege in [
        ("container", {"securityContext": {"privileged": True}}),
        ("container", {"securityContext": {"capabilities": {"add": ["SYS_ADMIN"]}}}),
        ("container", {"securityContext": {"runAsUser": 0}}),
        ("container", {"ports": [{"containerPort": 80, "hostPort": 80}]}),
        ("pod", {"hostNetwork": True}),
        ("pod", {"hostPID": True}),
        ("pod", {"volumes": [{"name": "host", "hostPath": {"path": "/"}}]}),
        ("pod", {"securityContext": {"runAsNonRoot": True, "runAsUser": 1000}}),
    ]:
        pod = copy.deepcopy(HARMLESS)
        spec = pod["spec"] if part == "pod" else pod["spec"]["containers"][0]
        spec.update(privilege)
        assert 'violates PodSecurity "restricted' in tried(kubectl, space, pod), privilege
