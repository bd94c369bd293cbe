"""What people made stays: it is protected here and outlives the claim that asked for it.

`retainOnDelete` is not among what the engine tells a policy pack; `protect` is, and it refuses the
deletion itself.
"""

from collections.abc import Iterator

from mlhub_policies.limits import StackLimits
from mlhub_policies.rule import RELEASE, Finding, Resource, breach, later

PROTECTED = frozenset(
    {
        "kubernetes:core/v1:Namespace",
        "kubernetes:core/v1:PersistentVolumeClaim",
        "kubernetes:core/v1:PersistentVolume",
        "keycloak:index/realm:Realm",
        "keycloak:index/group:Group",
        "harbor:index/project:Project",
        RELEASE,
    }
)

RECLAIM = {
    "StorageClass": ("reclaimPolicy",),
    "PersistentVolume": ("spec", "persistentVolumeReclaimPolicy"),
}


def data_is_kept(resource: Resource, _limits: StackLimits) -> Iterator[Finding]:
    if resource.type in PROTECTED and not resource.protect:
        yield Finding("protect", "is false; true is required, for with it would go people's work")
    if resource.of_kubernetes and (place := RECLAIM.get(resource.kind)):
        policy = resource.inputs.at(*place)
        if policy.unknown:
            yield later(policy)
        elif policy.value != "Retain":
            yield breach(policy, "Retain is required, or a deleted claim takes the data with it")
    if resource.type == RELEASE:
        storage = resource.values.at("singleuser", "storage")
        kind, own = storage["type"], storage.at("dynamic", "storageClass")
        if kind.value == "none":
            yield breach(kind, "dynamic or static is required, or homes go with the pod")
        yield from (later(node) for node in (kind, own) if node.unknown)
        if kind.value in (None, "dynamic") and own.absent:
            yield breach(own, "a class that retains is required: a cluster's default may delete")
