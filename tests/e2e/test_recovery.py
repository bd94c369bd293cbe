"""Row T13 and the drill: what was lost comes back, by docs/recovery.md.

Into an empty place, a namespace with a Postgres that has nothing, beside the running stack, which
nobody stops; and into the running stack itself, by the one command, for somebody at a browser.
"""

import json
import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from keycloak import KeycloakAdmin

from bootstrap import stack
from bootstrap.paths import here
from tests.e2e.platform import KEYCLOAK_URL, NAMESPACE, Kubectl, Person, wait_until
from tools.recovery import rollback
from tools.recovery.agents import ROOT, mounted
from tools.recovery.archive import Manifest, Reader, identities, make_identity
from tools.recovery.kube import Kubectl as Cluster
from tools.recovery.kube import Pod
from tools.recovery.place import Claim, Place, stack_file
from tools.recovery.restore import fill

pytestmark = pytest.mark.alone

SPACE = "e2e-recovery"
HOME = Claim(NAMESPACE, "claim-e2e-drill")
BUCKET = "drill"
BUCKETS = "http://127.0.0.1:8888/buckets"
PRECIOUS = {
    "keycloak": ["user_entity", "credential", "keycloak_group", "user_group_membership", "client"],
    "jupyterhub": ["groups", "user_group_map"],
    "execution": ["execution_runs", "execution_leases"],
    "workspaces": ["workspace_resources"],
    "mlflow": ["experiments", "runs", "params", "metrics", "experiment_permissions"],
}
"""What log-in, quotas and runs rest on, and nobody writes while the test looks at it."""
NOTEBOOK = "e2e-restore.ipynb"
FILES = (
    "mkdir -p deep && for n in $(seq 60); do head -c 30000 /dev/urandom > deep/$n.bin; done && "
    "ln -s deep/1.bin link && echo '{\"cells\": []}' > work.ipynb && chmod 600 work.ipynb"
)
SUMS = "find . -printf '%p %m %l\\n' | sort | tail -n +2; find . -type f | sort | xargs sha256sum"


@pytest.fixture(scope="module")
def place(kubectl: Kubectl) -> Place:
    """The running stack."""
    return Place(stack_file("local"), Cluster())


@pytest.fixture
def home(place: Place, kubectl: Kubectl) -> Iterator[str]:
    """A home of the hub's kind with files in it; their names, modes and checksums."""
    claim = {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": HOME.name, "namespace": HOME.namespace},
        "spec": {
            "accessModes": ["ReadWriteOnce"],
            "storageClassName": "jupyterhub-homes",
            "resources": {"requests": {"storage": "1Gi"}},
        },
    }
    place.kubectl.apply(claim)
    try:
        with mounted(place.kubectl, [HOME], place.image(), writes=True) as pod:
            inside(place, pod, FILES)
            sums = inside(place, pod, SUMS)
        assert len(sums.splitlines()) > 120
        yield sums
    finally:
        forget(kubectl, HOME.namespace)


def inside(place: Place, pod: Pod, script: str) -> str:
    return place.kubectl.execute(pod, "sh", "-c", f"cd {ROOT}/{HOME.name} && {script}")


def forget(kubectl: Kubectl, namespace: str) -> None:
    """Deletes the home's claim with its volumes and what is on them."""
    kubectl("-n", namespace, "delete", "pvc", HOME.name, "--ignore-not-found", "--wait=true")
    for volume in kubectl.json("get", "pv")["items"]:
        claim = volume["spec"].get("claimRef", {})
        if (claim.get("namespace"), claim.get("name")) != (namespace, HOME.name):
            continue
        kubectl("delete", "pv", volume["metadata"]["name"])
        if "local" in volume["spec"]:
            subprocess.run(["rm", "-rf", volume["spec"]["local"]["path"]], check=True)


def test_T13_the_volume_of_a_deleted_claim_is_bound_again_with_its_files(
    home: str, place: Place, kubectl: Kubectl
):
    claim = kubectl.json("-n", NAMESPACE, "get", "pvc", HOME.name)
    volume = claim["spec"]["volumeName"]
    kubectl("-n", NAMESPACE, "delete", "pvc", HOME.name, "--wait=true")
    wait_until(
        "the volume is released",
        lambda: kubectl.json("get", "pv", volume)["status"]["phase"] == "Released",
    )
    said: list[str] = []
    rollback.rebind(place, said.append)
    assert f"{volume} is {NAMESPACE}/{HOME.name}'s again" in "\n".join(said)
    del claim["spec"]["volumeName"]
    claim["metadata"] = {"name": HOME.name, "namespace": NAMESPACE}
    place.kubectl.apply({key: claim[key] for key in ("apiVersion", "kind", "metadata", "spec")})
    with mounted(place.kubectl, [HOME], place.image()) as pod:
        assert inside(place, pod, SUMS) == home
    again = kubectl.json("-n", NAMESPACE, "get", "pvc", HOME.name)
    assert again["spec"]["volumeName"] == volume


class Elsewhere(Place):
    """An empty place with a Postgres like the stack's; its bucket is a new one of the filer."""

    def __init__(self, there: Place):
        self.kubectl = there.kubectl
        self.hub = self.foundation = SPACE
        self.namespaces = [SPACE]
        self.own_keycloak = True
        self.postgres = Pod(SPACE, there.postgres.name)
        self._filer = there.filer

    @property
    def filer(self) -> Pod:
        return self._filer


class Moved(Reader):
    """The archive as if it were of a stack in the empty place."""

    @staticmethod
    def moved(name: str) -> str:
        name = name.replace(f"volumes/{NAMESPACE}/", f"volumes/{SPACE}/")
        return name.replace("buckets/mlflow", f"buckets/{BUCKET}")

    def parts(self):
        for name, chunks in super().parts():
            if not name.startswith("volumes/") or name == HOME.part:
                yield self.moved(name), chunks

    def of(self, manifest: Manifest) -> Manifest:
        claims = [c for c in manifest.claims if c["metadata"]["name"] == HOME.name]
        for claim in claims:
            claim["metadata"]["namespace"] = SPACE
        parts = [replace(part, name=self.moved(part.name)) for part in manifest.parts]
        return replace(manifest, claims=claims, parts=parts)


@pytest.fixture
def empty_place(place: Place, kubectl: Kubectl) -> Iterator[Elsewhere]:
    """Namespace, Secret and Postgres as `up` makes them, on nothing."""
    gone = ("delete", "namespace", SPACE, "--ignore-not-found", "--wait=true")
    kubectl(*gone, timeout=180)
    kubectl("create", "namespace", SPACE)
    secret = kubectl.json("-n", place.foundation, "get", "secret", "postgres")
    postgres = kubectl.json("-n", place.foundation, "get", "statefulset", "postgres")
    for one in (secret, postgres):
        one["metadata"] = {"name": one["metadata"]["name"], "namespace": SPACE}
    volumes = postgres["spec"]["template"]["spec"]["volumes"]
    volumes[0] = {"name": volumes[0]["name"], "emptyDir": {}}
    assert volumes[0]["name"] == "data"
    del postgres["status"]
    place.kubectl.apply(secret, postgres)
    kubectl("-n", SPACE, "rollout", "status", "statefulset/postgres", "--timeout=120s")
    try:
        yield Elsewhere(place)
    finally:
        forget(kubectl, SPACE)
        kubectl(*gone, timeout=180)
        place.kubectl.execute(
            place.filer, "curl", "-s", "-X", "DELETE", f"{BUCKETS}/{BUCKET}?recursive=true"
        )


def precious(place: Place) -> dict[str, str]:
    """A checksum of all rows of each table."""
    rows = "SELECT count(*) || ' ' || coalesce(md5(string_agg(t::text, '|' ORDER BY t::text)), '')"
    return {
        f"{database}.{table}": place.sql(f'{rows} FROM "{table}" t', database)[0]
        for database in place.databases()
        for table in PRECIOUS[database]
    }


def backed_up_at_rest(
    place: Place, folder: Path, public: str
) -> tuple[Path, dict[str, str], subprocess.CompletedProcess[str]]:
    """An archive, all rows while it was written, and what the command said.

    The hub goes on: it may just take somebody's group of a workspace that an earlier test has
    deleted. So again, until the rows before are those after.
    """
    command = [sys.executable, "-m", "tools.recovery", "backup", "--stack", "local"]
    for number in range(5):
        to = folder / str(number)
        to.mkdir()
        before = precious(place)
        done = subprocess.run(
            [*command, "--to", str(to), "--recipient", public],
            capture_output=True, text=True, check=False, timeout=300,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        print(done.stdout)
        if precious(place) == before:
            (archive,) = to.glob("*.age")
            return archive, before, done
    raise AssertionError("the platform does not come to rest")


def test_T13_the_drill_brings_log_in_notebooks_runs_and_quotas_back_from_one_archive(
    home: str, place: Place, kubectl: Kubectl, empty_place: Elsewhere, tmp_path: Path
):
    key = tmp_path / "mlhub.key"
    public = make_identity(key)
    put = f"printf kept | curl -sf -T - {BUCKETS}/mlflow/e2e-drill/model.txt"
    place.kubectl.execute(place.filer, "sh", "-c", put)
    archive, before, done = backed_up_at_rest(place, tmp_path, public)
    assert int(before["keycloak.user_entity"].split()[0]) >= 4
    reader = Moved(archive, identities(key))
    plain = Reader(archive, identities(key))
    manifest = plain.verify()
    kept_secrets = json.loads(plain.first("secrets.json") or b"[]")
    values = [value for secret in kept_secrets for value in secret["data"].values()]
    assert len(values) > 10
    assert not [1 for value in values if value in done.stdout + done.stderr]
    last = kubectl.json("-n", NAMESPACE, "get", "configmap", "mlhub-backup")["data"]
    assert last["archive"] == archive.name

    began = time.monotonic()
    fill(empty_place, reader, reader.of(manifest), print)
    print(f"{time.monotonic() - began:.1f} s")

    assert precious(empty_place) == before
    assert empty_place.databases() == place.databases()
    with mounted(place.kubectl, [Claim(SPACE, HOME.name)], place.image()) as pod:
        assert inside(place, pod, SUMS) == home
    found = f"curl -sf {BUCKETS}/{BUCKET}/e2e-drill/model.txt"
    assert place.kubectl.execute(place.filer, "sh", "-c", found) == "kept"
    state = json.loads(plain.first("state.json") or b"{}")
    kept = {r["urn"].rpartition("::")[2] for r in state["deployment"]["resources"]}
    assert {"hub-cookie", "hub-crypt-key", "postgres-superuser", "quotas-namespace"} <= kept
    clean = f"curl -s -X DELETE '{BUCKETS}/mlflow/e2e-drill?recursive=true'"
    place.kubectl.execute(place.filer, "sh", "-c", clean)


def limits(person: Person) -> dict[str, Any]:
    """What the hub lets somebody and their groups have, and the largest server."""
    told = person.hub("GET", "mlhub/admission")
    assert told["status"] == 200, told
    accounts = told["body"]["accounts"]
    return {
        "server": told["body"]["server"],
        **{f"{a['of']['kind']} {a['of']['name']}": a["limit"] for a in accounts},
    }


def of_recovery(verb: str, *options: str) -> list[str]:
    """A command of docs/recovery.md on the running stack, as the Makefile runs it."""
    config = ".mlhub/stacks/Pulumi.local.yaml"
    how = ("-u", "-m", "tools.recovery", verb, "--stack", "local", "--config-file", config)
    return [sys.executable, *how, *options]


def recovery(verb: str, *options: str) -> None:
    command = of_recovery(verb, *options)
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=900)
    print(done.stdout)
    assert done.returncode == 0, done.stdout + done.stderr


def killed(after: Sequence[str], verb: str, *options: str) -> None:
    """The command, with all that it has started, at the moment when it has said all of `after`, in
    that order."""
    awaited = [*after]
    with subprocess.Popen(
        of_recovery(verb, *options),
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
    ) as begun:  # fmt: skip
        assert begun.stdout
        said: list[str] = []
        for line in begun.stdout:
            said.append(line)
            if awaited and awaited[0] in line:
                del awaited[0]
                if not awaited:
                    os.killpg(begun.pid, signal.SIGKILL)
    assert begun.returncode == -signal.SIGKILL, "".join(said)


@pytest.mark.long
@pytest.mark.timeout(1500)
def test_T13_after_a_restore_people_log_in_and_find_notebooks_runs_and_limits(
    person: Callable[[str], Person], place: Place, kubectl: Kubectl, tmp_path: Path
):
    """The whole of it, in place: data, services, `up`, and then a browser that is new there.

    By a command that is killed between two databases and given again, as after a lost connection.
    """
    alice = person("alice").log_in().start_server()
    cell = {
        "cell_type": "code", "id": "one", "metadata": {}, "execution_count": None, "outputs": [],
        "source": f"print('{secrets.token_hex(8)}')",
    }  # fmt: skip
    alice.write(NOTEBOOK, json.dumps(
        {"cells": [cell], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}
    ))  # fmt: skip
    command = ("python", "-m", "notebooks.cli", "--json", "runs")
    start = (*command, "start", NOTEBOOK.removesuffix(".ipynb"), "--profile", "small-cpu")
    run = json.loads(kubectl.exec(alice.pod, *start))
    assert run["status"] == "succeeded", run
    paths = (NOTEBOOK, run["output_notebook"])
    files = {path: alice.read(path) for path in paths}
    before = limits(alice)
    assert {"user alice", "group /mlhub/users"} <= before.keys()
    alice.stop_server()

    key = tmp_path / "mlhub.key"
    recovery("backup", "--to", str(tmp_path), "--recipient", make_identity(key))
    (archive,) = tmp_path.glob("*.age")

    # Lost: the word that she logs in with, her files, and that she ever ran anything.
    account = kubectl.secret("foundation", "keycloak-admin")
    admin: Any = KeycloakAdmin(
        server_url=KEYCLOAK_URL, realm_name="mlhub", user_realm_name="master",
        username=account["username"], password=account["password"],
    )  # fmt: skip
    admin.set_user_password(admin.get_user_id("alice"), secrets.token_hex(16), temporary=False)
    with mounted(
        place.kubectl, [Claim(NAMESPACE, "claim-alice")], place.image(), writes=True
    ) as at:
        gone = [f"{ROOT}/claim-alice/{path}" for path in paths]
        place.kubectl.execute(at, "rm", *gone)
    place.sql("DELETE FROM execution_runs WHERE \"user\" = 'alice'", "execution")

    how = ("restore", "--from", str(archive), "--identity", str(key), "--replace", "yes")
    killed(("services, servers and runs stopped", "databases/"), *how)
    assert stack.half_restored(here()) == archive.name
    recovery(*how)
    again = person("alice").log_in()
    assert limits(again) == before
    again.start_server()
    assert {path: again.read(path) for path in paths} == files
    found = json.loads(kubectl.exec(again.pod, *command, "show", run["run_id"]))
    assert (found["status"], found["output_notebook"]) == ("succeeded", run["output_notebook"])
    assert again.run("print(6 * 7)") == "42\n"
