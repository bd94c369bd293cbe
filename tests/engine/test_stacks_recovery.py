"""A small stack that loses nothing: upgraded, killed, rolled back, destroyed, restored.

The real CLI, cluster and commands of docs/recovery.md, on a copy of the program in a repository of
its own, since a way back goes by commits. The steps build on each other, in the order of the file.
"""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psycopg2
import pytest
import yaml

from tests.engine.conftest import Server
from tests.engine.environment import (
    CHECKOUT,
    REGISTRY,
    ProgramStack,
    adapted,
    another_context,
    chart_version,
    clear,
    furnish,
    give_tag,
    kubectl,
    namespaces,
    realm_for,
)
from tests.killing import kill_pod
from tools.recovery.agents import ROOT, mounted
from tools.recovery.archive import make_identity
from tools.recovery.kube import Kubectl, wait_until
from tools.recovery.place import Claim, Place, stack_file

pytestmark = [pytest.mark.engine, pytest.mark.long, pytest.mark.timeout(900)]

NAME = "staging"
HUB = "engine-recovery"
HOME, FORMER, SHARED = (Claim(HUB, name) for name in ("claim-drill", "claim-former", "shared"))
DATABASE = "jupyterhub"
CHART = "charts/jupyterhub-lite"
PACKAGE = "images/packages/mlhub/src"
"""The hub's own, which names homes."""
IMAGES = ("base", "hub", "proxy", "postgres", "ml-cpu")
BUILT, NEXT = "local", "engine-next"
"""The tag that `make up` has given the images, and that of the same ones with another digest."""
NEXT_CHART = "99.0.0"
FILES = "mkdir deep && for n in $(seq 40); do head -c 20000 /dev/urandom > deep/$n; done"
SUMS, NOTHING = "find . -type f | sort | xargs --no-run-if-empty sha256sum", ""


def small(keycloak: str) -> dict[str, Any]:
    """The hub, one profile and Postgres: what has data, and nothing that would take time."""
    document = adapted(NAME, HUB, "", keycloak, "")
    config = document["config"]
    gone = "mlflow execution workspaces workspace_service gpu monitoring verify"
    for section in gone.split():
        config.pop(f"mlhub:{section}")
    config["mlhub:registry"] = {"repository": f"{REGISTRY}/mlhub"}
    config["mlhub:images"] = {"promote": {"repository": f"{REGISTRY}/mlhub", "tag": BUILT}}
    config["mlhub:profiles"] = [p for p in config["mlhub:profiles"] if p.get("default")]
    # From a folder, as the commits of the repository have it.
    config["mlhub:hub"]["chart"] = {"path": CHART}
    # On one node any number of pods mount it.
    shared = {"name": SHARED.name, "size": "1Gi", "mount": "/mnt/shared", "folders": ["raw"]}
    config["mlhub:storage"] |= {"home": "1Gi", "scratch": "1Gi", "volumes": [shared]}
    config["mlhub:foundation"]["postgres"] = {"volume": "1Gi"}
    config["mlhub:quotas"] = {
        "namespace": {"cpu": 8, "memory": "16Gi", "gpu": 0, "storage": "20Gi", "pods": 20},
        "user": {"servers": 3, "cpu": 4, "memory": "8Gi", "gpu": 0},
    }
    return document


def another_digest(image: str) -> str:
    """The image under the tag `NEXT`, with an annotation that gives it a digest of its own."""
    return give_tag(f"mlhub/{image}", BUILT, NEXT, annotations={"mlhub.test": NEXT})


class Team:
    """The stack with its repository, and what it may not lose."""

    def __init__(self, folder: Path, stack: ProgramStack):
        self.folder, self.stack = folder, stack
        self.repository = folder / "repository"
        self._copy()
        self.stack_file = self.repository / "stacks" / f"Pulumi.{NAME}.yaml"
        self.document = yaml.safe_load(stack.file.read_text())
        stack.file = self.repository / ".mlhub" / "stacks" / self.stack_file.name
        stack.file.parent.mkdir(parents=True)
        stack.project = self.repository
        self._allow()
        self.commit()
        os.environ["KUBECONFIG"] = stack.env["KUBECONFIG"]
        command = ("kubectl", "--context", f"mlhub-{NAME}")
        self.place = Place(stack_file_in(self.repository), Kubectl(command))

    def _copy(self) -> None:
        """What git tracks, as it is now, committed or not."""
        listed = subprocess.run(
            ["git", "ls-files", "-z"], cwd=CHECKOUT, check=True, capture_output=True
        ).stdout
        for name in listed.decode().rstrip("\0").split("\0"):
            if (CHECKOUT / name).is_file():
                (self.repository / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(CHECKOUT / name, self.repository / name)
        for environment in (".venv", "policies/.venv"):
            (self.repository / environment).symlink_to((CHECKOUT / environment).resolve())
        (self.repository / ".git" / "info").mkdir(parents=True)
        (self.repository / ".git" / "info" / "exclude").write_text(".venv\n.mlhub\n")
        self.git("init", "--quiet")

    def _allow(self) -> None:
        """The policies hold the stack to what they let `local` do: this registry, plain HTTP."""
        limits = self.repository / "policies" / "limits.yaml"
        allowed = yaml.safe_load(limits.read_text())["stacks"]["local"]
        limits.write_text(yaml.safe_dump({"stacks": {NAME: allowed}}))

    def take(self, tag: str, chart: str) -> None:
        """Commits these images and this version of the chart, and is ready to apply them."""
        self.document["config"]["mlhub:images"]["promote"]["tag"] = tag
        file = self.repository / CHART / "Chart.yaml"
        file.write_text(yaml.safe_dump(yaml.safe_load(file.read_text()) | {"version": chart}))
        self.commit()

    def git(self, *arguments: str) -> str:
        someone = ["-c", "user.name=test", "-c", "user.email=test@example.com"]
        return subprocess.run(
            ["git", *someone, *arguments],
            cwd=self.repository, check=True, capture_output=True, text=True,
        ).stdout.strip()  # fmt: skip

    def commit(self) -> str:
        """The stack file as it is to be, tracked and beside the CLI; the commit."""
        for path in (self.stack_file, self.stack.file):
            path.write_text(yaml.safe_dump(self.document, sort_keys=False))
        self.git("add", "--all")
        self.git("commit", "--quiet", "--message", "a stack file")
        return self.git("rev-parse", "HEAD")

    def recovery(self, verb: str, *options: str, fails: bool = False) -> str:
        """A command of docs/recovery.md, as the Makefile runs it."""
        began = time.monotonic()
        more = {"PYTHONPATH": PACKAGE} if verb == "rename-home" else {}
        done = subprocess.run(
            [sys.executable, "-m", "tools.recovery", verb, "--stack", NAME,
             "--config-file", str(self.stack.file), *options],
            cwd=self.repository, env=self.stack.env | more, capture_output=True, text=True,
            check=False, timeout=600,
        )  # fmt: skip
        said = done.stdout + done.stderr
        assert (done.returncode != 0) == fails, said
        print(f"{time.monotonic() - began:.1f} s  {verb}\n{said}")
        return said

    # What it may not lose.

    def rows(self) -> str:
        told = "SELECT count(*) || ' ' || md5(string_agg(t::text, '|' ORDER BY n)) FROM drill t"
        return self.place.sql(told, DATABASE)[0]

    def files(self) -> str:
        return self.inside(HOME, SUMS)

    def inside(self, claim: Claim, script: str) -> str:
        with mounted(self.place.kubectl, [claim], self.place.image()) as pod:
            return self.place.kubectl.execute(
                pod, "sh", "-c", f"cd {ROOT}/{claim.name} && {script}"
            )

    def secrets(self) -> dict[str, Any]:
        return {
            f"{s['metadata']['namespace']}/{s['metadata']['name']}": s["data"]
            for s in self.place.secrets()
        }

    def volumes(self) -> dict[str, str]:
        """Which volume each claim has."""
        return {
            f"{space}/{c['metadata']['name']}": c["spec"].get("volumeName", "")
            for space in self.place.namespaces
            for c in self.place.kubectl.items("persistentvolumeclaims", space)
        }

    def kept(self) -> dict[str, Any]:
        return {"rows": self.rows(), "files": self.files(), "secrets": self.secrets()}

    # What runs.

    def images(self) -> set[str]:
        return set(self.place.images().values())

    def postgres_image(self) -> str:
        return self.place.image()[0]

    def chart(self) -> str:
        release = next(r for r in self.stack.resources() if r["type"].endswith(":Release"))
        return str(release["outputs"]["version"])

    def answers(self) -> bool:
        """Whether the hub itself answers, from the cluster's database."""
        found = json.loads(
            kubectl("-n", HUB, "get", "deployments", "hub", "proxy", "-o", "json")
        )["items"]  # fmt: skip
        return all(d["status"].get("readyReplicas") == 1 for d in found)


def stack_file_in(folder: Path) -> Any:
    """The stack file of another checkout, which the tools find by where they are run."""
    before = Path.cwd()
    os.chdir(folder)
    try:
        return stack_file(NAME)
    finally:
        os.chdir(before)


@pytest.fixture(scope="module")
def team(tmp_path_factory: pytest.TempPathFactory, bin_dir: Path, server: Server) -> Iterator[Team]:
    folder = tmp_path_factory.mktemp("recovery")
    config = os.environ["KUBECONFIG"]
    with ExitStack() as around:
        around.callback(os.environ.__setitem__, "KUBECONFIG", config)
        around.enter_context(namespaces(HUB))
        admin = server.admin()
        _, client_secret = realm_for(admin, HUB)

        def leave() -> None:
            admin.connection.realm_name = "master"
            admin.delete_realm(HUB)

        around.callback(leave)
        stack = ProgramStack(folder / "stack", bin_dir, NAME, small(server.url))
        stack.env["KUBECONFIG"] = str(another_context(folder, NAME))
        stack.give(keycloak_client_secret=client_secret)
        made = Team(folder, stack)
        stack.up("--refresh=false")
        fill(made)
        yield made
        stack.wait_for_no_process()


def make_home(team: Team, home: Claim, script: str) -> None:
    """A home as the hub makes one, with what `script` writes there."""
    claim = {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": home.name, "namespace": HUB},
        "spec": {
            "accessModes": ["ReadWriteOnce"],
            "storageClassName": f"{HUB}-homes",
            "resources": {"requests": {"storage": "1Gi"}},
        },
    }
    team.place.kubectl.apply(claim)
    with mounted(team.place.kubectl, [home], team.place.image(), writes=True) as pod:
        team.place.kubectl.execute(pod, "sh", "-c", f"cd {ROOT}/{home.name} && {script}")


def fill(team: Team) -> None:
    """A home with files, and rows in the hub's database."""
    make_home(team, HOME, FILES)
    team.place.sql(
        "CREATE TABLE drill (n serial PRIMARY KEY, word text);"
        "ALTER TABLE drill OWNER TO jupyterhub;"
        "INSERT INTO drill (word) SELECT md5(g::text) FROM generate_series(1, 1000) g",
        DATABASE,
    )


class Writer(threading.Thread):
    """Commits rows one after the other until it is told to stop; keeps what was acknowledged."""

    def __init__(self, team: Team):
        super().__init__(daemon=True)
        self._password = kubectl(
            "-n", team.place.foundation, "get", "secret", "postgres",
            "-o", "go-template={{index .data \"jupyterhub-password\" | base64decode}}",
        )  # fmt: skip
        self._team = team
        self.kept: dict[int, str] = {}
        self.failed = 0
        self.over = threading.Event()

    def _address(self) -> str:
        space = self._team.place.foundation
        return kubectl("-n", space, "get", "pod", "postgres-0", "-o", "jsonpath={.status.podIP}")

    def run(self) -> None:
        while not self.over.is_set():
            try:
                connection = psycopg2.connect(
                    host=self._address(), dbname=DATABASE, user="jupyterhub",
                    password=self._password, connect_timeout=3, tcp_user_timeout=5000,
                )  # fmt: skip
                connection.autocommit = True
                with connection.cursor() as cursor:
                    while not self.over.is_set():
                        self._write(cursor)
            except (psycopg2.Error, AssertionError):  # the latter of kubectl: there is no pod
                self.failed += 1
                time.sleep(0.3)

    def _write(self, cursor: Any) -> None:
        word = hashlib.sha256(os.urandom(16)).hexdigest()
        cursor.execute("INSERT INTO drill (word) VALUES (%s) RETURNING n", (word,))
        self.kept[cursor.fetchone()[0]] = word

    def acknowledged_is_there(self) -> None:
        """Ends it, and compares each row that was acknowledged."""
        self.over.set()
        self.join(30)
        listed = self._team.place.sql("SELECT n || ' ' || word FROM drill", DATABASE)
        there = {int(n): word for n, word in (line.split() for line in listed)}
        assert self.kept.items() <= there.items()


def kill_in_the_middle(team: Team) -> None:
    """Ends an `up` when Postgres is being made anew and the release is not."""
    before = team.postgres_image()
    process = team.stack.start("up", "--yes", "--skip-preview")
    deadline = time.monotonic() + 120
    while team.postgres_image() == before:
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline, team.stack.kill(process)
        time.sleep(0.5)
    team.stack.kill(process)
    team.stack.end_processes()
    team.stack("cancel", "--yes")


def test_T13_an_upgrade_killed_in_the_middle_and_run_again_loses_nothing(team: Team) -> None:
    """Of the chart and of every image, while rows are written."""
    files, secrets, volumes, images = team.files(), team.secrets(), team.volumes(), team.images()
    digests = {another_digest(image) for image in IMAGES}
    team.take(NEXT, NEXT_CHART)
    writer = Writer(team)
    writer.start()
    wait_until("rows are written", lambda: len(writer.kept) > 20, 30)
    kill_in_the_middle(team)
    team.stack.up()
    assert team.chart() == NEXT_CHART
    assert {image.rpartition("@")[2] for image in team.images()} <= digests
    assert not team.images() & images
    written = len(writer.kept)
    wait_until("rows are written again", lambda: len(writer.kept) > written + 20, 60)
    writer.acknowledged_is_there()
    wait_until("the hub answers", team.answers, 180)
    assert (team.files(), team.secrets(), team.volumes()) == (files, secrets, volumes)


def restarts(namespace: str, pod: str) -> int:
    told = "jsonpath={.status.containerStatuses[0].restartCount}"
    return int(kubectl("-n", namespace, "get", "pod", pod, "-o", told))


@pytest.mark.parametrize("part", ["hub", "postgres"])
def test_T13_every_commit_outlives_a_killed_part_under_load(team: Team, part: str) -> None:
    space = HUB if part == "hub" else team.place.foundation
    (found,) = [
        one["metadata"]
        for one in team.place.kubectl.items("pods", space)
        if one["metadata"]["name"].startswith(f"{part}-")
    ]
    pod = found["name"]
    files, before = team.files(), restarts(space, pod)
    writer = Writer(team)
    writer.start()
    wait_until("rows are written", lambda: len(writer.kept) > 50, 30)
    kill_pod(found["uid"])
    wait_until(f"{part} was started again", lambda: restarts(space, pod) > before, 60)
    written = len(writer.kept)
    wait_until("rows are written again", lambda: len(writer.kept) > written + 20, 90)
    writer.acknowledged_is_there()
    assert writer.failed or part == "hub"
    wait_until("the hub answers", team.answers, 180)
    assert team.files() == files


def test_T13_who_is_renamed_has_their_home_by_the_new_name_with_every_file(team: Team) -> None:
    old, new = Claim(HUB, "claim-alice"), Claim(HUB, "claim-alicia")
    make_home(team, old, FILES)
    files, volume = team.inside(old, SUMS), team.volumes()[f"{HUB}/{old.name}"]
    team.recovery("rename-home", "--from", "alice", "--to", "alicia")
    volumes = team.volumes()
    assert volumes[f"{HUB}/{new.name}"] == volume
    assert f"{HUB}/{old.name}" not in volumes
    assert team.inside(new, SUMS) == files


def test_T13_rollback_brings_back_chart_and_images_and_keeps_data_and_secrets(team: Team) -> None:
    before, volumes, images = team.kept(), team.volumes(), team.images()
    team.recovery("rollback", "--data", "keep")
    assert team.chart() == chart_version()
    assert not team.images() & images
    assert (team.kept(), team.volumes()) == (before, volumes)
    team.take(BUILT, chart_version())


def test_T13_destroy_with_its_switch_keeps_data_and_the_next_up_has_them_again(team: Team) -> None:
    before, volumes = team.kept(), team.volumes()
    assert "CONFIRM" in team.recovery("destroy", fails=True)
    team.recovery("destroy", "--confirm", NAME)
    for space in team.place.namespaces:
        kinds = "deployments,statefulsets,pods"
        running = json.loads(kubectl("-n", space, "get", kinds, "-o", "json"))["items"]
        names = [one["metadata"]["name"] for one in running
                 if "deletionTimestamp" not in one["metadata"]]  # fmt: skip
        assert names == []
    assert team.volumes() == volumes
    team.stack.up()
    wait_until("the hub answers", team.answers, 180)
    assert (team.kept(), team.volumes()) == (before, volumes)


def test_T13_a_cluster_that_has_nothing_gets_all_of_it_from_one_archive(team: Team) -> None:
    before = team.kept()
    key = team.folder / "key"
    public = make_identity(key)
    team.recovery("backup", "--to", str(team.folder / "archives"), "--recipient", public)
    (archive,) = (team.folder / "archives").glob("*.age")
    given = ("--from", str(archive), "--identity", str(key))
    assert "REPLACE=yes" in team.recovery("restore", *given, fails=True)

    # Gone: all that is on the cluster, and the state.
    clear(HUB)
    team.stack.begin()
    furnish(HUB)
    team.recovery("restore", *given)
    wait_until("the hub answers", team.answers, 180)
    assert team.kept() == before
    team.stack.up("--expect-no-changes")


def test_T13_rollback_with_data_dropped_brings_the_older_stack_with_the_same_secrets_and_no_data(
    team: Team,
) -> None:
    team.take(NEXT, NEXT_CHART)
    team.stack.up()
    make_home(team, FORMER, "echo kept > work.ipynb")
    kubectl("-n", HUB, "delete", "pvc", FORMER.name, "--wait=true")
    before, volumes, images = team.kept(), team.volumes(), team.images()
    refused = team.recovery("rollback", "--data", "drop", fails=True)
    assert f"CONFIRM={NAME}" in refused
    assert HOME.name in refused
    assert FORMER.name not in refused
    assert (team.kept(), team.images()) == (before, images)

    team.recovery("rollback", "--data", "drop", "--confirm", NAME)
    wait_until("the hub answers", team.answers, 180)
    assert team.chart() == chart_version()
    assert not team.images() & images
    assert (team.secrets(), team.volumes()) == (before["secrets"], volumes)
    # Empty, and taken into use by the hub that runs now.
    assert team.place.sql("SELECT to_regclass('drill') IS NULL", DATABASE) == ["t"]
    assert team.place.sql("SELECT to_regclass('users') IS NULL", DATABASE) == ["f"]
    assert team.files() == NOTHING
    assert team.inside(SHARED, "ls") == "raw\n"
    # A volume that had no claim was not among what is dropped.
    make_home(team, FORMER, "test -f work.ipynb")
    assert team.inside(FORMER, "cat work.ipynb") == "kept\n"
