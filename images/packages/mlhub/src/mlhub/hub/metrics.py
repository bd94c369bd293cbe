"""What the hub shows to Prometheus beside JupyterHub's own metrics, which count starts and refusals
by reason and how long they take (`jupyterhub_server_spawn_duration_seconds`).

A label's values are words of this package or groups of the stack file, never people.
"""

import math
import time
from collections.abc import Collection, Iterable, Mapping
from datetime import datetime
from typing import Any

from jupyterhub.metrics import (  # type: ignore[import-untyped]
    SERVER_SPAWN_DURATION_SECONDS,
)
from prometheus_client import Counter, Gauge

from mlhub.admission import Charge, Holding, Hours, Quotas
from mlhub.admission.decision import REASONS, accounts
from mlhub.admission.sizes import Size, quantity
from mlhub.metrics import begin
from mlhub.workspaces.mounts import claim_name

EVERYBODY = "all"
"""In the place of a group, whose path begins with a slash."""

KINDS = ("server", "run")
CHOICE, MEMBER, UNLIMITED = "choice", "member", "unlimited"
BLIND, KEYCLOAK = "kubernetes", "keycloak"
"""Why a start is refused before, or without, a look at what is held: the profile or an option is
not on offer, the person is not in the workspace, the profile has no limit, Kubernetes or Keycloak
is silent."""

FAILURES = (
    "capacity", "choice", "container", "identity", "image", "kubernetes", "pod", "quota", "refused",
    "volume",
)  # fmt: skip
"""Why a start is refused or given up, as JupyterHub counts it: the reasons of each `Refusal`."""

ADMISSIONS = Counter(
    "mlhub_admissions",
    "Asks for a server or a run, by how they ended.",
    ["kind", "outcome", "reason"],
)
STOPS = Counter(
    "mlhub_server_stops", "Servers that ended: by a person, a culler or alone.", ["how"]
)
USED = Gauge("mlhub_quota_used", "What a group's members hold.", ["group", "dimension"])
LIMIT = Gauge("mlhub_quota_limit", "What they may hold at once.", ["group", "dimension"])
HELD = Gauge("mlhub_held", "What all servers and runs hold: cores, bytes, GPUs.", ["dimension"])
GPU_HOURS = Gauge("mlhub_gpu_hours_week", "GPU-hours since Monday 00:00 UTC.", ["group"])
VOLUMES = Gauge("mlhub_volumes", "Claims of people's data.", ["kind"])
VOLUME_BYTES = Gauge("mlhub_volume_requested_bytes", "What those claims ask for.", ["kind"])
SEEN = Gauge("mlhub_kubernetes_seen", "1 while the hub knows which pods run, otherwise 0.")
VERIFY_FAILED = Gauge("mlhub_verify_failed", "1 while the newest verification is one that failed.")
VERIFIED = Gauge(
    "mlhub_verified_timestamp_seconds",
    "When the newest successful verification began; before one is known, when the hub began.",
)
BACKED_UP = Gauge(
    "mlhub_backup_timestamp_seconds",
    "When the newest successful backup began; not a number while none is known.",
)
BACKUP_RECORD = "mlhub-backup"
"""The ConfigMap in which a backup says so."""
VERIFY_PODS = "app.kubernetes.io/name=verify,app.kubernetes.io/part-of=mlhub"
"""The pods of verifications. They stay for days, and so does what is told of them: nobody asks the
Jobs, for which the hub would need a right."""

VERIFIED.set(time.time())
BACKED_UP.set(math.nan)

begin(ADMISSIONS, kind=KINDS, outcome=["admitted"], reason=[""])
begin(
    ADMISSIONS,
    kind=KINDS,
    outcome=["refused"],
    reason=[*REASONS, CHOICE, MEMBER, UNLIMITED, BLIND, KEYCLOAK],
)
begin(STOPS, how=["stopped", "ended", "culled"])
# As `begin` does: JupyterHub begins its own words alone.
for _reason in FAILURES:
    SERVER_SPAWN_DURATION_SECONDS.labels(status="failure", reason=_reason)
SERVER_SPAWN_DURATION_SECONDS.labels(status="error", reason="exited")


def tell(held: Collection[Holding], quotas: Quotas, hours: Hours) -> None:
    """What is held now, and this week's hours."""
    groups = {Charge("group", path) for path in quotas.groups}
    for account in accounts(groups, held, quotas, hours):
        for gauge, amounts in ((USED, account.used), (LIMIT, account.limit)):
            for dimension, amount in amounts.items():
                gauge.labels(account.charge.name, dimension).set(amount)
        GPU_HOURS.labels(account.charge.name).set(hours.get(account.charge, 0.0))
    everything: Mapping[str, float] = sum((each.size for each in held), Size()).plain()
    for dimension, amount in {"servers": len(held), **everything}.items():
        HELD.labels(dimension).set(amount)
    mine = (used for charge, used in hours.items() if charge.kind == "user")
    GPU_HOURS.labels(EVERYBODY).set(sum(mine))


def tell_volumes(claims: Iterable[Mapping[str, Any]]) -> None:
    """What people's homes, workspaces and shared volumes ask for."""
    found = dict.fromkeys(("home", "workspace", "shared"), (0, 0.0))
    for claim in claims:
        kind = kind_of(claim["metadata"]["name"])
        number, size = found[kind]
        asked = claim["spec"]["resources"]["requests"]["storage"]
        found[kind] = number + 1, size + quantity(asked)
    for kind, (number, size) in found.items():
        VOLUMES.labels(kind).set(number)
        VOLUME_BYTES.labels(kind).set(size)


def tell_verified(pods: Iterable[Mapping[str, Any]]) -> None:
    """How verifications ended, by their pods."""
    ended = [
        (datetime.fromisoformat(pod["metadata"]["creationTimestamp"]).timestamp(), phase)
        for pod in pods
        if (phase := pod["status"].get("phase")) in ("Succeeded", "Failed")
    ]
    if not ended:
        return
    VERIFY_FAILED.set(max(ended)[1] == "Failed")
    if succeeded := [began for began, phase in ended if phase == "Succeeded"]:
        VERIFIED.set(max(succeeded))


def tell_backup(record: Mapping[str, str] | None) -> None:
    """When the last backup began, by its record; None where there is none."""
    began = datetime.fromisoformat(record["began"]).timestamp() if record else math.nan
    BACKED_UP.set(began)


def kind_of(claim: str) -> str:
    if claim.startswith("claim-"):
        return "home"
    return "workspace" if claim.startswith(claim_name("")) else "shared"
