"""What a reviewer must not overlook: lost data, wider access, looser limits, broken rules.

Each rule looks at one step, or at one object that a chart renders, and answers with sentences. It
says too much rather than too little: a rule that cannot tell says so.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from tools.report import objects
from tools.report.previews import Preview, Side, Step
from tools.report.properties import MISSING, Change, of_step, shown
from tools.report.quantities import SPAWNER, amount

HEADINGS = {
    "policy": "Breaks a rule",
    "data": "Deletes or replaces what holds data",
    "protection": "Takes protection away",
    "access": "Widens access",
    "network": "Opens the network",
    "quota": "Loosens a limit",
}
"""Kinds of danger, the worst first."""

DATA = {
    "kubernetes:core/v1:PersistentVolumeClaim": "the volume's files",
    "kubernetes:core/v1:PersistentVolume": "the volume's files",
    "kubernetes:core/v1:Namespace": "everything in the namespace, volumes included",
    "kubernetes:storage.k8s.io/v1:StorageClass": "how its volumes are kept",
    "kubernetes:core/v1:Secret": "the values that running pods use",
    "kubernetes:apps/v1:StatefulSet": "the service while it is away",
    "kubernetes:helm.sh/v3:Release": "everything that the chart installed",
    "keycloak:index/realm:Realm": "every account of the realm",
    "keycloak:index/group:Group": "the group's memberships",
    "keycloak:index/user:User": "the account",
    "keycloak:openid/client:Client": "log-in, until its users know the new client",
    "random:index/randomPassword:RandomPassword": "a generated secret",
    "random:index/randomId:RandomId": "a generated value",
    "random:index/randomUuid:RandomUuid": "a generated value",
    "harbor:index/project:Project": "every image of the project",
}
"""Types whose end costs something, and what it costs."""


@dataclass(frozen=True)
class Danger:
    kind: str
    text: str
    """Markdown; what stands in code spans came from the preview."""


def of(preview: Preview) -> list[Danger]:
    """All dangers of a preview, the worst first, each once."""
    found = [
        Danger("policy", f"{code(v.policy)}{at(v.urn)}: {prose(v.message)}")
        for v in preview.violations
        if v.mandatory
    ]
    for step in preview.steps:
        for rule in STEP_RULES:
            found += rule(step)
    order = list(HEADINGS)
    return sorted(dict.fromkeys(found), key=lambda danger: order.index(danger.kind))


def code(value: Any) -> str:
    return f"`{shown(value)}`"


def prose(text: str) -> str:
    """Foreign text in one line that is no Markdown, no HTML and calls nobody."""
    text = " ".join(text.split())
    text = re.sub(r"([\\`*_\[\]<>|~#])", r"\\\1", text[:600])
    return text.replace("@", "@\u200b")


def at(urn: str) -> str:
    name = urn.rsplit("::", 1)[-1]
    return f" at {code(name)}" if urn and "pulumi:pulumi:Stack" not in urn else ""


def label(step: Step) -> str:
    return f"{step.kind} {code(step.name)}"


def lost(step: Step) -> Iterator[Danger]:
    """Deleting or replacing data, or what is protected."""
    if step.op not in ("delete", "replace") or step.old is None:
        return
    cost = DATA.get(step.type)
    if cost is None and not step.old.protect:
        return
    verb = "deletes" if step.op == "delete" else "replaces"
    said = [f"{verb} {label(step)}"]
    if step.replaced_for:
        said.append(f"because of {', '.join(code(key) for key in step.replaced_for)}")
    if cost:
        said.append(f"and with it {cost}")
    if step.old.retain:
        said.append("(Pulumi forgets it and leaves it where it is)")
    if step.old.protect:
        said.append("— it is **protected**, so the update refuses until somebody unprotects it")
    yield Danger("data", " ".join(said))


def unprotected(step: Step) -> Iterator[Danger]:
    if step.old is None or step.new is None:
        return
    if step.old.protect and not step.new.protect:
        yield Danger("protection", f"{label(step)} is no longer protected")
    if step.old.retain and not step.new.retain:
        yield Danger(
            "protection", f"{label(step)} would no longer be kept when it leaves the stack"
        )
    for change in of_step(step):
        if change.leaf == "reclaimPolicy" and change.new == "Delete":
            yield Danger("protection", f"{label(step)}: a deleted claim deletes its volume")


def sides(step: Step) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """Inputs before and after; empty where there is none."""
    return (step.old or Side({}, {})).inputs, (step.new or Side({}, {})).inputs


def kubernetes(step: Step) -> Iterator[Danger]:
    if step.type.startswith("kubernetes:") and step.kind != "Release":
        old, new = sides(step)
        for kind, text in objects.dangers(step.kind, old, new):
            yield Danger(kind, f"{label(step)} {text}")


Rule = tuple[str, str, Callable[[Change], bool], str]


def grown(change: Change) -> bool:
    return change.new is not MISSING and bool(change.new)


def turned(to: bool) -> Callable[[Change], bool]:
    return lambda change: (
        change.new is to and change.old is not to and not (to is False and change.old is MISSING)
    )


def other(change: Change) -> bool:
    return change.old is not MISSING


def up(units: Mapping[str, float] | None) -> Callable[[Change], bool]:
    """A number that grows, or a limit that is gone."""

    def rises(change: Change) -> bool:
        if change.removed:
            return amount(change.old, units) is not None
        before, after = amount(change.old, units), amount(change.new, units)
        return before is not None and after is not None and after > before

    return rises


# fmt: off
VALUES: list[Rule] = [
    ("access", r"(access|admin|allowed|operator)_?(groups|users)(\[\]|$)", grown, "lets in"),
    ("access", r"admin_?users", grown, "lets in as admin"),
    ("access", r"allow_?all$|allow_existing_users$", turned(True), "lets everybody in"),
    ("access", r"authenticator_class$", other, "has another authenticator"),
    ("access", r"(privileged|allowPrivilegeEscalation|hostNetwork|hostPID|hostIPC)$",
     turned(True), "gives pods the host's rights"),
    ("access", r"serviceAccountName$", grown, "gives pods a service account"),
    ("access", r"(^|\.)rbac\.create$", turned(True), "makes roles"),
    ("network", r"networkPolicy\.enabled$", turned(False), "switches a network policy off"),
    ("network", r"networkPolicy\.egressAllowRules\.", turned(True), "lets pods reach more"),
    ("network", r"networkPolicy\.(in|e)gress(\[|$)", grown, "lets more through"),
    ("network", r"(service\.type$|ingress\.(enabled|hosts)|nodePorts)", grown, "is reached from"),
    ("network", r"blockWithIptables$", turned(False), "no longer blocks the metadata address"),
    ("quota", r"(custom\.mlhub\.(quota|quotas)\b|[._](cpu|extra_resource)_limits?\b|cpu\.limit$"
     r"|extraResource\.limits)", up(None), "raises a limit"),
    ("quota", r"(mem_limit|memory\.limit)$", up(SPAWNER), "raises a limit"),
    ("quota", r"(active_server_limit|concurrent_spawn_limit|named_server_limit_per_user"
     r"|activeServerLimit|concurrentSpawnLimit|namedServerLimitPerUser)$",
     up(None), "raises a limit"),
    ("quota", r"^cull\.enabled$", turned(False), "leaves idle servers running"),
]  # fmt: skip
"""Values of the hub's Release: kind, path, when, and what it does."""


def release(step: Step) -> Iterator[Danger]:
    if step.kind != "Release" or step.old is None or step.new is None:
        return
    for change in of_step(step):
        path = change.path.removeprefix("values.")
        for kind, pattern, when, does in VALUES:
            if change.path.startswith("values.") and re.search(pattern, path) and when(change):
                yield Danger(kind, f"{label(step)} {does}: {moved(path, change)}")
                break
    yield from new_profiles(step)


def new_profiles(step: Step) -> Iterator[Danger]:
    """A new profile that allows more than the largest one did."""
    old, new = (objects.profiles(side.get("values", {})) for side in sides(step))
    for slug, profile in new.items():
        if slug in old or not old:
            continue
        for trait, units in (("cpu_limit", None), ("mem_limit", SPAWNER), ("gpu", None)):
            have = amount(profile.get(trait), units)
            most = max((amount(each.get(trait), units) or 0 for each in old.values()), default=0)
            if have is None and trait != "gpu":
                yield Danger("quota", f"the new profile {code(slug)} has no {code(trait)}")
            elif have is not None and have > most:
                limit = code(profile[trait])
                yield Danger(
                    "quota",
                    f"the new profile {code(slug)} has {code(trait)} {limit}, more than any before",
                )


KEYCLOAK: list[Rule] = [
    ("access", r"^validRedirectUris", grown, "may send people to"),
    ("access", r"^validPostLogoutRedirectUris", grown, "may send people after log-out to"),
    ("access", r"^webOrigins", grown, "may be called from"),
    ("access", r"^(directAccessGrantsEnabled|implicitFlowEnabled|fullScopeAllowed"
     r"|serviceAccountsEnabled|registrationAllowed|oauth2DeviceAuthorizationGrantEnabled)$",
     turned(True), "switches on"),
    ("access", r"^accessType$", lambda c: c.new in ("PUBLIC", "BEARER-ONLY"), "needs no secret"),
    ("access", r"^pkceCodeChallengeMethod$", lambda c: c.old == "S256", "weakens PKCE"),
    ("access", r"^sslRequired$", lambda c: c.new == "none", "takes passwords without TLS"),
    ("access", r"^fullPath$", turned(False), "mixes up groups of one name"),
    ("access", r"^(groupIds|roleIds|defaultScopes|members)(\[\]|$)", grown, "gains"),
    ("access", r"^(permissions|public)", grown, "allows"),
]  # fmt: skip
"""Properties of what identity and registry make (Harbor's robots have `permissions`)."""


def identity(step: Step) -> Iterator[Danger]:
    if not step.type.startswith(("keycloak:", "harbor:")):
        return
    for change in of_step(step):
        for kind, pattern, when, does in KEYCLOAK:
            if re.search(pattern, change.path) and when(change):
                yield Danger(kind, f"{label(step)} {does}: {moved(change.path, change)}")
                break
    if step.op == "create" and step.kind in ("UserGroups", "GroupRoles", "GroupMemberships"):
        yield Danger("access", f"{label(step)} is new: somebody gains its groups or roles")


def moved(path: str, change: Change) -> str:
    if change.added:
        return f"{code(path.removesuffix('[]'))} gains {code(change.new)}"
    return f"{code(path)} {code(change.old)} → {code(change.new)}"


STEP_RULES: list[Callable[[Step], Iterable[Danger]]] = [
    lost, unprotected, kubernetes, release, identity,
]  # fmt: skip
