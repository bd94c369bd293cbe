"""What the command line prints, and its exit codes."""

import ast
import json
import re
import subprocess
import sys
import tomllib
from collections import Counter
from datetime import UTC, datetime
from io import BytesIO, StringIO, TextIOWrapper
from pathlib import Path

import nbformat
import pytest
from packaging.requirements import Requirement
from rich.console import Console

import notebooks
from notebooks import cli, templates
from notebooks.cli import launch, output, runs
from notebooks.connection import Connection
from notebooks.errors import Refused
from notebooks.workspaces import Workspace, WorkspaceRole
from tests.unit.test_images_locks import pinned


@pytest.fixture
def refusing(monkeypatch):
    def refuse(argv, **how):
        raise Refused(429, "quota", "You have 3 of 3 servers running; stop one to [start] another.")

    monkeypatch.setattr(cli, "app", refuse)


def test_a_refusal_is_exit_code_1_and_its_sentence(refusing, capsys):
    assert cli.main(["launch"]) == 1
    said = capsys.readouterr()
    assert said.err == "You have 3 of 3 servers running; stop one to [start] another.\n"
    assert said.out == ""


def test_with_json_an_error_is_json_wherever_the_flag_stands(refusing, capsys):
    for argv in (["--json", "launch"], ["launch", "--json"]):
        assert cli.main(argv) == 1
        said = json.loads(capsys.readouterr().err)
        assert said["error"]["status"] == 429
        assert said["error"]["type"] == "quota"


def test_wrong_usage_is_exit_code_2(capsys):
    assert cli.main(["no-such-command"]) == 2
    assert "no-such-command" in capsys.readouterr().err


ID = "churn-models--15190f3c2b7d4a6e8091"
ROW = (ID, "who leaves, and why", "owner", "10Gi", "2026-12-07 10:15 UTC", "the last word")


def test_an_id_is_whole_where_the_table_is_too_wide_and_the_rest_is_folded():
    terminal = Console(file=StringIO(), width=80, force_terminal=True, color_system=None)
    terminal.print(output.table(("workspace", "name", "role", "size", "until", "x"), [ROW]))
    _, *lines = terminal.file.getvalue().splitlines()
    assert ID in lines[0]
    assert max(map(len, lines)) <= 80
    said = Counter("".join(lines).replace(" ", ""))
    assert said == Counter("".join(ROW).replace(" ", "")), "nothing is left out"


def test_a_row_is_a_line_where_no_terminal_reads_it(capsys):
    output.show([], output.table(("workspace", "name"), [(ID, "long " * 40)]))
    heading, row = capsys.readouterr().out.splitlines()
    assert heading.startswith("workspace")
    assert row.split() == [ID, *["long"] * 40]


WORDS = (
    "copied to [draft] report.ipynb",
    'KeyError: "None of [columns] are in the [index]"',
    "bad path [/home/jovyan/x]",
    "the secret:key:of [bold]1234",
)
"""With what rich reads as markup, as a closing tag and as an emoji."""


@pytest.mark.parametrize("words", WORDS)
def test_what_is_told_is_told_as_it_is(words, capsys, monkeypatch):
    output.show({}, words)
    output.show({}, output.table(("",), [[words]]))
    with launch.progress("Starting") as tell:
        tell(7, words)
    output.fail(ValueError(words))
    said = capsys.readouterr()
    assert said.out == f"{words}\n{words}\n"
    assert said.err == f"  7 % {words}\n{words}\n"
    monkeypatch.setattr(output, "as_json", True)
    output.fail(ValueError(words))
    assert json.loads(capsys.readouterr().err)["error"]["sentence"] == words


@pytest.mark.parametrize("words", WORDS)
def test_a_bar_tells_what_happens_as_it_is(words, monkeypatch):
    terminal = Console(file=StringIO(), width=200, force_terminal=True, color_system=None)
    monkeypatch.setattr(launch, "Console", lambda **_: terminal)
    with launch.progress("Starting") as tell:
        tell(7, words)
    assert words in terminal.file.getvalue()


def test_a_templates_parameters_are_shown_as_they_are(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("HOME", str(tmp_path))
    cell = nbformat.v4.new_code_cell("features = [income, age]", metadata={"tags": ["parameters"]})
    folder = templates.personal_folder()
    folder.mkdir(parents=True)
    nbformat.write(nbformat.v4.new_notebook(cells=[cell]), folder / "mine.ipynb")
    assert cli.main(["templates", "show", "mine"]) == 0
    assert "features = [income, age]" in capsys.readouterr().out


@pytest.mark.parametrize("given", ["NaN", "Infinity", "-Infinity", "1e999", "[0.1, -1e999]"])
def test_a_number_that_json_does_not_have_is_text(given):
    assert runs.parameters_of([f"region={given}"]) == {"region": given}
    assert runs.parameters_of(["rate=[1e9, 0.5]"]) == {"rate": [1e9, 0.5]}


def test_a_lists_example_is_quoted_for_the_shell(capsys):
    assert cli.main(["sweeps", "start", "--help"]) == 0
    assert "'rate=[0.1,0.2]'" in capsys.readouterr().out
    assert cli.main(["sweeps", "start", "./a.ipynb", "-g", "rate=0.1"]) == 2
    assert "'rate=[0.1,0.2]'" in capsys.readouterr().err


class Bars:
    """A client whose run prints what tqdm does."""

    def log(self, run_id, *, follow):
        yield "100% █"

    def notebooks(self, *, user):
        return [{"relative_path": "█.ipynb", "size": 1, "modified": "now"}]


@pytest.mark.parametrize("command", [["runs", "log", "0" * 16], ["runs", "notebooks"]])
def test_what_a_windows_file_cannot_hold_is_replaced(command, monkeypatch):
    file = TextIOWrapper(BytesIO(), encoding="cp1252")
    monkeypatch.setattr(sys, "stdout", file)
    monkeypatch.setattr(runs, "ExecutionClient", Bars)
    assert cli.main(command) == 0
    file.flush()
    assert b"?" in file.buffer.getvalue()


USAGE = (
    (["no-such-command"], "No such command 'no-such-command'."),
    (["runs", "show"], "Missing argument 'ID'."),
    (["workspaces", "create", "x", "--size", "1"], None),
    (["sweeps", "start", "./a.ipynb", "-g", "rate=0.1"], "is no JSON list"),
    (["launch", "--cpu", "lots"], "Invalid value for '--cpu'"),
)


@pytest.mark.parametrize(("argv", "sentence"), USAGE)
def test_with_json_wrong_usage_is_json_too(argv, sentence, manager, capsys):
    code = cli.main([*argv, "--json"])
    said = capsys.readouterr()
    if sentence is None:
        assert (code, json.loads(said.out)["id"], said.err) == (0, "x", "")
        return
    assert (code, said.out) == (2, "")
    error = json.loads(said.err)["error"]
    assert error["type"] == "usage"
    assert sentence in error["sentence"]


def test_with_json_help_and_the_exit_code_are_as_without(capsys):
    assert cli.main(["--json", "runs", "--help"]) == 0
    assert "Run notebooks unattended" in capsys.readouterr().out


@pytest.fixture
def laptop(monkeypatch, tmp_path):
    """Where nothing is but what pip brings with the package."""
    monkeypatch.setenv("HOME", str(tmp_path))
    for absent in ("nbformat", "mlflow"):
        monkeypatch.setitem(sys.modules, absent, None)
    for ours in ("templates.making", "mlflow_integration"):
        monkeypatch.delitem(sys.modules, f"notebooks.{ours}", raising=False)


def test_on_a_laptop_what_is_missing_is_named_with_what_brings_it(laptop, capsys):
    how = "pip install 'images/packages/notebooks[mlflow]'"
    create = ["templates", "create", "--name", "mine", "--from-notebook", "report.ipynb"]
    assert cli.main(create) == 1
    assert how in " ".join(capsys.readouterr().err.split())
    assert cli.main([*create, "--json"]) == 1
    sentence = json.loads(capsys.readouterr().err)["error"]["sentence"]
    assert "nbformat" in sentence
    assert how in sentence
    with pytest.raises(ImportError, match="needs mlflow") as error:
        notebooks.MLflowNotebookIntegration  # noqa: B018
    assert how in str(error.value)


def imported(file: Path) -> set[str]:
    """The libraries that a module of ours needs, at once or later."""
    tree = ast.walk(ast.parse(file.read_text()))
    names = {
        name.split(".")[0]
        for node in tree
        for name in (
            [each.name for each in node.names]
            if isinstance(node, ast.Import)
            else [node.module or ""]
            if isinstance(node, ast.ImportFrom)
            else re.findall(r"import_module\(.(\w+)", ast.unparse(node))
            if isinstance(node, ast.Call)
            else []
        )
    }
    return names - set(sys.stdlib_module_names) - {"notebooks"}


def test_the_extra_brings_what_the_parts_that_need_it_import_and_as_the_images_have_it():
    root = Path(notebooks.__file__).parents[2]
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    asked = [*project["dependencies"], *project["optional-dependencies"]["mlflow"]]
    wanted = {each.name: each for each in map(Requirement, asked)}
    parts = ("experiments", "magics", "mlflow_integration", "mlflow_plugin", "redaction")
    parts += ("snapshots", "this_notebook", "tracked", "templates/making")
    names = set().union(*(imported(root / f"src/notebooks/{part}.py") for part in parts))
    assert {"detect_secrets", "mlflow", "nbdime", "nbformat"} <= names
    assert {name.replace("_", "-").lower() for name in names} <= set(wanted)
    locked = pinned(root.parents[1] / "ml-cpu/requirements.txt")
    for name, each in wanted.items():
        assert locked[name] in each.specifier, name


@pytest.mark.parametrize("flags", [[], ["--json"]])
def test_what_the_machine_refuses_is_a_sentence(flags, tmp_path, capsys):
    (tmp_path / "a.ipynb").write_text("")
    assert cli.main(["templates", "copy", "data-exploration", f"{tmp_path}/a.ipynb/x", *flags]) == 1
    assert "does not end in .ipynb" in capsys.readouterr().err
    target = f"{tmp_path}/a.ipynb/x.ipynb"
    assert cli.main(["templates", "copy", "data-exploration", target, *flags]) == 1
    said = capsys.readouterr().err
    assert f"{tmp_path}/a.ipynb is no folder" in said
    (tmp_path / "full").symlink_to("/proc")
    target = f"{tmp_path}/full/x.ipynb"
    assert cli.main(["templates", "copy", "data-exploration", target, *flags]) == 1
    said = capsys.readouterr().err
    assert "/full" in said
    assert "Traceback" not in said
    assert not flags or json.loads(said)["error"]["type"] == "failed"


def test_a_bundle_of_certificates_that_is_not_there_is_named(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/no/such/ca.pem")
    connection = Connection("https://127.0.0.1:1", "alice", "t")
    monkeypatch.setattr(Connection, "find", lambda: connection)
    assert cli.main(["sessions", "list"]) == 1
    assert "/no/such/ca.pem" in capsys.readouterr().err


def test_a_services_words_are_told_as_commands(capsys, monkeypatch):
    for given, said in (
        ("GET /list-notebooks/{username} lists those that are.", "`runs notebooks` lists those"),
        ("PATCH it, or choose another name.", "`schedules change` changes it, or choose"),
        ("There is no such run of yours; GET /runs lists them.", "yours; `runs list` lists them."),
        ("cancel one by POST /sweeps/<id>/cancel.", "cancel one by `sweeps cancel`."),
    ):
        monkeypatch.setattr(output, "as_json", False)
        output.fail(Refused(404, "x", given))
        assert said in capsys.readouterr().err
        monkeypatch.setattr(output, "as_json", True)
        output.fail(Refused(404, "x", given))
        assert given in capsys.readouterr().err, "as the API tells it"


@pytest.mark.parametrize("command", ["runs show", "runs log", "sweeps show", "runs cancel"])
def test_what_is_no_id_is_told_without_asking_anybody(command, capsys):
    assert cli.main([*command.split(), "nope"]) == 1
    kind = command.split()[0]
    sentence = f"There is no {kind[:-1]} 'nope'; `{kind} list` shows those there are."
    assert capsys.readouterr().err.strip() == sentence


@pytest.mark.parametrize("command", [["login", "--hub", "http://localhost:30888"], ["logout"]])
def test_in_a_server_there_is_nothing_to_log_in_to(command, capsys, monkeypatch):
    monkeypatch.setenv("JUPYTERHUB_API_TOKEN", "t")
    assert cli.main(command) == 1
    sentence = "This is a notebook server of your hub: it has you logged in, as long as it runs."
    assert capsys.readouterr().err.strip() == sentence


class Manager:
    """Tells what it was asked for."""

    asked: tuple[object, ...] = ()

    def create_workspace(self, *asked):
        type(self).asked = asked
        return self.delete_workspace(asked[0])

    def delete_workspace(self, workspace_id):
        until = datetime(2026, 12, 7, 10, 15, tzinfo=UTC)
        role = WorkspaceRole.OWNER
        return Workspace(workspace_id, "Churn", "", role, "alice", None, "10Gi", until, until)


@pytest.fixture
def manager(monkeypatch):
    monkeypatch.setattr("notebooks.cli.workspaces.WorkspaceManager", Manager)
    return Manager


@pytest.mark.parametrize(("given", "gib"), [("10Gi", 10), ("10", 10), ("500Gi", 500)])
def test_a_workspaces_size_is_written_as_it_is_told(manager, given, gib):
    assert cli.main(["workspaces", "create", "churn", "--size", given]) == 0
    assert manager.asked[-1] == gib


@pytest.mark.parametrize("given", ["10Mi", "1.5Gi", "0Gi", "-1", "10GB", "lots"])
def test_a_size_that_is_no_whole_number_of_gib_is_usage_2_and_a_sentence(manager, given, capsys):
    assert cli.main(["workspaces", "create", "churn", "--size", given]) == 2
    said = " ".join(capsys.readouterr().err.replace("│", " ").split())
    assert f"'{given}' is no whole number of GiB; write it as 10Gi." in said


def test_who_deletes_a_workspace_is_told_that_servers_stop(manager, capsys):
    assert cli.main(["workspaces", "delete", "churn"]) == 0
    assert "servers that have it mounted stop" in capsys.readouterr().out
    assert cli.main(["workspaces", "delete", "--help"]) == 0
    assert "servers that have it mounted stop" in " ".join(capsys.readouterr().out.split())


def test_a_laptop_needs_only_what_pip_brings_with_the_package():
    root = Path(notebooks.__file__).parents[2]
    code = "import sys; import notebooks.cli; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={"PYTHONPATH": str(root / "src")},
        capture_output=True,
        text=True,
        check=True,
    )
    found = set(done.stdout.split())
    assert {"requests", "rich", "typer"} <= found
    others = {
        "IPython",
        "detect_secrets",
        "jupyterhub",
        "mlflow",
        "nbformat",
        "pandas",
        "papermill",
    }
    assert not found & others
