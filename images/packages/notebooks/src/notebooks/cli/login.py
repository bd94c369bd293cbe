"""`login` and `logout`."""

import sys
from typing import Annotated

import typer

from notebooks.cli import output
from notebooks.connection import in_a_server, login_file
from notebooks.errors import NotebooksError
from notebooks.login import KEPT_DAYS, hub_address, log_in, log_out

Hub = Annotated[str, typer.Option("--hub", metavar="URL", help="your hub, as in the browser")]
Admin = Annotated[bool, typer.Option("--admin", help="keep the right to act for others")]


def not_in_a_server() -> None:
    """Raises NotebooksError in one: what is kept would not be used there."""
    if in_a_server():
        raise NotebooksError(
            "This is a notebook server of your hub: it has you logged in, as long as it runs."
        )


def login(hub: Hub, admin: Admin = False) -> None:
    """Log in to a hub from this machine, with a token from its page Token."""
    not_in_a_server()
    try:
        address = hub_address(hub)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--hub") from None
    if sys.stdin.isatty():
        print(f"1. Open {address}/hub/token in your browser and log in.", file=sys.stderr)
        print("2. Press 'Request new API token' and copy the token.", file=sys.stderr)
        pasted = typer.prompt("3. Paste it here (it is not shown)", hide_input=True, err=True)
    else:
        pasted = sys.stdin.readline()
    if not pasted.strip():
        raise NotebooksError(f"No token was given; make one on {address}/hub/token.")
    file = login_file()
    kept = log_in(address, pasted.strip(), file, admin=admin)
    output.show(
        {"hub_url": kept.hub_url, "user": kept.user, "file": str(file)},
        f"Logged in to {kept.hub_url} as {kept.user} for {KEPT_DAYS} days ({file}).",
    )


def logout() -> None:
    """Revoke this machine's token and forget it."""
    not_in_a_server()
    gone = log_out(login_file())
    output.show(
        {"hub_url": gone.hub_url, "user": gone.user},
        f"Logged out of {gone.hub_url}; token revoked.",
    )
