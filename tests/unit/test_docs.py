"""What the pages say is there: links, commands, options, settings.

Held against the real thing, command by command: `make` by a dry run of the real Makefile, our own
command lines by their real parsers, settings by the model's schema. Executed here are only those of
RUN, which need nothing; `make up`, `test`, `e2e`, `rows` and `down` are run by CI. Of programs that
are others' (FOREIGN) nothing but the name is looked at.
"""

import functools
import importlib.util
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import typer
import yaml

from components.stackfile import PREFIX, schema
from notebooks.cli import app
from tools import write_schema, write_settings

ROOT = Path(__file__).resolve().parents[2]

PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])
IDS = [str(page.relative_to(ROOT)) for page in PAGES]
FENCE = re.compile(r"^( *)```(\w*)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)\s]+)\)")

FOREIGN = {
    "age", "cat", "cp", "curl", "cut", "echo", "export", "git", "head", "helm", "jq", "kubectl",
    "pip", "printf", "pre-commit", "pulumi", "sed", "tar",
}  # fmt: skip
PYTHON = {"python", ".venv/bin/python"}
RUN = {
    "python -m notebooks.cli templates list",
    "python -m notebooks.cli templates copy data-exploration work/first-look.ipynb",
}
"""Executed by `test_a_command_that_needs_nothing_runs`."""


def text(page: Path) -> str:
    return page.read_text(encoding="utf-8")


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


def blocks(page: Path, *kinds: str) -> Iterator[str]:
    for indent, kind, body in FENCE.findall(text(page)):
        if kind in kinds:
            yield re.sub(rf"^{indent}", "", body, flags=re.MULTILINE)


def lines(page: Path) -> Iterator[str]:
    """Each command of the page, with its continuations."""
    for body in blocks(page, "console", ""):
        yield from (match[1] for match in re.finditer(r"^\$ ((?:.*\\\n)*.*)$", body, re.MULTILINE))
    # Blocks by indentation have no kind: what begins like a command of ours is one.
    yield from re.findall(
        r"^ {4,}(?:\$ )?((?:make|\.venv/bin/python) .*)$", FENCE.sub("", text(page)), re.MULTILINE
    )


def commands(line: str) -> Iterator[list[str]]:
    """The programs of a line, each with its arguments; a comment is none."""
    lexer = shlex.shlex(line.replace("\\\n", " "), posix=True, punctuation_chars="|&;<>")
    lexer.whitespace_split = True
    lexer.commenters = "#"
    command: list[str] = []
    for word in lexer:
        if set(word) <= set("|&;"):
            yield command
            command = []
        else:
            command.append(word)
    yield command


ALL = [
    pytest.param(command, id=f"{name}: {' '.join(command)[:60]}")
    for page, name in zip(PAGES, IDS, strict=True)
    for line in lines(page)
    for command in commands(line)
    if command
]


def test_the_commands_are_found():
    assert list(commands("make up  # it's\n")) == [["make", "up"]]
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


@pytest.mark.parametrize("line", sorted(RUN))
def test_a_command_that_needs_nothing_runs(line: str, tmp_path: Path):
    assert any(line in lines(page) for page in PAGES), "no page shows it any more"
    (tmp_path / "work").mkdir()
    done = subprocess.run(
        [sys.executable, *shlex.split(line)[1:]],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"PYTHONPATH": str(ROOT / "images/packages/notebooks/src")},
    )
    assert done.returncode == 0, done.stderr
    assert "data-exploration" in done.stdout or "first-look.ipynb" in done.stdout


def test_python_of_the_pages_compiles():
    found = [(page, body) for page in PAGES for body in blocks(page, "python")]
    assert len(found) > 3
    for page, body in found:
        compile(body, str(page), "exec")


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
        for error in validator.iter_errors({"config": shown(given)})
        if error.validator != "required" and not only_parts(error)
    ]
    assert wrong == []


def shown(given: Any) -> Any:
    """Without the places where a page says `{…}`."""
    if isinstance(given, dict):
        return {key: shown(value) for key, value in given.items() if not elided(value)}
    if isinstance(given, list):
        return [shown(value) for value in given if not elided(value)]
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
                r"(storage\.parameters|hub\.ingress\.annotations|monitoring\.labels)\.", key
            )
            assert free or f"`{key}" in page, key


def keys(part: Any, path: str = "") -> Iterator[str]:
    if isinstance(part, dict):
        for key, value in part.items():
            yield from keys(value, f"{path}.{key}" if path else key)
    elif isinstance(part, list) and any(isinstance(element, dict) for element in part):
        for element in part:
            yield from keys(element, f"{path}[]")
    else:
        yield path
