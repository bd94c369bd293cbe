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
from tools.recovery.agents import NotMountedError, mounted
from tools.recovery.archive import Reader
from tools.recovery.errors import RecoveryError
from tools.recovery.kube import Kubectl, Pod, Report
from tools.recovery.place import Claim, Place

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
    def agent(_: Kubectl, claims: Sequence[Claim], *__: Any) -> Iterator[Pod]:
        asked.append([*claims])
        if BROKEN in claims:
            raise NotMountedError("claim-bob could not be mounted: no such disk")
        yield Pod("jupyterhub", "agent")

    def read(_: Place, pod: Pod, claim: Claim, ended: Any) -> Iterator[bytes]:
        data = claim.name.encode()
        yield data
        ended(Report(0, len(data), hashlib.sha256(data).hexdigest(), 1, []))

    monkeypatch.setattr(contents, "mounted", agent)
    monkeypatch.setattr(contents, "read_volume", read)
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


class Stuck(Kubectl):
    """A cluster whose agent does not start, and what is said of it."""

    def __init__(self, reason: str, message: str):
        super().__init__(None)
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


def test_a_stack_that_is_not_there_is_told_how_it_comes(tmp_path, monkeypatch):
    place = Team()
    monkeypatch.setattr(place, "there", lambda: False)
    with pytest.raises(RecoveryError, match="pulumi up --stack local --policy-pack policies"):
        backup.backup(place, Known(STATE), tmp_path, [], lambda _: None)
