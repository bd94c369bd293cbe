"""`python -m notebooks.cli`: sessions, workspaces, templates and runs from a terminal.

Exit codes: 0 done; 1 refused or failed, with the sentence on standard error; 2 wrong usage. With
`--json`, wherever it stands, standard output is JSON alone, and an error's line is, too.
"""

import sys
from collections.abc import Sequence
from io import TextIOWrapper
from typing import Annotated, Any

import typer

from notebooks.cli import launch, login, output, plans, runs, sessions, templates, workspaces
from notebooks.errors import NotebooksError, missing

USAGE: Any = typer.BadParameter.__base__
"""`UsageError`, which typer has of its own or of click, by its version."""


class WrongUsage(NotebooksError):  # noqa: N818 -- as those of `notebooks.errors`
    """A command line that is none, for programs."""

    type = "usage"


app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)


@app.callback()
def shared(json: Annotated[bool, typer.Option("--json", help="print JSON")] = False) -> None:
    """Notebook sessions, workspaces, templates and runs of your mlhub."""


app.command("launch")(launch.launch)
app.command("login")(login.login)
app.command("logout")(login.logout)
app.add_typer(sessions.app, name="sessions")
app.add_typer(runs.app, name="runs")
app.add_typer(plans.schedules, name="schedules")
app.add_typer(plans.sweeps, name="sweeps")
app.add_typer(templates.app, name="templates")
app.add_typer(workspaces.app, name="workspaces")


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    for stream in (sys.stdout, sys.stderr):
        # A file on Windows holds a few hundred characters, and none of a progress bar's.
        if isinstance(stream, TextIOWrapper) and stream.errors == "strict":
            stream.reconfigure(errors="replace")
    args = list(sys.argv[1:] if argv is None else argv)
    output.as_json = "--json" in args
    given = [each for each in args if each != "--json"]
    # Typer's own telling of a wrong usage is a box for people.
    how: dict[str, Any] = {"standalone_mode": False} if output.as_json else {}
    try:
        code = app(given, prog_name="python -m notebooks.cli", **how)
    except SystemExit as end:
        code = end.code
    except typer.Abort:
        output.fail(NotebooksError("Nothing was given."))
        return 1
    except USAGE as error:
        output.fail(WrongUsage(error.format_message() or "A command is missing; see --help."))
        return 2
    except (NotebooksError, ValueError) as error:
        output.fail(error)
        return 1
    except ModuleNotFoundError as error:
        output.fail(NotebooksError(missing(error)))
        return 1
    except OSError as error:
        sentence = f"{error.filename}: {error.strerror}" if error.filename else str(error)
        output.fail(NotebooksError(sentence))
        return 1
    return code if isinstance(code, int) else 0 if code is None else 1
