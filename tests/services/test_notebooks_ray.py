"""M5: Ray's template, by itself: Ray gives its own parts 15 s to start, a constant in it, which
beside other tests was too little."""

import tempfile

import pytest

from tests.services.test_notebooks_templates import (
    client,  # noqa: F401
    execute,
    leaves_its_run,
    runs,
)

NAME = "hyperparameter-tuning-ray"

pytestmark = pytest.mark.alone


def test_M5_ray_tune_stops_what_falls_behind(client, alices_mlflow, tmp_path):  # noqa: F811
    # Below /tmp itself: Ray has sockets there, whose paths may have 107 bytes.
    with tempfile.TemporaryDirectory(prefix="ray") as ray:
        executed = execute(
            *(NAME, tmp_path / "home", {**alices_mlflow, "RAY_TMPDIR": ray}),
            "overview.to_dict('records')",
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
