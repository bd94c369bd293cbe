"""What `pulumi preview --json` says, in either of its two forms, as steps with two sides.

The stream of events (PULUMI_ENABLE_STREAMING_JSON_PREVIEW=true) is what the tools ask for: it alone
has policy violations. The one document that the CLI prints otherwise is read as well.
"""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from tools.report import redact

SIGNATURE = "4dabf18193072939515e22adb298388d"
"""Key of an object that wraps a secret, asset or archive (Pulumi, sdk/go/common/resource)."""
PLACEHOLDER = "04da6b54-80e4-46f7-96ec-b56ff0331ba9"
"""What the engine writes for a value that only the update makes known."""
UNKNOWN = "(known after the update)"

URN = re.compile(r"[\"']?urn:pulumi:[^:\s]+::[^:\s]+::(\S+?)::([^\s\"']+)[\"']?")

ASIDE = "info#err"
"""The severity of what a program or a policy pack wrote to standard error: the reason where one
ends before it could give another."""

SHOWN = {"create", "update", "replace", "delete", "import", "read"}
ROOT = "pulumi:pulumi:Stack"


@dataclass(frozen=True)
class Side:
    """A resource before or after, with every secret hidden."""

    inputs: dict[str, Any]
    outputs: dict[str, Any]
    parent: str = ""
    protect: bool = False
    retain: bool = False


@dataclass(frozen=True)
class Step:
    """What happens to one resource."""

    op: str
    urn: str
    custom: bool
    old: Side | None = None
    new: Side | None = None
    replaced_for: tuple[str, ...] = ()
    """The properties because of which it is replaced."""
    detailed: Mapping[str, str] = field(default_factory=dict)
    """Property path to `add`, `delete`, `update` and the like, as far as the provider says."""

    @property
    def type(self) -> str:
        return type_of(self.urn)

    @property
    def name(self) -> str:
        return self.urn.rsplit("::", 1)[-1]

    @property
    def kind(self) -> str:
        """The last part of the type: `PersistentVolumeClaim`."""
        return kind_of(self.type)

    @property
    def side(self) -> Side:
        side = self.new or self.old
        return side if side is not None else Side({}, {})

    @property
    def component(self) -> str:
        """The component that holds it, by name; empty for what stands at the top."""
        parent = self.side.parent
        return "" if not parent or type_of(parent) == ROOT else parent.rsplit("::", 1)[-1]

    @property
    def counts(self) -> bool:
        """Whether it is a thing of the world: components and providers are Pulumi's own."""
        return self.custom and not self.type.startswith("pulumi:")


@dataclass(frozen=True)
class Violation:
    """What the policy pack says."""

    policy: str
    urn: str
    message: str
    mandatory: bool


@dataclass(frozen=True)
class Preview:
    """One stack's preview."""

    steps: tuple[Step, ...] = ()
    unchanged: int = 0
    errors: tuple[str, ...] = ()
    violations: tuple[Violation, ...] = ()
    failed: bool = False

    def of(self, op: str) -> list[Step]:
        return [step for step in self.steps if step.op == op and step.counts]


def type_of(urn: str) -> str:
    """The resource's own type, without those of its parents."""
    parts = urn.split("::")
    return parts[2].rsplit("$", 1)[-1] if len(parts) > 2 else ""


class NotAPreviewError(Exception):
    """The text is not what `pulumi preview --json` prints; the message says what it begins with."""


def read(text: str) -> Preview:
    """A preview from what the CLI printed on standard output."""
    body = text[text.find("{") :] if "{" in text else ""
    try:
        first, end = json.JSONDecoder().raw_decode(body)
    except ValueError:
        begins = redact.text(text.strip()[:200]) or "nothing"
        raise NotAPreviewError(
            f"expected what `pulumi preview --json` prints, got: {begins}"
        ) from None
    if "sequence" not in first:
        return from_digest(first)
    lines = body[:end], *body[end:].splitlines()
    return from_events(json.loads(line) for line in lines if line.startswith("{"))


def from_digest(document: Mapping[str, Any]) -> Preview:
    """From the one document: no policy violations are in it."""
    steps = [
        step(raw["op"], raw["urn"], raw.get("oldState"), raw.get("newState"), raw)
        for raw in document.get("steps") or []
        if raw["op"] in SHOWN
    ]
    said = document.get("diagnostics") or []
    errors = [each["message"] for each in said if each.get("severity") == "error"]
    return Preview(
        steps=in_order(each for each in steps if each.type != ROOT),
        unchanged=int((document.get("changeSummary") or {}).get("same", 0)),
        errors=sentences(errors),
        failed=bool(errors),
    )


def from_events(events: Iterable[Mapping[str, Any]]) -> Preview:
    """From the stream; one that has no summary at its end was broken off, and has failed."""
    steps: dict[str, Step] = {}
    same: set[str] = set()
    errors: list[str] = []
    aside: list[str] = []
    violations: dict[Violation, None] = {}
    succeeded = False
    status = 0
    for event in events:
        if found := event.get("resourcePreEvent"):
            meta = found["metadata"]
            if meta["op"] in SHOWN and type_of(meta["urn"]) != ROOT:
                steps[meta["urn"]] = step(
                    meta["op"], meta["urn"], meta.get("old"), meta.get("new"), meta
                )
            elif meta["op"] == "same" and (meta.get("new") or {}).get("custom"):
                same.add(meta["urn"])
                if loses_protection(meta):
                    steps[meta["urn"]] = step("same", meta["urn"], meta["old"], meta["new"], meta)
        elif found := event.get("diagnosticEvent"):
            if found.get("severity") == "error":
                errors.append(located(found.get("urn"), found["message"]))
            elif found.get("severity") == ASIDE:
                aside.append(found["message"])
        elif found := event.get("policyEvent"):
            violation = Violation(
                policy=found["policyName"],
                urn=found.get("resourceUrn") or "",
                message=redact.text(found["message"].strip()),
                mandatory=found.get("enforcementLevel") == "mandatory",
            )
            violations[violation] = None
        elif found := event.get("summaryEvent"):
            succeeded = found.get("result") != "failed"
        elif found := event.get("exitEvent"):
            status = found["status"]
            aside.append(found["said"])
    failed = not succeeded or status != 0 or bool(errors)
    said = sentences(errors)
    if failed and not said and not any(each.mandatory for each in violations):
        said = sentences(aside)
    changed = {urn for urn, each in steps.items() if each.op != "same"}
    same = {urn for urn in same - changed if not type_of(urn).startswith("pulumi:")}
    return Preview(
        steps=in_order(steps.values()),
        unchanged=len(same),
        errors=said,
        violations=tuple(violations),
        failed=failed,
    )


def exit_event(status: int, said: str) -> str:
    """A line of the stream that the engine does not write: how the CLI itself ended."""
    return json.dumps({"sequence": 0, "exitEvent": {"status": status, "said": said}}) + "\n"


def loses_protection(meta: Mapping[str, Any]) -> bool:
    """Whether a resource that stays as it is would be guarded less."""
    old, new = meta.get("old") or {}, meta.get("new") or {}
    return any(old.get(flag) and not new.get(flag) for flag in ("protect", "retainOnDelete"))


def in_order(steps: Iterable[Step]) -> tuple[Step, ...]:
    """By component, kind and name: the engine's own order differs from run to run."""
    return tuple(sorted(steps, key=lambda each: (each.component, each.kind, each.name)))


def step(
    op: str, urn: str, old: Mapping[str, Any] | None, new: Mapping[str, Any] | None, raw: Any
) -> Step:
    kinds = {
        path: each.get("diffKind") or each.get("kind") or "update"
        for path, each in (raw.get("detailedDiff") or {}).items()
    }
    return Step(
        op=op,
        urn=urn,
        custom=bool((new or old or {}).get("custom")),
        old=side(old),
        new=side(new),
        replaced_for=tuple(raw.get("keys") or raw.get("replaceReasons") or ()),
        detailed=kinds,
    )


def side(state: Mapping[str, Any] | None) -> Side | None:
    if state is None:
        return None
    return Side(
        inputs=redact.tree(plain(state.get("inputs") or {})),
        outputs=redact.tree(plain(state.get("outputs") or {})),
        parent=state.get("parent") or "",
        protect=bool(state.get("protect")),
        retain=bool(state.get("retainOnDelete")),
    )


def plain(value: Any) -> Any:
    """Without the engine's wrappers: a secret is SECRET, what is not known yet is UNKNOWN."""
    if isinstance(value, Mapping):
        if SIGNATURE in value:
            return redact.SECRET
        return {key: plain(part) for key, part in value.items()}
    if isinstance(value, list):
        return [plain(part) for part in value]
    return UNKNOWN if isinstance(value, str) and PLACEHOLDER in value else value


def kind_of(chain: str) -> str:
    """`Group` of `mlhub:identity:Identity$keycloak:index/group:Group`."""
    return chain.rsplit("$", 1)[-1].rsplit(":", 1)[-1]


def located(urn: str | None, message: str) -> str:
    if not urn or type_of(urn) == ROOT or urn in message:
        return message
    return f"{kind_of(urn.split('::')[2])} {urn.rsplit('::', 1)[-1]}: {message}"


def sentences(messages: Iterable[str]) -> tuple[str, ...]:
    """Each error once, without the engine's prefix and the last line that says nothing more."""
    found: dict[str, None] = {}
    for message in messages:
        said = redact.text(message.strip()).removeprefix("error: ").strip()
        said = URN.sub(lambda found: f"{kind_of(found[1])} {found[2]}", said)
        if said and said not in ("preview failed", "update failed"):
            found[said] = None
    return tuple(found)
