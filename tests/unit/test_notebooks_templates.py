"""Templates: listed, copied without overwriting, made from a person's notebook without secrets."""

import json
import subprocess
import tomllib
from pathlib import Path

import nbformat
import pytest
import yaml

from notebooks import cli, templates
from notebooks.errors import NotebooksError

ROOT = Path(__file__).parents[2]
BUILT_IN = {
    "data-exploration",
    "feature-engineering",
    "hyperparameter-tuning-optuna",
    "hyperparameter-tuning-ray",
    "model-evaluation",
    "model-training-pytorch",
    "model-training-scikit-learn",
    "model-training-tensorflow",
}
SECRET = "hunter2hunter"


@pytest.fixture(autouse=True)
def home(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


@pytest.fixture
def mine(home):
    """A notebook that ran: outputs, counters, widgets' metadata, and a password."""
    heading = nbformat.v4.new_markdown_cell("# Our report\n\nEach Monday.")
    parameters = nbformat.v4.new_code_cell("week = 3", metadata={"tags": ["parameters"]})
    code = nbformat.v4.new_code_cell(
        "print(week)", execution_count=7, metadata={"collapsed": True, "scrolled": True}
    )
    code.outputs = [nbformat.v4.new_output("stream", text="3\n")]
    leak = nbformat.v4.new_code_cell(f'password = "{SECRET}"')
    made = nbformat.v4.new_notebook(cells=[heading, parameters, code, leak])
    made.metadata = {"kernelspec": {"name": "python3", "display_name": "Python 3"}}
    made.metadata["widgets"] = {"state": "large"}
    made.metadata["papermill"] = {"parameters": {"week": 3}}
    nbformat.write(made, home / "report.ipynb")
    return home / "report.ipynb"


def test_M5_the_six_templates_and_two_more_are_there():
    found = templates.templates()
    assert {each.name for each in found} == BUILT_IN
    assert all(each.title and each.description and each.tags for each in found)


@pytest.mark.parametrize("name", sorted(BUILT_IN))
def test_M5_a_template_is_kept_clean_and_explains_itself(name):
    notebook = json.loads((templates.BUILT_IN / f"{name}.ipynb").read_text())
    nbformat.validate(nbformat.from_dict(notebook))
    cells = notebook["cells"]
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    assert all(not cell["outputs"] and cell["execution_count"] is None for cell in code)
    assert cells[0]["cell_type"] == "markdown"
    assert code[0]["metadata"]["tags"] == ["parameters"]
    assert "assert " in "".join(code[-1]["source"]), "it checks its own claims"
    assert "tracking.start_run(" in "".join(map(str, code))
    assert "tracking.end_run()" in "".join(code[-1]["source"])
    assert len([cell for cell in cells if cell["cell_type"] == "markdown"]) >= len(code) / 2


def test_M5_the_profiles_that_a_template_names_are_those_of_the_stacks():
    for stack in ("dev", "staging", "prod"):
        config = yaml.safe_load((ROOT / f"stacks/Pulumi.{stack}.yaml").read_text())["config"]
        offered = {each["name"]: each["image"] for each in config["mlhub:profiles"]}
        for image, name in templates.PROFILES.items():
            assert offered[name] == image, stack


def test_M5_the_package_brings_its_templates():
    project = tomllib.loads((ROOT / "images/packages/notebooks/pyproject.toml").read_text())
    assert project["tool"]["setuptools"]["package-data"]["notebooks.templates"] == ["*.ipynb"]


def test_a_template_is_copied_to_a_file_or_into_a_folder_and_never_over_one(home):
    file = templates.copy("data-exploration", home / "work/mine.ipynb")
    assert file.read_bytes() == (templates.BUILT_IN / "data-exploration.ipynb").read_bytes()
    assert templates.copy("data-exploration", home) == home / "data-exploration.ipynb"
    (home / "work/mine.ipynb").write_text("my edits")
    with pytest.raises(NotebooksError, match=r"mine.ipynb exists and is left as it is"):
        templates.copy("data-exploration", home / "work/mine.ipynb")
    assert (home / "work/mine.ipynb").read_text() == "my edits"


def test_a_copy_that_jupyterlab_would_not_open_is_refused(home):
    with pytest.raises(NotebooksError, match=r"does not end in \.ipynb"):
        templates.copy("data-exploration", home / "mine.txt")


def test_M5_a_notebook_with_secrets_becomes_no_template_unasked(mine, home):
    with pytest.raises(templates.SecretsFoundError) as refusal:
        templates.create("report", mine)
    assert "cell 4, source: Secret Keyword" in str(refusal.value)
    assert "--yes" in str(refusal.value)
    assert SECRET not in str(refusal.value)
    assert not list(templates.personal_folder().glob("*"))


def test_M5_a_template_from_a_notebook_is_its_cells_alone(mine, home):
    before = mine.read_bytes()
    made = templates.create("report", mine, redacted=True)
    assert (made.title, made.description) == ("Our report", "Each Monday.")
    assert mine.read_bytes() == before, "the person's notebook stays as it is"
    text = Path(made.path).read_text()
    assert SECRET not in text
    notebook = nbformat.reads(text, as_version=4)
    nbformat.validate(notebook)
    assert [cell.source for cell in notebook.cells[:3]] == [
        "# Our report\n\nEach Monday.",
        "week = 3",
        "print(week)",
    ]
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert all(not cell.outputs and cell.execution_count is None for cell in code)
    assert notebook.cells[1].metadata == {"tags": ["parameters"]}
    assert notebook.cells[2].metadata == {}
    assert set(notebook.metadata) == {"kernelspec"}

    assert [each.name for each in templates.templates()][-1] == "report", "beside the others"
    copied = templates.copy("report", home / "monday.ipynb")
    assert copied.read_text() == text


@pytest.mark.parametrize("name", ["", "Report", "a/b", "../x", "-a", "a" * 64, "ä"])
def test_a_bad_name_of_a_template_is_refused(mine, name):
    with pytest.raises(NotebooksError, match="is no name of a template"):
        templates.create(name, mine, redacted=True)


def test_a_template_is_not_replaced_nor_one_of_mlhubs_hidden(mine):
    templates.create("report", mine, redacted=True)
    for name in ("report", "data-exploration"):
        with pytest.raises(NotebooksError, match="already; choose another name"):
            templates.create(name, mine, redacted=True)


@pytest.mark.parametrize("content", [None, "", "{}", "[]", "no json"])
def test_what_is_no_notebook_becomes_no_template(home, content):
    file = home / "x.ipynb"
    if content is not None:
        file.write_text(content)
    with pytest.raises(NotebooksError, match=r"x.ipynb is (no notebook|not there)"):
        templates.create("x", file)


def test_M1_the_command_line_lists_shows_copies_and_creates(mine, home, capsys):
    def said(*argv: str) -> str:
        assert cli.main(argv) == 0
        return capsys.readouterr().out

    assert "data-exploration" in said("templates", "list")
    listed = json.loads(said("templates", "list", "--json"))
    assert {each["name"] for each in listed} == BUILT_IN
    assert "batch_size = 64" in said("templates", "show", "model-training-pytorch")
    assert "copied to" in said("templates", "copy", "model-evaluation", str(home))
    assert cli.main(["templates", "create", "--name", "r", "--from-notebook", str(mine)]) == 1
    assert "cell 4, source: Secret Keyword" in capsys.readouterr().err
    said("templates", "create", "--name", "r", "--from-notebook", str(mine), "--yes")
    (ours,) = [
        each for each in json.loads(said("templates", "list", "--json")) if each["name"] == "r"
    ]
    assert ours["title"] == "Our report"
    assert cli.main(["templates", "copy", "r", str(mine)]) == 1
    assert cli.main(["templates", "show", "nothing"]) == 1
    assert (
        "There is no template 'nothing'; there are: data-exploration, " in capsys.readouterr().err
    )


BROKEN = {"empty": "", "cells": "{}", "list": "[]", "words": "no json", "cell": '{"cells": [1]}'}


def test_a_persons_file_that_is_no_notebook_is_named_and_in_nobodys_way(home, capsys):
    folder = templates.personal_folder()
    folder.mkdir(parents=True)
    for name, content in BROKEN.items():
        (folder / f"{name}.ipynb").write_text(content)
    assert {each.name for each in templates.templates()} == BUILT_IN
    assert templates.copy("data-exploration", home / "x.ipynb").is_file()
    assert cli.main(["templates", "list"]) == 0
    said = capsys.readouterr()
    assert "data-exploration" in said.out
    for name in BROKEN:
        assert f"{folder}/{name}.ipynb is no notebook" in said.err
        with pytest.raises(NotebooksError, match=f"{name}.ipynb is no notebook"):
            templates.find(name)
    assert cli.main(["templates", "list", "--json"]) == 0
    assert capsys.readouterr().err == ""


def test_J5_a_cloned_project_is_imported_from_its_src_folder(home):
    """As getting-started.ipynb says it: clone, add `src` to the path, import."""
    project = home / "origin"
    (project / "src/forecast").mkdir(parents=True)
    (project / "src/forecast/__init__.py").write_text("ANSWER = 42\n")
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@example.org"]
    for command in (["init", "-q"], ["add", "."], ["commit", "-qm", "begin"]):
        subprocess.run([*git, *command], cwd=project, check=True)
    guide = json.loads(
        (
            ROOT / "images/packages/notebooks/src/notebooks/examples/getting-started.ipynb"
        ).read_text()
    )
    text = "\n".join("".join(cell["source"]) for cell in guide["cells"])
    snippet = text.split("```python\nimport sys\n")[1].split("```")[0]
    assert 'sys.path.insert(0, "/home/jovyan/project/src")' in snippet
    subprocess.run(["git", "clone", "-q", str(project), "project"], cwd=home, check=True)
    code = "import sys\n" + snippet.replace("/home/jovyan", str(home))
    code += "\nimport forecast; print(forecast.ANSWER)"
    done = subprocess.run(
        ["python3", "-c", code], cwd=home, check=True, capture_output=True, text=True
    )
    assert done.stdout == "42\n"
