"""Many people's runs at once on the real cluster, with kills in between: what became of each.

    eval "$(.venv/bin/python -m bootstrap env)"
    PYTHONPATH=images/packages/mlhub/src .venv/bin/python -m tests.e2e.crowd --people 20 --runs 200

The people are made up: in Keycloak, members of the platform's group, each with a token of their own
and a home with one notebook. All submit at once, each with keys of their own, and ask again as the
service says. Meanwhile the service is killed, and with it each time three of the runs: one loses
its Job, one its pod, one its processes. Needs root on the node, and goes by loopback alone.
Afterwards the people are gone from Keycloak, and their homes from the node; the hub, MLflow and the
service's database still know their names.
"""

import argparse
import asyncio
import json
import random
import secrets
import shutil
import sys
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

import httpx

from components.names import home_class
from mlhub.verify.people import Keycloak
from mlhub.verify.person import LoginForm
from mlhub.verify.settings import Settings
from mlhub.verify.web import ask, session
from tests.e2e.platform import (
    EXECUTION_URL,
    HUB_URL,
    KEYCLOAK_URL,
    NAMESPACE,
    Kubectl,
    notebook,
    runs_are_served,
    wait_until,
)
from tests.killing import kill_pod

GROUP = "/mlhub/users"
ENDED = {"succeeded", "failed", "lost"}
IMAGE = "localhost:5000/mlhub/debian:bookworm"
FURNISHER = "crowd-furnisher"
SOURCES = ("n = 0", "import time; time.sleep(5)", "print('n', n)")
WRITE = """
import os, pathlib
for home in pathlib.Path("/homes").iterdir():
    (home / "crowd.ipynb").write_text(os.environ["NOTEBOOK"])
"""
LOST_BY_A_KILL = {("lost", "job-gone"), ("failed", "not-started")}
"""Of a run whose service was killed while it made the Job: before it, or before its Secret."""


@dataclass
class Member:
    """One of the crowd."""

    name: str
    token: str = field(repr=False)
    home: Path


@dataclass
class Account:
    """What became of all that was asked for; times are in seconds."""

    asked: int
    accepted: dict[str, str] = field(default_factory=dict)
    """Run ids, by person and number."""
    ends: dict[str, tuple[str, str | None]] = field(default_factory=dict)
    """Status and reason of every run that the service lists, by its id."""
    killed: dict[str, str] = field(default_factory=dict)
    """How, by the id of the run."""
    service_kills: int = 0
    refusals: Counter[str] = field(default_factory=Counter)
    no_output: set[str] = field(default_factory=set)
    """Runs that succeeded and whose output is not in the home."""
    seconds: float = 0

    def wrong(self) -> list[str]:
        """What is not accounted for."""
        ids = list(self.accepted.values())
        unasked = self.ends.keys() - set(ids)
        said = [
            f"{self.asked - len(ids)} never accepted" if len(ids) < self.asked else "",
            "two keys are one run" if len(set(ids)) < len(ids) else "",
            f"not listed: {set(ids) - self.ends.keys()}" if set(ids) - self.ends.keys() else "",
            f"nobody asked for: {unasked}" if unasked else "",
            f"without output: {self.no_output}" if self.no_output else "",
        ]
        for run_id, (status, reason) in self.ends.items():
            if status not in ENDED:
                said.append(f"{run_id} is {status} still")
            elif status != "succeeded" and not self._killed(run_id):
                said.append(f"{run_id} was not killed and is {status}, {reason}")
        return [line for line in said if line]

    def _killed(self, run_id: str) -> bool:
        by_service = self.service_kills > 0 and self.ends[run_id] in LOST_BY_A_KILL
        return by_service or run_id in self.killed

    def table(self) -> str:
        minutes = self.seconds / 60
        counts = Counter(f"{s}, {r}" if r else s for s, r in self.ends.values())
        lines = [
            f"{len(self.accepted)} of {self.asked} runs accepted, {len(self.ends)} ended in "
            f"{minutes:.1f} min: {len(self.ends) / minutes:.1f} a minute; "
            f"{self.service_kills} kills of the service, {len(self.killed)} of runs",
            *(f"  {count:4d}  {what}" for what, count in counts.most_common()),
            "refused on the way, and asked for again:",
            *(f"  {count:4d}  {what}" for what, count in self.refusals.most_common()),
            *(f"WRONG: {line}" for line in self.wrong()),
        ]
        return "\n".join(lines)


# The people


def keycloak_of(kubectl: Kubectl) -> Keycloak:
    account = kubectl.secret("foundation", "keycloak-admin")
    return Keycloak(
        Settings(
            hub_url=HUB_URL,
            keycloak_url=KEYCLOAK_URL,
            realm="mlhub",
            groups=(GROUP,),
            login_realm="master",
            client_id="admin-cli",
            username=account["username"],
            password=account["password"],
        )
    )


def found(keycloak: Keycloak, name: str) -> list[dict[str, Any]]:
    asked = {"username": name, "exact": "true"}
    return list(keycloak.call("GET", "/users", params=asked).json())


def make_person(keycloak: Keycloak, name: str, password: str) -> None:
    body = {
        "username": name,
        "firstName": "crowd",
        "lastName": name,
        "email": f"{name}@example.invalid",
        "emailVerified": True,
        "enabled": True,
        "credentials": [{"type": "password", "value": password, "temporary": False}],
    }
    keycloak.call("POST", "/users", json=body)
    (person,) = found(keycloak, name)
    group = keycloak.call("GET", f"/group-by-path{GROUP}").json()
    keycloak.call("PUT", f"/users/{person['id']}/groups/{group['id']}")


def remove_person(keycloak: Keycloak, name: str) -> None:
    for person in found(keycloak, name):
        keycloak.call("DELETE", f"/users/{person['id']}")


def token_of(name: str, password: str) -> str:
    """By the log-in page, as a browser; a token of two hours."""
    web = session({})
    page = ask(web, "GET", f"{HUB_URL}/hub/oauth_login", params={"next": "/hub/home"})
    form = {"username": name, "password": password}
    landed = ask(web, "POST", urljoin(page.url, LoginForm(page.text).action), data=form)
    assert landed.url.startswith(f"{HUB_URL}/hub/home"), landed.url.partition("?")[0]
    xsrf = next((c.value for c in web.cookies if c.name == "_xsrf"), "") or ""
    made = ask(
        web,
        "POST",
        f"{HUB_URL}/hub/api/users/{name}/tokens",
        json={"note": "crowd", "expires_in": 7200},
        headers={"X-XSRFToken": xsrf, "Referer": f"{HUB_URL}/hub/token"},
    )
    assert made.ok, made.status_code
    return str(made.json()["token"])


# Their homes


def home_claim(name: str, storage_class: str) -> dict[str, Any]:
    spec = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "50Mi"}}}
    metadata = {"name": f"claim-{name}", "namespace": NAMESPACE}
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": metadata,
        "spec": {**spec, "storageClassName": storage_class},
    }


def furnisher(names: list[str]) -> dict[str, Any]:
    """A pod that binds all homes and lays the notebook in each."""
    container = {
        "name": "main",
        "image": IMAGE,
        "command": ["python3", "-c", WRITE],
        "env": [{"name": "NOTEBOOK", "value": notebook(*SOURCES)}],
        "resources": {"limits": {"cpu": "200m", "memory": "64Mi"}},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": [{"name": name, "mountPath": f"/homes/{name}"} for name in names],
    }
    spec = {
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "securityContext": {
            "runAsUser": 1000,
            "runAsGroup": 100,
            "runAsNonRoot": True,
            "fsGroup": 100,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [container],
        "volumes": [
            {"name": name, "persistentVolumeClaim": {"claimName": f"claim-{name}"}}
            for name in names
        ],
    }
    metadata = {"name": FURNISHER, "namespace": NAMESPACE}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}


def furnish(kubectl: Kubectl, names: list[str]) -> dict[str, Path]:
    """Homes with a notebook; their folders on this machine."""
    claims = [home_claim(name, home_class(NAMESPACE)) for name in names]
    listed = {"apiVersion": "v1", "kind": "List", "items": [*claims, furnisher(names)]}
    kubectl("apply", "-f", "-", stdin=json.dumps(listed))

    def written() -> bool:
        phase = (kubectl.pod(FURNISHER) or {}).get("status", {}).get("phase")
        assert phase != "Failed", kubectl("-n", NAMESPACE, "logs", FURNISHER)
        return phase == "Succeeded"

    wait_until("every home has its notebook", written, 300)
    kubectl("-n", NAMESPACE, "delete", "pod", FURNISHER)
    folders = {name: folder for name, _, folder in volumes(kubectl, names)}
    return {name: folders[name] for name in names}


def volumes(kubectl: Kubectl, names: list[str]) -> Iterator[tuple[str, str, Path]]:
    """Of each person's home: whose, the volume and its folder on this machine."""
    claims = {f"claim-{name}": name for name in names}
    for volume in kubectl.json("get", "pv")["items"]:
        of = volume["spec"].get("claimRef", {})
        if of.get("namespace") == NAMESPACE and of.get("name") in claims:
            folder = Path(volume["spec"]["hostPath"]["path"])
            yield claims[of["name"]], volume["metadata"]["name"], folder


def remove_homes(kubectl: Kubectl, names: list[str]) -> None:
    """Those of the crowd, with their volumes, which outlive their claims otherwise."""
    gone = ("--ignore-not-found", "--wait=false")
    kubectl("-n", NAMESPACE, "delete", "pod", FURNISHER, "--ignore-not-found")
    for name, volume, folder in volumes(kubectl, names):
        kubectl("-n", NAMESPACE, "delete", "pvc", f"claim-{name}", *gone)
        kubectl("delete", "pv", volume, *gone)
        shutil.rmtree(folder, ignore_errors=True)
    for name in names:
        kubectl("-n", NAMESPACE, "delete", "pvc", f"claim-{name}", *gone)


@contextmanager
def people(kubectl: Kubectl, count: int) -> Iterator[list[Member]]:
    """The crowd, gone afterwards; no name is anybody else's."""
    mark = secrets.token_hex(3)
    names = [f"crowd-{mark}-{number}" for number in range(count)]
    keycloak = keycloak_of(kubectl)
    try:
        homes = furnish(kubectl, names)
        members = []
        for name in names:
            password = secrets.token_urlsafe(24)
            make_person(keycloak, name, password)
            members.append(Member(name, token_of(name, password), homes[name]))
        yield members
    finally:
        for name in names:
            remove_person(keycloak, name)
        remove_homes(kubectl, names)


# Their runs


async def submit(client: httpx.AsyncClient, member: Member, number: int, account: Account) -> None:
    """Ask until it is accepted, with the key that it began with, as often as the service lets."""
    body = {
        "username": member.name,
        "notebook_name": "./crowd.ipynb",
        "parameters": {"n": number},
        "profile": "small-cpu",
    }
    headers = {"Authorization": f"Bearer {member.token}", "Idempotency-Key": f"crowd-{number}"}
    while True:
        pause, why = 3.0, "no answer"
        try:
            answer = await client.post("/execute", json=body, headers=headers)
        except httpx.HTTPError:
            pass
        else:
            if answer.status_code == 202:
                account.accepted[f"{member.name}/{number}"] = answer.json()["run_id"]
                return
            assert answer.status_code in (429, 502, 503, 504), answer.text
            problem = answer.headers.get("content-type", "").startswith("application/problem")
            why = answer.json()["type"] if problem else f"the proxy: {answer.status_code}"
            pause = float(answer.headers.get("retry-after") or 5)
        account.refusals[why] += 1
        await asyncio.sleep(pause * random.uniform(1, 1.3))  # noqa: S311 (no secret)


async def listed(client: httpx.AsyncClient, member: Member) -> list[dict[str, Any]] | None:
    """The person's runs; None while the service is away."""
    headers = {"Authorization": f"Bearer {member.token}"}
    try:
        answer = await client.get("/runs?limit=200", headers=headers)
        return list(answer.json()["runs"]) if answer.status_code == 200 else None
    except (httpx.HTTPError, ValueError):
        return None


async def until_all_ended(
    client: httpx.AsyncClient, members: list[Member], account: Account, deadline: float
) -> None:
    while time.monotonic() < deadline:
        each = await asyncio.gather(*(listed(client, member) for member in members))
        if all(runs is not None for runs in each):
            whose = [(m, run) for m, runs in zip(members, each, strict=True) for run in runs or ()]
            account.ends = {r["run_id"]: (r["status"], r["reason"]) for _, r in whose}
            account.no_output = {
                run["run_id"]
                for member, run in whose
                if run["status"] == "succeeded"
                and not (member.home / run["output_notebook"]).is_file()
            }
            if not {"queued", "running"} & {status for status, _ in account.ends.values()}:
                return
        await asyncio.sleep(3)


def kill(kubectl: Kubectl, account: Account) -> None:
    """The service, and the three runs that began last, the youngest first."""

    def pods(selector: str) -> list[dict[str, Any]]:
        return list(kubectl.json("-n", NAMESPACE, "get", "pods", "-l", selector)["items"])

    def three() -> list[dict[str, Any]]:
        ours = set(account.accepted.values()) - account.killed.keys()
        running = [
            pod
            for pod in pods("mlhub.io/kind=run")
            if pod["metadata"]["labels"]["mlhub.io/run"] in ours
            and pod["status"].get("phase") == "Running"
        ]
        running.sort(key=lambda pod: str(pod["status"]["startTime"]), reverse=True)
        return running[:3] if len(running) >= 3 else []

    wait_until("the service answers", runs_are_served)
    victims = wait_until("three runs go on", three, 180)
    for pod in pods("app.kubernetes.io/name=execution"):
        kill_pod(pod["metadata"]["uid"])
    account.service_kills += 1
    for pod, how in zip(victims, ("processes", "pod", "Job"), strict=True):
        run_id = pod["metadata"]["labels"]["mlhub.io/run"]
        account.killed[run_id] = how
        if how == "processes":
            kill_pod(pod["metadata"]["uid"])
        elif how == "pod":
            hard = ("--force", "--grace-period=0", "--ignore-not-found")
            kubectl("-n", NAMESPACE, "delete", "pod", pod["metadata"]["name"], *hard)
        else:
            kubectl("-n", NAMESPACE, "delete", "job", f"run-{run_id}", "--ignore-not-found")


async def crowd_runs(
    kubectl: Kubectl, members: list[Member], account: Account, kills: int, minutes: float
) -> None:
    deadline = time.monotonic() + minutes * 60
    limits = httpx.Limits(max_connections=100)
    async with httpx.AsyncClient(
        base_url=EXECUTION_URL, timeout=60, limits=limits, trust_env=False
    ) as client:
        waiting = [
            asyncio.create_task(submit(client, members[n % len(members)], n, account))
            for n in range(account.asked)
        ]
        try:
            for number in range(1, kills + 1):
                share = account.asked * number // (kills + 2)
                while len(account.accepted) < share and time.monotonic() < deadline:
                    await asyncio.sleep(0.5)
                await asyncio.to_thread(kill, kubectl, account)
                print(f"{len(account.accepted)} accepted; killed", file=sys.stderr, flush=True)
            left = max(1.0, deadline - time.monotonic())
            done, _ = await asyncio.wait(waiting, timeout=left)
            for task in done:
                task.result()
        finally:
            for task in waiting:
                task.cancel()
        await until_all_ended(client, members, account, deadline)


def crowd(kubectl: Kubectl, *, count: int, runs: int, kills: int, minutes: float) -> Account:
    """Submit, kill, wait for every end; nothing is judged yet."""
    account = Account(runs)
    with people(kubectl, count) as members:
        began = time.monotonic()
        # In a thread of its own: Playwright leaves a loop running in the tests' thread.
        with ThreadPoolExecutor(1) as thread:
            work = crowd_runs(kubectl, members, account, kills, minutes)
            thread.submit(asyncio.run, work).result()
        account.seconds = time.monotonic() - began
    return account


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--people", type=int, default=20)
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--kills", type=int, default=3, help="each of the service and three runs")
    parser.add_argument("--minutes", type=float, default=60, help="after which it is given up")
    given = parser.parse_args()
    account = crowd(
        Kubectl(),
        count=given.people,
        runs=given.runs,
        kills=given.kills,
        minutes=given.minutes,
    )
    print(account.table())
    return 1 if account.wrong() else 0


if __name__ == "__main__":
    raise SystemExit(main())
