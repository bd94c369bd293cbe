"""No secret is readable: not in the state, not in a chart's values, not in a pod's description.

Told by names that end in what a secret is called, and by values that are secrets by their form. A
secret of another name and form is not seen; the program's own tests look for those by value.
"""

import re
from collections.abc import Iterator

from mlhub_policies.limits import StackLimits
from mlhub_policies.pods import STRUCTURE, plain
from mlhub_policies.rule import RELEASE, Finding, Resource, later
from mlhub_policies.tree import Node

NAMED = re.compile(
    r"(password|passwd|passphrase|secret|token|api_?key|private_?key|access_?key|secret_?key|"
    r"credentials?|crypt_?key|signing_?key)s?$",
    re.IGNORECASE,
)
VALUE_OF = re.compile(r"password\.value$", re.IGNORECASE)
"""Keycloak's `initialPassword`, whose name is on the mapping and not on the text."""

REFERENCES = re.compile(r"^(existing_?secret|.*_?pull_?secrets?|tls_?secret)$", re.IGNORECASE)
"""Names that end like a secret's and hold the name of one."""

FORMED = {
    "a private key": re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----"),
    "a password in an address": re.compile(r"[a-z][a-z0-9+.-]*://[^/\s:@]*:[^/\s:@$]+@"),
    "a signed token": re.compile(r"\beyJ[\w-]{8,}\.eyJ[\w-]{8,}\.[\w-]{8,}"),
    "a cloud's access key": re.compile(r"\b(AKIA|ASIA)[0-9A-Z]{16}\b"),
}

HOLDERS = STRUCTURE | {"env"}
"""Where an unknown value could hide a secret by its name."""

WORDS = frozenset({"", "true", "false", "none", "null", "0", "1"})
SECRET_KINDS = ("data", "stringData")
IN_VALUES = "a Secret is required with only its name here, for a chart's values are read by many"
IN_STATE = "a value marked secret is required (pulumi.Output.secret), or the state shows it"
IN_POD = "valueFrom.secretKeyRef is required"


def snake(name: str) -> str:
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).replace("-", "_").replace(".", "_")


def called_secret(name: str) -> bool:
    name = snake(name)
    return bool(NAMED.search(name)) and not REFERENCES.match(name)


def text(node: Node) -> bool:
    return isinstance(node.value, str) and node.value.lower() not in WORDS


def formed(node: Node) -> str | None:
    """What a text is by its form, if that is a secret."""
    return next((what for what, form in FORMED.items() if form.search(str(node.value))), None)


def nothing_is_readable(resource: Resource, _limits: StackLimits) -> Iterator[Finding]:
    if resource.type == RELEASE:
        yield from _look(resource.values, IN_VALUES, even_marked=True)
    elif resource.of_kubernetes and resource.kind == "Secret":
        yield from _secret(resource)
        yield from _look(resource.inputs["metadata"], IN_STATE)
    elif resource.of_kubernetes:
        yield from _look(resource.inputs, IN_POD)
    else:
        yield from _look(resource.inputs, IN_STATE)


def _secret(resource: Resource) -> Iterator[Finding]:
    for kind in SECRET_KINDS:
        held = resource.inputs[kind]
        if held.secret or held.absent:
            continue
        for node in held.parts():
            if node.unknown and not node.secret:
                yield later(node)
            elif not node.secret:
                yield Finding(node.path, f"is readable; {IN_STATE}")


def _look(top: Node, wanted: str, *, even_marked: bool = False) -> Iterator[Finding]:
    for node in top.walk():
        if node.secret and not even_marked:
            continue
        named = called_secret(node.key) or VALUE_OF.search(node.path) or "CryptKeeper" in node.path
        yield from _variable(node, wanted)
        if node.unknown:
            # A Release's values are literal but for the images' digests.
            literal = even_marked and node.key not in ("image", "tag")
            if literal or named or plain(node.key) in HOLDERS:
                yield later(node)
        elif node.secret:
            if not any(node.parts()):
                yield Finding(node.path, f"is a secret; {wanted}")
        elif text(node) and (what := formed(node)):
            yield Finding(node.path, f"holds {what}; {wanted}")
        elif text(node) and named and not node.path.endswith("]"):
            yield Finding(node.path, f"is readable; {wanted}")


def _variable(node: Node, wanted: str) -> Iterator[Finding]:
    """An environment variable: `{name: …, value: …}`."""
    if not isinstance(node.value, dict) or set(node.value) - {"name", "value"}:
        return
    name, value = node["name"], node["value"]
    if called_secret(str(name.value)) and (text(value) or value.unknown) and not value.secret:
        if value.unknown:
            yield later(value)
        else:
            yield Finding(value.path, f"({name.value}) is readable; {wanted}")
