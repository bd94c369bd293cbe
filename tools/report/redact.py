"""Keeps secrets out of whatever the report shows.

Pulumi hides what it knows to be secret. This is the second net, for what somebody wrote in plain: a
value under a key that sounds like a secret, and text that looks like one.
"""

import re
from collections.abc import Mapping
from typing import Any

SECRET = "[secret]"  # noqa: S105 - what stands for one

SOUNDS_SECRET = re.compile(
    r"passw(or)?d|passphrase|secret|token|api_?key|private_?key|crypt_?key|access_?key|credential"
    r"|cookie_?secret|^keys$|^auth$|salt|htpasswd|kube_?config|cert(ificate)?_?data",
    re.IGNORECASE,
)
REFERENCE = re.compile(
    r"(secret|secrets|token|credential)s?_?(name|names|namespace|ref|refs|key_?ref|class|path|file"
    r"|url|uri|type|version|lifespan|lifespans|seconds|policy|enabled|idle|max\w*)$"
    r"|^(existing_?secret|image_?pull_?secrets?|tls_?secret|automount\w*|password_?policy"
    r"|reset_?password_?allowed|min_?\w+|ignore_?secrets\w*|\w*_secrets_in_\w+)$"
    r"|^(access|sso|offline|action)\w*(lifespan|timeout)$",
    re.IGNORECASE,
)
"""Keys that name a Secret or say how tokens are handled: needed by a reviewer, and no secret."""

REFERRING = {"name", "key", "optional", "namespace", "secretName", "items", "path", "mode"} | {
    "valueFrom", "secretKeyRef", "configMapKeyRef", "fieldRef", "fieldPath",
}  # fmt: skip
"""Keys of what refers to a Secret and holds none."""

IN_TEXT = [
    re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(-----END [A-Z ]*PRIVATE KEY-----|\Z)", re.S),
    re.compile(r"\beyJ[\w-]{8,}\.[\w-]{8,}(\.[\w-]*)?"),
    re.compile(r"\b(gh[pousr]_\w{20,}|github_pat_\w{20,}|AKIA[0-9A-Z]{16}|xox[abpr]-[\w-]{10,})"),
    re.compile(r"(?<=://)[^/\s:@]+:[^/\s@]+(?=@)"),
    re.compile(
        r"(?i)(?<![\w/.-])((?:[\w.-]*(?:passw(?:or)?d|passphrase|secret|token|api_?key|private_?key))"
        r"[\"']?\s*[=:](?!:)\s*[\"']?)((?!\[secret\]|\$|\{|<|\s|\w+\()[^\s\"',;}&]{4,})"
    ),
]
"""Private keys, JSON web tokens, well-known tokens, `user:password@`, `password=…`."""


def text(value: str) -> str:
    """`value` without what looks like a secret in it."""
    for pattern in IN_TEXT[:-1]:
        value = pattern.sub(SECRET, value)
    return IN_TEXT[-1].sub(lambda found: found.group(1) + SECRET, value)


def secret_key(key: str) -> bool:
    """Whether what stands under `key` is a secret rather than the name of one."""
    return bool(SOUNDS_SECRET.search(key)) and not REFERENCE.search(key)


def tree(value: Any, key: str = "") -> Any:
    """A copy of a property tree in which every secret is SECRET."""
    if isinstance(value, Mapping):
        if value.get("kind") == "Secret" and "apiVersion" in value:
            hidden = {part: whole(value[part]) for part in ("data", "stringData") if part in value}
            value = {**value, **hidden}
        named = value.get("name")
        if isinstance(named, str) and isinstance(value.get("value"), str) and secret_key(named):
            value = {**value, "value": SECRET}
        if key and secret_key(key) and not reference(value):
            return whole(value)
        return {part: tree(content, part) for part, content in value.items()}
    if isinstance(value, list | tuple):
        return [tree(part, key) for part in value]
    if key and secret_key(key) and value not in (None, "") and not isinstance(value, bool):
        return SECRET
    return text(value) if isinstance(value, str) else value


def reference(value: Mapping[str, Any]) -> bool:
    """Whether a mapping says where a secret is, as `secretKeyRef` does: names alone."""
    inner = [part for part in value.values() if isinstance(part, Mapping)]
    return set(value) <= REFERRING and all(reference(part) for part in inner)


def whole(value: Any) -> Any:
    """A Secret's data: keys stay, for they say what changes; no value does."""
    return dict.fromkeys(value, SECRET) if isinstance(value, Mapping) else SECRET
