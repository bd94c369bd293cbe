"""M5: Ray's template, by itself: Ray gives its own parts 15 s to start, a constant in it, which
beside other tests was too little."""

import tempfile
from collections.abc import Iterator

import pytest

from notebooks.templates.data import make_customers
from tests.services.test_notebooks_templates import (
    client,  # noqa: F401
    execute,
    leaves_its_run,
    runs,
)

NAME = "hyperparameter-tuning-ray"

pytestmark = [pytest.mark.alone, pytest.mark.timeout(900)]


@pytest.fixture
def mlflow_and_ray(alices_mlflow: dict[str, str]) -> Iterator[dict[str, str]]:
    # Below /tmp itself: Ray has sockets there, whose paths may have 107 bytes.
    with tempfile.TemporaryDirectory(prefix="ray") as ray:
        yield {**alices_mlflow, "RAY_TMPDIR": ray}


def test_M5_ray_tune_stops_what_falls_behind(client, mlflow_and_ray, tmp_path):  # noqa: F811
    executed = execute(
        *(NAME, tmp_path / "home", mlflow_and_ray, "overview.to_dict('records')"),
        trials=4,
        rounds=4,
    )
    leaves_its_run(client, NAME, executed)
    trials = executed.probe
    run, below = runs(client, NAME)
    assert len(trials) == len(below) == 4
    best = max(trial["roc_auc"] for trial in trials)
    assert run.data.metrics["best_roc_auc"] == pytest.approx(best)
    early = [trial for trial in trials if trial["rounds done"] < 4]
    assert len(early) == run.data.metrics["stopped_early"]
    assert all(trial["roc_auc"] <= best for trial in early)
    assert any(trial["rounds done"] == 4 for trial in trials)


def test_M5_ray_tune_adds_trials_to_the_same_work_alone(client, mlflow_and_ray, tmp_path):  # noqa: F811
    make_customers(400, 1).to_csv(tmp_path / "own.csv", index=False)
    overviews = {}
    for experiment, parameters, before, in_all, said in (
        ("ray-first", {"trials": 2}, 0, 2, "begins anew"),
        ("ray-more", {"trials": 3}, 2, 3, "goes on after 2 of 3 trials"),
        ("ray-own", {"trials": 2, "data_file": "own.csv"}, 0, 2, "begins anew"),
    ):
        executed = execute(
            *(NAME, tmp_path, mlflow_and_ray, "[before, overview.to_dict('records')]"),
            rounds=2,
            experiment=experiment,
            **parameters,
        )
        assert executed.probe[0] == before, experiment
        assert said in executed.printed
        run, below = runs(client, experiment)
        assert len(below) == len(executed.probe[1]) == in_all
        assert run.data.params["trials"] == str(in_all)
        assert run.data.tags["resumed_after_trial"] == str(before)
        overviews[experiment] = executed.probe[1]
    first, more = overviews["ray-first"], overviews["ray-more"]
    assert more[:2] == first
    assert more[2]["learning_rate"] not in {trial["learning_rate"] for trial in first}
    assert overviews["ray-own"][0]["roc_auc"] != first[0]["roc_auc"]
