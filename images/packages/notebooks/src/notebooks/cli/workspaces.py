"""`workspaces list|create|members|add|remove|share|shared|unshare|delete|restore`."""

import re
from typing import Annotated, Any

import typer

from notebooks.cli import output
from notebooks.workspaces import Workspace, WorkspaceManager, WorkspaceRole

app = typer.Typer(no_args_is_help=True, help="Workspaces of teams: members, what is shared.")

Id = Annotated[str, typer.Argument(metavar="WORKSPACE", help="an id of `workspaces list`")]
Who = Annotated[str, typer.Argument(metavar="USER", help="a user name or an e-mail address")]


def whole_gib(given: Any) -> int:
    """`10Gi`, as a workspace's size is told, or `10`; for typer, which reads a default with it."""
    found = re.fullmatch(r"([1-9][0-9]*)(Gi)?", str(given))
    if not found:
        raise typer.BadParameter(f"{given!r} is no whole number of GiB; write it as 10Gi.")
    return int(found[1])


@app.command("list")
def list_workspaces(
    deleted: Annotated[bool, typer.Option("--deleted", help="those to be restored")] = False,
) -> None:
    """Your workspaces, with your role in each."""
    found = WorkspaceManager().list_workspaces(deleted=deleted)
    rows = [(each.id, each.name, each.role, each.size, _ends(each)) for each in found]
    human = output.table(("workspace", "name", "role", "size", "restorable until"), rows)
    output.show(found, human if rows else "No workspaces; make one with `workspaces create NAME`.")


@app.command()
def create(
    name: Annotated[str, typer.Argument(help="what people read")],
    description: Annotated[str, typer.Option(help="what it is for")] = "",
    owner: Annotated[str | None, typer.Option(help="an administrator: whose it is")] = None,
    size: Annotated[
        int | None, typer.Option(parser=whole_gib, metavar="QUANTITY", help="its volume's, as 10Gi")
    ] = None,
) -> None:
    """Make a workspace of your own."""
    made = WorkspaceManager().create_workspace(name, description, owner, size)
    output.show(
        made, f"Made {made.id} ({made.size}). Start a server with it: launch --workspace {made.id}"
    )


@app.command()
def members(workspace: Id) -> None:
    """Who is in a workspace."""
    found = WorkspaceManager().list_members(workspace)
    rows = [(each.user, each.email, each.role) for each in found]
    output.show(found, output.table(("user", "e-mail", "role"), rows))


@app.command()
def add(
    workspace: Id,
    user: Who,
    role: Annotated[WorkspaceRole, typer.Option(help="what they may do")] = WorkspaceRole.VIEWER,
) -> None:
    """Add somebody, or change their role."""
    added = WorkspaceManager().add_member(workspace, user, role)
    output.show(added, f"{added.user} is {added.role} of {workspace}.")


@app.command()
def remove(workspace: Id, user: Who) -> None:
    """Remove somebody, or yourself; their servers that have it mounted stop."""
    WorkspaceManager().remove_member(workspace, user)
    output.show({"removed": user}, f"{user} is no member of {workspace} any more.")


@app.command()
def share(
    workspace: Id,
    path: Annotated[str, typer.Argument(help="in the workspace's folder")],
    folder: Annotated[bool, typer.Option("--folder", help="it is a folder")] = False,
) -> None:
    """Point the others to a notebook or folder."""
    manager = WorkspaceManager()
    shared = (manager.share_folder if folder else manager.share_notebook)(workspace, path)
    output.show(shared, f"Shared {shared.resource_path} in {workspace}.")


@app.command("shared")
def list_shared(workspace: Id) -> None:
    """What is shared in a workspace."""
    found = WorkspaceManager().list_shared_resources(workspace)
    rows = [
        (each.id, each.resource_type, each.resource_path, each.shared_by, f"{each.shared:%F %R}")
        for each in found
    ]
    human = output.table(("id", "type", "path", "shared by", "when"), rows)
    output.show(found, human if rows else f"Nothing is shared in {workspace}.")


@app.command()
def unshare(
    workspace: Id,
    resource: Annotated[str, typer.Argument(help="an id of `workspaces shared`")],
) -> None:
    """Take something off the list; the file stays."""
    WorkspaceManager().unshare(workspace, resource)
    output.show({"unshared": resource}, f"{resource} is no longer shared in {workspace}.")


@app.command()
def delete(workspace: Id) -> None:
    """Hide a workspace from everybody: servers that have it mounted stop, whosever they are.

    For some days an owner can restore it.
    """
    gone = WorkspaceManager().delete_workspace(workspace)
    output.show(
        gone,
        f"{gone.id} is deleted, and servers that have it mounted stop; until {_ends(gone)} "
        f"`workspaces restore {gone.id}` brings it back.",
    )


@app.command()
def restore(workspace: Id) -> None:
    """Bring a deleted workspace back, members included."""
    back = WorkspaceManager().restore_workspace(workspace)
    output.show(back, f"{back.id} is back.")


def _ends(workspace: Workspace) -> str:
    until = workspace.restorable_until
    return f"{until:%F %R} UTC" if until else ""
