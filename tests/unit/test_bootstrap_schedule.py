import threading
import time

import pytest

from bootstrap.errors import BootstrapError
from bootstrap.schedule import CancelledError, Done, Step, Task, check, run


class Quiet:
    def __init__(self):
        self.ended_names = []

    def began(self, task):
        pass

    def ended(self, done):
        self.ended_names.append(done.name)

    def tick(self, running):
        pass


def told(word):
    return lambda task: word


def test_a_step_starts_only_when_all_that_it_needs_is_done():
    seen = []

    def note(task):
        seen.append(task.name)
        return ""

    run([Step("c", note, ("a", "b")), Step("b", note, ("a",)), Step("a", note)], Quiet(), 0.01)
    assert seen == ["a", "b", "c"]


def test_steps_that_do_not_need_each_other_run_side_by_side():
    meeting = threading.Barrier(3, timeout=60)

    def meet(task):
        meeting.wait()  # breaks, and fails the step, unless all three are here at once
        return "met"

    done = run([Step(name, meet) for name in "abc"], Quiet(), 0.01)
    assert {one.outcome for one in done} == {"met"}


def test_a_failure_stops_what_runs_and_what_waits_and_names_its_step():
    stopped = threading.Event()

    def forever(task):
        try:
            while True:
                task.check()
                time.sleep(0.01)
        except CancelledError:
            stopped.set()
            raise

    def fail(task):
        time.sleep(0.05)
        raise BootstrapError("the mirror does not answer")

    never = []
    steps = [
        Step("long", forever),
        Step("broken", fail),
        Step("after", lambda task: never.append(1) or "", ("broken",)),
    ]
    with pytest.raises(BootstrapError, match=r"^broken: the mirror does not answer$"):
        run(steps, Quiet(), 0.01)
    assert stopped.is_set()
    assert not never


def test_an_error_that_is_no_persons_is_not_hidden():
    def bug(task):
        raise KeyError("x")

    with pytest.raises(KeyError):
        run([Step("a", bug)], Quiet(), 0.01)


@pytest.mark.parametrize(
    ("steps", "said"),
    [
        ([Step("a", told(""), ("b",))], "which no step is"),
        ([Step("a", told("")), Step("a", told(""))], "there twice"),
        ([Step("a", told(""), ("b",)), Step("b", told(""), ("a",))], "wait for each other"),
        ([Step("a", told(""), ("a",))], "wait for each other"),
    ],
)
def test_steps_that_can_never_end_are_refused_before_any_runs(steps, said):
    with pytest.raises(ValueError, match=said):
        check(steps)


def test_outcomes_come_with_the_seconds_they_took():
    def work(task: Task) -> str:
        time.sleep(0.05)
        return "done"

    (done,) = run([Step("a", work)], Quiet(), 0.01)
    assert isinstance(done, Done)
    assert done.outcome == "done"
    assert 0.05 <= done.seconds < 30
