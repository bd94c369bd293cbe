"""A person's name as a part of Kubernetes names and labels.

The same as KubeSpawner's `slug_scheme = "safe"` (kubespawner 7.1, `slugs.safe_slug`), because the
spawner names the homes; a test holds the two together.
"""

import hashlib
import re

LONGEST = 48
_PLAIN = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")
_HASH = 8


def slug(name: str) -> str:
    """`name` itself where it is a plain label, otherwise what is readable of it and a hash."""
    if "--" not in name and len(name) <= LONGEST and _PLAIN.fullmatch(name):
        return name
    # KubeSpawner shortens a name with `--` to the same length as any other.
    room = LONGEST - (_HASH + 3)
    safe = re.sub("[^a-z0-9]+", "-", name.lower()).lstrip("-")[:room].rstrip("-")
    if safe and not "a" <= safe[0] <= "z":
        safe = "x-" + safe[: room - 2]
    digest = hashlib.sha256(name.encode()).hexdigest()[:_HASH]
    return f"{safe or 'x'}---{digest}"
