"""A restore's way in and out: what it may replace, how it goes on, how one gives it up."""

import base64
import json
import re
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import pyrage
import pytest
from keycloak.exceptions import (
    KeycloakAuthenticationError,
    KeycloakConnectionError,
    KeycloakError,
    KeycloakGetError,
)

from components import names
from tests.unit.test_recovery import HERE, STATE, Known, names_in
from tools import administrator
from tools.recovery import beside, contents, kube, restore, state
from tools.recovery.agents import ROOT, NotMountedError
from tools.recovery.archive import Manifest, Part, Reader, Writer
from tools.recovery.beside import restore_beside
from tools.recovery.contents import PACK, Writers
from tools.recovery.errors import RecoveryError
from tools.recovery.kube import Kubectl, Pod
from tools.recovery.note import Note
from tools.recovery.place import REPLICAS, SUSPENDED, Claim, Node, Place, stack_file

EMPTY: dict[str, Any] = {"version": 3, "deployment": {}}
OF_UP = ("foundation/postgres-data", "jupyterhub/datasets")
"""Claims that an `up` makes."""
DESTROYED = ("foundation/postgres-data", "foundation/seaweedfs-data", "jupyterhub/claim-alice")


def administrator_with(password: str) -> dict[str, Any]:
    """Keycloak's Secret."""
    return {
        "metadata": {"name": "keycloak-admin", "namespace": "foundation"},
        "data": {"password": base64.b64encode(password.encode()).decode()},
    }


class Cluster(Kubectl):
    """Knows claims, StatefulSets, a Secret, what was stopped, and marks of the hub's namespace."""

    def __init__(self, *claims: str, runs: bool = False):
        super().__init__()
        self.claims = list(claims)
        self.parts = ["postgres", "seaweedfs"] if runs else []
        self.marks: dict[str, str] = {}
        """On the hub's namespace."""
        self.marked: dict[str, str] = {}
        self.password = "the archive's"
        self.log: list[str] = []

    def items(self, kind: str, namespace: str, *options: str) -> list[dict[str, Any]]:
        found: dict[str, list[dict[str, Any]]] = {
            "persistentvolumeclaims": [self._claim(*c.split("/")) for c in self.claims],
            "statefulsets": [self._named("foundation", name) for name in self.parts],
            "secrets": [administrator_with(self.password)],
            "namespaces": [self._named(namespace, namespace, self.marks)],
            "deployments": [
                self._named("jupyterhub", name, {mark: "1"})
                for name, mark in self.marked.items()
                if mark == REPLICAS
            ],
            "cronjobs": [
                self._named("jupyterhub", name, {mark: "true"})
                for name, mark in self.marked.items()
                if mark == SUSPENDED
            ],
        }
        name = next((o.rpartition("=")[2] for o in options if o.startswith("--field")), "")
        return [
            one
            for one in found.get(kind, [])
            if one["metadata"]["namespace"] == namespace
            if name in ("", one["metadata"]["name"])
        ]

    @staticmethod
    def _named(namespace: str, name: str, marks: Any = None) -> dict[str, Any]:
        return {"metadata": {"name": name, "namespace": namespace, "annotations": marks or {}}}

    @staticmethod
    def _claim(namespace: str, name: str) -> dict[str, Any]:
        by = "kubespawner" if name.startswith("claim-") else "pulumi"
        labels = {"app.kubernetes.io/managed-by": by}
        metadata = {"name": name, "namespace": namespace, "labels": labels}
        spec = {"volumeName": f"pvc-{name}"}
        return {"metadata": metadata, "spec": spec, "status": {"phase": "Bound"}}

    def __call__(self, *arguments: str, stdin: str | None = None) -> str:
        self.log.append(" ".join(arguments[:3]))
        match arguments:
            case ("annotate", "namespace", _, "--overwrite", *marks):
                for key, value in (mark.split("=") for mark in marks if "=" in mark):
                    self.marks[key] = value
                for mark in marks:
                    self.marks.pop(mark.removesuffix("-"), None)
            case ("annotate", _, name, *_, mark) if mark.endswith("-"):
                self.marked.pop(name)
        return "{}"


class Applied(Known):
    """An `up` of it makes claims and parts, unless it is killed first."""

    def __init__(self, kept: dict, cluster: Cluster, *history: dict):
        super().__init__(kept, *history)
        self.cluster = cluster
        self.killed = False
        self.failing = 0
        """How many `up`s from now on do not end."""
        self.refusals: list[KeycloakError] = []
        """What Keycloak says to a new password, the last first."""

    def change(self, *command: str) -> None:
        super().change(*command)
        if self.failing:
            self.failing -= 1
            raise RecoveryError("`pulumi up` of local did not end")
        self.cluster.claims += [one for one in OF_UP if one not in self.cluster.claims]
        self.cluster.parts.append("postgres")
        if self.killed:
            raise KeyboardInterrupt
        self.cluster.parts.append("seaweedfs")


@pytest.fixture
def key() -> pyrage.x25519.Identity:
    return pyrage.x25519.Identity.generate()


@pytest.fixture
def reader(tmp_path: Path, key: pyrage.x25519.Identity) -> Reader:
    """An archive of a stack that had people."""
    path = tmp_path / "mlhub-local-20261130T021500Z.age"
    small = {
        "state.json": STATE,
        "stack.yaml": {},
        "secrets.json": [administrator_with("the archive's")],
    }
    with Writer(path, [key.to_public()]) as writer:
        parts = [writer.add(name, [json.dumps(what).encode()]) for name, what in small.items()]
        writer.finish(Manifest("local", "began", "ended", "revision", {}, [], parts))
    return Reader(path, [key])


@pytest.fixture
def restored(
    reader: Reader, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Callable[..., list[str]]:
    """Restores on a cluster, and returns what was done to the data."""
    config = stack_file("local")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(state, "revision", lambda: "revision")

    def run(stack: Applied, *, replace: bool = False) -> list[str]:
        place, log = Place(config, stack.cluster), list[str]()
        monkeypatch.setattr(place, "databases", list)
        monkeypatch.setattr(place, "stop", lambda: log.append("stop"))
        monkeypatch.setattr(place, "start", lambda *only: log.append(" ".join(["start", *only])))

        def hand_over(url: str, old: str, new: str) -> None:
            log.append(f"{new} for {old} at {url}, after {len(stack.changes)} ups")
            if stack.refusals:
                raise stack.refusals.pop()

        monkeypatch.setattr(administrator, "hand_over", hand_over)
        monkeypatch.setattr(restore, "backup", lambda *_: log.append("backup"))
        monkeypatch.setattr(restore, "fill", lambda *_: log.append("fill"))
        restore.restore(place, stack, reader, replace=replace, say=lambda _: None)
        return log

    return run


STARTED = ["start keycloak", "start"]
FILLED = ["stop", "fill", *STARTED]


def test_T13_a_stack_that_is_gone_is_made_anew_with_the_archives_secrets(restored, tmp_path):
    stack = Applied(EMPTY, Cluster())
    assert restored(stack) == FILLED
    assert names_in(stack.state) == ["stack", "random", "postgres"]
    assert stack.changes == [("up",), ("up",)]
    assert not list((tmp_path / ".mlhub").iterdir())
    assert not stack.cluster.marks


def test_T13_a_stack_that_runs_is_left_as_it_is_and_asked_for_its_data(restored):
    stack = Applied(STATE, Cluster(*DESTROYED, runs=True))
    with pytest.raises(RecoveryError, match="REPLACE=yes"):
        restored(stack)
    assert not stack.changes
    assert restored(stack, replace=True) == ["backup", *FILLED]


def test_T13_a_restore_does_not_forget_what_a_killed_up_was_making(restored):
    """Its import of Keycloak's part would, and its last `up` would meet it, with all data in."""
    urn = "urn:pulumi:local::mlhub::kubernetes:helm.sh/v3:Release::hub"
    begun = [{"type": "creating", "resource": {"urn": urn}}]
    half = {"deployment": STATE["deployment"] | {"pending_operations": begun}}
    stack = Applied(half, Cluster(*DESTROYED, runs=True))
    with pytest.raises(RecoveryError, match="killed while it was making hub,"):
        restored(stack, replace=True)
    assert not stack.changes
    assert stack.state == half
    stack.state = STATE
    assert restored(stack, replace=True) == ["backup", *FILLED]


def test_T13_a_stack_with_secrets_of_its_own_takes_no_archive_of_another(restored):
    other = json.loads(json.dumps(STATE).replace('"one"', '"two"'))
    with pytest.raises(RecoveryError, match="secrets of its own"):
        restored(Applied(other, Cluster(*DESTROYED, runs=True)))


def test_T13_what_a_destroyed_stack_has_left_is_replaced_only_when_asked_and_kept_first(restored):
    stack = Applied(STATE, Cluster(*DESTROYED))
    with pytest.raises(RecoveryError, match="REPLACE=yes"):
        restored(stack)
    assert not stack.cluster.marks
    again = Applied(STATE, Cluster(*DESTROYED))
    assert restored(again, replace=True) == ["backup", *FILLED]


def test_T13_of_a_destroyed_stack_all_is_back_before_it_is_kept(restored):
    """Without SeaweedFS, the archive of what was there would have no bucket."""
    stack = Applied(STATE, Cluster(*DESTROYED))
    stack.killed = True
    with pytest.raises(KeyboardInterrupt):
        restored(stack, replace=True)
    assert stack.cluster.parts == ["postgres"]
    stack.killed = False
    assert restored(stack, replace=True) == ["backup", *FILLED]
    assert stack.changes == [("up",), ("up",), ("up",)]


def killed_in_its_first_up(restored: Callable[..., list[str]]) -> Applied:
    stack = Applied(EMPTY, Cluster())
    stack.killed = True
    with pytest.raises(KeyboardInterrupt):
        restored(stack)
    stack.killed = False
    return stack


def test_T13_a_restore_onto_an_empty_machine_that_was_killed_in_its_up_goes_on(restored):
    stack = killed_in_its_first_up(restored)
    assert "jupyterhub/datasets" in stack.cluster.claims
    assert restored(stack) == FILLED
    assert stack.changes == [("up",), ("up",), ("up",)], "what was killed is ended first"


def test_T13_what_came_after_a_killed_restore_is_not_taken_for_its_own(restored):
    stack = killed_in_its_first_up(restored)
    stack.cluster.claims.append("jupyterhub/claim-alice")
    with pytest.raises(RecoveryError, match="REPLACE=yes"):
        restored(stack)
    stack = killed_in_its_first_up(restored)
    ended = {"kind": "update", "result": "succeeded", "endTime": "2999-01-01T00:00:00.000Z"}
    stack.history = [ended]
    with pytest.raises(RecoveryError, match="REPLACE=yes"):
        restored(stack)


def filled_and_not_applied(restored: Callable[..., list[str]]) -> Applied:
    """What people do from then on is theirs, though the restore has not ended."""
    stack = Applied(STATE, Cluster(*DESTROYED, runs=True))
    stack.failing = 1
    with pytest.raises(RecoveryError, match="did not end"):
        restored(stack, replace=True)
    return stack


def test_T13_a_restore_whose_last_up_failed_goes_on_there_and_keeps_what_people_did(restored):
    stack = filled_and_not_applied(restored)
    assert stack.cluster.marks, "`make up` and `make backup` wait for its end"
    state = stack.state = json.loads(json.dumps(STATE).replace('"old"', '"younger"'))
    assert restored(stack) == STARTED
    assert stack.state == state, "an `up` has written to it since"
    assert stack.changes == [("up",), ("up",)]
    assert not stack.cluster.marks
    assert restored(stack, replace=True) == ["backup", *FILLED], "later it is a restore anew"


def test_T13_of_a_restore_that_is_given_up_after_its_fill_it_is_told_that_all_is_in(
    restored, tmp_path, monkeypatch
):
    stack, said = filled_and_not_applied(restored), list[str]()
    monkeypatch.undo()
    place = Place(stack_file("local"), stack.cluster)
    monkeypatch.chdir(tmp_path)
    restore.resume(place, stack, said.append)
    assert "all its data are in" in said[0]


def test_T13_a_restore_that_was_killed_before_all_was_in_fills_again(restored):
    class Killed(Applied):
        def replace_state(self, state: dict) -> None:
            if not self.killed:
                return super().replace_state(state)
            raise KeyboardInterrupt

    stack = Killed(STATE, Cluster(*DESTROYED, runs=True))
    stack.killed = True
    with pytest.raises(KeyboardInterrupt):
        restored(stack, replace=True)
    stack.killed = False
    assert restored(stack) == FILLED


def test_T13_no_archive_is_taken_for_another_that_was_filled(restored, reader):
    stack = filled_and_not_applied(restored)
    marks = stack.cluster.marks
    marks[names.RESTORING] = "mlhub-local-b.age"
    with pytest.raises(RecoveryError, match=r"restore of mlhub-local-b\.age has begun"):
        restored(stack, replace=True)
    del marks[names.RESTORING]
    assert restored(stack, replace=True) == ["backup", *FILLED], "nor one of long ago"
    marks |= {names.RESTORING: reader.path.name, names.FILLED: "mlhub-local-b.age pvc-1"}
    assert restored(stack) == FILLED


def test_T13_a_filled_volume_that_was_changed_for_a_new_one_is_not_taken_for_filled(
    restored, monkeypatch
):
    """Nor is the rest filled over what people did since."""
    stack = filled_and_not_applied(restored)
    claim = Cluster._claim

    def anew(namespace: str, name: str) -> dict[str, Any]:
        return claim(namespace, name) | {"spec": {"volumeName": f"another-{name}"}}

    monkeypatch.setattr(Cluster, "_claim", staticmethod(anew))
    with pytest.raises(RecoveryError, match="make resume STACK=local"):
        restored(stack, replace=True)
    assert stack.changes == [("up",)]


@pytest.fixture
def rotated() -> Applied:
    """The administrator's password is another than when the archive was made."""
    addressed = json.dumps(STATE).replace('"id": "k"', '"inputs": {"url": "http://keycloak"}')
    stack = Applied(json.loads(addressed), Cluster(*DESTROYED, runs=True))
    stack.cluster.password = "present"
    return stack


HANDED_OVER = "present for the archive's at http://keycloak, after 0 ups"


def test_T13_keycloak_has_the_present_password_of_its_administrator_before_up_logs_in(
    restored, rotated
):
    restarted = ["start keycloak", HANDED_OVER, "start"]
    assert restored(rotated, replace=True) == ["backup", "stop", "fill", *restarted]


def test_T13_a_restored_keycloak_that_does_not_answer_yet_is_waited_for(
    restored, rotated, monkeypatch
):
    monkeypatch.setattr(kube.time, "sleep", lambda _: None)
    rotated.refusals = [KeycloakConnectionError(), KeycloakGetError(response_code=503)]
    assert restored(rotated, replace=True)[4:] == [*[HANDED_OVER] * 3, "start"]


def test_T13_a_restored_keycloak_that_takes_neither_password_is_told_of_and_the_restore_goes_on(
    restored, rotated
):
    rotated.refusals = [KeycloakAuthenticationError(response_code=401)]
    with pytest.raises(RecoveryError, match="takes neither") as told:
        restored(rotated, replace=True)
    assert "present" not in str(told.value).replace("present one", "")
    assert restored(rotated) == ["start keycloak", HANDED_OVER, "start"]


def test_T13_a_restore_that_is_given_up_lets_its_stack_run_again(tmp_path, monkeypatch):
    cluster = Cluster(*DESTROYED, runs=True)
    place, stack, said = Place(stack_file("local"), cluster), Known(STATE), list[str]()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RecoveryError, match="nothing to resume"):
        restore.resume(place, stack, said.append)
    cluster.marks = {names.RESTORING: "mlhub-local-a.age", names.FILLED: "mlhub-local-a.age v"}
    cluster.marked = {"hub": REPLICAS, "verify": SUSPENDED}
    Note(stack).leave("mlhub-local-a.age")
    restore.resume(place, stack, said.append)
    assert (cluster.marks, cluster.marked, Note(stack).archive()) == ({}, {}, None)
    assert "scale deployment hub" in cluster.log
    told = "\n".join(said)
    assert "the restore of mlhub-local-a.age is given up" in told
    assert "jupyterhub/hub starts again" in told
    with pytest.raises(RecoveryError, match="nothing to resume"):
        restore.resume(place, stack, said.append)


@pytest.fixture
def volume(tmp_path: Path) -> Path:
    """Alice's, with what she has written since."""
    made = tmp_path / "volumes" / "claim-alice"
    made.mkdir(parents=True)
    (made / "work.ipynb").write_text("newer")
    return made


class Inside(Kubectl):
    """Runs a pod's command here, where the volumes lie in another folder."""

    def __init__(self, volumes: Path):
        script = f"import sys\nsys.argv = [a.replace({ROOT!r}, {str(volumes)!r}) for a in sys.argv]"
        super().__init__((sys.executable, "-c", script + HERE))

    def items(self, kind: str, namespace: str, *_: str) -> list[dict[str, Any]]:
        claims = kind == "persistentvolumeclaims" and namespace == "jupyterhub"
        return [Cluster._claim("jupyterhub", "claim-alice")] if claims else []


@pytest.fixture
def with_home(tmp_path: Path, key: pyrage.x25519.Identity, monkeypatch: Any) -> Reader:
    """An archive with alice's files as they were."""
    then = tmp_path / "then"
    then.mkdir()
    (then / "work.ipynb").write_text("older")
    packed = b"".join(
        Kubectl((sys.executable, "-c", HERE)).take(
            Pod("jupyterhub", "agent"), "sh", "-c", PACK, str(then), ended=lambda _: None
        )
    )
    monkeypatch.setattr(beside, "mounted", lambda *_, **__: nullcontext(Pod("jupyterhub", "a")))
    monkeypatch.setattr(Place, "image", lambda _: ("image", []))
    path = tmp_path / "home.age"
    claim = Cluster._claim("jupyterhub", "claim-alice")
    with Writer(path, [key.to_public()]) as writer:
        parts = [
            writer.add("databases/jupyterhub", [b"rows"]),
            writer.add("volumes/jupyterhub/claim-alice", [packed]),
            writer.add("volumes/jupyterhub/claim-bob", [b"not read"]),
        ]
        writer.finish(Manifest("local", "began", "ended", "revision", {}, [claim], parts))
    return Reader(path, [key])


def test_T13_one_home_comes_back_beside_what_is_there(with_home: Reader, volume: Path):
    place = Place(stack_file("local"), Inside(volume.parent))
    for only in ("claim-alice", "jupyterhub/claim-alice"):
        said = list[str]()
        restore_beside(place, Known(STATE), with_home, only, said.append)
        (folder,) = volume.glob("restored-*")
        assert folder.name in said[0]
        assert (folder / "work.ipynb").read_text() == "older"
        assert (volume / "work.ipynb").read_text() == "newer"
        shutil.rmtree(folder)


def test_T13_a_home_that_is_a_disk_is_written_to_where_its_person_works(
    with_home, volume, monkeypatch
):
    class Working(Inside):
        def items(self, kind: str, namespace: str, *_: str) -> list[dict[str, Any]]:
            if kind == "pods":
                claim = {"persistentVolumeClaim": {"claimName": "claim-alice"}}
                spec = {"nodeName": "worker-1", "volumes": [claim]}
                return [{"spec": spec, "status": {"phase": "Running"}}]
            found = super().items(kind, namespace)
            return [one | {"spec": {"accessModes": ["ReadWriteOnce"]}} for one in found]

    nodes = list[str]()

    def send(*_: Any, node: Node, **__: Any) -> Any:
        nodes.append(node.name)
        return nullcontext(Pod("jupyterhub", "a"))

    monkeypatch.setattr(beside, "mounted", send)
    place = Place(stack_file("local"), Working(volume.parent))
    restore_beside(place, Known(STATE), with_home, "claim-alice", lambda _: None)
    assert nodes == ["worker-1"]


def test_T13_a_folder_that_is_there_is_never_written_into(with_home, volume, monkeypatch):
    monkeypatch.setattr(beside, "STAMP", "once")
    (volume / "restored-once").mkdir()
    place = Place(stack_file("local"), Inside(volume.parent))
    with pytest.raises(RecoveryError, match="File exists"):
        restore_beside(place, Known(STATE), with_home, "claim-alice", lambda _: None)
    assert not list((volume / "restored-once").iterdir())


def test_T13_a_volume_that_is_not_in_the_archive_or_not_there_is_told(with_home, volume):
    here = Place(stack_file("local"), Inside(volume.parent))
    nowhere = Place(stack_file("local"), Cluster())
    for place, only, why in (
        (here, "claim-carol", "one volume of .* is required: jupyterhub/claim-alice"),
        (nowhere, "claim-alice", "is not on the cluster"),
    ):
        with pytest.raises(RecoveryError, match=why):
            restore_beside(place, Known(STATE), with_home, only, lambda _: None)
    assert [path.name for path in volume.iterdir()] == ["work.ipynb"]


def test_T13_the_passphrase_of_a_machine_that_lost_it_is_the_archives(tmp_path, key, monkeypatch):
    path, told = tmp_path / "a.age", tmp_path / ".mlhub" / "passphrase"
    with Writer(path, [key.to_public()]) as writer:
        parts = [writer.add("passphrase", [b"the word"])]
        writer.finish(Manifest("local", "began", "ended", "revision", {}, [], parts))
    monkeypatch.setenv("PULUMI_CONFIG_PASSPHRASE_FILE", str(told))
    restore.prepare(Reader(path, [key]), "local", lambda _: None)
    assert told.read_bytes() == b"the word"
    assert told.stat().st_mode & 0o077 == 0
    told.write_bytes(b"another")
    restore.prepare(Reader(path, [key]), "local", lambda _: None)
    assert told.read_bytes() == b"another"


IN_ZONES = {Claim("jupyterhub", f"claim-{name}"): zone for name, zone in (("alice", 1), ("bob", 2))}


@pytest.fixture
def agents(monkeypatch: pytest.MonkeyPatch) -> list[list[Claim]]:
    """The claims of each agent that was asked for; one has volumes of one zone, which works."""
    asked: list[list[Claim]] = []

    @contextmanager
    def agent(_: Kubectl, claims: Sequence[Claim], *__: Any, **___: Any) -> Iterator[Pod]:
        asked.append([*claims])
        if len({IN_ZONES[claim] for claim in claims}) > 1 or 0 in map(IN_ZONES.get, claims):
            named = ", ".join(claim.name for claim in claims)
            raise NotMountedError(f"{named} could not be mounted: volume node affinity conflict")
        yield Pod("jupyterhub", "agent")

    monkeypatch.setattr(contents, "mounted", agent)
    monkeypatch.setattr(Place, "image", lambda _: ("image", []))
    return asked


def test_T13_volumes_of_two_zones_are_written_one_after_the_other(agents: list[list[Claim]]):
    """No node has both, so that a restore failed the same way however often it was given."""
    place = Place(stack_file("local"), Cluster())
    with Writers(place, [*IN_ZONES]) as writers:
        for claim in (*IN_ZONES, *IN_ZONES):
            assert writers.pod(claim) == Pod("jupyterhub", "agent")
    alice, bob = IN_ZONES
    assert agents == [[alice, bob], [alice], [bob], [alice], [bob]]


def test_T13_a_volume_that_does_not_mount_is_named_with_what_to_do(agents, monkeypatch):
    alice, bob = IN_ZONES
    monkeypatch.setitem(IN_ZONES, bob, 0)
    with Writers(Place(stack_file("local"), Cluster()), [alice, bob]) as writers:
        writers.pod(alice)
        with pytest.raises(RecoveryError) as told:
            writers.pod(bob)
    assert re.search(
        r"^claim-bob could not be mounted: .* services stay stopped.* same command", str(told.value)
    )


def test_T13_volumes_are_mounted_in_the_order_in_which_the_archive_has_them(
    reader: Reader, monkeypatch
):
    """A backup reads them by node: a batch would be mounted anew for each of its volumes."""
    alice, bob = IN_ZONES
    claims = [Cluster._claim(one.namespace, one.name) for one in (alice, bob)]
    parts = [Part(one.part, 0, "") for one in (bob, alice)]
    asked: list[Claim] = []

    def writers(_: Place, given: Sequence[Claim]) -> Any:
        asked.extend(given)
        return nullcontext()

    monkeypatch.setattr(restore, "Writers", writers)
    manifest = Manifest("local", "began", "ended", "revision", {}, claims, parts)
    restore.fill(
        Place(stack_file("local"), Cluster(str(alice), str(bob))), reader, manifest, lambda _: None
    )
    assert asked == [bob, alice]
