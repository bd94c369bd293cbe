"""`python -m notebooks.cli`: sessions, workspaces, templates and runs from a terminal.

Exit codes: 0 done; 1 refused or failed, with the sentence on standard error; 2 wrong usage. With
`--json`, wherever it stands, standard output is JSON alone, and an error's line is, too.
"""

import sys
from collections.abc import Sequence
from io import TextIOWrapper
from typing import Annotated

import typer

from notebooks.cli import launch, login, output, plans, runs, sessions, templates, workspaces
from notebooks.errors import NotebooksError

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
    try:
        app([each for each in args if each != "--json"], prog_name="python -m notebooks.cli")
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 1
    except (NotebooksError, ValueError) as error:
        output.fail(error)
        return 1
    return 0
