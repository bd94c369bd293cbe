"""One decision for every route: the arithmetic, the sentences, the promises, the hours."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st

from mlhub.admission import Answer, Ask, Charge, Holding, Ledger, Quotas, Size, decide
from mlhub.admission.holdings import holding_of, metadata
from mlhub.admission.hours import HourBook, gpu_hours, week_of
from mlhub.admission.sizes import GIB, quantity

ALICE, TEAM = Charge("user", "alice"), Charge("group", "/mlhub/users")
WORKSPACE = Charge("workspace", "churn")
QUOTAS = Quotas.model_validate(
    {
        "server": {"cpu": 16, "memory": "64Gi", "gpu": 4},
        "user": {"servers": 3, "gpu_hours": 40},
        "groups": {"/mlhub/users": {"cpu": 40}},
        "workspace": {"gpu": 4, "memory": "128Gi"},
    }
)
NOON = datetime(2026, 11, 18, 12, tzinfo=UTC)


def size(cpu: float = 2, memory: int = 4, gpu: int = 0) -> Size:
    """Memory in GiB."""
    return Size(cpu, memory * GIB, gpu)


def ask(name: str = "alice/new", owner: str = "alice", **given: Any) -> Ask:
    charges = {Charge("user", owner), TEAM} | given.pop("charges", set())
    return Ask(name, owner, size(**given), frozenset(charges))


def holding(name: str = "alice/", owner: str = "alice", **given: Any) -> Holding:
    wanted = ask(name, owner, **given)
    return Holding(name, owner, wanted.size, wanted.charges, uid=f"uid-{name}")


def ledger(
    seen: dict[str, Holding] | None = None, quotas: Quotas = QUOTAS, hours: Any = None
) -> tuple[Ledger, dict[str, Holding], list[float]]:
    pods, now = seen if seen is not None else {}, [0.0]
    return Ledger(quotas, lambda: pods, lambda: hours or {}, lambda: now[0]), pods, now


# The decision


def test_M9_what_fits_is_admitted_and_what_remains_is_said():
    answer = decide(ask(cpu=4), [holding()], QUOTAS, {ALICE: 30.5})
    assert answer.admitted
    mine, team = (account.plain() for account in answer.accounts)
    assert mine["remains"] == {"servers": 2, "gpu_hours": 9.5}
    assert team["remains"] == {"cpu": 38}
    assert answer.fits == {"cpu": 16, "memory": 64 * GIB, "gpu": 4}


@pytest.mark.parametrize(
    ("asked", "sentence"),
    [
        ({"cpu": 17}, "You asked for 17 CPU; one server may have at most 16 CPU."),
        ({"memory": 65}, "You asked for 65 GiB; one server may have at most 64 GiB."),
        ({"gpu": 5}, "You asked for 5 GPUs; one server may have at most 4 GPUs."),
    ],
)
def test_M9_one_notebook_has_at_most_16_CPU_64_GiB_and_4_GPUs(asked, sentence):
    answer = decide(ask(**asked), [], QUOTAS, {})
    assert (answer.status, answer.sentence) == (403, sentence)
    (edge,) = (
        {key: most} for key, most in (("cpu", 16), ("memory", 64), ("gpu", 4)) if key in asked
    )
    assert decide(ask(**edge), [], QUOTAS, {}).admitted


def test_M9_a_fourth_notebook_is_refused_whatever_its_size():
    three = [holding(f"alice/{n}") for n in range(3)]
    answer = decide(ask(cpu=0, memory=0), three, QUOTAS, {})
    assert answer.status == 429
    assert answer.sentence == "You have 3 of 3 servers running; stop one to start another."
    assert answer.fits is None
    assert decide(ask(owner="bob", name="bob/"), three, QUOTAS, {}).admitted


def test_a_group_shares_its_limit_among_its_members():
    others = [holding(f"{who}/", who, cpu=14) for who in ("bob", "carol")]
    answer = decide(ask(cpu=16), others, QUOTAS, {})
    assert answer.status == 429
    assert answer.sentence == (
        "You asked for 16 CPU; there is 12 CPU left of the 40 CPU of the group /mlhub/users. "
        "What fits now: 12 CPU, 64 GiB, 4 GPUs."
    )
    assert decide(ask(cpu=12), others, QUOTAS, {}).admitted


PERSON = {"servers": 3, "cpu": 8, "memory": "16Gi", "gpu": 4}


@pytest.mark.parametrize(
    ("user", "held", "fits"),
    [
        (PERSON, Size(cpu=6, gpu=3), "of your 8 CPU. What fits now: 2 CPU, 16 GiB, 1 GPU."),
        (PERSON, Size(cpu=6, gpu=4), "of your 8 CPU. What fits now: 2 CPU, 16 GiB."),
        (PERSON, Size(cpu=8), "of your 8 CPU."),
        ({"gpu": 4}, Size(gpu=4), "of your 4 GPUs."),
    ],
)
def test_what_fits_names_no_amount_of_nothing_and_nothing_where_no_server_fits(user, held, fits):
    there = [Holding("alice/x", "alice", held, frozenset({ALICE}))]
    ask = Ask("alice/y", "alice", Size(cpu=4, gpu=1), frozenset({ALICE}))
    sentence = decide(ask, there, Quotas.model_validate({"user": user}), {}).sentence
    assert sentence.endswith(f" {fits}"), sentence


def test_a_workspace_has_a_limit_that_its_servers_alone_use():
    inside = [holding(charges={WORKSPACE}, gpu=3), holding("bob/", "bob", gpu=4)]
    assert decide(ask(gpu=2), inside, QUOTAS, {}).admitted
    answer = decide(ask(gpu=2, charges={WORKSPACE}), inside, QUOTAS, {})
    assert (
        answer.status,
        "1 GPU left of the 4 GPUs of the workspace churn." in answer.sentence,
    ) == (
        429,
        True,
    )


def test_GPU_hours_that_are_used_up_stop_new_GPU_servers_alone():
    answer = decide(ask(gpu=1), [], QUOTAS, {ALICE: 40.0})
    assert answer.sentence == (
        "You have used 40.0 of 40 GPU-hours this week; new ones come on Monday, 00:00 UTC. "
        "Servers without a GPU can start."
    )
    assert answer.fits == {"cpu": 16, "memory": 64 * GIB, "gpu": 0}
    assert decide(ask(gpu=0), [], QUOTAS, {ALICE: 40.0}).admitted


def test_a_server_that_starts_again_does_not_count_against_itself():
    three = [holding(f"alice/{n}") for n in range(3)]
    assert decide(ask("alice/1"), three, QUOTAS, {}).admitted


def test_without_limits_everything_fits():
    assert decide(ask(cpu=1000, gpu=100), [holding()] * 100, Quotas(), {}).admitted


@given(st.lists(st.tuples(st.floats(0, 20), st.integers(0, 80), st.integers(0, 6)), max_size=20))
def test_M9_whatever_is_asked_no_limit_is_ever_passed(asked):
    book, *_ = ledger(
        quotas=Quotas.model_validate({"user": {"cpu": 16, "memory": "64Gi", "gpu": 4}})
    )
    for number, (cpu, memory, gpu) in enumerate(asked):
        answer: Answer = book.admit(ask(f"alice/{number}", cpu=cpu, memory=memory, gpu=gpu), 60)
        if not answer.admitted:
            assert answer.sentence
    total = sum((h.size for h in book.held()), Size())
    assert total.cpu <= 16 + 1e-6
    assert total.memory <= 64 * GIB
    assert total.gpu <= 4


# Promises


def test_M9_a_hundred_asks_get_exactly_the_limit():
    book, *_ = ledger()
    answers = [book.admit(ask(f"alice/{n}"), 60) for n in range(100)]
    assert sum(answer.admitted for answer in answers) == 3


def test_a_promise_counts_until_its_pod_does_and_never_twice():
    book, pods, _ = ledger()
    answer = book.admit(ask("alice/a"), 60)
    pods["uid"] = Holding("alice/a", "alice", size(), ask().charges, "uid", answer.reservation)
    assert len(book.held()) == 1
    del pods["uid"]
    assert len(book.held()) == 0, "the pod is gone, and its promise was kept"


def test_a_promise_that_nobody_uses_ends():
    book, _, now = ledger()
    for n in range(3):
        book.admit(ask(f"alice/{n}"), 60)
    now[0] = 59
    assert not book.admit(ask(), 60).admitted
    now[0] = 60
    assert book.admit(ask(), 60).admitted


def test_one_name_is_promised_once_and_a_run_never_instead_of_one_that_runs():
    book, pods, _ = ledger()
    run = replace(ask("alice/run/r"), again=False)
    first = book.admit(run, 60).reservation
    assert book.admit(run, 60).reservation != first
    assert len(book.held()) == 1
    for n in range(3):
        pods[f"u{n}"] = replace(holding("alice/run/r"), uid=f"u{n}")
    assert not book.admit(run, 60).admitted, "three pods of its name run already"
    assert book.admit(ask("alice/run/r"), 60).admitted, "a server's pod would end for it"


def test_a_promise_is_not_lost_when_it_cannot_be_renewed():
    book, *_ = ledger()
    key = book.admit(ask("alice/0"), 60).reservation
    assert not book.admit(ask("alice/0", cpu=17), 60, key).admitted
    assert [h.name for h in book.held()] == ["alice/0"]


def test_a_promise_is_renewed_by_its_id_and_released():
    book, _, now = ledger()
    keys = [book.admit(ask(f"alice/{n}"), 60).reservation for n in range(3)]
    now[0] = 50
    assert book.admit(ask("alice/0"), 60, keys[0]).reservation == keys[0]
    now[0] = 70
    assert [h.name for h in book.held()] == ["alice/0"]
    assert book.release(keys[0])
    assert not book.release(keys[0])
    assert not book.held()


# The cluster is the truth


def pod_of(given: Holding, kind: str = "server", **status: Any) -> dict[str, Any]:
    about = metadata(given, kind)
    limits = {"cpu": "1500m", "memory": "2Gi", "nvidia.com/gpu": "1"}
    container = {"resources": {"limits": limits}}
    return {
        "metadata": {"name": "jupyter-alice", "uid": "u1", **about},
        "spec": {"nodeName": "node-1", "containers": [container]},
        "status": {"phase": "Running", "startTime": "2026-11-18T10:00:00Z", **status},
    }


def test_M9_a_pod_tells_all_that_a_restarted_hub_needs():
    promised = Holding(
        "alice/é", "alice@x", size(), ask(charges={WORKSPACE}).charges, reservation="r"
    )
    found = holding_of(pod_of(promised))
    assert found == Holding(
        name="alice/é",
        owner="alice@x",
        size=Size(1.5, 2 * GIB, 1),
        charges=promised.charges,
        uid="u1",
        reservation="r",
        node="node-1",
        started=datetime(2026, 11, 18, 10, tzinfo=UTC),
        pod="jupyter-alice",
        kind="server",
    )


@pytest.mark.parametrize("phase", ["Succeeded", "Failed"])
def test_a_pod_that_is_done_holds_nothing(phase):
    assert holding_of(pod_of(holding(), "run", phase=phase)) is None


def test_somebody_elses_pod_holds_nothing():
    pod = pod_of(holding())
    pod["metadata"]["annotations"] = {}
    assert holding_of(pod) is None


@pytest.mark.parametrize(
    ("given", "number"),
    [
        ("500m", 0.5),
        (4, 4),
        ("8Gi", 8 * GIB),
        ("2G", 2e9),
        ("1k", 1000),
        ("1.5", 1.5),
        ("1Ki", 1024),
    ],
)
def test_quantities_are_read_as_kubernetes_reads_them(given, number):
    assert quantity(given) == number


@pytest.mark.parametrize("given", ["", "Gi", "1 Gi", "-1", "1X", "1e3"])
def test_what_is_no_quantity_is_refused(given):
    with pytest.raises(ValueError, match="no Kubernetes quantity"):
        quantity(given)


# Hours


def gpu_pod(uid: str, gpus: int, started: datetime, owner: str = "alice") -> Holding:
    charges = frozenset({Charge("user", owner)})
    return Holding(f"{owner}/{uid}", owner, size(gpu=gpus), charges, uid=uid, started=started)


def test_the_week_begins_on_monday_at_midnight_UTC():
    assert week_of(NOON) == datetime(2026, 11, 16, tzinfo=UTC)
    assert week_of(datetime(2026, 11, 16, tzinfo=UTC)) == datetime(2026, 11, 16, tzinfo=UTC)


def test_what_was_used_before_the_week_does_not_count():
    monday = week_of(NOON)
    assert gpu_hours(2, monday - timedelta(hours=5), monday + timedelta(hours=3), monday) == 6
    assert gpu_hours(2, monday - timedelta(hours=5), monday - timedelta(hours=3), monday) == 0


@pytest.fixture
def engine() -> sa.Engine:
    return sa.create_engine("sqlite://", poolclass=sa.StaticPool)


def test_GPU_hours_go_on_while_the_pod_is_seen_and_survive_the_hub(engine):
    book = HourBook(engine)
    pods = [gpu_pod("a", 2, NOON), gpu_pod("b", 1, NOON, "bob"), gpu_pod("c", 0, NOON)]
    for minutes in (0, 30, 60):
        book.record(pods, NOON + timedelta(minutes=minutes))
    later = NOON + timedelta(hours=5)
    again = HourBook(engine)
    assert again.used(later) == {ALICE: 2.0, Charge("user", "bob"): 1.0}
    assert again.used(later + timedelta(days=7)) == {}


def test_a_pod_that_no_node_took_uses_no_hours(engine):
    book = HourBook(engine)
    waiting = Holding("alice/", "alice", size(gpu=1), frozenset({ALICE}), uid="w")
    book.record([waiting], NOON)
    assert book.used(NOON) == {}
