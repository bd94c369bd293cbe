"""Names, addresses and what the command line makes of sessions."""

import json
from datetime import UTC, datetime
from urllib.parse import urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from notebooks import cli
from notebooks.cli import launch as launches
from notebooks.cli import sessions as sessions_cli
from notebooks.connection import Connection
from notebooks.errors import Refused, Unreachable
from notebooks.launcher import NotebookLauncher, session_name
from notebooks.login import hub_address, least
from notebooks.models import NotebookSession, NotebookStatus, ResourceConfig

SESSION = NotebookSession(
    session_id="alice/notebook-abc123",
    user="alice",
    name="notebook-abc123",
    status=NotebookStatus.RUNNING,
    notebook_url="http://localhost:30888/user/alice/notebook-abc123/lab",
    options={"profile": "own-size", "cpu": "4", "memory": "16G", "workspace": "[red]"},
    started=datetime.now(UTC),
)


@given(st.text())
def test_M3_a_sessions_name_is_a_label_and_part_of_an_address_whatever_it_is_about(about):
    name = session_name(about)
    assert name.isascii()
    assert name == name.lower()
    assert all(each.isalnum() or each == "-" for each in name)
    assert 8 <= len(name) <= 31
    assert not name.startswith("-")
    assert session_name(about) != name, "nobody's earlier session is started again"


class Hub(Connection):
    """Answers with a server of the name that is asked for."""

    def request(self, method, path, json=None, params=None, timeout=10):
        self.asked.append((method, path))
        server = {
            "name": path.rpartition("/")[2],
            "pending": None,
            "ready": True,
            "url": "/user/x/y/",
            "user_options": {},
            "started": None,
            "last_activity": None,
        }
        return server


@given(
    st.text(min_size=1).filter(lambda text: "/" not in text),
    st.text(min_size=1),
)
def test_M3_no_name_leaves_its_place_in_an_address(user, name):
    try:
        (user + name).encode()
    except UnicodeEncodeError:
        return
    hub = Hub("http://hub", "alice", "t")
    object.__setattr__(hub, "asked", [])
    NotebookLauncher(hub).get(f"{user}/{name}")
    ((_, path),) = hub.asked
    parts = urlsplit(f"http://hub{path}")
    assert parts.path == path
    assert path.count("/") == 6
    assert path.startswith("/hub/api/users/")


class Restarting(Hub):
    """Answers the first two requests with silence, and ends the first event stream."""

    def request(self, method, path, json=None, params=None, timeout=10):
        server = super().request(method, path)
        if len(self.asked) < 3:
            raise Unreachable("The hub does not answer.")
        running = len(self.asked) > 4
        return server | {"ready": running, "pending": None if running else "spawn"}

    def events(self, path, seconds):
        yield {"progress": 0, "message": "Server requested"}
        raise Unreachable("The hub does not answer.")


def test_a_hub_that_restarts_while_a_session_starts_is_waited_for(monkeypatch):
    monkeypatch.setattr("notebooks.launcher.AGAIN_SECONDS", 0)
    hub = Restarting("http://hub", "alice", "t")
    object.__setattr__(hub, "asked", [])
    told = []
    session = NotebookLauncher(hub)._wait("alice/x", 5, lambda *each: told.append(each))
    assert session.status is NotebookStatus.RUNNING
    assert told == [(0, "Server requested")] * 2


@pytest.mark.parametrize(
    ("given", "address"),
    [
        ("http://localhost:30888", "http://localhost:30888"),
        ("http://localhost:30888/", "http://localhost:30888"),
        ("https://jupyter.example.com/hub/home", "https://jupyter.example.com"),
        ("https://example.com/base/hub/spawn?x=1", "https://example.com/base"),
        ("https://example.com/user/alice/lab", "https://example.com"),
        (" https://example.com/hub/token#x ", "https://example.com"),
    ],
)
def test_a_hubs_address_is_what_a_person_copies(given, address):
    assert hub_address(given) == address


@pytest.mark.parametrize("given", ["", "localhost:30888", "ftp://x", "https://", "https://u:p@x"])
def test_what_is_no_hubs_address_is_refused(given):
    with pytest.raises(ValueError, match="is no hub's address"):
        hub_address(given)


MAY = {
    "access:services!service=execution",
    "admin:users",
    "list:users",
    "read:users",
    "read:users:name!user=alice",
    "servers!user=alice",
    "tokens!user=alice",
}


def test_a_log_in_keeps_sessions_and_services_alone():
    kept = [
        "access:services!service=execution",
        "read:users:name!user=alice",
        "servers!user=alice",
    ]
    assert least("alice", MAY) == kept
    with pytest.raises(Refused, match="lacks the scope servers;"):
        least("alice", MAY, admin=True)
    assert "servers" in least("alice", MAY | {"servers"}, admin=True)
    with pytest.raises(Refused, match="lacks the scope servers!user=alice"):
        least("alice", {"tokens!user=alice"})


# The command line


class Launcher:
    """What the commands call."""

    asked: dict[str, object] = {}  # noqa: RUF012 -- one for all commands of a test

    def launch(self, *, tell, **asked):
        type(self).asked = asked
        tell(50, "Pulling [image]")
        return SESSION

    def list(self, user=None):
        return (SESSION,)

    def get(self, session):
        return SESSION

    def stop(self, session, *, forget=False):
        return SESSION

    def restore(self, session, *, tell=None, **how):
        return SESSION


@pytest.fixture(autouse=True)
def launcher(monkeypatch):
    for module in (launches, sessions_cli):
        monkeypatch.setattr(module, "NotebookLauncher", Launcher)
    return Launcher


def test_M1_launch_runs_as_it_is_written(launcher, capsys):
    line = (
        "launch --user U --workspace W --cpu 4 --memory 16Gi --gpu 1 --gpu-type nvidia-tesla-v100 "
        "--template T --mlflow-experiment E"
    )
    assert cli.main(line.split()) == 0
    assert launcher.asked == {
        "user_email": "U",
        "workspace": "W",
        "resources": ResourceConfig(4, 16, 1, "nvidia-tesla-v100"),
        "template": "T",
        "mlflow_experiment": "E",
        "git_repo": None,
        "profile": None,
        "wait": True,
        "timeout": 600,
    }
    said = capsys.readouterr()
    assert SESSION.notebook_url in said.out
    assert "50 % Pulling [image]" in said.err


def test_with_json_a_session_is_json_and_nothing_else(capsys):
    assert cli.main(["launch", "--user", "alice", "--json"]) == 0
    said = capsys.readouterr()
    found = json.loads(said.out)
    assert found["session_id"] == SESSION.session_id
    assert found["status"] == "running"
    assert said.err == ""


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--memory", "16"], "write 16Gi for 16 GiB"),
        (["--memory", "lots"], "is not an amount of memory"),
        (["--cpu", "many"], "is not a number of cores"),
        (["--gpu", "half"], "as an integer"),
        (["--gpu", "-1"], "greater than or equal to 0"),
    ],
)
def test_a_quantity_that_is_none_is_usage_2_and_a_sentence(arguments, sentence, capsys):
    assert cli.main(["launch", "--user", "alice", *arguments]) == 2
    said = " ".join(capsys.readouterr().err.replace("│", " ").split())
    assert sentence in said


def test_sessions_are_a_table_with_names_as_they_are(capsys):
    assert cli.main(["sessions", "list"]) == 0
    said = capsys.readouterr().out
    assert SESSION.session_id in said
    assert "[red]" in said
    assert "own-size 4 16G" in said


def test_the_other_commands_say_what_they_did(capsys, monkeypatch):
    opened = []
    monkeypatch.setattr("webbrowser.open", opened.append)
    for command in ("stop", "restore", "open"):
        assert cli.main(["sessions", command, SESSION.session_id]) == 0
    said = capsys.readouterr().out
    assert f"{SESSION.session_id} is stopped" in said
    assert opened == [SESSION.notebook_url]
