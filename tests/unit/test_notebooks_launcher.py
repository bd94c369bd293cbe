"""Names, addresses and what the command line makes of sessions."""

import json
from dataclasses import replace
from datetime import UTC, datetime
from urllib.parse import urlsplit

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from jupyterhub.slugs import is_valid_safe_slug

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


@given(st.text() | st.text("az09-_/.", max_size=40))
@example("churn-models--" + "15190f3c" * 3)
@example("2026-report")
def test_M3_a_sessions_name_is_one_that_the_hub_takes_whatever_it_is_about(about):
    name = session_name(about)
    assert is_valid_safe_slug(name), name
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


def test_ones_own_name_is_ones_default_server():
    hub = Hub("http://hub", "alice", "t")
    object.__setattr__(hub, "asked", [])
    for session, path in (
        ("alice", "alice/servers/"),
        ("alice/", "alice/servers/"),
        ("bob", "alice/servers/bob"),
        ("alice/alice", "alice/servers/alice"),
    ):
        NotebookLauncher(hub).get(session)
        assert hub.asked[-1][1] == f"/hub/api/users/{path}"


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


@pytest.mark.parametrize("command", [["launch"], ["sessions", "restore", "alice/x"]])
def test_who_breaks_a_start_off_is_told_that_it_goes_on(launcher, command, capsys, monkeypatch):
    def broken_off(*_: object, tell, **__: object) -> None:
        tell(10, "Pulling")
        raise KeyboardInterrupt

    monkeypatch.setattr(launcher, command[0] if len(command) == 1 else "restore", broken_off)
    assert cli.main(command) == 130
    assert "goes on; `sessions list` shows it" in capsys.readouterr().err
    assert cli.main([*command, "--json"]) == 130
    said = capsys.readouterr()
    assert json.loads(said.err)["error"]["type"] == "interrupted"
    assert said.out == ""


def test_who_is_logged_in_need_not_say_who_they_are(launcher):
    assert cli.main(["launch"]) == 0
    assert launcher.asked["user_email"] is None


def test_a_template_of_no_name_is_refused_in_a_server_and_doubted_on_a_laptop(
    launcher, capsys, monkeypatch, tmp_path
):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("JUPYTERHUB_API_TOKEN", raising=False)
    assert cli.main(["launch", "--template", "nope"]) == 0
    assert "No template of the package is named nope" in capsys.readouterr().err
    assert cli.main(["launch", "--template", "data-exploration"]) == 0
    assert "No template" not in capsys.readouterr().err

    launcher.asked.clear()
    monkeypatch.setenv("JUPYTERHUB_API_TOKEN", "t")
    assert cli.main(["launch", "--template", "nope"]) == 1
    assert "There is no template 'nope'; there are: data-exploration" in capsys.readouterr().err
    assert not launcher.asked
    # Whose home is another's is not seen from here.
    assert cli.main(["launch", "--template", "nope", "--user", "bob"]) == 0
    assert "No template of the package is named nope" in capsys.readouterr().err


def test_the_default_server_is_not_said_to_be_forgotten(launcher, capsys, monkeypatch):
    default = replace(SESSION, session_id="alice/", name="")
    monkeypatch.setattr(launcher, "stop", lambda self, session, *, forget: default)
    assert cli.main(["sessions", "stop", "--forget", "alice"]) == 0
    said = capsys.readouterr().out
    assert "is stopped; the hub keeps everybody's default server" in said
    assert "forgotten" not in said


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
