"""V6: the sample notebooks run headless, and their results are what another computation gives."""

import csv
import hashlib
import json
import os
import statistics
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest

from notebooks.examples import data
from notebooks.seed import EXAMPLES

OPTIONS = ("--no-progress-bar", "--log-level", "ERROR")
NOTEBOOKS = sorted(EXAMPLES.glob("*.ipynb"))
SOURCE = Path(__file__).parents[2] / "images/packages/notebooks/src"

PROBE = """
import json
print("PROBE" + json.dumps({expression}, default=float))
"""


def run(name: str, folder: Path, probe: str = "None", **parameters: object) -> object:
    """Execute an example as an unattended job would; return an expression's value at its end."""
    notebook = json.loads((EXAMPLES / f"{name}.ipynb").read_text())
    cell = {"cell_type": "code", "id": "probe", "metadata": {}, "outputs": []}
    cell |= {"execution_count": None, "source": PROBE.replace("{expression}", probe)}
    notebook["cells"].append(cell)
    given, executed = folder / f"{name}.ipynb", folder / "executed.ipynb"
    given.write_text(json.dumps(notebook))
    options = [part for key, value in parameters.items() for part in ("-p", key, str(value))]
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "papermill",
            str(given),
            str(executed),
            "--cwd",
            str(folder),
            "--no-progress-bar",
            "--log-level",
            "ERROR",
            *options,
        ],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(SOURCE), "IPYTHONDIR": str(folder / ".ipython")},
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    outputs = json.loads(executed.read_text())["cells"][-1]["outputs"]
    text = "".join("".join(output.get("text", "")) for output in outputs)
    return json.loads(text.split("PROBE")[1])


def table(folder: Path, name: str) -> list[dict[str, str]]:
    with (folder / "data" / f"{name}.csv").open() as stream:
        return list(csv.DictReader(stream))


def test_V6_industry_revenue_is_sorted_by_the_newest_years_change(tmp_path):
    given = run(
        "industry-revenue-analysis",
        tmp_path,
        "[list(change.index), [int(y) for y in change.columns], change.to_numpy().tolist()]",
    )
    industries, years, values = given

    industry = {row["ticker"]: row["industry"] for row in table(tmp_path, "companies")}
    revenue = defaultdict(list)
    for row in table(tmp_path, "revenues"):
        revenue[industry[row["ticker"]], int(row["year"])].append(float(row["revenue"]))
    mean = {key: statistics.fmean(values) for key, values in revenue.items()}
    newest = max(year for _, year in mean)

    def change(name: str, year: int) -> float:
        return 100 * (mean[name, year] / mean[name, year - 1] - 1)

    expected = sorted(set(industry.values()), key=lambda name: -change(name, newest))
    assert industries == expected
    assert years == sorted({year for _, year in mean})[1:]
    for name, row in zip(industries, values, strict=True):
        assert row == pytest.approx([change(name, year) for year in years])
    assert len(industries) == len(data.INDUSTRIES)


def growth_and_labels(folder: Path) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Tickers, revenue growth by year, and who is a winner; without pandas."""
    revenue = defaultdict(dict)
    for row in table(folder, "revenues"):
        revenue[row["ticker"]][int(row["year"])] = float(row["revenue"])
    change = {
        row["ticker"]: float(row["last"]) / float(row["first"]) - 1
        for row in table(folder, "prices")
    }
    tickers = sorted(revenue)
    years = sorted(revenue[tickers[0]])
    growth = [[revenue[t][y] / revenue[t][y - 1] - 1 for y in years[1:]] for t in tickers]
    changes = np.array([change[ticker] for ticker in tickers])
    return tickers, np.array(growth), changes >= np.quantile(changes, 0.8)


def nearest(train_x: np.ndarray, train_y: np.ndarray, test_x: np.ndarray, k: int) -> np.ndarray:
    """k-nearest neighbours by the book: Euclidean, one vote each."""
    distance = ((test_x[:, None, :] - train_x[None, :, :]) ** 2).sum(axis=2)
    votes = train_y[np.argsort(distance, axis=1, kind="stable")[:, :k]].mean(axis=1)
    return votes > 0.5


def test_V6_the_knn_predictor_as_published_and_balanced(tmp_path):
    given = run(
        "knn-stock-predictor",
        tmp_path,
        "{'train': list(train_x.index), 'test': list(test_x.index),"
        " 'sample': list(balanced_x.index),"
        " 'published': [bool(p) for p in published_says],"
        " 'balanced': [bool(p) for p in balanced_says], 'results': results.to_dict()}",
    )
    tickers, growth, winner = growth_and_labels(tmp_path)
    place = {ticker: number for number, ticker in enumerate(tickers)}
    train, test, sample = ([place[t] for t in given[key]] for key in ("train", "test", "sample"))

    assert sorted(train + test) == list(range(len(tickers)))
    assert len(test) == round(0.4 * len(tickers)), "40 % test"
    assert set(sample) <= set(train), "nothing of the test set is learned from"
    assert winner[sample].mean() == 0.5
    assert winner.mean() == 0.2

    published = nearest(growth[train], winner[train], growth[test], 41)
    assert given["published"] == published.tolist()
    assert not published.any(), "as published it only predicts the majority class"

    mean, deviation = growth[sample].mean(axis=0), growth[sample].std(axis=0)
    scaled = [(growth[rows] - mean) / deviation for rows in (sample, test)]
    balanced = nearest(scaled[0], winner[sample], scaled[1], 41)
    assert given["balanced"] == balanced.tolist()
    recall = (balanced & winner[test]).sum() / winner[test].sum()
    precision = (balanced & winner[test]).sum() / balanced.sum()
    assert given["results"]["balanced"]["recall"] == pytest.approx(recall)
    assert given["results"]["balanced"]["precision"] == pytest.approx(precision)
    assert recall > 0.5
    assert precision > winner[test].mean()


def test_V6_the_assertions_of_a_notebook_can_fail(tmp_path):
    """With one neighbour the published model does predict winners, and the notebook says so."""
    with pytest.raises(AssertionError, match="predicts the majority class alone"):
        run("knn-stock-predictor", tmp_path, neighbors=1)


def test_getting_started_runs(tmp_path):
    run("getting-started", tmp_path)


def test_the_market_is_the_same_everywhere(tmp_path):
    """The notebooks' claims hold for this market; who changes it must look at them again."""
    data.write_market(tmp_path)
    tables = b"".join((tmp_path / f"{t}.csv").read_bytes() for t in sorted(data.HEADERS))
    assert hashlib.sha256(tables).hexdigest() == (
        "abd30428f1f79ac1c734818dd17c6d5a93a44d2166f0f8d2026bc9db81b2dbfc"
    )


def test_a_persons_own_table_is_not_overwritten(tmp_path):
    (tmp_path / "prices.csv").write_text("mine")
    data.write_market(tmp_path)
    assert (tmp_path / "prices.csv").read_text() == "mine"
    assert (tmp_path / "companies.csv").exists()


def test_a_ticker_is_one_company(tmp_path):
    market = data.make_market()
    tickers = [row[0] for row in market.companies]
    assert len(set(tickers)) == len(tickers) == data.COMPANIES
    assert {row[0] for row in market.prices} == set(tickers) == {row[0] for row in market.revenues}


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda f: f.stem)
def test_a_notebook_is_kept_without_outputs_and_explains_itself(notebook):
    cells = json.loads(notebook.read_text())["cells"]
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    assert all(not cell["outputs"] and cell["execution_count"] is None for cell in code)
    assert cells[0]["cell_type"] == "markdown"
    assert len([cell for cell in cells if cell["cell_type"] == "markdown"]) >= len(code) / 2
    assert any("assert " in line for line in code[-1]["source"])
    assert len({cell["id"] for cell in cells}) == len(cells)
