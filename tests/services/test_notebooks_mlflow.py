"""M6: the magics in a real kernel, and what they leave on the real MLflow server."""

import json
import re
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mlflow
import nbformat
import pytest
from mlflow import MlflowClient

from notebooks import MLflowNotebookIntegration, mlflow_integration, mlflow_plugin
from notebooks.errors import NotebooksError
from notebooks.jobs.tracking import Tracking
from tests.ports import free_port
from tests.services.notebook_kernel import ROOT, Kernel, kernel

SECRET = "sk-proj-abcdefghijklmnopqrstuvwxyzABCDEFGH1234567890"


def write(file: Path, *sources: str) -> Path:
    cells = [nbformat.v4.new_code_cell(source, id=f"cell-{n}") for n, source in enumerate(sources)]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), file)
    return file


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def notebook(home: Path) -> Path:
    (home / "work").mkdir()
    return write(home / "work/churn.ipynb", "%mlflow_start_run", "%mlflow_log_notebook")


@pytest.fixture(scope="module")
def lab(notebook: Path, home: Path, alices_mlflow: dict[str, str]) -> Iterator[Kernel]:
    with kernel(notebook, home, alices_mlflow) as started:
        yield started


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch, home: Path, alices_mlflow: Any) -> MlflowClient:
    """MLflow's own client, and an environment as alice's kernels have it."""
    for name, value in {**alices_mlflow, "HOME": str(home)}.items():
        monkeypatch.setenv(name, value)
    for name in ("MLFLOW_EXPERIMENT_ID", "MLFLOW_EXPERIMENT_NAME", "MLFLOW_RUN_ID"):
        # What MLflow writes into it is gone after the test.
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    monkeypatch.setattr(mlflow.tracking.fluent, "_active_experiment_id", None)
    return MlflowClient(alices_mlflow["MLFLOW_TRACKING_URI"])


def run_id(text: str) -> str:
    """Of the run that was started; one that ended first is named before it."""
    return re.findall("[0-9a-f]{32}", text)[-1]


def test_J3_plain_mlflow_goes_to_the_notebooks_experiment_and_prints_links_for_a_browser(
    home, client, alices_mlflow
):
    """MLflow's own default lies in a workspace that is closed, and its address in the cluster."""
    public = "https://hub.example.com/services/mlflow"
    file = write(home / "plain.ipynb", "1")
    ours = {"MLHUB_MLFLOW_URL": public, "MLHUB_MLFLOW_WORKSPACE": "alice--home"}
    with kernel(file, home, alices_mlflow | ours) as started:
        plain = "import mlflow\nwith mlflow.start_run() as run: mlflow.log_metric('a', 1)"
        said = [started.run(plain) for _ in range(2)]
        assert [each.error for each in said] == ["", ""]
        (experiment,) = [e for e in client.search_experiments() if e.name == "plain"]
        link = f"at: {public}/#/experiments/{experiment.experiment_id}/runs/\\w+"
        link += r"\?workspace=alice--home"
        assert all(re.search(link, each.text) for each in said), said
        assert alices_mlflow["MLFLOW_TRACKING_URI"] not in said[0].text
        # Another server, or what somebody calls one, is theirs to name.
        other = started.run(
            "mlflow.set_tracking_uri(mlflow.get_tracking_uri() + '/')\n"
            "mlflow.set_experiment('other')\nwith mlflow.start_run(): pass"
        )
        assert f"at: {alices_mlflow['MLFLOW_TRACKING_URI']}/#/" in other.text, other
        assert "workspace" not in other.text


def test_M6_the_four_magics_leave_a_run_with_its_notebook(lab, client, notebook, tmp_path):
    started = lab.run("%mlflow_start_run first --experiment 'customer churn'")
    assert started.error == ""
    assert "run first (" in started.text
    assert "in experiment customer churn" in started.text
    lab.run("depth = 3\n%mlflow_log_param depth {depth}")
    lab.run("%mlflow_log_param note 'two words'")
    lab.run("%mlflow_log_metric loss 0.5 --step 1\n%mlflow_log_metric loss -0.25 --step 2")
    logged = lab.run("%mlflow_log_notebook --message as first tried", "cell-1")
    assert "work/churn.ipynb: version 1" in logged.text, logged

    run = client.get_run(run_id(started.text))
    assert client.get_experiment(run.info.experiment_id).name == "customer churn"
    assert run.data.params == {"depth": "3", "note": "two words"}
    history = client.get_metric_history(run.info.run_id, "loss")
    assert [(point.step, point.value) for point in history] == [(1, 0.5), (2, -0.25)]
    (kept,) = MLflowNotebookIntegration(notebook).snapshots()
    assert (kept.version, kept.message, kept.created_by) == (1, "as first tried", "alice")
    copy = client.download_artifacts(run.info.run_id, kept.artifact_path, str(tmp_path))
    assert Path(copy).read_bytes() == notebook.read_bytes(), "the file, byte for byte"


def test_M6_a_value_is_logged_as_it_is(lab, client):
    """Nothing in it is read as a shell would: not quotes, not backslashes, not a minus."""
    values = {
        "cols": "['age', 'income']",
        "pattern": r"\d+ \s*",
        "path": r"C:\data\x",
        "note": "it's",
        "spaced": "a  b",
        "pair": "'a' and 'b'",
        "flag": "--fast -x",
    }
    started = run_id(lab.run("%mlflow_start_run verbatim").text)
    lab.run(f"given = {values!r}")
    for key, value in values.items():
        assert lab.run(f"%mlflow_log_param {key} {{given[{key!r}]}}").error == ""
        assert lab.run(f"%mlflow_log_param typed_{key} {value}").error == ""
    lab.run("%mlflow_log_param 'two words' \"in quotes\"")
    small = "%mlflow_log_metric loss -1.2e-05\n%mlflow_log_metric loss -2e-07 --step 1\n"
    assert lab.run(f"{small}%mlflow_log_metric -s 2 loss -inf").error == ""
    assert lab.run("%mlflow_log_metric loss '0.5' --step=3").error == ""

    run = client.get_run(started)
    typed = {f"typed_{key}": value for key, value in values.items()}
    assert run.data.params == {**values, **typed, "two words": "in quotes"}
    history = client.get_metric_history(started, "loss")
    logged = [(point.step, point.value) for point in history]
    # MLflow's tables have the largest number for what is endless.
    assert logged == [(0, -1.2e-05), (1, -2e-07), (2, -sys.float_info.max), (3, 0.5)]
    told = lab.run("print(get_ipython().find_line_magic('mlflow_log_metric').__doc__)").text
    assert "--step STEP" in told


def test_M6_a_notebook_finds_its_runs_and_a_run_its_notebook(lab, client, notebook):
    first = run_id(lab.run("%mlflow_start_run one").text)
    second = run_id(lab.run("%mlflow_start_run two").text)
    tracking = MLflowNotebookIntegration(notebook)
    ids = [run.info.run_id for run in tracking.runs_of()]
    assert ids[-2:] == [first, second]
    assert client.get_run(first).info.status == "FINISHED", "ended by the next one"
    found = tracking.notebook_of(first)
    assert found.path == "work/churn.ipynb"
    assert list(found.run_ids) == ids
    bare = client.create_run(client.create_experiment("bare"))
    with pytest.raises(NotebooksError, match="made by no notebook"):
        tracking.notebook_of(bare.info.run_id)


def test_M6_a_run_goes_where_it_says_then_where_the_notebook_then_where_the_server_says(
    home, client, alices_mlflow
):
    """`launch --mlflow-experiment` is for runs that name no experiment."""
    file = write(home / "where.ipynb", "1")
    with kernel(file, home, {**alices_mlflow, "MLFLOW_EXPERIMENT_NAME": "the-servers"}) as started:
        assert "in experiment the-servers" in started.run("%mlflow_start_run").text
        started.run("import mlflow\nmlflow.end_run()\nmlflow.set_experiment('chosen')")
        assert "in experiment chosen" in started.run("%mlflow_start_run").text
        assert "in experiment named" in started.run("%mlflow_start_run -e named").text
    with kernel(file, home, alices_mlflow) as started:
        assert "in experiment where" in started.run("%mlflow_start_run").text


def test_M6_the_notebooks_file_is_never_touched(lab, notebook):
    """JupyterLab has it open: a file that changes under it costs its person their edits."""
    before = (notebook.read_bytes(), notebook.stat().st_mtime_ns, notebook.stat().st_ino)
    lab.run("%mlflow_start_run touch-not")
    assert lab.run("%mlflow_log_notebook", "cell-1").error == ""
    assert (notebook.read_bytes(), notebook.stat().st_mtime_ns, notebook.stat().st_ino) == before
    assert {file.name for file in notebook.parent.iterdir()} == {"churn.ipynb"}


def test_M6_unsaved_changes_are_said(lab):
    lab.run("%mlflow_start_run")
    assert "Not all is saved" not in lab.run("%mlflow_log_notebook", "cell-1").text
    said = lab.run("# not saved yet\n%mlflow_log_notebook", "cell-1").text
    assert "Not all is saved: this cell." in said
    lab.run("%mlflow_start_run # changed since", "cell-0")
    said = lab.run("%mlflow_log_notebook", "cell-1").text
    assert "Not all is saved: 1 cells ran with other content." in said


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("%mlflow_log_metric loss low", "'low' is no number"),
        ("%mlflow_log_metric loss", "the following arguments are required: value"),
        ("%mlflow_log_metric loss 1 --step one", "argument --step/-s: invalid int value: 'one'"),
        ("%mlflow_log_param", "the following arguments are required: key, value"),
        ("%mlflow_log_param one", "the following arguments are required: value"),
        ("%mlflow_start_run 'one", "a quotation mark too few"),
        ("%mlflow_log_notebook gone.ipynb", "gone.ipynb is not there"),
        ("%mlflow_start_run --speed 3", "unrecognized arguments: --speed"),
    ],
)
def test_M6_what_is_wrong_is_a_sentence_and_no_traceback(lab, line, sentence):
    lab.run("%mlflow_start_run")
    said = lab.run(line)
    assert sentence in said.error + said.text
    assert "Traceback" not in said.error


def test_M6_without_a_run_the_magics_say_which_comes_first(lab, client):
    lab.run("import mlflow\nmlflow.end_run()")
    for line in ("%mlflow_log_param a 1", "%mlflow_log_metric a 1", "%mlflow_log_notebook"):
        said = lab.run(line)
        assert said.error == "No run is active; start one first: %mlflow_start_run"


def test_M6_without_a_server_named_nothing_is_written_here(tmp_path):
    with kernel(None, tmp_path, {}) as bare:
        said = bare.run("%mlflow_start_run")
        assert said.error.startswith("No MLflow server is named: MLFLOW_TRACKING_URI is not set")
        assert not {"mlruns", "mlflow.db"} & {file.name for file in tmp_path.iterdir()}
        assert "%load_ext" not in bare.run("%load_ext notebooks").error, "loading twice is well"


def test_M6_an_mlflow_that_is_down_costs_seconds(tmp_path):
    address = f"http://127.0.0.1:{free_port()}"
    with kernel(None, tmp_path, {"MLFLOW_TRACKING_URI": address}) as alone:
        alone.run("import mlflow")
        start = time.monotonic()
        said = alone.run("%mlflow_start_run")
        assert time.monotonic() - start < 60
        assert said.error.startswith(f"MLflow does not answer at {address}: nothing was recorded.")


def test_M6_secrets_are_left_out_of_what_is_kept_and_it_is_said(
    lab, client, home, alices_mlflow, tmp_path
):
    token = alices_mlflow["MLFLOW_TRACKING_TOKEN"]
    file = write(home / "leaky.ipynb", f'api_key = "{SECRET}"', "import os; print(os.environ)")
    content = nbformat.read(file, 4)
    content.cells[1].outputs = [nbformat.v4.new_output("stream", text=f"'TOKEN': '{token}'\n")]
    nbformat.write(content, file)
    lab.run("%mlflow_start_run leaky")
    said = lab.run(f"%mlflow_log_notebook {file}")
    assert "left out, since it looks like a secret: cell 1, source: Secret Keyword" in said.text
    assert "cell 2, outputs: the value of MLFLOW_TRACKING_TOKEN" in said.text
    assert SECRET not in said.text
    (kept,) = MLflowNotebookIntegration(file).snapshots()
    copy = Path(client.download_artifacts(kept.run_id, kept.artifact_path, str(tmp_path)))
    assert SECRET not in copy.read_text()
    assert token not in copy.read_text()
    assert SECRET in file.read_text(), "the person's own file stays as it is"
    nbformat.validate(nbformat.read(copy, 4))


def test_M6_snapshots_are_versions_that_can_be_compared_and_restored(client, home):
    file = write(home / "versions.ipynb", "a = 1")
    tracking = MLflowNotebookIntegration(file)
    first = file.read_bytes()
    assert tracking.snapshot("begun").version == 1
    write(file, "a = 2", "b = 3")
    assert tracking.snapshot().version == 2
    write(file, "a = 1")
    assert tracking.snapshot("back").version == 1, "the same content is the same version"
    assert [each.version for each in tracking.snapshots()] == [1, 2]

    change = tracking.diff(1, 2)
    assert "-  a = 1" in change
    assert "+  a = 2" in change
    assert "b = 3" in change
    assert tracking.diff(1) == "", "as saved is version 1 again"

    assert tracking.restore(2) == home / "versions-v2.ipynb"
    with pytest.raises(NotebooksError, match=r"versions-v2.ipynb exists and is left as it is"):
        tracking.restore(2)
    write(file, "my edits")
    mine = file.read_bytes()
    tracking.restore(1, over=True)
    assert file.read_bytes() == first
    (old,) = home.glob("versions.before-v1-*.ipynb")
    assert old.read_bytes() == mine, "what was there is kept"
    with pytest.raises(NotebooksError, match=r"has no version 9; there are: 1, 2"):
        tracking.diff(9)


def test_M6_two_kernels_never_give_one_number_to_two_contents(client, home, monkeypatch):
    """The second number is taken between the look at what there is and the writing."""
    from notebooks.snapshots import Snapshots

    file, other = write(home / "race.ipynb", "mine"), write(home / "rival.ipynb", "theirs")
    tracking = MLflowNotebookIntegration(file)
    real, rivals = Snapshots.all, []

    def looked(self: Snapshots, *given: Any) -> Any:
        found = real(self, *given)
        if not rivals:
            rivals.append(True)
            run = client.create_run(client.create_experiment("rivals")).info.run_id
            rivals.append(self.keep(run, other, "")[0])
        return found

    monkeypatch.setattr(Snapshots, "all", looked)
    mine = tracking.snapshot()
    assert {mine.version, rivals[1].version} == {1, 2}


def _by_snapshot(home: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(mlflow_integration, "EXPERIMENT", "race-of-snapshots")
    MLflowNotebookIntegration(write(home / "kept.ipynb", "a = 1")).snapshot()
    return "race-of-snapshots"


def _by_plain_calls(home: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    file = home / "race-of-plain-calls.ipynb"
    monkeypatch.setattr(mlflow_plugin, "known_notebook", lambda: file)
    assert mlflow_plugin.NotebooksExperiment().get_experiment_id()
    return file.stem


def _by_run(home: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    assert Tracking("race-of-runs", "a run", {}).run_id
    return "race-of-runs"


def _by_start_run(home: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    with MLflowNotebookIntegration(home / "race-of-starts.ipynb").start_run() as run:
        found = mlflow.get_experiment(run.info.experiment_id).name
    return str(found)


@pytest.mark.parametrize("found", [_by_snapshot, _by_plain_calls, _by_run, _by_start_run])
def test_M6_two_that_begin_together_find_one_experiment(client, home, monkeypatch, found):
    """Between the look whether it is there and the making another makes it, as in a sweep."""
    real, raced = MlflowClient.get_experiment_by_name, list[str]()

    def looked(self: MlflowClient, name: str) -> Any:
        there = real(self, name)
        if there is None:
            raced.append(name)
            self.create_experiment(name)
        return there

    monkeypatch.setattr(MlflowClient, "get_experiment_by_name", looked)
    assert raced == [found(home, monkeypatch)]


@pytest.mark.parametrize("found", [_by_snapshot, _by_plain_calls, _by_run, _by_start_run])
def test_M6_an_experiment_that_was_deleted_comes_back_with_the_next_run(
    client, home, monkeypatch, capfd, found
):
    """As somebody does on MLflow's page; its name stays taken."""
    name = found(home, monkeypatch)
    experiment = client.get_experiment_by_name(name)
    client.delete_experiment(experiment.experiment_id)
    assert found(home, monkeypatch) == name
    assert client.get_experiment(experiment.experiment_id).lifecycle_stage == "active"
    assert f"The experiment {name} was deleted" in capfd.readouterr().err


def test_M6_who_may_not_restore_an_experiment_is_told_who_may(client, hub_double, monkeypatch):
    monkeypatch.setenv("MLFLOW_WORKSPACE", "fraud")
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", hub_double.person("olga", fraud="owner"))
    known = client.create_experiment("of-olga")
    client.delete_experiment(known)
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", hub_double.person("eddy", fraud="editor"))
    said = "The experiment of-olga is deleted in MLflow, and you may not restore it"
    with pytest.raises(NotebooksError, match=f"{said}.*who made it.*owner of the workspace"):
        MLflowNotebookIntegration().start_run(experiment="of-olga")
    assert client.get_experiment(known).lifecycle_stage == "deleted"


class Member:
    """Of the workspace `fraud`: their home, with report.ipynb in it, and their server."""

    def __init__(self, name: str, folder: Path, hub: Any, monkeypatch: pytest.MonkeyPatch):
        self.name = name
        self.home = folder / name
        self.home.mkdir()
        self.file = write(self.home / "report.ipynb", f"me = {name!r}")
        self._token = hub.person(name, fraud="editor")
        self._monkeypatch = monkeypatch

    def here(self, file: str = "report.ipynb", **more: str) -> MLflowNotebookIntegration:
        self._monkeypatch.setenv("HOME", str(self.home))
        self._monkeypatch.setenv("MLFLOW_WORKSPACE", "fraud")
        self._monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", self._token)
        self._monkeypatch.setenv("JUPYTERHUB_USER", self.name)
        for name, value in more.items():
            self._monkeypatch.setenv(name, value)
        return MLflowNotebookIntegration(self.home / file)


@pytest.fixture
def members(client, hub_double, monkeypatch, tmp_path) -> tuple[Member, Member]:
    """With names of the test's own, for all tests share the workspace."""
    names = (f"{each}-{tmp_path.name.replace('_', '-').lower()}" for each in ("eddy", "edda"))
    eddy, edda = (Member(name, tmp_path, hub_double, monkeypatch) for name in names)
    return eddy, edda


def kept(found: list[Any]) -> list[tuple[int, str]]:
    return [(each.version, each.created_by) for each in found]


def test_M6_in_a_teams_workspace_a_colleagues_notebook_of_the_same_path_is_another(client, members):
    eddy, edda = members
    his = eddy.here().snapshot("his")
    with eddy.here().start_run() as his_run:
        pass
    mine = edda.here()
    before = edda.file.read_bytes()
    assert mine.snapshots() == []
    assert mine.snapshot("mine").version == 1
    assert kept(mine.snapshots()) == [(1, edda.name)]
    assert mine.restore(1, over=True).read_bytes() == before
    with mine.start_run() as my_run:
        again = mine.log_notebook()
    assert (again.version, again.run_id) == (1, my_run.info.run_id)
    own = {my_run.info.run_id, mine.snapshots()[0].run_id}
    assert {run.info.run_id for run in mine.runs_of()} == own

    write(eddy.file, "a second")
    assert eddy.here().snapshot().version == 2
    said = rf"no version 2; there are: 1\. Of others there are: .*by='{eddy.name}' \(1, 2\)"
    with pytest.raises(NotebooksError, match=said):
        edda.here().restore(2, over=True)
    assert edda.file.read_bytes() == before

    assert kept(mine.snapshots(by=eddy.name)) == [(1, eddy.name), (2, eddy.name)]
    assert f"me = {eddy.name!r}" in mine.restore(1, edda.home / "x.ipynb", by=eddy.name).read_text()
    assert "-  a second" in mine.diff(2, 1, by=eddy.name)
    found = mine.notebook_of(his_run.info.run_id)
    assert (found.path, found.modified) == ("report.ipynb", None), "that of her file is no news"
    assert {his.run_id, his_run.info.run_id} <= set(found.run_ids)
    assert not own & set(found.run_ids)
    assert set(found.run_ids) == {run.info.run_id for run in mine.runs_of(by=eddy.name)}
    assert mine.notebook_of(my_run.info.run_id).modified


def test_M6_a_notebook_in_the_teams_folder_is_one_for_all(members):
    eddy, edda = members
    for member in members:
        (member.home / "workspaces/fraud").mkdir(parents=True)
    shared = f"workspaces/fraud/{eddy.name}.ipynb"
    write(eddy.home / shared, "a = 1")
    write(edda.home / shared, "a = 2")
    assert eddy.here(shared).snapshot().version == 1
    assert edda.here(shared).snapshot().version == 2
    assert kept(edda.here(shared).snapshots()) == [(1, eddy.name), (2, edda.name)]
    assert len(edda.here(shared).runs_of()) == 2


def test_M6_versions_and_runs_that_say_less_are_found_by_who_kept_them(client, members):
    """As runs for versions alone, and unattended ones, were made once: without `mlflow.user`."""
    eddy, edda = members
    first = eddy.here().snapshot()
    client.delete_tag(first.run_id, "mlflow.user")
    experiment = client.get_run(first.run_id).info.experiment_id
    unattended = client.create_run(experiment, tags={"mlhub.notebook": "report.ipynb"})
    assert kept(eddy.here().snapshots()) == [(1, eddy.name)]
    ids = {run.info.run_id for run in eddy.here().runs_of()}
    assert {first.run_id, unattended.info.run_id} <= ids
    assert eddy.here().notebook_of(unattended.info.run_id).path == "report.ipynb"
    assert kept(edda.here().snapshots()) == []
    assert first.run_id not in {run.info.run_id for run in edda.here().runs_of()}


def test_M6_who_keeps_a_version_outside_a_server_is_who_mlflow_knows(client, members, monkeypatch):
    """The user of a machine is no name: in unattended runs all people are `jovyan`."""
    eddy, edda = members
    eddy.here()
    monkeypatch.delenv("JUPYTERHUB_USER")
    monkeypatch.setenv("LOGNAME", "jovyan")
    monkeypatch.delenv("MLFLOW_RUN_CONTEXT", raising=False)
    tracking = MLflowNotebookIntegration(eddy.file)
    assert tracking.snapshot().created_by == eddy.name
    with tracking.start_run() as run:
        pass
    job = Tracking("notebooks", "report.ipynb", {"mlhub.notebook": "report.ipynb"})
    for made in (run.info.run_id, job.run_id):
        assert client.get_run(made).data.tags["mlflow.user"] == eddy.name
    theirs = {each.info.run_id for each in edda.here().runs_of()}
    assert not theirs & {run.info.run_id, job.run_id}


def test_M6_in_one_run_no_version_takes_the_place_of_a_colleagues(client, members):
    eddy, edda = members
    with eddy.here().start_run() as run:
        eddy.here().log_notebook()
    mine = edda.here()
    with mlflow.start_run(run_id=run.info.run_id):
        assert mine.log_notebook().version == 2, "1 is in the run already"
        assert mine.log_notebook().version == 2
    assert kept(mine.snapshots()) == [(2, edda.name)]
    assert kept(eddy.here().snapshots()) == [(1, eddy.name)]
    assert eddy.here().restore(1, eddy.home / "y.ipynb").read_bytes() == eddy.file.read_bytes()


def test_M6_a_long_message_in_any_letters_leaves_the_versions_readable(client, home):
    """MLflow cuts a tag's value without a word, and what is left of JSON is none."""
    file = write(home / "party.ipynb", "a = 1")
    tracking = MLflowNotebookIntegration(file)
    tracking.snapshot(message="\N{PARTY POPPER}" * 1200)
    (kept,) = MLflowNotebookIntegration(file).snapshots()
    assert kept.message == "\N{PARTY POPPER}" * 1000


def test_M6_a_changed_artifact_is_not_restored(client, home, tmp_path):
    file = write(home / "tampered.ipynb", "a = 1")
    tracking = MLflowNotebookIntegration(file)
    kept = tracking.snapshot()
    place = Path(kept.artifact_path)
    (tmp_path / place.name).write_text("{}")
    client.log_artifact(kept.run_id, str(tmp_path / place.name), str(place.parent))
    with pytest.raises(NotebooksError, match="is not what was kept: its checksum differs"):
        tracking.restore(1)


ODD = (
    *("C# basics", "why? so", "a%41b%2Fc", "a & b + c; d = e", "it's 100% mine_", 'quo"ted'),
    *("größe", "C:x", " lead", "tab\there", "line\nbreak", "[a] {b} ~^`!@$,|<>*()\\"),
)


@pytest.mark.parametrize("stem", ODD)
def test_M6_any_name_of_a_notebook_is_found_again(client, home, stem):
    file = write(home / f"{stem}.ipynb", f"name = {stem!r}")
    tracking = MLflowNotebookIntegration(file)
    kept = tracking.snapshot()
    folder = str(Path(kept.artifact_path).parent)
    there = client.list_artifacts(kept.run_id, folder)
    assert [each.path for each in there] == [kept.artifact_path]
    assert [each.version for each in tracking.snapshots()] == [1]
    assert tracking.diff(1) == ""
    restored = tracking.restore(1)
    assert restored == home / f"{stem}-v1.ipynb"
    assert restored.read_bytes() == file.read_bytes()


@pytest.mark.parametrize("stem", ODD)
def test_M6_the_output_of_a_run_is_attached_whatever_its_name(client, home, tmp_path, stem):
    """MLflow's client puts a name into an address without quoting it (3.17)."""
    output = write(home / f"{stem}.ipynb", f"name = {stem!r}")
    tracking = Tracking("odd-names", stem, {})
    tracking.end("FINISHED", str(output))
    (attached,) = client.list_artifacts(tracking.run_id)
    assert attached.path.endswith(".ipynb")
    copy = client.download_artifacts(tracking.run_id, attached.path, str(tmp_path))
    assert Path(copy).read_bytes() == output.read_bytes()


@pytest.mark.parametrize("content", ["", "{}", "[]", json.dumps({"cells": "no"})])
def test_M6_what_is_no_notebook_is_refused(client, home, content):
    file = home / "broken.ipynb"
    file.write_text(content)
    with pytest.raises(NotebooksError, match="is no notebook"):
        MLflowNotebookIntegration(file).snapshot()


def test_M6_in_a_run_of_the_execution_api_the_run_is_there_already(client, home, alices_mlflow):
    made = client.create_run(client.create_experiment("jobs"), tags={"mlhub.notebook": "a.ipynb"})
    file = write(home / "a.ipynb", "%mlflow_start_run")
    job = {**alices_mlflow, "MLFLOW_RUN_ID": made.info.run_id, "IPYNB_FILE": str(file)}
    with kernel(None, home, job) as running:
        said = running.run("%mlflow_start_run other --experiment another\n%mlflow_log_param a 1")
        assert made.info.run_id in said.text, said
        running.run("%mlflow_log_notebook")
        running.run("1/0")
    run = client.get_run(made.info.run_id)
    assert run.data.params == {"a": "1"}
    assert run.info.status == "FAILED", "its kernel ended after a cell that failed"
    assert [each.version for each in MLflowNotebookIntegration(file).snapshots()] == [1]


def test_M6_a_notebook_that_names_its_experiment_runs_unattended_as_in_the_lab(
    client, home, alices_mlflow
):
    """The first block of docs/mlflow.md; MLflow would refuse its start_run."""
    (block,) = re.findall(
        r"```python\n(import mlflow\n.*?)```", (ROOT / "docs/mlflow.md").read_text(), re.DOTALL
    )[:1]
    assert "set_experiment" in block
    made = client.create_run(client.create_experiment("jobs-2"))
    job = {**alices_mlflow, "MLFLOW_RUN_ID": made.info.run_id}
    with kernel(None, home, job) as running:
        said = running.run(block)
        assert not said.error, said
        assert "in the experiment jobs-2; set_experiment leaves it there" in said.text
        again = "mlflow.set_experiment('a-second')\nwith mlflow.start_run() as run: pass"
        told = running.run(f"{again}\nprint('RUN', run.info.run_id)")
        assert not told.error, told
    run = client.get_run(made.info.run_id)
    assert run.data.metrics == {"accuracy": 0.75}
    second = client.get_run(told.text.partition("RUN ")[2].split()[0])
    assert client.get_experiment(second.info.experiment_id).name == "a-second"
