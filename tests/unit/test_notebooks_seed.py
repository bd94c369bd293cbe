"""Seeding gives examples once and never takes a person's file or decision away."""

import json
import multiprocessing
import os
import signal
import time
from pathlib import Path

import pytest

from notebooks import seed as seeding
from notebooks.seed import RECORD, RecordError, seed


@pytest.fixture
def source(tmp_path):
    folder = tmp_path / "image"
    folder.mkdir()
    (folder / "first.ipynb").write_text("first of the image")
    (folder / "second.ipynb").write_text("second of the image")
    return folder


@pytest.fixture
def home(tmp_path):
    folder = tmp_path / "home"
    folder.mkdir()
    return folder


def tree(home: Path) -> dict[str, tuple[str, int]]:
    """Every file of the home with its content and time of change."""
    return {
        str(file.relative_to(home)): (file.read_text(), file.stat().st_mtime_ns)
        for file in sorted(home.rglob("*"))
        if file.is_file()
    }


def test_a_new_home_gets_every_example(home, source):
    assert seed(home, source).copied == ("first.ipynb", "second.ipynb")
    assert (home / "examples/first.ipynb").read_text() == "first of the image"


def test_V7_repeated_seeding_changes_nothing(home, source):
    seed(home, source)
    before = tree(home)
    for _ in range(3):
        assert seed(home, source) == seeding.Seeded((), ())
    assert tree(home) == before


def test_V7_a_changed_example_is_not_overwritten_by_a_new_image(home, source):
    seed(home, source)
    mine = home / "examples/first.ipynb"
    mine.write_text("mine")
    (source / "first.ipynb").write_text("first of a newer image")
    seed(home, source)
    assert mine.read_text() == "mine"


def test_V7_a_deleted_example_stays_deleted(home, source):
    seed(home, source)
    (home / "examples/first.ipynb").unlink()
    seed(home, source)
    assert not (home / "examples/first.ipynb").exists()


def test_V7_a_deleted_folder_stays_deleted(home, source):
    seed(home, source)
    for file in (home / "examples").iterdir():
        file.unlink()
    (home / "examples").rmdir()
    seed(home, source)
    assert not (home / "examples").exists()


def test_a_new_image_brings_its_new_examples_alone(home, source):
    seed(home, source)
    (home / "examples/first.ipynb").unlink()
    (source / "third.ipynb").write_text("third")
    assert seed(home, source).copied == ("third.ipynb",)


def test_V7_a_file_of_that_name_from_before_is_left_alone_for_good(home, source):
    (home / "examples").mkdir()
    mine = home / "examples/first.ipynb"
    mine.write_text("mine")
    seeded = seed(home, source)
    assert seeded.kept == ("first.ipynb",)
    assert mine.read_text() == "mine"
    mine.unlink()
    seed(home, source)
    assert not mine.exists()


def test_V7_a_dangling_link_of_that_name_is_left_alone(home, source):
    (home / "examples").mkdir()
    link = home / "examples/first.ipynb"
    link.symlink_to(home / "elsewhere.ipynb")
    assert seed(home, source).kept == ("first.ipynb",)
    assert link.is_symlink()
    assert not (home / "elsewhere.ipynb").exists()


def test_V7_without_hard_links_nothing_is_overwritten_either(home, source, monkeypatch):
    def no_links(*_: object) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(os, "link", no_links)
    (home / "examples").mkdir()
    (home / "examples/first.ipynb").write_text("mine")
    seeded = seed(home, source)
    assert (seeded.copied, seeded.kept) == (("second.ipynb",), ("first.ipynb",))
    assert (home / "examples/first.ipynb").read_text() == "mine"
    assert (home / "examples/second.ipynb").read_text() == "second of the image"
    assert {file.name for file in (home / "examples").iterdir()} == {"first.ipynb", "second.ipynb"}


@pytest.mark.parametrize("content", ["", "{", "[]", '{"offered": 3}', "null"])
def test_an_unreadable_record_copies_nothing_and_says_what_to_do(home, source, content):
    (home / RECORD).parent.mkdir(parents=True)
    (home / RECORD).write_text(content)
    with pytest.raises(RecordError, match="delete it to be offered all examples again"):
        seed(home, source)
    assert not (home / "examples").exists()
    assert (home / RECORD).read_text() == content


def _seed_slowly(home: Path, source: Path) -> None:
    """Seeding with each file written one byte at a time, so that a kill finds it half done."""
    real = os.fsync

    def slow(descriptor: int) -> None:
        time.sleep(0.05)
        real(descriptor)

    os.fsync = slow
    seed(home, source)


@pytest.mark.parametrize("after", [0.0, 0.03, 0.08, 0.12, 0.2])
def test_V7_killed_at_any_point_the_next_start_finishes(home, source, after):
    (home / "examples").mkdir()
    (home / "examples/first.ipynb").write_text("mine")
    process = multiprocessing.get_context("fork").Process(target=_seed_slowly, args=(home, source))
    process.start()
    time.sleep(after)
    os.kill(process.pid, signal.SIGKILL)
    process.join()

    present = {file.name: file for file in (home / "examples").glob("*.ipynb")}
    assert present["first.ipynb"].read_text() == "mine"
    if "second.ipynb" in present:
        assert present["second.ipynb"].read_text() == "second of the image"
    seed(home, source)
    assert (home / "examples/second.ipynb").read_text() == "second of the image"
    assert {file.name for file in (home / "examples").iterdir()} == {"first.ipynb", "second.ipynb"}
    assert set(json.loads((home / RECORD).read_text())["offered"]) == {
        "first.ipynb",
        "second.ipynb",
    }


def test_a_full_disk_leaves_no_half_file(home, source, monkeypatch):
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        seed(home, source)
    assert not list((home / "examples").iterdir())
    monkeypatch.undo()
    assert len(seed(home, source).copied) == 2


def test_the_image_has_the_examples_of_the_demo():
    names = {file.name for file in seeding.EXAMPLES.glob("*.ipynb")}
    assert names == {
        "getting-started.ipynb",
        "industry-revenue-analysis.ipynb",
        "knn-stock-predictor.ipynb",
    }
