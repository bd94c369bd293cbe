"""The last line of the quota is there, and it grants no more than the organization does."""

from collections.abc import Iterator, Sequence

from mlhub_policies.limits import StackLimits, amount
from mlhub_policies.quantities import kubernetes
from mlhub_policies.rule import RELEASE, Finding, Resource, breach, later

QUOTA = "kubernetes:core/v1:ResourceQuota"
RANGE = "kubernetes:core/v1:LimitRange"


def hard(limits: StackLimits) -> dict[str, tuple[float, str]]:
    """What each `spec.hard` has to bound, the most, and how people write that."""
    most = limits.namespace
    return {
        "limits.cpu": (most.cpu, f"{most.cpu} cores"),
        "limits.memory": (amount(most.memory), most.memory),
        "requests.nvidia.com/gpu": (most.gpu, f"{most.gpu} GPUs"),
        "requests.storage": (amount(most.storage), most.storage),
        "pods": (most.pods, f"{most.pods} pods"),
    }


def quotas_are_within(resource: Resource, limits: StackLimits) -> Iterator[Finding]:
    if not resource.of_kubernetes:
        return
    if resource.kind == "ResourceQuota":
        held = resource.inputs.at("spec", "hard")
        for name, (most, shown) in hard(limits).items():
            node = held[name]
            if node.unknown:
                yield later(node)
                continue
            given = kubernetes(node.value)
            if given is None or given > most:
                yield breach(node, f"an amount of at most {shown} is required")
    elif resource.kind == "LimitRange":
        held = resource.inputs.at("spec", "limits")
        containers = [part for part in held.parts() if part["type"].value == "Container"]
        unknown = [part for part in held.parts() if part["type"].unknown]
        yield from (later(part) for part in unknown)
        if not containers and not unknown:
            yield breach(held, "a part of type Container with a max is required")
        for part in containers:
            for name, (most, shown) in (
                ("cpu", (limits.namespace.cpu, f"{limits.namespace.cpu} cores")),
                ("memory", (amount(limits.namespace.memory), limits.namespace.memory)),
            ):
                node = part.at("max", name)
                given = kubernetes(node.value)
                if node.unknown:
                    yield later(node)
                elif given is None or given > most:
                    yield breach(node, f"an amount of at most {shown} is required")


def users_have_a_quota(
    resources: Sequence[Resource], _limits: StackLimits
) -> Iterator[tuple[Resource, Finding]]:
    """The namespace where a hub starts user pods has a ResourceQuota and a LimitRange."""
    for release in (r for r in resources if r.type == RELEASE):
        namespace = release.inputs["namespace"]
        for kind in (QUOTA, RANGE):
            places = [r.inputs.at("metadata", "namespace") for r in resources if r.type == kind]
            if namespace.unknown or any(place.unknown for place in places):
                yield release, later(namespace)
            elif namespace.value not in {place.value for place in places}:
                name = kind.rpartition(":")[2]
                yield release, breach(namespace, f"a {name} is required in it, for users' pods")
