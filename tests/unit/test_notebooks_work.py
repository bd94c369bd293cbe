"""What a template goes on with: the same data, parameters and code, one notebook at a time."""

import errno
import fcntl
import multiprocessing
import threading
import time

import numpy as np
import pytest

from notebooks.templates.data import make_customers, make_shapes
from notebooks.templates.work import alone_in, fingerprint, progress


def objective(trial):
    return trial


def changed(trial):
    return 2 * trial


def test_M5_the_same_data_parameters_and_code_are_the_same_work():
    def one(rows=50, seed=0, code=objective, **settings):
        given = {"seed": 0, "target": "churned"} | settings
        return fingerprint(make_customers(rows, seed), code=code, **given)

    assert one() == one()
    assert len(one()) == 10
    others = [one(seed=1), one(rows=51), one(code=changed), one(target="calls"), one(more=1)]
    assert len({one(), *others}) == 6


@pytest.mark.parametrize("column", make_customers(5).columns)
def test_M5_one_changed_value_in_any_column_is_another_table(column):
    table = make_customers(50)
    other = table.copy()
    other.loc[7, column] = (
        table.loc[table[column].ne(table.loc[7, column]), column].dropna().iloc[0]
    )
    assert fingerprint(table) != fingerprint(other)
    assert fingerprint(table) != fingerprint(table.rename(columns={column: "renamed"}))


def test_M5_other_pictures_of_the_same_shape_are_other_work():
    images, labels = make_shapes(8)
    others, their_labels = make_shapes(8, seed=1)
    kinds = {
        fingerprint(images, labels),
        fingerprint(others, labels),
        fingerprint(images, their_labels),
        fingerprint(images.astype(np.float64), labels),
        fingerprint(images.reshape(8, 256), labels),
    }
    assert len(kinds) == 5
    assert fingerprint(images[:, ::2]) == fingerprint(images[:, ::2].copy())


@pytest.mark.parametrize(
    ("done", "said"),
    [
        (0, "begins anew"),
        (3, "goes on after 3 of 8 epochs"),
        (8, "finished earlier, with 8 epochs; none is added"),
        (9, "finished earlier, with 9 epochs; none is added"),
    ],
)
def test_M5_a_notebook_says_what_it_begins_with(done, said):
    assert progress("pytorch/1a", done, 8, "epochs") == f"pytorch/1a: {said}"


def _held(folder, inside):
    with alone_in(folder):
        inside.set()
        time.sleep(60)


def test_M5_one_waits_for_the_other_and_a_killed_kernel_leaves_no_lock(tmp_path, capsys):
    context = multiprocessing.get_context("spawn")
    inside = context.Event()
    other = context.Process(target=_held, args=(tmp_path / "work", inside))
    other.start()
    assert inside.wait(60)
    entered = threading.Event()

    def enter():
        with alone_in(tmp_path / "work"):
            entered.set()

    mine = threading.Thread(target=enter)
    mine.start()
    assert not entered.wait(0.5)
    assert "work: waits for another notebook that is at the same work" in capsys.readouterr().out
    other.kill()
    assert entered.wait(30)
    mine.join()
    other.join()


def test_a_file_system_without_locks_ends_no_training(tmp_path, monkeypatch, capsys):
    def none(*_: object) -> None:
        raise OSError(errno.ENOTSUP, "Operation not supported")

    monkeypatch.setattr(fcntl, "flock", none)
    with alone_in(tmp_path / "work"):
        pass
    assert "no lock (Operation not supported)" in capsys.readouterr().out
