"""A server that does not find its volumes says so, and does not give an empty folder."""

import errno
import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from notebooks import mounts


def told(path: Path, mode: str = "write", fuse: str = "") -> str | None:
    environment = {mounts.VARIABLE: json.dumps({str(path): mode})}
    return mounts.wrong(environment | {mounts.FUSE: fuse})


def test_a_folder_that_can_be_written_to_is_fine_and_stays_clean(tmp_path: Path):
    assert told(tmp_path) is None
    assert os.listdir(tmp_path) == []


def test_nothing_is_asked_where_nothing_is_said():
    assert mounts.wrong({}) is None


def test_T8_a_folder_of_the_node_in_place_of_the_mount_is_refused(tmp_path: Path):
    for fuse in (f"/elsewhere {tmp_path}", f"{tmp_path.parent}/"):
        said = told(tmp_path, fuse=fuse)
        assert said is not None
        assert said.startswith(f"The volume of {tmp_path} is not mounted, so its files are not")
    assert told(tmp_path, fuse=str(tmp_path.parent)) is None


def test_the_last_mount_at_a_point_is_the_one_that_counts():
    lines = (
        "22 27 0:21 / /home/jovyan rw,relatime - ext4 /dev/vda rw\n"
        "23 27 0:22 / /home/jovyan rw shared:3 - fuse.seaweedfs filer:/x rw\n"
        "24 27 0:23 / /mnt/a\\040b ro - tmpfs tmpfs rw\n"
    )
    assert mounts.kinds(lines) == {"/home/jovyan": "fuse.seaweedfs", "/mnt/a b": "tmpfs"}


@pytest.mark.parametrize(
    ("number", "said"),
    [
        (errno.EROFS, "can only be read, and has to be written to"),
        (errno.ENOTCONN, "does not work (Transport endpoint is not connected)"),
        (errno.EIO, "does not work (Input/output error)"),
        (errno.EACCES, "does not work (Permission denied)"),
    ],
)
def test_a_mount_that_takes_no_file_is_refused(monkeypatch, tmp_path: Path, number, said):
    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(Path, "write_bytes", refuse)
    assert said in str(told(tmp_path))
    assert told(tmp_path, "read") is None


def test_a_full_volume_starts_since_whoever_empties_it_needs_the_server(monkeypatch, tmp_path):
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", refuse)
    assert told(tmp_path) is None


def test_a_mount_that_hangs_is_said_within_seconds(monkeypatch, tmp_path: Path):
    never = threading.Event()
    monkeypatch.setattr(os, "listdir", lambda _: never.wait(30))
    monkeypatch.setattr(mounts, "SECONDS", 0.2)
    assert "does not answer within" in str(told(tmp_path))
    never.set()


def test_the_server_ends_with_the_reason_as_its_last_word(tmp_path: Path):
    word = tmp_path / "termination-log"
    program = (
        "import sys, pathlib; from notebooks import start; "
        f"start.LAST_WORD = pathlib.Path({str(word)!r}); sys.argv = ['mlhub-start', 'true']; "
        "start.main()"
    )
    environment = {
        mounts.VARIABLE: json.dumps({"/nowhere": "write"}),
        "PYTHONPATH": str(Path(mounts.__file__).parents[1]),
    }
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=os.environ | environment | {"HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 74, done.stderr
    assert word.read_text().startswith("The volume of /nowhere does not work (No such file")
    assert "Your files are kept" in word.read_text()
