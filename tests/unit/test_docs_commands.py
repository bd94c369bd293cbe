"""The commands of the pages that need no cluster run as they are written (BY in test_docs.py)."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

from tests.pages import COMMAND, PAGES, ROOT, Shown, blocks, shown, text, told
from tests.unit.test_docs import CLI
from tools.recovery.archive import Manifest, Writer, recipient

COMPILED = shutil.ignore_patterns("__pycache__")
"""What Python keeps there it may be writing just now, for another test."""


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A copy of what these commands read and write."""
    folder = tmp_path / "checkout"
    for part in ("components", "docs", "images", "stacks", "tools"):
        shutil.copytree(ROOT / part, folder / part, ignore=COMPILED)
    (folder / "policies").mkdir()
    for file in ("Makefile", "policies/limits.yaml"):
        shutil.copy(ROOT / file, folder / file)
    (folder / ".venv").symlink_to(sys.prefix)
    return folder


def run(command: str, cwd: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """By the shell, as a person does; `make` takes the environment as it is."""
    written = re.sub("^make ", "make -o .venv/run.stamp -o policies/.venv/run.stamp ", command)
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    return subprocess.run(
        ["bash", "-c", written],
        cwd=cwd,
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"MAKEFLAGS": "", "PATH": path, **variables},
    )


def done(shown: Shown, cwd: Path, command: str = "", **variables: str) -> str:
    """What a page's command printed, which has to be what the page says."""
    ended = run(command or shown.command, cwd, **variables)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert not shown.prints or shown.is_printed(ended.stdout), ended.stdout
    return ended.stdout


def test_commands_that_write_in_the_checkout_run(checkout: Path):
    schema, settings = told("CONTRIBUTING.md", ".venv/bin/python -m tools.write_")
    done(schema, checkout)
    done(settings, checkout)
    for file in ("stacks/schema.json", "docs/settings.md"):
        assert text(checkout / file) == text(ROOT / file), file
    (checkout / "stacks/Pulumi.team-a.yaml").unlink(missing_ok=True)
    (new,) = told("docs/platform-engineer.md", "make new-stack")
    done(new, checkout)
    assert "mlhub:profiles" in text(checkout / "stacks/Pulumi.team-a.yaml")
    (cat,) = told("docs/images.md", "cat")
    done(cat, checkout)
    for chart in told("docs/charts.md", "sed"):
        done(chart, checkout)
    assert "chart: {path: charts/jupyterhub}" in text(checkout / "stacks/Pulumi.local.yaml")
    assert "{chart: charts/jupyterhub}" in text(checkout / "policies/limits.yaml")
    (scan,) = told("SECURITY.md", ".venv/bin/detect-secrets")
    shutil.copy(ROOT / ".secrets.baseline", checkout)
    run("git init -q && git add stacks", checkout)
    done(scan, checkout)
    assert run("make help", checkout).stdout.count("  make ") > 20


def test_a_key_is_made_and_an_archive_verified(checkout: Path, tmp_path: Path):
    (key,) = told("docs/recovery.md", "make backup-key")
    said = done(key, checkout, key.command.replace("/safe", str(tmp_path)))
    public = recipient(next(word for word in said.split() if word.startswith("age1")))
    for page in ("docs/operator.md", "docs/recovery.md"):
        (verify,) = told(page, "make backup-verify")
        archive = tmp_path / Path(verify.command.split("FROM=")[1].split()[0]).name
        with Writer(archive, [public]) as writer:
            parts = [writer.add("databases/hub", [b"rows"])]
            writer.finish(Manifest("team", "b", "e", "r", {}, [], parts))
        written = verify.command.replace("/backups", str(tmp_path)).replace("/safe", str(tmp_path))
        assert "databases/hub" in done(verify, checkout, written)


def test_the_page_of_templates_prints_what_it_says(tmp_path: Path):
    home = {"HOME": str(tmp_path), "PYTHONPATH": str(ROOT / "images/packages/notebooks/src")}
    sources = ["import os", "year = 2026", "print(year)", 'password = "hunter2hunter"']
    cells = [nbformat.v4.new_code_cell(source) for source in sources]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), tmp_path / "report.ipynb")
    listed, copied, refused, made = told("docs/templates.md", f"{CLI} templates")
    done(listed, tmp_path, **home)
    done(copied, tmp_path, **home)
    assert (tmp_path / "work/first-look.ipynb").is_file()
    ended = run(refused.command, tmp_path, **home)
    assert ended.returncode == 1
    assert refused.is_printed(ended.stderr), ended.stderr
    told_here = Shown(made.command, made.prints.replace("/home/jovyan", str(tmp_path)))
    done(told_here, tmp_path, **home)


def unquoted(command: str) -> str:
    return re.sub(r"'[^']*'|\"[^\"]*\"|\\.", "", command)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_no_command_has_what_a_macs_shell_takes_for_files(page: Path):
    """zsh refuses a pattern that no file has: `no matches found`."""
    for each in shown(page):
        assert not re.search(r"[?*\[]", unquoted(each.command)), each.command


@pytest.mark.parametrize(
    "name", ["data-scientist", "execution", "mlflow", "notebooks", "templates", "workspaces"]
)
def test_no_command_of_a_laptops_page_has_a_comment(name: str):
    """zsh takes it for arguments where a person types."""
    for body in blocks(ROOT / f"docs/{name}.md", "console"):
        for command in COMMAND.findall(body):
            assert not re.search(r"\s#", unquoted(command)), command


def test_the_package_is_installed_on_a_laptop(tmp_path: Path):
    """From the checkout alone: what it needs is installed here."""
    for page in ("docs/data-scientist.md", "docs/notebooks.md"):
        (install,) = told(page, "pip install")
    package = "images/packages/notebooks"
    shutil.copytree(ROOT / package, tmp_path / package, ignore=COMPILED)
    options = f"--quiet --no-deps --no-index --no-build-isolation --target {tmp_path}/site"
    done(install, tmp_path, f"python -m {install.command} {options}")
    ended = run(f"{CLI} --help", tmp_path, PYTHONPATH=f"{tmp_path}/site")
    assert "Notebook sessions, workspaces, templates and runs" in ended.stdout
