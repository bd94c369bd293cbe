import json
from dataclasses import asdict
from pathlib import Path

import pytest

from bootstrap import leftovers, lock, processes
from bootstrap.errors import BootstrapError
from bootstrap.leftovers import Owner
from bootstrap.paths import Layout
from bootstrap.processes import Identity, Mark

MINE = Owner("/srv/mlhub", "aaaa", "boot-1")


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """A machine with nothing running, whose /run/mlhub is a folder of the test's."""
    runtime = tmp_path / "run"
    marked: dict[Identity, Mark] = {}
    ended = []

    def end(identities, folders):
        ended.append((set(identities), [str(folder) for folder in folders]))
        return 0

    monkeypatch.setattr(leftovers, "RUNTIME", runtime)
    monkeypatch.setattr(leftovers, "OWNER", runtime / "owner.json")
    monkeypatch.setattr(leftovers, "read_owner", lambda: _owner(runtime / "owner.json"))
    monkeypatch.setattr(leftovers, "end_everything", end)
    monkeypatch.setattr(leftovers, "owner_of", lambda layout: MINE)
    monkeypatch.setattr(processes, "marked", lambda: marked)
    monkeypatch.setattr(processes, "leads", lambda identity: True)
    return runtime, marked, ended


def _owner(path: Path) -> Owner | None:
    return Owner(**json.loads(path.read_text())) if path.exists() else None


def settle(take_over=False):
    return leftovers.settle(Layout(Path(MINE.checkout)), take_over)


def write(runtime, owner):
    runtime.mkdir()
    (runtime / "owner.json").write_text(json.dumps(asdict(owner)))


def test_a_clean_machine_is_taken_as_it_is(machine):
    runtime, _, ended = machine
    assert settle() == "nothing left behind"
    assert not ended
    assert _owner(runtime / "owner.json") == MINE


def test_our_own_running_cluster_is_left_alone(machine):
    runtime, marked, ended = machine
    write(runtime, MINE)
    marked[Identity(7, 1, "boot-1")] = Mark(MINE.checkout, MINE.instance, "etcd")
    assert settle() == "nothing left behind"
    assert not ended


def test_another_checkouts_living_cluster_is_refused_by_name(machine):
    _, marked, ended = machine
    marked[Identity(7, 1, "boot-1")] = Mark("/home/ann/mlhub", "bbbb", "etcd")
    with pytest.raises(BootstrapError, match=r"/home/ann/mlhub \(etcd\).*--take-over"):
        settle()
    assert not ended


def test_another_checkouts_living_cluster_is_stopped_when_it_may_be(machine):
    _, marked, ended = machine
    other = Identity(7, 1, "boot-1")
    marked[other] = Mark("/home/ann/mlhub", "bbbb", "etcd")
    settle(take_over=True)
    assert ended == [({other}, ["/home/ann/mlhub/.mlhub"])]


def test_shims_without_a_server_are_remains_and_are_cleared(machine, monkeypatch):
    _, marked, ended = machine
    monkeypatch.setattr(processes, "leads", lambda identity: False)
    shim = Identity(9, 1, "boot-1")
    marked[shim] = Mark("/ci/clone", "bbbb", "containerd")
    assert settle().startswith("cleared what another run left: 1 processes")
    assert ended[0][0] == {shim}


def test_a_dead_runs_mounts_are_cleared_even_with_no_process_left(machine):
    runtime, _, ended = machine
    write(runtime, Owner("/ci/clone", "bbbb", "boot-1"))
    settle()
    assert ended == [(set(), ["/ci/clone/.mlhub"])]
    assert _owner(runtime / "owner.json") == MINE


def test_after_a_boot_our_own_runtime_state_is_cleared(machine):
    runtime, _, ended = machine
    write(runtime, Owner(MINE.checkout, MINE.instance, "boot-0"))
    assert "an earlier boot" in settle()
    assert len(ended) == 1


def test_a_new_clone_in_the_same_folder_does_not_inherit_the_old_ones_processes(machine):
    _, marked, ended = machine
    old = Identity(7, 1, "boot-1")
    marked[old] = Mark(MINE.checkout, "cccc", "etcd")
    settle()
    assert ended[0][0] == {old}


def test_a_running_command_of_another_checkout_is_none_of_our_business(machine):
    _, marked, ended = machine
    marked[Identity(7, 1, "boot-1")] = Mark("/home/ann/mlhub", "bbbb", "job:kube")
    assert settle() == "nothing left behind"
    assert not ended


def test_mounts_are_taken_off_innermost_first_and_only_below_the_folders():
    table = "\n".join(
        [
            "21 1 254:0 / / rw - ext4 /dev/vda rw",
            "30 21 0:40 / /run/mlhub/x rw - overlay overlay rw",
            "31 30 0:41 / /run/mlhub/x/merged rw - tmpfs tmpfs rw",
            "32 21 0:42 / /run/mlhub-other rw - tmpfs tmpfs rw",
            "33 21 0:43 / /srv/a\\040b/.mlhub/vol rw - tmpfs tmpfs rw",
        ]
    )
    found = leftovers.mounts_under([Path("/run/mlhub"), Path("/srv/a b/.mlhub")], table)
    assert found == ["/srv/a b/.mlhub/vol", "/run/mlhub/x/merged", "/run/mlhub/x"]


def test_an_owner_record_cut_short_reads_as_none(tmp_path):
    path = tmp_path / "owner.json"
    for content in ("", "{", '{"checkout": "x"}'):
        path.write_text(content)
        assert leftovers.read_owner(path) is None


def test_two_runs_at_once_are_refused_and_told_who_is_first(tmp_path):
    path = tmp_path / "lock"
    with (
        lock.held(path, "up in /srv/mlhub"),
        pytest.raises(BootstrapError, match=r"up in /srv/mlhub.* is under way"),
        lock.held(path, "up in /srv/mlhub"),
    ):
        pass


def test_a_lock_whose_holder_is_gone_is_free(tmp_path):
    path = tmp_path / "lock"
    path.write_text("`up` (process 1)")
    with lock.held(path, "up"):
        assert path.read_text().startswith("`up` (process")
