"""A backup of claims of which one does not mount: everybody else's files are in the archive."""

import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyrage
import pytest

from tests.unit.test_recovery import STATE, Known
from tools.recovery import __main__ as main
from tools.recovery import backup, contents, state
from tools.recovery.agents import NodeError, NotMountedError, agent, mounted
from tools.recovery.archive import Reader
from tools.recovery.errors import RecoveryError
from tools.recovery.kube import Kubectl, Pod, Report
from tools.recovery.place import Claim, Node, Place, stack_file

HOMES = [Claim("jupyterhub", f"claim-{name}") for name in ("alice", "bob", "carol")]
BROKEN = HOMES[1]


class Team(Place):
    """Three homes and the record of the last backup."""

    own_keycloak = False
    hub = "jupyterhub"
    foundation = "foundation"
    namespaces = ("jupyterhub", "foundation")

    def __init__(self) -> None:
        self.recorded: list[str] = []
        self.kubectl: Any = self

    def apply(self, record: dict[str, Any]) -> None:
        self.recorded.append(record["data"]["archive"])

    def there(self) -> bool:
        return True

    def items(self, kind: str, *_: str) -> list[dict[str, Any]]:
        if kind != "persistentvolumeclaims" or _[0] != "jupyterhub":
            return []
        return [
            {
                "metadata": {"name": claim.name, "namespace": claim.namespace},
                "spec": {},
                "status": {"phase": "Bound"},
            }
            for claim in HOMES
        ]

    def databases(self) -> list[str]:
        return []

    def image(self) -> tuple[str, list[dict[str, str]]]:
        return "image", []


@pytest.fixture
def agents(monkeypatch: pytest.MonkeyPatch) -> list[list[Claim]]:
    """The claims of each agent that was asked for."""
    asked: list[list[Claim]] = []

    @contextmanager
    def send(_: Kubectl, claims: Sequence[Claim], *__: Any, **___: Any) -> Iterator[Pod]:
        asked.append([*claims])
        if BROKEN in claims:
            raise NotMountedError("claim-bob could not be mounted: no such disk")
        yield Pod("jupyterhub", "agent")

    def take(_: Place, pod: Pod, claim: Claim, ended: Any) -> Iterator[bytes]:
        data = claim.name.encode()
        yield data
        ended(Report(0, len(data), hashlib.sha256(data).hexdigest(), 1, []))

    monkeypatch.setattr(contents, "mounted", send)
    monkeypatch.setattr(contents, "read_volume", take)
    monkeypatch.setattr(state, "revision", lambda: "revision")
    return asked


def test_T13_a_claim_that_does_not_mount_is_left_out_and_named(agents, tmp_path: Path):
    key, place, said = pyrage.x25519.Identity.generate(), Team(), list[str]()
    with pytest.raises(RecoveryError, match=r"whole but for jupyterhub/claim-bob"):
        backup.backup(place, Known(STATE), tmp_path, [key.to_public()], said.append)
    assert agents == [HOMES, *([claim] for claim in HOMES)]
    (archive,) = tmp_path.glob("mlhub-local-*.age")
    manifest = Reader(archive, [key]).verify()
    assert manifest.left_out == ["jupyterhub: claim-bob could not be mounted: no such disk"]
    kept = [claim["metadata"]["name"] for claim in manifest.claims]
    assert kept == ["claim-alice", "claim-carol"]
    assert [part.name for part in manifest.parts][-2:] == [HOMES[0].part, HOMES[2].part]
    assert not place.recorded, "nobody is told that a backup has succeeded"
    assert "no such disk" in "\n".join(said)


def test_T13_a_claim_that_is_deleted_while_a_backup_begins_is_in_it_or_left_out(agents, tmp_path):
    """Claims were listed twice, and such a one was both."""

    class Deleting(Team):
        looks = 0

        def items(self, kind: str, *_: str) -> list[dict[str, Any]]:
            found = super().items(kind, *_)
            self.looks += bool(found)
            if self.looks > 1:
                found[0]["metadata"]["deletionTimestamp"] = "2026-11-30T07:09:00Z"
            return [claim for claim in found if claim["metadata"]["name"] != BROKEN.name]

    key, place = pyrage.x25519.Identity.generate(), Deleting()
    path = backup.backup(place, Known(STATE), tmp_path, [key.to_public()], lambda _: None)
    manifest = Reader(path, [key]).verify()
    assert manifest.left_out == []
    assert [c["metadata"]["name"] for c in manifest.claims] == ["claim-alice", "claim-carol"]
    assert place.looks == 1


def test_T13_older_archives_stay_beside_one_that_lacks_a_claim(agents, tmp_path, monkeypatch):
    key = pyrage.x25519.Identity.generate()
    older = [tmp_path / f"mlhub-local-2026110{day}T021500Z.age" for day in (1, 2)]
    for path in older:
        path.touch()
    monkeypatch.setattr(main, "Place", lambda *_: Team())
    monkeypatch.setattr(main, "Stack", lambda *_: Known(STATE))
    options = ["--to", str(tmp_path), "--recipient", str(key.to_public()), "--keep", "1"]
    monkeypatch.setattr("sys.argv", ["recovery", "backup", *options])
    assert main.main() == 1
    assert all(path.exists() for path in older)
    assert len([*tmp_path.glob("*.age")]) == 3


class Changing(Known):
    """A stack whose state an `up` writes anew at some of the looks at it."""

    def __init__(self, *changed: int):
        super().__init__(STATE)
        self.looks, self._changed = 0, changed

    def export(self) -> dict[str, Any]:
        self.looks += 1
        if self.looks in self._changed:
            self.state = {**STATE, "time": self.looks}
        return super().export()


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """How long each pause between two tries was to be."""
    made: list[float] = []
    monkeypatch.setattr(backup.time, "sleep", made.append)
    return made


@pytest.fixture
def everyone_mounts(agents, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(f"{__name__}.BROKEN", None)


def test_T13_a_backup_in_which_an_up_changed_the_stack_is_no_archive_and_made_again(
    everyone_mounts, pauses, tmp_path: Path
):
    key, place, said = pyrage.x25519.Identity.generate(), Team(), list[str]()
    path = backup.backup(place, Changing(2), tmp_path, [key.to_public()], said.append)
    assert [*tmp_path.iterdir()] == [path]
    archived = Reader(path, [key]).first("state.json")
    assert json.loads(archived or b"")["time"] == 2, "the state that the first try did not have"
    assert place.recorded == [path.name]
    assert pauses == [backup.PAUSE_SECONDS]
    assert any("was changed while" in line for line in said)


def test_T13_an_up_is_noticed_before_hours_were_spent_on_the_rest(
    everyone_mounts, pauses, tmp_path: Path, monkeypatch
):
    monkeypatch.setattr(backup, "LOOK_SECONDS", 0)
    key, said = pyrage.x25519.Identity.generate(), list[str]()
    backup.backup(Team(), Changing(3), tmp_path, [key.to_public()], said.append)
    before = said[: next(n for n, line in enumerate(said) if "was changed while" in line)]
    assert [line.split()[2].strip(":") for line in before] == [home.part for home in HOMES[:2]]


def test_T13_a_stack_that_never_rests_has_no_backup_and_says_so(
    everyone_mounts, pauses, tmp_path: Path
):
    key, place = pyrage.x25519.Identity.generate(), Team()
    with pytest.raises(RecoveryError, match="was changed while"):
        backup.backup(place, Changing(*range(99)), tmp_path, [key.to_public()], lambda _: None)
    assert len(pauses) == backup.TRIES - 1
    assert not [*tmp_path.iterdir()]
    assert not place.recorded


class Stuck(Kubectl):
    """A cluster whose agent does not start, and what is said of it."""

    def __init__(self, reason: str, message: str):
        super().__init__()
        self._event = {"reason": reason, "message": message}

    def __call__(self, *arguments: str, stdin: str | None = None) -> str:
        if arguments[0] == "wait":
            raise RecoveryError("timed out")
        if arguments[:2] == ("get", "events"):
            assert any("involvedObject.uid=7" in argument for argument in arguments)
            return json.dumps({"items": [self._event]})
        return json.dumps({"metadata": {"uid": "7"}})


@pytest.mark.parametrize(
    ("reason", "message", "kind"),
    [
        ("FailedMount", "no such disk", NotMountedError),
        ("FailedScheduling", "1 node(s) had volume node affinity conflict", NotMountedError),
        ("FailedScheduling", "Insufficient memory", RecoveryError),
        ("Failed", "ImagePullBackOff", RecoveryError),
    ],
)
def test_an_agent_that_does_not_start_is_a_claims_fault_only_where_it_says_so(
    reason, message, kind
):
    with (
        pytest.raises(RecoveryError, match=message.replace("(", r"\(").replace(")", r"\)")) as told,
        mounted(Stuck(reason, message), HOMES, ("image", [])),
    ):
        pass
    assert told.type is kind


GPU = {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}
HERE, THERE = Node("worker-1"), Node("gpu-1", (GPU,))


class Working(Kubectl):
    """A cluster where homes are disks of one node at a time, with people at work."""

    def __init__(self) -> None:
        super().__init__()
        self.pods: list[dict[str, Any]] = []

    def run(self, user: str, node: str, phase: str = "Running", **spec: Any) -> None:
        claims = [{"persistentVolumeClaim": {"claimName": c}} for c in (f"claim-{user}", "data")]
        spec = {"nodeName": node, "volumes": [*claims, {"emptyDir": {}}], **spec}
        name = f"jupyter-{user}-{len(self.pods)}"
        self.pods.append({"metadata": {"name": name}, "spec": spec, "status": {"phase": phase}})

    @property
    def claims(self) -> list[dict[str, Any]]:
        modes = {"data": "ReadWriteMany"} | {c.name: "ReadWriteOnce" for c in HOMES}
        return [
            {
                "metadata": {"name": name, "namespace": "jupyterhub"},
                "spec": {"accessModes": [mode]},
                "status": {"phase": "Bound"},
            }
            for name, mode in modes.items()
        ]

    def items(self, kind: str, namespace: str, *_: str) -> list[dict[str, Any]]:
        found = {"pods": self.pods, "persistentvolumeclaims": self.claims}
        return found.get(kind, []) if namespace == "jupyterhub" else []


DATA = Claim("jupyterhub", "data")


@pytest.fixture
def working(monkeypatch: pytest.MonkeyPatch) -> tuple[Place, Working]:
    cluster = Working()
    place = Place(stack_file("local"), cluster)
    for what in ("databases", "buckets"):
        monkeypatch.setattr(place, what, list)
    monkeypatch.setattr(place, "image", lambda: ("image", []))
    return place, cluster


def read(place: Place, cluster: Working, missed: dict[Claim, str]) -> list[str]:
    return [name for name, _ in contents.sources(place, cluster.claims, missed.__setitem__)]


@pytest.fixture
def nodes(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Node | None, list[Claim]]]:
    """Where each agent was sent to, and its claims."""
    asked: list[tuple[Node | None, list[Claim]]] = []

    @contextmanager
    def send(
        _: Kubectl, claims: Sequence[Claim], *__: Any, node: Node | None = None
    ) -> Iterator[Pod]:
        asked.append((node, [*claims]))
        yield Pod("jupyterhub", "agent")

    monkeypatch.setattr(contents, "mounted", send)
    return asked


def test_T13_a_disk_of_one_node_is_read_where_its_person_works(working, nodes):
    """Elsewhere it does not mount, so that no backup succeeded while anybody worked."""
    place, cluster = working
    alice, bob, carol = HOMES
    cluster.run("alice", "gpu-1", tolerations=[GPU])
    cluster.run("bob", "worker-1")
    cluster.run("carol", "worker-2", phase="Succeeded")
    assert len(read(place, cluster, {})) == 4
    assert nodes == [(None, [DATA, carol]), (THERE, [alice]), (HERE, [bob])]
    assert place.nodes([alice])[alice].tolerations == (GPU,)


def test_T13_the_pod_that_waits_for_a_disk_does_not_say_where_it_is(working, nodes):
    place, cluster = working
    alice, *_ = HOMES
    cluster.run("alice", "worker-2", phase="Pending")
    cluster.run("alice", "worker-1")
    cluster.run("alice", "worker-3", phase="Pending")
    assert place.nodes([alice]) == {alice: HERE}


def test_T13_where_a_disk_is_is_looked_up_when_its_turn_comes(working, nodes):
    """Whoever has begun or ended work meanwhile has the disk elsewhere."""
    place, cluster = working
    alice, bob, carol = HOMES
    cluster.run("alice", "gpu-1", tolerations=[GPU])
    parts = contents.sources(place, cluster.claims, lambda *_: None)
    next(parts)
    cluster.pods.clear()
    cluster.run("alice", "worker-1")
    assert len([*parts]) == 3
    assert nodes == [(None, [DATA, bob, carol]), (HERE, [alice])]


def test_T13_claims_of_a_node_that_takes_no_agent_are_left_out_at_once(working, monkeypatch):
    place, cluster = working
    alice, bob, carol = HOMES
    cluster.run("alice", "worker-1")
    cluster.run("bob", "worker-1")
    asked: list[list[Claim]] = []

    @contextmanager
    def send(_: Kubectl, claims: Sequence[Claim], *__: Any, node: Any = None) -> Iterator[Pod]:
        asked.append([*claims])
        if node:
            raise NodeError("worker-1 is gone")
        yield Pod("jupyterhub", "agent")

    monkeypatch.setattr(contents, "mounted", send)
    missed: dict[Claim, str] = {}
    assert read(place, cluster, missed) == [DATA.part, carol.part]
    assert missed == {alice: "worker-1 is gone", bob: "worker-1 is gone"}
    assert asked == [[DATA, carol], [alice, bob]]


def test_an_agent_that_is_sent_to_a_node_gets_there_through_its_taints():
    spec = agent("reader", HOMES, ("image", []), writes=False, node=THERE)["spec"]
    (term,) = spec["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"][
        "nodeSelectorTerms"
    ]
    # By its name and not by a label, which may differ.
    assert term == {
        "matchFields": [{"key": "metadata.name", "operator": "In", "values": ["gpu-1"]}]
    }
    assert GPU in spec["tolerations"]
    assert "node.kubernetes.io/unschedulable" in [one["key"] for one in spec["tolerations"]]
    anywhere = agent("reader", HOMES, ("image", []), writes=False)["spec"]
    assert not {"affinity", "tolerations"} & anywhere.keys()


@pytest.mark.parametrize(
    ("reason", "message", "kind"),
    [
        ("FailedMount", "no such disk", NotMountedError),
        ("FailedScheduling", "Insufficient memory", NodeError),
        ("FailedScheduling", "had untolerated taint {node.kubernetes.io/unreachable: }", NodeError),
    ],
)
def test_a_node_that_takes_no_agent_is_no_reason_to_read_nothing(reason, message, kind):
    with (
        pytest.raises(kind) as told,
        mounted(Stuck(reason, message), HOMES, ("image", []), node=HERE),
    ):
        pass
    assert told.type is kind
    assert "worker-1" in str(told.value)
    assert message in str(told.value)


def test_a_stack_that_is_not_there_is_told_how_it_comes(tmp_path, monkeypatch):
    place = Team()
    monkeypatch.setattr(place, "there", lambda: False)
    with pytest.raises(RecoveryError, match="pulumi up --stack local --policy-pack policies"):
        backup.backup(place, Known(STATE), tmp_path, [], lambda _: None)
