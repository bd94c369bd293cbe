"""The shape of a resource type, and what follows from it alone: check, diff, defaults, secrecy.

Names, requiredness and secrecy are those of the official schemas (tests/unit/test_plugins_*.py hold
them to the installed SDKs), so that a stack can change to the official plug-in without a change.
"""

import shlex
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from bootstrap.plugins.values import UNKNOWN, has_unknown

Type = Literal["string", "boolean", "integer", "set", "list", "map", "object"]

ZEROS: dict[str, Any] = {
    "string": "",
    "boolean": False,
    "integer": 0,
    "set": [],
    "list": [],
    "map": {},
    "object": {},
}
PYTHON: dict[str, type | tuple[type, ...]] = {
    "string": str,
    "boolean": bool,
    "integer": int,
    "set": list,
    "list": list,
    "map": dict,
    "object": dict,
}


class PluginError(Exception):
    """An error that a person reads: what was given, what was expected, what to do next."""


@dataclass(frozen=True)
class Property:
    """One property of a resource.

    `computed`: where the program says nothing the server decides, and what it decided is no drift.
    `output`: never an input. `initial`: applied when the object is made and never again.
    `named`: required here, since the official plug-in would make up a name with a random end.
    """

    name: str
    type: Type = "string"
    required: bool = False
    named: bool = False
    default: Any = None
    computed: bool = False
    output: bool = False
    secret: bool = False
    replace: bool = False
    initial: bool = False
    one_of: tuple[str, ...] = ()
    same: Callable[[Any, Any], bool] | None = None

    @property
    def zero(self) -> Any:
        return ZEROS[self.type]

    def equal(self, old: Any, new: Any) -> bool:
        old = self.zero if old is None else old
        new = self.zero if new is None else new
        if self.same is not None:
            return self.same(old, new)
        if self.type == "set":
            return sorted(map(str, old)) == sorted(map(str, new))
        return bool(old == new)

    def complaint(self, value: Any) -> str | None:
        """Why `value` cannot be this property, or None. Never repeats a secret value."""
        if has_unknown(value):
            return None
        wanted = PYTHON[self.type]
        if not isinstance(value, wanted) or (self.type == "integer" and isinstance(value, bool)):
            return f"is a {type(value).__name__}; a {self.type} is required"
        if self.one_of and value not in self.one_of:
            return f'is "{value}"; one of {", ".join(self.one_of)} is required'
        return None


@dataclass(frozen=True)
class Failure:
    property: str
    reason: str


@dataclass(frozen=True)
class Change:
    kind: Literal["add", "delete", "update"]
    replace: bool


@dataclass(frozen=True)
class Made:
    """What create and read give: the object's id and all of its properties."""

    id: str
    state: dict[str, Any]


@dataclass(frozen=True)
class Call:
    """What a resource operation may need beside the properties."""

    urn: str
    tell: Callable[[str], None] = field(default=lambda message: None)
    provider: str = ""
    """The URN of the provider that the resource has."""

    def import_command(self, id: str) -> str:
        """What a shell runs to take `id` over as this resource (docs/engine.md, "Taking over").

        Without `--provider` the CLI makes a default one, which has no settings; without `--parent`
        the resource gets another URN, and the next `up` finds the object taken once more. No engine
        tells a plug-in the parent, but the URN has its type, and `--show-urns` its name.
        """
        place, project, types, name = self.urn.split("::", 3)
        *parents, token = types.split("$")
        stack = f"--stack {place.rsplit(':', 1)[-1]}"
        command = (
            f"pulumi import {token} {shlex.quote(name)} {shlex.quote(id)} {stack} "
            f"--generate-code=false --provider 'provider={self.provider}'"
        )
        if parents:
            above = f"{place}::{project}::{'$'.join(parents)}::"
            found = f"pulumi stack {stack} --show-urns | grep -o '{above}.*'"
            command += f' --parent "parent=$({found})"'
        return command


class ResourceType(ABC):
    """One resource type: its shape, and the four operations on the real thing."""

    type: str
    properties: tuple[Property, ...]
    one_at_a_time: bool = True
    """Two of one name cannot stand side by side, so a replaced object goes before its successor."""

    @abstractmethod
    def create(self, inputs: dict[str, Any], call: Call) -> Made: ...

    @abstractmethod
    def read(self, id: str, state: dict[str, Any]) -> Made | None:
        """What is there now; None where it is gone. `state` is empty on import."""

    @abstractmethod
    def update(
        self, id: str, state: dict[str, Any], inputs: dict[str, Any], call: Call
    ) -> dict[str, Any]: ...

    @abstractmethod
    def delete(self, id: str, state: dict[str, Any]) -> None: ...

    def validate(self, inputs: Mapping[str, Any]) -> Iterable[Failure]:
        """What one property alone cannot say. Values may be unknown."""
        return ()

    @property
    def inputs(self) -> dict[str, Property]:
        return {p.name: p for p in self.properties if not p.output}

    @property
    def secrets(self) -> set[str]:
        return {p.name for p in self.properties if p.secret}

    def defaults(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """The defaults for what the program leaves out."""
        return {
            p.name: p.default
            for p in self.inputs.values()
            if p.default is not None and p.name not in inputs
        }

    def check(self, inputs: Mapping[str, Any]) -> list[Failure]:
        failures = []
        for name, value in inputs.items():
            known = self.inputs.get(name)
            if known is None:
                failures.append(Failure(name, self._unknown_property(name)))
            elif complaint := known.complaint(value):
                failures.append(Failure(name, f"{self.type}: {name} {complaint}"))
        for wanted in self.inputs.values():
            if (wanted.required or wanted.named) and wanted.name not in inputs:
                why = " (names are never made up here)" if wanted.named else ""
                failures.append(
                    Failure(wanted.name, f"{self.type}: {wanted.name} is missing{why}; set it")
                )
        return failures or list(self.validate(inputs))

    def _unknown_property(self, name: str) -> str:
        return (
            f"{self.type} has no property {name} in this plug-in, which knows "
            f"{', '.join(sorted(self.inputs))}; correct the name, or install the official plug-in "
            f"with `pulumi plugin install resource {self.type.split(':')[0]}`"
        )

    def diff(
        self, state: Mapping[str, Any], inputs: Mapping[str, Any], ignore: Iterable[str] = ()
    ) -> dict[str, Change]:
        """What differs between the object as last seen and what the program asks for."""
        ignored = set(ignore)
        changes = {}
        for p in self.inputs.values():
            if p.initial or p.name in ignored:
                continue
            old, new = state.get(p.name), inputs.get(p.name)
            if new is None and p.computed:
                continue
            if not has_unknown(new) and p.equal(old, new):
                continue
            kind: Literal["add", "delete", "update"] = "update"
            if old is None:
                kind = "add"
            elif new is None:
                kind = "delete"
            changes[p.name] = Change(kind, p.replace)
        return changes

    def preview(self, inputs: Mapping[str, Any], state: Mapping[str, Any]) -> dict[str, Any]:
        """The properties after a create (`state` empty) or an update, without doing it."""
        result = {}
        for p in self.properties:
            if p.name in inputs:
                result[p.name] = inputs[p.name]
            elif p.output or p.computed:
                result[p.name] = state.get(p.name, UNKNOWN)
        return result


class Function(ABC):
    """A question that a program asks while it runs, in previews too: nothing is made."""

    token: str
    arguments: tuple[Property, ...]

    @abstractmethod
    def call(self, arguments: dict[str, Any]) -> dict[str, Any]:
        """The answer. Unknown arguments never get here."""

    def check(self, arguments: Mapping[str, Any]) -> list[Failure]:
        known = {p.name: p for p in self.arguments}
        failures = []
        for name, value in arguments.items():
            if name not in known:
                reason = f"has no argument {name}; it knows {', '.join(sorted(known))}"
                failures.append(Failure(name, f"{self.token} {reason}"))
            elif complaint := known[name].complaint(value):
                failures.append(Failure(name, f"{self.token}: {name} {complaint}"))
        for wanted in self.arguments:
            if wanted.required and wanted.name not in arguments:
                failures.append(Failure(wanted.name, f"{self.token}: {wanted.name} is missing"))
        return failures
