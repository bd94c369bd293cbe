"""Hub group names for Keycloak groups.

Keycloak knows a group by its full path (`/mlhub/users`); the Hub's group routes refuse a slash.
Two paths never meet in one name, since who may log in and who is an admin hangs on it.
"""

import hashlib
import re
from collections.abc import Iterable

from mlhub.slugs import is_slug
from mlhub.workspaces.mounts import ROLES, group_path

_PLAIN_SEGMENT = re.compile(r"[A-Za-z0-9_.]+(-[A-Za-z0-9_.]+)*")
_NOT_PLAIN = re.compile(r"[^A-Za-z0-9_.]+")
_HASH_LENGTH = 16
_LONGEST = 200
"""The Hub's column holds 255."""
_READABLE_LENGTH = 64
_HASHED_SLUG = re.compile(r"workspaces-([a-z0-9-]+)-([0-9a-f]{20})-[a-z]+---[0-9a-f]{16}")


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


def workspace_roles(groups: Iterable[str]) -> dict[str, str]:
    """Of somebody with these Hub groups: the strongest role in each workspace, by slug."""
    found: dict[str, str] = {}
    for name in groups:
        slug = _workspace_of(name)
        for role in ROLES:
            if slug and hub_group_name(group_path(slug, role)) == name:
                found[slug] = min(role, found.get(slug, role), key=ROLES.index)
    return found


def _workspace_of(name: str) -> str | None:
    """The slug in a Hub group's name, or None; a slug that no workspace can have is none."""
    parts = name.split("--")
    if len(parts) == 3 and parts[0] == "workspaces":
        slug = parts[1]
    elif hashed := _HASHED_SLUG.fullmatch(name):
        # A slug with a hash has a `--` inside, which a Hub group's name makes one dash.
        slug = "--".join(hashed.groups())
    else:
        return None
    return slug if is_slug(slug) else None
