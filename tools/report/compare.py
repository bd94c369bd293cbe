"""One program against another, where neither is deployed.

Both are previewed from an empty state, so that every resource is one that would be created, with
its inputs. What differs between the two is what the change does by itself: no drift, nothing that
somebody else merged and has not applied yet, no secret that a state holds.
"""

import re
from collections.abc import Collection
from dataclasses import replace

from tools.report.previews import UNKNOWN, Preview, Side, Step
from tools.report.properties import Change, changes

REPLACES = {
    "kubernetes:core/v1:PersistentVolumeClaim": r"spec\.(?!resources)",
    "kubernetes:storage.k8s.io/v1:StorageClass": r"provisioner|parameters|reclaim|volumeBinding",
    "kubernetes:apps/v1:Deployment": r"spec\.selector",
    "kubernetes:apps/v1:StatefulSet": r"spec\.(selector|serviceName|volumeClaimTemplates)",
    "kubernetes:batch/v1:Job": r"spec\.(selector|template)",
    "kubernetes:rbac.authorization.k8s.io/v1:RoleBinding": r"roleRef",
    "kubernetes:rbac.authorization.k8s.io/v1:ClusterRoleBinding": r"roleRef",
    "kubernetes:helm.sh/v3:Release": r"(name|namespace)$",
    "keycloak:index/realm:Realm": r"realm$",
    "harbor:index/project:Project": r"name$",
}
"""Properties that cannot change in place, by type. The providers are not asked: they compare with
what is deployed."""
RENAMES = r"metadata\.(name|namespace)$|apiVersion$|realmId$|parentId$|clientId$|userId$"

PROVENANCE = re.compile(r"org\.opencontainers\.image\.(revision|source)")
"""Labels that say which commit an image is of: the base is unpacked without its history."""


def compared(base: Preview, head: Preview, rebuilt: Collection[str] = ()) -> Preview:
    """What of `head` is not in `base`, as a preview of steps from the one to the other.

    `rebuilt` names the images whose files changed: their inputs are the same, their digests not.
    """
    olds = {step.urn: step for step in base.steps}
    news = {step.urn: step for step in head.steps}
    steps: list[Step] = []
    unchanged = 0
    for urn, step in news.items():
        old = olds.get(urn)
        if old is None:
            steps.append(step)
            continue
        both = replace(step, op="update", old=old.new, new=step.new)
        why = tuple(replaced_for(both))
        if why:
            steps.append(replace(both, op="replace", replaced_for=why))
        elif changed(both) or (step.kind == "Image" and step.name in rebuilt):
            steps.append(both)
        else:
            unchanged += step.counts
    steps += [
        replace(step, op="delete", old=step.new, new=None)
        for urn, step in olds.items()
        if urn not in news
    ]
    return replace(head, steps=tuple(steps), unchanged=unchanged)


def changed(step: Step) -> bool:
    old, new = step.old or Side({}, {}), step.new or Side({}, {})
    return (old.protect, old.retain) != (new.protect, new.retain) or bool(differing(step))


def differing(step: Step) -> list[Change]:
    old, new = step.old or Side({}, {}), step.new or Side({}, {})
    found = list(changes(old.inputs, new.inputs))
    if step.kind == "Image":
        found = [change for change in found if not PROVENANCE.search(change.path)]
    return [change for change in found if UNKNOWN not in (change.old, change.new)]


def replaced_for(step: Step) -> list[str]:
    if step.type.startswith("random:"):
        pattern = r""
    else:
        pattern = f"^({REPLACES.get(step.type, '$^')})|^({RENAMES})"
    return sorted({change.path for change in differing(step) if re.search(pattern, change.path)})
