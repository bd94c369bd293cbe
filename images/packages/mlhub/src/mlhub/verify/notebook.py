"""What the execution API is given to run: a file to write, and MLflow to talk to."""

from typing import Any

WRITE = """\
from pathlib import Path

Path(target).write_text(word)
"""
MLFLOW = """\
import mlflow

with mlflow.start_run() as run:
    mlflow.log_param("word", word)
    mlflow.log_metric("one", 1)
    mlflow.log_text(word, "word.txt")
kept = mlflow.get_run(run.info.run_id).data
assert kept.params["word"] == word and kept.metrics["one"] == 1, kept
assert mlflow.artifacts.load_text(f"runs:/{run.info.run_id}/word.txt") == word
"""


def notebook(*, mlflow: bool) -> dict[str, Any]:
    """A notebook of format 4.5, with the parameters `word` and `target`."""
    cells = ['word = target = ""', WRITE, *([MLFLOW] if mlflow else [])]
    return {
        "nbformat": 4,
        "nbformat_minor": 5,
        "metadata": {"kernelspec": {"name": "python3", "display_name": "Python 3"}},
        "cells": [
            {
                "id": f"verify-{number}",
                "cell_type": "code",
                "source": source,
                "metadata": {"tags": ["parameters"]} if number == 0 else {},
                "execution_count": None,
                "outputs": [],
            }
            for number, source in enumerate(cells)
        ],
    }
