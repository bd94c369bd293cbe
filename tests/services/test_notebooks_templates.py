"""M5: each template runs headless on a real MLflow, leaves its run, and its results are right.

They run two beside each other, in kernels as the image has them, each in a home of its own. The
tests wait for the one that they are about.
"""

import importlib.util
import json
import math
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from mlflow import MlflowClient
from mlflow.entities import Run
from sklearn.metrics import roc_auc_score

from notebooks import templates
from notebooks.templates.data import make_customers
from tests.services.notebook_kernel import ROOT, clean_environment

NEEDS = {
    "data-exploration": "sklearn",
    "feature-engineering": "sklearn",
    "hyperparameter-tuning-optuna": "optuna",
    "model-evaluation": "sklearn",
    "model-training-pytorch": "torch",
    "model-training-scikit-learn": "sklearn",
    "model-training-tensorflow": "tensorflow",
}
"""What each template is about; it runs wherever that can be imported."""

AT_BUILD = {"model-training-pytorch": "ml-gpu"}
"""Run by the build of its image, since PyTorch for Linux comes with CUDA's gigabytes."""

ALONE = {"hyperparameter-tuning-ray"}
"""Run by test_notebooks_ray.py, with nothing beside it."""

# Whoever comes first waits for what runs beside it as well.
pytestmark = pytest.mark.timeout(900)

PROBE = "import json; print('PROBE' + json.dumps({expression}, default=float))"


def runs_here(name: str) -> bool:
    return importlib.util.find_spec(NEEDS[name]) is not None


@dataclass(frozen=True)
class Executed:
    """How a template ended."""

    notebook: dict[str, Any]
    home: Path
    said: str

    @property
    def probe(self) -> Any:
        outputs = self.notebook["cells"][-1]["outputs"]
        text = "".join("".join(output.get("text", "")) for output in outputs)
        return json.loads(text.split("PROBE")[1])

    @property
    def printed(self) -> str:
        outputs = [o for cell in self.notebook["cells"] for o in cell.get("outputs", ())]
        return "".join("".join(output.get("text", "")) for output in outputs)

    @property
    def pictures(self) -> int:
        outputs = [o for cell in self.notebook["cells"] for o in cell.get("outputs", ())]
        return sum("image/png" in output.get("data", {}) for output in outputs)


def execute(
    name: str, home: Path, mlflow: dict[str, str], probe: str = "None", **parameters: object
) -> Executed:
    """Copy a template into a home and run it as an unattended job would."""
    home.mkdir(exist_ok=True)
    given, executed = home / f"{name}.ipynb", home / "executed.ipynb"
    if not given.exists():
        templates.copy(name, given)
    notebook = json.loads(given.read_text())
    cell = {"cell_type": "code", "id": "probe", "metadata": {}, "outputs": []}
    cell |= {"execution_count": None, "source": PROBE.replace("{expression}", probe)}
    notebook["cells"].append(cell)
    (home / "probed.ipynb").write_text(json.dumps(notebook))
    named = {"experiment": name, **parameters}
    options = [part for key, value in named.items() for part in ("-p", key, str(value))]
    done = subprocess.run(
        [
            *(sys.executable, "-m", "papermill", str(home / "probed.ipynb"), str(executed)),
            *("--cwd", str(home), "--no-progress-bar", "--start-timeout", "300"),
            *("--log-level", "ERROR", *options),
        ],
        env=clean_environment(
            home,
            {**mlflow, "JPY_SESSION_NAME": str(given), "CPU_LIMIT": "1", "OMP_NUM_THREADS": "1"},
        ),
        cwd=home,
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, f"{name}: {(done.stdout + done.stderr)[-6000:]}"
    return Executed(json.loads(executed.read_text()), home, done.stdout)


ASKED: dict[str, tuple[str, dict[str, object]]] = {
    "data-exploration": ("missing.to_dict()", {}),
    "feature-engineering": ("[sorted(kept), importance['mean'].to_dict()]", {}),
    "model-training-scikit-learn": (
        "[best, test_y.index.tolist(), probability.tolist()]",
        {"register_as": "churn"},
    ),
    "model-evaluation": (
        "[truth.tolist(), probability.tolist(), metrics['value'].to_dict(),"
        " gathered.to_dict('records'), worst.index.tolist()]",
        {},
    ),
    "hyperparameter-tuning-optuna": ("[study.best_value, study.best_params]", {"trials": 8}),
    "model-training-tensorflow": ("history.history", {"epochs": 6}),
    "model-training-pytorch": ("history", {"epochs": 6}),
}
"""What is asked at the end of each, and the parameters that it is run with."""


@pytest.fixture(scope="module")
def run_of(
    tmp_path_factory: pytest.TempPathFactory, alices_mlflow: dict[str, str]
) -> Iterator[Callable[[str], Executed]]:
    folder = tmp_path_factory.mktemp("homes")
    with ThreadPoolExecutor(2) as pool:
        running: dict[str, Future[Executed]] = {
            name: pool.submit(
                execute, name, folder / name, alices_mlflow, ASKED[name][0], **ASKED[name][1]
            )
            for name in sorted(ASKED, key=lambda name: NEEDS[name] != "tensorflow")
            if runs_here(name)
        }
        yield lambda name: running[name].result()


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch, alices_mlflow: dict[str, str]) -> MlflowClient:
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", alices_mlflow["MLFLOW_TRACKING_TOKEN"])
    monkeypatch.delenv("MLFLOW_WORKSPACE", raising=False)
    return MlflowClient(alices_mlflow["MLFLOW_TRACKING_URI"])


def runs(client: MlflowClient, template: str) -> tuple[Run, list[Run]]:
    """The run of a template, and those below it."""
    experiment = client.get_experiment_by_name(template)
    assert experiment is not None
    found = client.search_runs([experiment.experiment_id])
    below = [run for run in found if "mlflow.parentRunId" in run.data.tags]
    (run,) = [run for run in found if run not in below]
    return run, below


def artifacts(client: MlflowClient, run: Run) -> set[str]:
    return {each.path for each in client.list_artifacts(run.info.run_id)}


def files(folder: Path) -> list[Path]:
    return [each for each in folder.rglob("*") if each.is_file()]


needs = {
    name: pytest.mark.skipif(not runs_here(name), reason=f"{NEEDS[name]} is not installed")
    for name in NEEDS
}


def test_M5_every_template_is_run_here_or_at_the_build_of_its_image():
    """A template that nothing runs is one that nobody knows to be right."""
    assert {each.name for each in templates.templates()} == NEEDS.keys() | ALONE
    assert ASKED.keys() == NEEDS.keys()
    not_run = {name for name in NEEDS if not runs_here(name)}
    print("templates that are not run here:", *sorted(not_run))
    assert not_run <= AT_BUILD.keys()
    for name, image in AT_BUILD.items():
        last = (ROOT / "images" / image / "Dockerfile").read_text().split("\nRUN ")[-1]
        assert f"python3 /template.py {name} " in last, image
        notebook = Path(templates.find(name).path).read_text()
        assert f'needs(\\"{NEEDS[name]}\\", image=\\"{image}\\")' in notebook


@pytest.mark.parametrize(
    ("name", "changed", "said"),
    [
        ("data-exploration", "rows=1000", None),
        ("data-exploration", "seed=0", "seed=0 has results of the run before: ['"),
        ("model-training-pytorch", "learning_rate=0.005", "the profile “GPU"),
    ],
)
def test_M5_the_build_fails_with_a_template_that_fails_or_shows_older_results(
    name, changed, said, tmp_path
):
    if name in AT_BUILD and runs_here(name):
        pytest.skip(f"{NEEDS[name]} is installed here")
    done = subprocess.run(
        [sys.executable, str(ROOT / "images/jupyter/template.py"), name, changed],
        env=clean_environment(tmp_path, {}),
        check=False,
        capture_output=True,
        text=True,
    )
    assert (done.returncode == 0) is (said is None), done.stderr[-3000:]
    assert said in done.stderr if said else f"template {name}" in done.stdout


@pytest.mark.parametrize("name", [pytest.param(name, marks=needs[name]) for name in NEEDS])
def test_M5_a_template_runs_headless_and_leaves_its_run(client, run_of, name):
    leaves_its_run(client, name, run_of(name))


def leaves_its_run(client: MlflowClient, name: str, executed: Executed) -> None:
    """What holds for each of them."""
    run, below = runs(client, name)
    assert run.info.status == "FINISHED"
    assert all(each.info.status == "FINISHED" for each in below)
    assert run.data.tags["mlhub.notebook"] == f"{name}.ipynb", "the run knows its notebook"
    assert run.data.params
    assert run.data.metrics
    assert executed.pictures >= 1, "plots"
    assert any(path.endswith(".png") for path in artifacts(client, run)), "kept with the run, too"
    errors = [
        "".join(output["text"])
        for cell in executed.notebook["cells"]
        for output in cell.get("outputs", ())
        if output.get("name") == "stderr" and "Traceback" in "".join(output["text"])
    ]
    assert not errors


def test_M5_exploration_finds_what_is_missing_and_where(client, run_of):
    missing = run_of("data-exploration").probe
    customers = make_customers()
    assert missing == pytest.approx(
        {name: customers[name].isna().mean() for name in ("complaint_days", "usage_gb")}
    )
    said = run_of("data-exploration").printed
    assert "usage_gb is missing most where region = islands" in said
    run, _ = runs(client, "data-exploration")
    rate = customers.groupby("plan")["churned"].mean()
    assert run.data.metrics["effect.plan"] == pytest.approx(rate.max() - rate.min())
    assert run.data.metrics["effect.shoe_size"] < run.data.metrics["effect.calls"]
    assert {"columns.csv", "statistics.csv", "missing.png"} <= artifacts(client, run)


def test_M5_feature_engineering_selects_what_matters_and_leaves_the_noise(client, run_of):
    kept, importance = run_of("feature-engineering").probe
    assert "complained" in kept
    assert "plan_basic" in kept
    assert not [name for name in kept if name.startswith(("shoe_size", "region"))]
    assert max(importance, key=importance.get) in {"plan", "calls", "complained", "months"}
    assert abs(importance["shoe_size"]) < 0.01
    run, _ = runs(client, "feature-engineering")
    assert run.data.metrics["selected"] == len(kept) == 8
    assert run.data.metrics["cv_all"] > run.data.metrics["cv_plain"]


def test_M5_scikit_learn_training_compares_candidates_and_keeps_the_best(client, run_of):
    best, index, probability = run_of("model-training-scikit-learn").probe
    run, below = runs(client, "model-training-scikit-learn")
    scores = {each.data.params["model"]: each.data.metrics["cv_roc_auc"] for each in below}
    assert len(scores) == 3
    assert best == max(scores, key=scores.get) == run.data.params["best"]
    truth = make_customers()["churned"].loc[index]
    assert run.data.metrics["test_roc_auc"] == pytest.approx(roc_auc_score(truth, probability))
    version = client.get_model_version("churn", "1")
    assert version.run_id == run.info.run_id, "registered under the name that was asked for"


def test_M5_evaluation_measures_and_finds_where_errors_gather(client, run_of):
    truth, probability, metrics, gathered, worst = run_of("model-evaluation").probe
    truth, probability = np.array(truth), np.array(probability)
    assert truth.tolist() == make_customers(1500, 1)["churned"].tolist()
    says = probability >= 0.5
    assert metrics["accuracy"] == pytest.approx((says == truth).mean())
    assert metrics["recall"] == pytest.approx(says[truth == 1].mean())
    assert metrics["precision"] == pytest.approx(truth[says].mean())
    assert metrics["brier"] == pytest.approx(((probability - truth) ** 2).mean())
    run, _ = runs(client, "model-evaluation")
    assert run.data.metrics["roc_auc"] == pytest.approx(roc_auc_score(truth, probability))
    wrong = says != truth
    assert all(wrong[worst]), "errors alone"
    customers = make_customers(1500, 1)
    for group in gathered:
        if group["column"] == "plan":
            share = wrong[customers["plan"] == group["value"]].mean()
            assert group["share wrong"] == pytest.approx(share)
    certain = np.abs(probability - 0.5)
    assert min(certain[worst]) >= sorted(certain[wrong])[-10] - 1e-9


def test_M5_optuna_tracks_each_trial_and_goes_on_where_it_ended(
    client, run_of, alices_mlflow, tmp_path
):
    best_value, best_params = run_of("hyperparameter-tuning-optuna").probe
    run, below = runs(client, "hyperparameter-tuning-optuna")
    assert len(below) == 8
    complete = [each for each in below if "pruned" not in each.data.tags]
    assert best_value == pytest.approx(max(each.data.metrics["roc_auc"] for each in complete))
    logged = run.data.params
    assert {name: float(logged[f"best.{name}"]) for name in best_params} == pytest.approx(
        best_params
    )
    home = run_of("hyperparameter-tuning-optuna").home
    again = execute(
        *("hyperparameter-tuning-optuna", home, alices_mlflow, "[before, len(done)]"),
        trials=9,
        experiment="optuna-again",
    )
    assert again.probe == [8, 9]
    assert "goes on after 8 of 9 trials" in again.printed
    resumed, _ = runs(client, "optuna-again")
    assert resumed.data.tags["resumed_after_trial"] == "8"


def test_M5_optunas_finished_study_is_not_another_tables_nor_another_parameters(
    client, alices_mlflow, tmp_path
):
    def tuned(experiment: str, **parameters: object) -> tuple[list[Any], str, Run]:
        ended = execute(
            *("hyperparameter-tuning-optuna", tmp_path, alices_mlflow),
            "[before, study.study_name, len(done), winner.params]",
            experiment=experiment,
            **parameters,
        )
        run, below = runs(client, experiment)
        *told, best = ended.probe
        assert len(below) == max(0, parameters["trials"] - told[0]), "the trials that were run here"
        logged = {name: float(run.data.params[f"best.{name}"]) for name in best}
        assert logged == pytest.approx(best)
        assert run.data.params["trials"] == str(told[2])
        return told, ended.printed, run

    for number in (0, 1):
        make_customers(400, number).to_csv(tmp_path / f"own{number}.csv", index=False)
    (_, first, _), said, run = tuned("optuna-own", data_file="own0.csv", trials=3)
    assert f"{first}: begins anew" in said
    told, said, same = tuned("optuna-equal", data_file="own0.csv", trials=2)
    assert told == [3, first, 3]
    assert f"{first}: finished earlier, with 3 trials; none is added" in said
    best = "best_cv_roc_auc"
    assert same.data.metrics[best] == run.data.metrics[best], "same data, same parameters"
    names = {first}
    for changed in ({"data_file": "own1.csv"}, {"data_file": "own0.csv", "seed": 1}):
        experiment = "optuna-" + "-".join(changed)
        told, said, other = tuned(experiment, trials=3, **changed)
        assert told[0] == 0
        assert f"{told[1]}: begins anew" in said
        assert other.data.metrics[best] != run.data.metrics[best]
        names.add(told[1])
    assert len(names) == 3


@needs["model-training-tensorflow"]
def test_M5_tensorflow_learns_and_logs_each_epoch(client, run_of):
    history = run_of("model-training-tensorflow").probe
    run, _ = runs(client, "model-training-tensorflow")
    logged = client.get_metric_history(run.info.run_id, "val_accuracy")
    assert [each.step for each in logged] == [1, 2, 3, 4, 5, 6]
    assert [each.value for each in logged] == pytest.approx(history["val_accuracy"], abs=1e-5)
    assert history["loss"][-1] < history["loss"][0] / 2
    assert run.data.metrics["test_accuracy"] > 0.85
    assert "tensorboard" in artifacts(client, run)


@needs["model-training-tensorflow"]
def test_M5_tensorflows_runs_of_a_sweep_share_no_file(client, run_of, alices_mlflow):
    home = run_of("model-training-tensorflow").home
    before = {file: file.stat().st_mtime_ns for file in files(home / "tensorflow")}
    swept = execute(
        *("model-training-tensorflow", home, alices_mlflow, "str(place)"),
        epochs=1,
        learning_rate=0.01,
        experiment="tensorflow-sweep",
    )
    assert before.items() <= {f: f.stat().st_mtime_ns for f in files(home / "tensorflow")}.items()
    assert (home / swept.probe / "best.keras").exists()
    assert f"{swept.probe}: begins anew" in swept.printed


@needs["model-training-pytorch"]
def test_M5_pytorch_learns_and_goes_on_after_an_interruption(client, run_of, alices_mlflow):
    history = run_of("model-training-pytorch").probe
    run, _ = runs(client, "model-training-pytorch")
    assert len(client.get_metric_history(run.info.run_id, "check_accuracy")) == 6
    assert history[-1]["train_loss"] < history[0]["train_loss"] / 2
    assert run.data.metrics["test_accuracy"] > 0.85
    assert {"tensorboard", "checkpoints"} <= artifacts(client, run)
    home = run_of("model-training-pytorch").home
    again = execute(
        *("model-training-pytorch", home, alices_mlflow, "[done, len(history)]"),
        epochs=8,
        experiment="pytorch-again",
    )
    assert again.probe == [6, 2]
    assert "goes on after 6 of 8 epochs" in again.printed
    resumed, _ = runs(client, "pytorch-again")
    assert resumed.data.tags["resumed_after_epoch"] == "6"
    rates = [each.value for each in client.get_metric_history(resumed.info.run_id, "learning_rate")]
    assert rates == pytest.approx([0.003 * (1 + math.cos(math.pi * n / 8)) / 2 for n in (7, 8)])


@needs["model-training-pytorch"]
def test_M5_pytorchs_finished_network_is_not_another_parameters_nor_other_pictures(
    client, alices_mlflow, tmp_path
):
    def trained(experiment: str, **parameters: object) -> tuple[list[Any], str, Run]:
        ended = execute(
            *(
                "model-training-pytorch",
                tmp_path,
                alices_mlflow,
                "[done, len(history), str(place)]",
            ),
            experiment=experiment,
            **parameters,
        )
        run, _ = runs(client, experiment)
        return ended.probe, ended.printed, run

    (_, _, first), _, run = trained("pytorch-first", epochs=2)
    before = {file: file.stat().st_mtime_ns for file in files(tmp_path / "pytorch")}
    for experiment, changed in {
        "pytorch-rate": {"learning_rate": 0.01},
        "pytorch-pictures": {"pictures": 1200},
    }.items():
        (done, added, place), said, other = trained(experiment, epochs=2, **changed)
        assert (done, added) == (0, 2)
        assert place != first
        assert f"{place}: begins anew" in said
        assert other.data.metrics["test_loss"] != run.data.metrics["test_loss"]
    after = {file: file.stat().st_mtime_ns for file in files(tmp_path / "pytorch")}
    assert before.items() <= after.items(), "runs of a sweep share no file"
    told, said, fewer = trained("pytorch-fewer", epochs=1)
    assert told == [2, 0, first]
    assert f"{first}: finished earlier, with 2 epochs; none is added" in said
    assert fewer.data.params["epochs"] == "2", "what the result is of"
    assert fewer.data.metrics["test_loss"] == pytest.approx(run.data.metrics["test_loss"])


def test_M5_exploration_takes_a_table_of_ones_own(client, run_of, alices_mlflow, tmp_path):
    own = pd.DataFrame({"size": range(80), "kind": ["a", "b"] * 40, "price": [1.5, 2.5] * 40})
    own.to_csv(tmp_path / "own.csv", index=False)
    told = {"data_file": "own.csv", "target": "price", "experiment": "own-table"}
    execute("data-exploration", tmp_path, alices_mlflow, **told)
    run, _ = runs(client, "own-table")
    assert run.data.metrics["effect.kind"] == 1.0
    assert not math.isnan(run.data.metrics["effect.size"])


def test_M5_exploration_takes_columns_as_people_have_them(client, alices_mlflow, tmp_path):
    rows = range(3000)
    own = pd.DataFrame(
        {
            "Price ($)": [None, *rows[1:]],
            "of day/night": [number % 7 for number in rows],
            "flag": [number % 5 == 0 for number in rows],
            "bought": [int(number % 5 == 0) for number in rows],
            "at": [f"2026-0{1 + n % 8}-01T08:00:00+0{1 + (n % 8 > 2)}:00" for n in rows],
            "churned": [int(number % 5 == 0) for number in rows],
        }
    )
    own.to_csv(tmp_path / "own.csv", index=False)
    told = {"data_file": "own.csv", "experiment": "own-columns"}
    ended = execute(
        "data-exploration", tmp_path, alices_mlflow, "[str(table['at'].min()), numeric]", **told
    )
    run, _ = runs(client, "own-columns")
    found = run.data.metrics
    assert run.info.status == "FINISHED"
    assert found["effect.Price ___"] < 0.1
    assert "effect.of day_night" in found
    assert found["effect.bought"] == found["effect.flag"] == 1.0, "what is the target goes with it"
    assert ended.probe == ["2026-01-01 07:00:00", ["Price ($)", "of day/night", "bought"]]


def test_M5_exploration_takes_a_table_of_words_alone(client, alices_mlflow, tmp_path):
    own = pd.DataFrame({"kind": ["a", "b"] * 40, "left": ["no", "yes"] * 40})
    own.to_csv(tmp_path / "own.csv", index=False)
    told = {"data_file": "own.csv", "target": "left", "experiment": "own-words"}
    execute("data-exploration", tmp_path, alices_mlflow, **told)
    run, _ = runs(client, "own-words")
    assert run.data.metrics["effect.kind"] == 1.0


def test_M5_scikit_learn_training_keeps_a_random_forest_where_that_is_best(
    client, alices_mlflow, tmp_path
):
    name = "model-training-scikit-learn"
    copied = templates.copy(name, tmp_path / f"{name}.ipynb")
    source = copied.read_text()
    assert source.count("best = comparison.index[0]") == 1
    copied.write_text(source.replace("comparison.index[0]", "'random forest'"))
    execute(name, tmp_path, alices_mlflow, experiment="forest")
    run, _ = runs(client, "forest")
    assert run.data.params["best"] == "random forest"


def test_M5_without_its_library_a_template_says_which_profile_has_it():
    with pytest.raises(templates.MissingLibraryError, match=r"the profile “TensorFlow and Ray”"):
        templates.needs("a_library_that_nobody_has", image="tensorflow-ray")


def test_M5_a_failing_cell_leaves_the_run_failed(client, tmp_path, alices_mlflow):
    templates.copy("data-exploration", tmp_path / "data-exploration.ipynb")
    with pytest.raises(AssertionError, match="KeyError"):
        execute(
            *("data-exploration", tmp_path, alices_mlflow),
            target="no-such-column",
            experiment="broken",
        )
    run, _ = runs(client, "broken")
    assert run.info.status == "FAILED"
    assert os.environ.get("MLFLOW_RUN_ID") is None
