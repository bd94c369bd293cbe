"""What the pages say is there: links, commands, options, settings.

BY names the test that runs each command of a page, as it is written or by what `make` calls for it;
those that need no cluster run in test_docs_commands.py. Besides, all are held against the real
thing: `make` by a dry run of the real Makefile, our own command lines by their real parsers,
settings by the model's schema. Of programs that are others' (FOREIGN) nothing but the name is
looked at.
"""

import functools
import importlib.util
import os
import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import typer
import yaml

from components.stackfile import PREFIX, schema
from notebooks.cli import app
from tests.pages import FENCE, PAGES, ROOT, blocks, shown, text
from tools import write_schema, write_settings

IDS = [str(page.relative_to(ROOT)) for page in PAGES]
LINK = re.compile(r"\]\(([^)\s]+)\)")

FOREIGN = {
    "age", "cat", "cp", "curl", "cut", "docker", "echo", "eval", "export", "git", "head", "helm",
    "jq", "kubectl", "pip", "printf", "pre-commit", "pulumi", "sed", "tar",
}  # fmt: skip
PYTHON = {"python", ".venv/bin/python"}


def prose(page: Path) -> str:
    return re.sub(r"`[^`\n]*`", "", FENCE.sub("", text(page)))


def anchors(page: Path) -> set[str]:
    """The headings as GitHub names them."""
    headings = re.findall(r"^#+ (.*)$", FENCE.sub("", text(page)), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_every_link_within_the_repository_leads_somewhere(page: Path):
    for link in LINK.findall(prose(page)):
        if "://" in link:
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        assert target.is_relative_to(ROOT), link
        if anchor:
            assert anchor in anchors(target), link


def test_every_page_and_picture_is_reached_from_the_readme():
    seen: set[Path] = set()
    waiting = [ROOT / "README.md"]
    while waiting:
        page = waiting.pop()
        if page in seen or not page.is_file():
            continue
        seen.add(page)
        if page.suffix == ".md":
            found = (link.partition("#")[0] for link in LINK.findall(prose(page)))
            waiting += [
                (page.parent / path).resolve() for path in found if path and ":" not in path
            ]
    pictures = (ROOT / "docs" / "pictures").iterdir()
    assert {*PAGES, *pictures} - seen == set()


def test_the_readme_is_one_screen():
    assert len(text(ROOT / "README.md").splitlines()) <= 80


def commands(line: str) -> Iterator[list[str]]:
    """The programs of a line, each with its arguments."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars="|&;<>")
    lexer.whitespace_split = True
    lexer.commenters = ""
    command: list[str] = []
    for word in lexer:
        if set(word) <= set("|&;"):
            yield command
            command = []
        else:
            command.append(word)
    yield command


CLI = "python -m notebooks.cli"
HERE, SERVICES = "tests/unit/test_docs_commands.py", "tests/services/test_docs_commands.py"
BY = {
    f"{HERE}::test_commands_that_write_in_the_checkout_run": (
        "make new-stack", ".venv/bin/python -m tools.write_", "cat images/", "sed -i",
        ".venv/bin/detect-secrets scan",
    ),
    f"{HERE}::test_a_key_is_made_and_an_archive_verified": (
        "make backup-key", "make backup-verify",
    ),
    f"{HERE}::test_the_page_of_templates_prints_what_it_says": (f"{CLI} templates",),
    f"{HERE}::test_the_package_is_installed_on_a_laptop": ("pip install images",),
    f"{SERVICES}::test_the_pages_log_in_and_sessions": (
        f"{CLI} login", f"{CLI} launch", f"{CLI} sessions",
    ),
    f"{SERVICES}::test_the_pages_launches_with_a_GPU": ("curl -X POST",),
    f"{SERVICES}::test_the_pages_runs_sweeps_and_schedules": (
        f"{CLI} runs", f"{CLI} sweeps", f"{CLI} schedules", "API=", 'curl -s "$API',
    ),
    f"{SERVICES}::test_the_pages_workspaces": (f"{CLI} workspaces",),
    "tests/services/test_hub_load.py::test_our_hub_is_not_grossly_dearer_than_a_plain_one": (
        "PYTHONPATH=images/packages/mlhub/src .venv/bin/python -m tests.services.load",
    ),
    "tests/e2e/test_verify.py::test_T12_a_job_verifies_from_inside_and_leaves_nobody_behind": (
        "kubectl -n jupyterhub create job --from", "kubectl -n jupyterhub logs --follow job/",
    ),
    ".ci/run": ("make up", "make test", "make .venv/dev.stamp", "MLHUB_BIN=… "),
    ".github/workflows/check.yaml": ("make check",),
    ".github/workflows/up.yaml": ("docker buildx create",),
    "tests/e2e/test_docs_commands.py::test_a_command_of_the_pages_runs_on_the_stack": (
        "make status", "make password", "make preview STACK=local", "eval",
        "kubectl -n jupyterhub exec deploy/hub", "kubectl -n mlflow",
    ),
    "tests/e2e/test_verify.py::"
    "test_T12_verify_logs_in_spawns_writes_runs_and_leaves_nobody_behind": ("make verify",),
    "tests/e2e/test_recovery.py::"
    "test_T13_the_drill_brings_log_in_notebooks_runs_and_quotas_back_from_one_archive": (
        "make backup ",
    ),
    "tests/e2e/test_images.py::test_J7_all_that_is_locked_has_a_wheel_for_arm64": (
        "sed -E", ".venv/bin/uv pip install --dry-run",
    ),
    "tests/e2e/test_mlflow.py::"
    "test_J3_J10_T11_a_run_and_a_model_round_trip_as_oneself_and_nobody_else_reads_them": (
        "export MLFLOW_TRACKING_URI",
    ),
    "tests/e2e/test_stack.py::test_a_second_up_changes_nothing_and_keeps_every_secret": (
        "printf", "cp stacks/Pulumi.local.yaml", "pulumi up --stack local",
    ),
    "tests/engine/test_stacks.py::test_everything_is_made_once": (
        "pulumi -C .mlhub/stacks stack init", "pulumi stack init", "pulumi config set --secret",
        "export PULUMI_CONFIG_PASSPHRASE_FILE",
        "pulumi up --stack dev", "pulumi up --stack prod", "pulumi up --stack team-a",
    ),
    "tests/engine/test_plugins_harbor.py::"
    "test_a_project_of_others_is_taken_over_by_the_very_command_that_is_printed": (
        "pulumi import",
    ),
    "tests/engine/test_state.py::test_state_in_a_bucket_is_kept_and_holds_no_secret_in_plain": (
        "pulumi login",
    ),
    "tests/engine/test_stacks_recovery.py::"
    "test_T13_a_cluster_that_has_nothing_gets_all_of_it_from_one_archive": ("make restore",),
    "tests/engine/test_stacks_recovery.py::"
    "test_T13_rollback_brings_back_chart_and_images_and_keeps_data_and_secrets": ("make rollback",),
    "tests/engine/test_stacks_recovery.py::"
    "test_T13_destroy_with_its_switch_keeps_data_and_the_next_up_has_them_again": ("make destroy",),
    "tests/unit/test_recovery.py::"
    "test_T13_who_is_renamed_keeps_their_home_and_the_former_name_has_none": ("make rename-home",),
    "tests/unit/test_recovery_restore.py::"
    "test_T13_the_passphrase_of_a_machine_that_lost_it_is_the_archives": (
        "python -m tools.recovery prepare",
    ),
    "tests/unit/test_rotate.py::test_one_secret_is_replaced_and_no_other": ("make rotate",),
    "": (
        # Needs a stack that is applied elsewhere, which these tests have not.
        "make preview STACK=prod", "make preview STACK=team-a",
        # Needs a chart repository, or a cluster before the stack is on it.
        "helm pull", "kubectl create namespace", "kubectl -n jupyterhub create secret tls",
        # Measures for minutes, on a machine that does nothing else.
        ".venv/bin/python -m tools.benchmark", "kubectl -n jupyterhub exec -i",
        # Asks the index for every package; tests/unit/test_images_locks.py holds what it wrote.
        "make lock", ".venv/bin/python tools/lock.py",
    ),
}  # fmt: skip
"""The tests, each with how the commands begin that it runs; the last runs nowhere."""

EXAMPLES = {
    "docs/mlflow.md": f"{SERVICES}::test_the_pages_magics_versions_and_runs",
    "docs/notebooks.md": f"{SERVICES}::test_the_pages_launches_with_a_GPU",
    "docs/templates.md": f"{SERVICES}::test_the_pages_magics_versions_and_runs",
    "docs/workspaces.md": f"{SERVICES}::test_the_pages_workspaces",
}
"""The pages with Python, which these tests run."""


def test_every_command_has_a_test_that_runs_it():
    beginnings = [(beginning, test) for test, those in BY.items() for beginning in those]
    used = set()
    for page in PAGES:
        for each in shown(page):
            found = [pair for pair in beginnings if each.command.startswith(pair[0])]
            assert len(found) == 1, f"{page.name}: `{each.command}` has {len(found)} tests"
            used |= set(found)
    assert set(beginnings) == used, "no page shows it any more"


def test_every_example_in_python_has_a_test_that_runs_it():
    found = {name for page, name in zip(PAGES, IDS, strict=True) if [*blocks(page, "python")]}
    assert found == EXAMPLES.keys()


@pytest.mark.parametrize("test", sorted({*BY, *EXAMPLES.values()} - {""}))
def test_what_runs_the_commands_is_there(test: str):
    path, _, name = test.partition("::")
    written = text(ROOT / path)
    if name:
        assert f"def {name}(" in written
    else:
        commands = [c for c in BY[test] if c in ("make up", "make test", "make check")]
        assert all(f"stage {c}\n" in written or f"run: {c}\n" in written for c in commands)


def test_no_command_hides_from_this():
    """In no block but a console's, where it begins with a dollar sign."""
    program = r"(?:\$ |make |kubectl |pulumi |\.venv/bin/)"
    for page in PAGES:
        assert not re.findall(rf"^ {{4,}}{program}.*$", FENCE.sub("", text(page)), re.MULTILINE)
        assert not list(blocks(page, "sh", "bash", "shell"))
        for body in blocks(page, "console"):
            assert body.startswith("$ "), page


ALL = [
    pytest.param(command, id=f"{name}: {' '.join(command)[:60]}")
    for page, name in zip(PAGES, IDS, strict=True)
    for line in shown(page)
    for command in commands(line.command)
    if command
]


def test_the_commands_are_found():
    assert list(commands("a 'b c' | d && e")) == [["a", "b c"], ["d"], ["e"]]
    assert len(ALL) > 40


@pytest.mark.parametrize("command", ALL)
def test_a_command_is_one_that_there_is(command: list[str]):
    while command and re.match(r"[A-Z_]+=", command[0]):
        command = command[1:]
    program, *rest = command or ["export"]
    if program == "make":
        made(rest)
    elif program in PYTHON and rest[:1] == ["-m"]:
        a_module(rest[1], rest[2:])
    elif program in PYTHON:
        a_script(rest[0], rest[1:])
    else:
        assert program in FOREIGN or (ROOT / program).is_file(), program


def test_no_update_is_shown_without_the_policies():
    updates = [
        each.command for page in PAGES for each in shown(page) if "pulumi up" in each.command
    ]
    assert len(updates) > 3
    assert [command for command in updates if "--policy-pack policies" not in command] == []


@functools.cache
def makefile() -> str:
    return text(ROOT / "Makefile")


def made(arguments: list[str]) -> None:
    """The target is there, and whatever is given to it is read somewhere."""
    for argument in arguments:
        name, given, _ = argument.partition("=")
        if given:
            assert re.search(rf"\$\((?:\w+ )?{name}\b", makefile()), f"nothing reads {name}"
        elif not name.startswith("-"):
            assert re.search(rf"^{re.escape(name)}:", makefile(), re.MULTILINE), name
    done = subprocess.run(
        ["make", "--dry-run", "--always-make", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"MAKEFLAGS": ""},
    )
    assert done.returncode == 0, done.stderr


def a_module(module: str, arguments: list[str]) -> None:
    if module == "notebooks.cli":
        parsed(arguments)
        return
    found = importlib.util.find_spec(module)
    assert found is not None, module
    if found.submodule_search_locations is not None:
        found = importlib.util.find_spec(f"{module}.__main__")
    assert found is not None, module
    assert found.origin is not None
    if module != "pytest":
        options_of(Path(found.origin), arguments)


def a_script(script: str, arguments: list[str]) -> None:
    if script != "-":  # standard input
        options_of(ROOT / script, arguments)


def options_of(file: Path, arguments: list[str]) -> None:
    found = "".join(text(each) for each in {file, *file.parent.glob("*.py")})
    for argument in arguments:
        if argument.startswith("--"):
            assert f'"{argument.partition("=")[0]}"' in found, argument


def parsed(arguments: list[str]) -> None:
    """The real parser takes the arguments; nothing of the command is run."""
    command: Any = typer.main.get_command(app)
    parent = None
    while True:
        context = command.make_context("notebooks", list(arguments), parent=parent)
        if not hasattr(command, "commands"):
            return
        left = [*context._protected_args, *context.args]
        name, command, arguments = command.resolve_command(context, left)
        assert command is not None, name
        parent = context


SETTINGS = [
    pytest.param(body, id=f"{name}: {body.splitlines()[0]}")
    for page, name in zip(PAGES, IDS, strict=True)
    for body in blocks(page, "yaml")
    if body.startswith(PREFIX)
]


@pytest.mark.parametrize("body", SETTINGS)
def test_settings_of_the_pages_are_ones_that_the_model_has(body: str):
    """A part may be shown alone, so what is missing is no fault; what is there has to be right."""
    given = yaml.safe_load(re.sub(r"^ *…$", "", body, flags=re.MULTILINE))
    validator = jsonschema.Draft202012Validator(schema())
    wrong = [
        error
        for error in validator.iter_errors({"config": unelided(given)})
        if error.validator != "required" and not only_parts(error)
    ]
    assert wrong == []


def unelided(given: Any) -> Any:
    """Without the places where a page says `{…}`."""
    if isinstance(given, dict):
        return {key: unelided(value) for key, value in given.items() if not elided(value)}
    if isinstance(given, list):
        return [unelided(value) for value in given if not elided(value)]
    return given


def elided(value: Any) -> bool:
    return value == "…" or (isinstance(value, dict) and "…" in value)


def only_parts(error: jsonschema.ValidationError) -> bool:
    """A section that may be missing is `anyOf` itself and null: what is wrong is inside."""
    inside = [part for part in error.context or () if part.schema != {"type": "null"}]
    return bool(inside) and all(
        part.validator in ("required", "type") or only_parts(part) for part in inside
    )


def test_a_setting_that_there_is_not_would_be_found():
    validator = jsonschema.Draft202012Validator(schema())
    wrong = list(validator.iter_errors({"config": {"mlhub:mlflow": {"artefacts": {}}}}))
    assert [error for error in wrong if error.validator != "required" and not only_parts(error)]


def test_the_schema_and_the_page_of_settings_are_up_to_date():
    assert text(write_schema.SCHEMA) == write_schema.text(), "run `python -m tools.write_schema`"
    page = text(write_settings.PAGE)
    assert page == write_settings.text(), "run `python -m tools.write_settings`"
    assert "| `hub.idle_timeout` | a whole number of seconds" in page
    assert "| `3600` |" in page


def test_the_page_of_settings_has_every_key_of_every_stack_file():
    page = text(write_settings.PAGE)
    for file in (ROOT / "stacks").glob("Pulumi.*.yaml"):
        config = yaml.safe_load(text(file))["config"]
        for key in keys({name.removeprefix(PREFIX): part for name, part in config.items()}):
            free = re.match(
                r"(storage\.(home_)?parameters|foundation\.parameters|hub\.ingress\.annotations"
                r"|monitoring\.labels)\.",
                key,
            )
            assert free or f"`{key}" in page, key


def test_an_encrypted_secret_is_no_key_of_the_page():
    assert [*keys({"harbor_password": {"secure": "v1:…"}, "domain": "a"})] == ["domain"]


def keys(part: Any, path: str = "") -> Iterator[str]:
    """Every setting in a part of a stack file; secrets have no line on the page of settings."""
    if isinstance(part, dict) and "secure" in part:
        return
    if isinstance(part, dict):
        for key, value in part.items():
            yield from keys(value, f"{path}.{key}" if path else key)
    elif isinstance(part, list) and any(isinstance(element, dict) for element in part):
        for element in part:
            yield from keys(element, f"{path}[]")
    else:
        yield path


def test_the_page_of_the_hub_has_every_event_of_the_audit_trail():
    sources = [text(file) for file in (ROOT / "images/packages/mlhub/src/mlhub/hub").glob("*.py")]
    events = set(re.findall(r'note\(\s*"([a-z.]+)"', "".join(sources)))
    assert len(events) > 6
    page = text(ROOT / "docs/hub.md").split("## The audit trail")[1].split("\n## ")[0]
    rows = [line for line in page.splitlines() if line.startswith("| `")]
    told = {event for row in rows for event in re.findall("`([a-z.]+)`", row.split("|")[1])}
    assert sorted(events - told) == []
