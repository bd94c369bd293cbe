import json
import os
import signal
import subprocess
import sys
import time

import pytest

from bootstrap import commands, processes
from bootstrap.paths import Layout
from bootstrap.processes import Identity, Record
from bootstrap.schedule import CancelledError, Task


@pytest.fixture
def layout(tmp_path):
    made = Layout(tmp_path)
    made.make()
    processes.name_instance(made)
    return made


@pytest.fixture
def sleeper(layout):
    """A process as `up` starts them, ended after the test whatever happens."""
    identity = processes.start(layout, "sleeper", ["/bin/sleep", "60"], {}, "print")
    yield identity
    processes.stop([identity], grace=1)
    os.waitpid(identity.pid, 0)


def task():
    import threading

    return Task("job", threading.Event())


def test_a_reused_pid_is_not_the_process_that_was_recorded(sleeper):
    assert processes.alive(sleeper)
    assert not processes.alive(Identity(sleeper.pid, sleeper.started - 1, sleeper.boot))
    assert not processes.alive(Identity(sleeper.pid, sleeper.started, "another-boot"))


def test_stopping_a_stale_identity_leaves_the_pids_new_owner_alone(sleeper):
    processes.stop([Identity(sleeper.pid, sleeper.started - 1, sleeper.boot)], grace=0.2)
    assert processes.alive(sleeper)


def test_a_process_that_ignores_the_request_is_killed(layout):
    code = (
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); "
        "print('ignored', flush=True); time.sleep(600)"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout.readline() == "ignored\n"
        identity = processes.identify(child.pid)
        processes.stop([identity], grace=0.5)
        assert child.wait(60) == -signal.SIGKILL


def test_a_dead_child_that_nobody_has_collected_does_not_count_as_alive():
    child = subprocess.Popen(["/bin/true"])
    deadline = time.monotonic() + 60
    while processes.identify(child.pid) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert processes.identify(child.pid) is None
    child.wait()


def test_what_was_started_is_found_without_its_record(layout, sleeper):
    (layout.run / "sleeper.json").unlink()
    found = processes.marked()[sleeper]
    assert (found.checkout, found.part) == (str(layout.checkout), "sleeper")
    assert found.instance == processes.instance(layout)
    assert processes.leads(sleeper)


def test_a_server_inherits_nothing_of_the_shell_but_what_it_needs(layout, monkeypatch):
    monkeypatch.setenv("SOME_TOKEN", "secret")
    identity = processes.start(layout, "sleeper", ["/bin/sleep", "60"], {}, "print")
    environ = processes.PROC.joinpath(str(identity.pid), "environ").read_bytes()
    processes.stop([identity], grace=1)
    os.waitpid(identity.pid, 0)
    assert b"SOME_TOKEN" not in environ
    assert b"PATH=" in environ


@pytest.mark.parametrize("content", ["", "{", '{"identity": {}}', "[]", '{"fingerprint": "x"}'])
def test_a_record_cut_short_reads_as_no_record(tmp_path, content):
    path = tmp_path / "etcd.json"
    path.write_text(content)
    assert processes.read_record(path) is None


def test_a_record_comes_back_as_it_was_written(tmp_path):
    record = Record(Identity(1, 2, "boot"), "print")
    path = tmp_path / "etcd.json"
    path.write_text(
        json.dumps({"identity": {"pid": 1, "started": 2, "boot": "boot"}, "fingerprint": "print"})
    )
    assert processes.read_record(path) == record


def test_another_binary_flag_or_file_is_another_fingerprint(tmp_path):
    binary = tmp_path / "server"
    binary.write_text("1")
    config = tmp_path / "config"
    base = processes.fingerprint([str(binary), "-a"], {config: "x"}, {})
    assert base == processes.fingerprint([str(binary), "-a"], {config: "x"}, {})
    assert base != processes.fingerprint([str(binary), "-b"], {config: "x"}, {})
    assert base != processes.fingerprint([str(binary), "-a"], {config: "y"}, {})
    assert base != processes.fingerprint([str(binary), "-a"], {config: "x"}, {"GOGC": "50"})
    binary.write_text("22")
    assert base != processes.fingerprint([str(binary), "-a"], {config: "x"}, {})


def test_a_command_of_a_killed_run_is_ended_by_the_next(layout):
    code = (
        "import threading; from pathlib import Path; from bootstrap import commands; "
        "from bootstrap.paths import Layout; from bootstrap.schedule import Task; "
        f"layout = Layout(Path({str(layout.checkout)!r})); "
        "commands.run(layout, Task('rootfs', threading.Event()), ['sleep', '600'], "
        "log=layout.log / 'x')"
    )
    child = subprocess.Popen([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": "."})
    deadline = time.monotonic() + 60
    while not (left := orphans(layout)) and time.monotonic() < deadline:
        time.sleep(0.05)
    child.kill()
    child.wait()
    assert left, "the command never started"
    assert commands.end_orphans(layout) == 1
    assert not orphans(layout)


def orphans(layout):
    return [
        one
        for one, mark in processes.marked().items()
        if mark.checkout == str(layout.checkout) and mark.part == "job:rootfs"
    ]


def test_a_cancelled_step_ends_its_command_and_what_that_has_started(layout):
    one = task()
    one.cancelled.set()
    with pytest.raises(CancelledError):
        commands.run(layout, one, ["sh", "-c", "sleep 61 & wait"], log=layout.log / "x")
    left = [mark for mark in processes.marked().values() if mark.checkout == str(layout.checkout)]
    assert not left
