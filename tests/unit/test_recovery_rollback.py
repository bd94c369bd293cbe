"""`make rollback`: what it applies and empties, and how one that did not end goes on."""

from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from components import names
from tests.unit.test_recovery import POD, STATE, Known, applied
from tools.recovery import rollback
from tools.recovery.errors import RecoveryError
from tools.recovery.kube import Pod
from tools.recovery.place import Claim, Place


class Dropped(Place):
    """A stack whose every change is written down, and which has a database and a home."""

    own_keycloak = False
    hub = "jupyterhub"

    def __init__(self):
        self.log: list[str] = []
        self.said: list[str] = []
        self.marks: dict[str, str] = {}
        self.kubectl = self

    def __call__(self, verb: str, kind: str, *arguments: str) -> str:
        self.log.append(f"{verb} {kind} {arguments[-1]}")
        return ""

    def items(self, kind: str, *_: str) -> list[dict]:
        return [{"metadata": {"annotations": self.marks}}]

    def claims(self):
        return [{"metadata": {"namespace": "jupyterhub", "name": "claim-alice"}}]

    def databases(self):
        return ["jupyterhub"]

    def buckets(self):
        return []

    def image(self):
        return "image", []

    def stop(self):
        self.log.append("stop")

    def start(self, *only: str):
        self.log.append("start")


class Anyone:
    def pod(self, claim: Claim) -> Pod:
        return POD


class Named:
    def __init__(self, note):
        self.change = note


OLDER, NEWER = "aaaaaaa", "bbbbbbb"
EMPTIED = [
    "stop",
    "a volume is empty",
    "a database is empty",
    "delete cronjobs mlhub.io/kind",
    "delete jobs app.kubernetes.io/name=storage",
]
RollBack = Callable[..., list[str]]


def ended(head: str, at: str, *, result: str = "succeeded") -> dict[str, Any]:
    return applied(head, result=result) | {"endTime": f"{at}T00:00:00.000Z"}


@pytest.fixture
def place() -> Dropped:
    return Dropped()


@pytest.fixture
def stack() -> Known:
    """The older revision was applied, then the newer one, which is bad."""
    return Known(STATE, ended(NEWER, "2000-01-02"), ended(OLDER, "2000-01-01"))


@pytest.fixture
def rolled_back(
    place: Dropped, stack: Known, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> RollBack:
    """Rolls back, and returns what was done to the data and which revision was applied; an `up`
    ends as `fails` says and then stands in the history."""
    note, heads = place.log.append, list[str]()
    monkeypatch.setattr(
        rollback, "git", lambda verb, *a: a[-1].removesuffix("^{commit}") if "rev" in verb else ""
    )
    monkeypatch.setattr(rollback, "rebind", lambda *_: None)
    monkeypatch.setattr(rollback, "clone", lambda revision, _: heads.append(revision))
    monkeypatch.setattr(rollback, "_environments", lambda _: None)
    monkeypatch.setattr(rollback, "Writers", lambda *_: nullcontext(Anyone()))
    monkeypatch.setattr(rollback, "empty_volume", lambda *_: note("a volume is empty"))
    monkeypatch.setattr(rollback, "empty_database", lambda *_: note("a database is empty"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".mlhub").mkdir()

    def run(
        wanted: str = "", *, drop: bool = False, confirm: str = "local", fails: bool = False
    ) -> list[str]:
        place.log.clear()

        def up(verb: str) -> None:
            note(f"{verb} {heads[-1]}")
            result = "failed" if fails else "succeeded"
            stack.history.insert(0, ended(heads[-1], "2999-01-01", result=result))
            if fails:
                raise RecoveryError("`pulumi up` of local did not end")

        monkeypatch.setattr(rollback, "Stack", lambda *_: Named(up))
        rollback.roll_back(place, stack, wanted, drop=drop, confirm=confirm, say=place.said.append)
        return [*place.log]

    return run


def test_T13_only_the_older_services_meet_the_empty_databases(rolled_back: RollBack, tmp_path):
    assert rolled_back(OLDER, drop=True) == [*EMPTIED, f"up {OLDER}", "start"]
    assert rolled_back(NEWER) == [f"up {NEWER}"]
    assert not list((tmp_path / ".mlhub").iterdir())


def test_T13_a_rollback_that_failed_goes_on_to_the_same_revision(rolled_back, place, tmp_path):
    """To before the failed one was the bad one, which that history has as the last that worked."""
    for _ in range(2):
        with pytest.raises(RecoveryError, match=f"did not end.*TO={OLDER}"):
            rolled_back(fails=True)
        assert place.log == [f"up {OLDER}"]
    assert rolled_back() == [f"up {OLDER}"]
    assert f"TO={NEWER} goes forth again" in place.said[-1]
    assert not list((tmp_path / ".mlhub").iterdir())


def test_T13_a_rollback_that_failed_empties_nothing_that_it_had_emptied(rolled_back, place):
    with pytest.raises(RecoveryError, match="did not end"):
        rolled_back(drop=True, fails=True)
    assert place.log == [*EMPTIED, f"up {OLDER}"]
    assert rolled_back(drop=True) == [f"up {OLDER}", "start"]


def test_T13_a_rollback_whose_services_did_not_start_in_time_goes_on(
    rolled_back, place, monkeypatch
):
    def late(*_: str) -> None:
        raise RecoveryError("timed out waiting for the condition")

    with monkeypatch.context() as meanwhile:
        meanwhile.setattr(place, "start", late)
        with pytest.raises(RecoveryError, match=f"timed out.*TO={OLDER}"):
            rolled_back(drop=True)
    assert rolled_back(drop=True) == [f"up {OLDER}", "start"]


def test_T13_data_that_were_emptied_in_part_are_emptied_again(rolled_back, place, monkeypatch):
    def killed(*_: str) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as meanwhile:
        meanwhile.setattr(rollback, "empty_database", killed)
        with pytest.raises(KeyboardInterrupt):
            rolled_back(drop=True)
    assert rolled_back(drop=True) == [*EMPTIED, f"up {OLDER}", "start"]


def test_T13_services_that_a_rollback_stopped_start_though_it_goes_on_without_drop(rolled_back):
    with pytest.raises(RecoveryError):
        rolled_back(drop=True, fails=True)
    assert rolled_back() == [f"up {OLDER}", "start"]


@pytest.fixture
def failed(rolled_back: RollBack) -> None:
    """A rollback has emptied everything, and its `up` has failed."""
    with pytest.raises(RecoveryError, match="did not end"):
        rolled_back(drop=True, fails=True)


@pytest.mark.usefixtures("failed")
def test_T13_a_failed_rollback_is_replaced_by_one_to_a_revision_that_is_named(rolled_back):
    """The services of that one meet empty databases as well."""
    assert rolled_back("0000000", drop=True) == [*EMPTIED, "up 0000000", "start"]
    assert rolled_back() == [f"up {NEWER}"], "and with it the failed one is forgotten"


@pytest.mark.usefixtures("failed")
def test_T13_a_failed_rollback_is_forgotten_once_another_revision_was_applied(rolled_back, stack):
    stack.history[:0] = [ended("ddddddd", "2999-01-03"), ended("ccccccc", "2999-01-02")]
    assert rolled_back() == ["up ccccccc"]


@pytest.mark.usefixtures("failed")
def test_T13_what_another_revision_may_have_written_to_is_emptied_again(rolled_back, stack):
    stack.history.insert(0, ended("ccccccc", "2999-01-02", result="failed"))
    with pytest.raises(RecoveryError, match="CONFIRM=local"):
        rolled_back(drop=True, confirm="")
    assert rolled_back(drop=True) == [*EMPTIED, f"up {OLDER}", "start"]


def test_T13_a_rollback_that_is_refused_leaves_nothing_for_the_next(rolled_back, place, tmp_path):
    with pytest.raises(RecoveryError, match="CONFIRM=local"):
        rolled_back(drop=True, confirm="")
    place.marks = {names.RESTORING: "mlhub-local-a.age"}
    with pytest.raises(RecoveryError, match="make resume STACK=local"):
        rolled_back(drop=True)
    assert place.log == []
    assert not list((tmp_path / ".mlhub").iterdir())
