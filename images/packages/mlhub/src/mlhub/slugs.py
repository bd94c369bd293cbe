"""Names that people choose, as names that Kubernetes, Keycloak and MLflow all take.

No two names meet in one slug, and a person's workspace never meets a team's: what is a slug
already stays as it is and has no `--`; whatever else gets `--` and a hash of the whole name; and
`home`, at the end of a person's, is no hash.
"""

import hashlib
import re

SLUG = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
HASHED = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*--[0-9a-f]{20}")
LONGEST = 50
READABLE = 28
RESERVED = frozenset({"ajax-api", "api", "default", "static-files", "workspaces"})
"""MLflow's own (`WorkspaceNameValidator`, and the workspace that is always there)."""


def workspace_slug(name: str) -> str:
    """An RFC 1123 label of 2 to 50 characters.

    `fraud-detection` stays; `Fraud Detection` becomes `fraud-detection--` and 20 digits.
    """
    if 2 <= len(name) <= LONGEST and SLUG.fullmatch(name) and name not in RESERVED:
        return name
    readable = re.sub(r"[^a-z0-9]+", "-", name.lower())[:READABLE].strip("-") or "workspace"
    return f"{readable}--{hashlib.sha256(name.encode()).hexdigest()[:20]}"


def personal_workspace(user: str) -> str:
    """The MLflow workspace that is a person's own: `MLFLOW_WORKSPACE` in their servers and jobs.

    At most 56 characters, and different for each of the Hub's user names.
    """
    return f"{workspace_slug(user)}--home"


def is_slug(text: str) -> bool:
    """Whether it is the slug of some name, and so may be a workspace's."""
    return len(text) <= LONGEST and (workspace_slug(text) == text or bool(HASHED.fullmatch(text)))
