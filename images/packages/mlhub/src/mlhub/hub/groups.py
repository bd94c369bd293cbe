"""Hub group names for Keycloak groups.

Keycloak knows a group by its full path (`/mlhub/users`); the Hub's group routes refuse a slash.
Two paths never meet in one name, since who may log in and who is an admin hangs on it.
"""

import hashlib
import re
from collections.abc import Collection

_PLAIN_SEGMENT = re.compile(r"[A-Za-z0-9_.]+(-[A-Za-z0-9_.]+)*")
_NOT_PLAIN = re.compile(r"[^A-Za-z0-9_.]+")
_HASH_LENGTH = 16
_LONGEST = 200
"""The Hub's column holds 255."""
_READABLE_LENGTH = 64

ROLES = ("owner", "editor", "viewer")
"""Of a workspace; each is a group `/workspaces/<slug>/<role>`."""


def hub_group_name(path: str) -> str:
    """The Hub's name for the Keycloak group at `path`, e.g. `mlhub--users` for `/mlhub/users`.

    A path whose segments hold neither `--`, an outer `-` nor an unusual character is its segments
    joined by `--`, which splits back into them. Any other gets `---` and a hash of the whole path,
    and no joined name holds `---`.
    """
    segments = path.removeprefix("/").split("/")
    joined = "--".join(segments)
    plain = path.startswith("/") and all(map(_PLAIN_SEGMENT.fullmatch, segments))
    if plain and len(joined) <= _LONGEST:
        return joined
    readable = _NOT_PLAIN.sub("-", path).strip("-")[:_READABLE_LENGTH].rstrip("-") or "group"
    return f"{readable}---{hashlib.sha256(path.encode()).hexdigest()[:_HASH_LENGTH]}"


def member_of(workspace: str, groups: Collection[str]) -> bool:
    """Whether somebody with these Hub groups belongs to a workspace, in any role."""
    return any(hub_group_name(f"/workspaces/{workspace}/{role}") in groups for role in ROLES)
