"""`sessions list|stop|restore|open`."""

import webbrowser
from datetime import UTC, datetime
from typing import Annotated

import typer

from notebooks.cli import output
from notebooks.cli.launch import NoWait, Timeout, progress, show
from notebooks.launcher import START_SECONDS, NotebookLauncher
from notebooks.models import NotebookSession, NotebookStatus

app = typer.Typer(no_args_is_help=True, help="Notebook sessions: list, stop, restore, open.")

Session = Annotated[str, typer.Argument(metavar="SESSION", help="an id of `sessions list`")]


@app.command("list")
def list_sessions(
    user: Annotated[str | None, typer.Option(help="an admin: whose")] = None,
) -> None:
    """Your sessions, running and stopped."""
    found = NotebookLauncher().list(user)
    rows = [
        (each.session_id, each.status, _size(each), each.options.get("workspace"), _when(each))
        for each in found
    ]
    human = output.table(("session", "status", "size", "workspace", "started"), rows)
    output.show(found, human if rows else "No sessions; start one with `launch`.")


@app.command()
def stop(
    session: Session,
    forget: Annotated[
        bool, typer.Option("--forget", help="it cannot be restored afterwards; files stay")
    ] = False,
) -> None:
    """Stop a session; files stay, and it can be restored."""
    stopped = NotebookLauncher().stop(session, forget=forget)
    after = f"`sessions restore {stopped.session_id}` starts it again"
    if forget:
        kept = "the hub keeps everybody's default server"
        after = "forgotten" if stopped.name else kept
    output.show(stopped, f"{stopped.session_id} is stopped; {after}.")


@app.command()
def restore(session: Session, timeout: Timeout = START_SECONDS, no_wait: NoWait = False) -> None:
    """Start a stopped session again, as it was."""
    launcher = NotebookLauncher()
    with progress("Restoring") as tell:
        restored = launcher.restore(session, wait=not no_wait, timeout=timeout, tell=tell)
    show(restored)


@app.command("open")
def open_session(session: Session) -> None:
    """Open a session in the browser, which logs in."""
    found = NotebookLauncher().get(session)
    if found.status is NotebookStatus.STOPPED:
        found = NotebookLauncher().restore(session)
    if not output.as_json:
        webbrowser.open(found.notebook_url)
    output.show(found, found.notebook_url)


def _size(session: NotebookSession) -> str:
    sizes = (session.options.get(key) for key in ("profile", "cpu", "memory", "gpu", "gpu_type"))
    return " ".join(size for size in sizes if size)


def _when(session: NotebookSession) -> str:
    if session.started is None:
        return ""
    hours, seconds = divmod(int((datetime.now(UTC) - session.started).total_seconds()), 3600)
    return f"{hours} h {seconds // 60} min ago" if hours else f"{seconds // 60} min ago"
