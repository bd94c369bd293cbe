"""`launch`: a new session with the sizes that were asked."""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.text import Text

from notebooks import templates
from notebooks.cli import output
from notebooks.cli.runs import Interrupted
from notebooks.connection import in_a_server
from notebooks.launcher import START_SECONDS, NotebookLauncher, Tell
from notebooks.models import NotebookSession, ResourceConfig
from notebooks.sizes import cores, gib

_STAMP = re.compile(r"^\S+Z \[Normal\] ")
"""Of KubeSpawner's before an event's own words."""


def _read(read: Callable[[str], float]) -> Callable[[Any], float]:
    """For typer, which shows a default through the same function."""

    def reader(given: Any) -> float:
        try:
            return read(str(given))
        except ValueError as error:
            raise typer.BadParameter(f"{error}.") from None

    return reader


Timeout = Annotated[float, typer.Option(min=1, help="seconds to wait until it is ready")]
NoWait = Annotated[bool, typer.Option("--no-wait", help="do not wait until it is ready")]


def launch(
    *,
    user: Annotated[str | None, typer.Option(help="an admin: whose, by name")] = None,
    workspace: Annotated[str | None, typer.Option(help="a workspace of yours")] = None,
    cpu: Annotated[
        float | None, typer.Option(parser=_read(cores), metavar="CORES", help="at least, as 4")
    ] = None,
    memory: Annotated[
        float | None, typer.Option(parser=_read(gib), metavar="QUANTITY", help="at least, as 16Gi")
    ] = None,
    gpu: Annotated[int | None, typer.Option(min=0, help="whole GPUs, at least")] = None,
    gpu_type: Annotated[str | None, typer.Option(help="as nvidia-tesla-v100")] = None,
    template: Annotated[str | None, typer.Option(help="copied into the home")] = None,
    mlflow_experiment: Annotated[str | None, typer.Option(help="of its runs")] = None,
    git_repo: Annotated[str | None, typer.Option(help="cloned once, by https")] = None,
    profile: Annotated[str | None, typer.Option(help="of the hub's, with its sizes")] = None,
    timeout: Timeout = START_SECONDS,
    no_wait: NoWait = False,
) -> None:
    """Start a notebook session with the smallest size that holds what is asked."""
    resources = ResourceConfig(cpu, memory, gpu, gpu_type)
    if template:
        look_for(template, user)
    launcher = NotebookLauncher()
    with progress("Starting") as tell:
        session = launcher.launch(
            user_email=user,
            workspace=workspace,
            resources=resources,
            mlflow_experiment=mlflow_experiment,
            git_repo=git_repo,
            template=template,
            profile=profile,
            wait=not no_wait,
            timeout=timeout,
            tell=tell,
        )
    show(session)


def look_for(template: str, user: str | None) -> None:
    """Refuse a name that is no template's; where the home is not seen from here, doubt it."""
    if in_a_server() and user is None:
        templates.find(template)
    elif not (templates.BUILT_IN / f"{template}.ipynb").is_file():
        output.warn(
            f"No template of the package is named {template}; where none of the home is either, "
            f"the server starts without it. `templates list` shows those there are."
        )


def show(session: NotebookSession) -> None:
    sizes = ", ".join(f"{key} {value}" for key, value in session.options.items())
    rows = [
        ("session", session.session_id),
        ("status", session.status),
        ("with", sizes or "the hub's default"),
        ("open", session.notebook_url),
    ]
    output.show(session, output.table(("", ""), rows))


@contextmanager
def progress(what: str) -> Iterator[Tell]:
    """Tells of a start; who breaks the wait off hears what becomes of it."""
    try:
        with _bar(what) as tell:
            yield tell
    except KeyboardInterrupt:
        output.fail(
            Interrupted(
                "What the hub has begun to start goes on; `sessions list` shows it, "
                "`sessions stop` ends it."
            )
        )
        raise


@contextmanager
def _bar(what: str) -> Iterator[Tell]:
    """A bar on standard error, at a terminal; elsewhere each step is a line."""
    if output.as_json:
        yield lambda percent, message: None
        return
    console = Console(stderr=True)
    columns = (BarColumn(), TextColumn("{task.description}", markup=False), TimeElapsedColumn())
    with Progress(
        *columns, console=console, transient=True, disable=not console.is_terminal
    ) as bar:
        task = bar.add_task(what, total=100)

        def tell(percent: int, message: str) -> None:
            message = _STAMP.sub("", message)
            if console.is_terminal:
                bar.update(task, completed=percent, description=message)
            else:
                console.print(Text(f"{percent:3d} % {message}"), soft_wrap=True)

        yield tell
