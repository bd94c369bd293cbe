"""Log in from a laptop: a token of the Hub's, pasted once and traded for one that can do less.

The Hub has no sign-in for programs without a secret of their own, so a person makes a token on its
page `Token`. That one may do everything that they may; kept is another, for sessions and services
alone, that ends by itself. Then the pasted one is revoked.
"""

import json
import os
import socket
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from notebooks.connection import Connection
from notebooks.errors import NotebooksError, Refused

KEPT_DAYS = 30
LOGIN = "/hub/api/mlhub/login"


def hub_address(given: str) -> str:
    """A hub's address from what a person copies out of their browser; raises ValueError."""
    parts = urlsplit(given.strip())
    if parts.scheme not in ("http", "https") or not parts.hostname or "@" in parts.netloc:
        raise ValueError(
            f"{given!r} is no hub's address; give it as in your browser, such as "
            "https://jupyter.example.com"
        )
    before = parts.path.split("/hub")[0].split("/user/")[0].rstrip("/")
    return f"{parts.scheme}://{parts.netloc}{before}"


def log_in(hub_url: str, pasted: str, file: Path, *, admin: bool = False) -> Connection:
    """Trade the pasted token and keep the new one in `file`, readable by its owner alone.

    `admin` keeps the right to act for others. Raises Refused or Unreachable, and OSError where
    nothing can be kept: then the pasted token is as it was, and there is no new one.
    """
    whole = Connection(hub_url, "", pasted)
    try:
        me = whole.request("GET", "/hub/api/user")
    except Refused as refusal:
        if refusal.type != "login":
            raise
        sentence = f"The hub does not know that token; copy a new one from {hub_url}/hub/token."
        raise Refused(refusal.status, "login", sentence) from None
    if me.get("kind") != "user":
        raise Refused(403, "login", "That is the token of a service; make one of your own.")
    name, may = str(me["name"]), set(me["scopes"])
    wanted = least(name, may, admin=admin)
    kept = replace(whole, user=name)
    _place(file)
    if may & {f"tokens!user={name}", "tokens"}:
        made = whole.request(
            "POST",
            f"/hub/api/users/{name}/tokens",
            json={
                "note": f"notebooks on {socket.gethostname()}",
                "scopes": wanted,
                "expires_in": KEPT_DAYS * 24 * 3600,
            },
        )
        kept = Connection(hub_url, name, made["token"])
    _give_up(file)
    try:
        _keep(kept, file)
    except OSError:
        if kept.token != pasted:
            kept.request("DELETE", LOGIN)
        raise
    if kept.token != pasted:
        whole.request("DELETE", LOGIN)
    return kept


def least(name: str, may: set[str], *, admin: bool = False) -> list[str]:
    """What the command line needs of what a token may; raises Refused where it lacks sessions."""
    own = f"servers!user={name}"
    wanted = {own, f"read:users:name!user={name}", f"read:users:groups!user={name}"}
    if admin:
        wanted |= {"servers", "read:users:name"}
    wanted |= {scope for scope in may if scope.startswith("access:services!service=")}
    found = {scope for scope in wanted if scope in may or scope.partition("!")[0] in may}
    needed = "servers" if admin else own
    if needed not in found:
        sentence = f"The token lacks the scope {needed}; make one without a list of scopes."
        raise Refused(403, "scope", sentence)
    return sorted(found)


def log_out(file: Path) -> Connection:
    """Revoke the token and forget it; raises NotLoggedIn, or NotebooksError when not revoked."""
    connection = Connection.of_file(file)
    file.unlink()
    try:
        connection.request("DELETE", LOGIN)
    except NotebooksError as error:
        if isinstance(error, Refused) and error.type == "login":
            return connection  # not known any more is as good
        raise NotebooksError(
            f"{error} The log-in is removed here, but its token was not revoked: do so on "
            f"{connection.hub_url}/hub/token."
        ) from None
    return connection


def _give_up(file: Path) -> None:
    """Revoke the former log-in, which nobody could find any more."""
    try:
        log_out(file)
    except (NotebooksError, OSError):
        return


def _place(file: Path) -> None:
    """Its folder, in which a file can be made; raises OSError."""
    file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with tempfile.TemporaryFile(dir=file.parent):
        pass


def _keep(connection: Connection, file: Path) -> None:
    plain: Mapping[str, Any] = {
        "hub_url": connection.hub_url,
        "user": connection.user,
        "token": connection.token,
    }
    handle, unfinished = tempfile.mkstemp(".tmp", f".{file.name}.", file.parent)  # mode 0600
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as stream:
            json.dump(plain, stream)
        os.replace(unfinished, file)
    except BaseException:
        os.unlink(unfinished)
        raise
