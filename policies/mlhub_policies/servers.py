"""How large a server may be: every profile states it, and none is beyond the organization's limits.

KubeSpawner reads a missing or empty limit as none at all, and a profile that leaves one out keeps
another's. So what is not stated is refused like what is too much.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from mlhub_policies.limits import StackLimits, amount
from mlhub_policies.pods import STRUCTURE, plain
from mlhub_policies.quantities import gibibytes, kubernetes, kubespawner_bytes
from mlhub_policies.rule import RELEASE, Finding, Resource, breach, later
from mlhub_policies.tree import Node

GPU = "nvidia.com/gpu"
OVERRIDE = "kubespawner_override"

PIECES = ("extra_container_config", "extra_containers", "init_containers", "extra_pod_config")
EVERY_PODS_PIECES = ("extraContainers", "initContainers", "extraPodConfig")
"""What KubeSpawner puts over or beside the container whose limits are stated (kubespawner,
`make_pod`). A container that states nothing gets the namespace's default."""


@dataclass(frozen=True)
class Bound:
    """One thing that a server takes: how it is read, and the most there may be."""

    read: Callable[[object], float | None]
    most: float
    wanted: str


def cpu(limits: StackLimits) -> Bound:
    most = limits.server.cpu
    return Bound(kubernetes, most, f"a limit above 0 and at most {most} cores is required")


def memory(limits: StackLimits) -> Bound:
    most = amount(limits.server.memory)
    wanted = f"a limit above 0 and at most {gibibytes(most)} is required"
    return Bound(kubespawner_bytes, most, wanted)


def stated(node: Node, bound: Bound) -> Iterator[Finding]:
    """A limit that must be there."""
    if node.unknown:
        yield later(node)
        return
    given = bound.read(node.value)
    if given is None or not 0 < given <= bound.most:
        yield breach(node, bound.wanted)


def gpus(resources: Node, limits: StackLimits, *, required: bool) -> Iterator[Finding]:
    """The extended resources of a server, each GPU by its kind."""
    yield from _no_cores_or_memory(resources)
    most = limits.server.gpu
    wanted = f"a whole number of GPUs from 0 to {most} is required"
    if resources.unknown:
        yield later(resources)
        return
    found = [node for node in resources.parts() if is_gpu(node.key)]
    if required and not any(node.key == GPU for node in found):
        missing = Node(f'{resources.path}["{GPU}"]', None)
        yield breach(missing, f"{wanted}, for a profile without it keeps another's")
    for node in found:
        if node.unknown:
            yield later(node)
            continue
        given = kubernetes(node.value)
        if given is None or given != int(given) or given > most:
            yield Finding(f'{resources.path}["{node.key}"]', f"is {node.shown()}; {wanted}")


def _no_cores_or_memory(resources: Node) -> Iterator[Finding]:
    """KubeSpawner lets extra resources win over `cpu_limit` and `mem_limit`."""
    for name in ("cpu", "memory"):
        node = resources[name]
        if node.unknown and not resources.unknown:
            yield later(node)
        elif not node.unknown and not node.absent:
            wanted = "none is required: it would take the place of the limit that a rule reads"
            yield Finding(f'{resources.path}["{name}"]', f"is {node.shown()}; {wanted}")


def unread(part: Node, pieces: tuple[str, ...]) -> Iterator[Finding]:
    """Resources that are stated elsewhere than where the limits are read."""
    for piece in pieces:
        for node in part[piece].walk():
            if node.unknown and plain(node.key) in STRUCTURE | {"resources"}:
                yield later(node)
            elif node.key == "resources" and not node.absent:
                wanted = "what a server takes is said by limits of its own, which a rule reads"
                yield breach(node, f"none is required: {wanted}")


def is_gpu(name: str) -> bool:
    """`nvidia.com/gpu`, `nvidia.com/mig-1g.5gb`, `amd.com/gpu`, `gpu.intel.com/i915` …"""
    return "gpu" in name or "mig-" in name


def override(node: Node, limits: StackLimits, *, whole: bool) -> Iterator[Finding]:
    """A profile's `kubespawner_override` (`whole`), or the part of it that one choice replaces."""
    for key, bound in (("cpu_limit", cpu(limits)), ("mem_limit", memory(limits))):
        if whole or (isinstance(node.value, dict) and key in node.value):
            yield from stated(node[key], bound)
    yield from unread(node, PIECES)
    extra = node["extra_resource_limits"]
    if whole or not extra.absent:
        yield from gpus(extra, limits, required=True)


def profiles(values: Node) -> Iterator[Node]:
    yield from values.at("singleuser", "profileList").parts()


def choices(profile: Node) -> Iterator[Node]:
    """What a person may pick in a profile; each replaces a part of its override."""
    for option in profile["profile_options"].parts():
        yield from option["choices"].parts()


def sizes_are_stated(resource: Resource, limits: StackLimits) -> Iterator[Finding]:
    if resource.type != RELEASE:
        return
    singleuser = resource.values["singleuser"]
    if singleuser.unknown or singleuser["profileList"].unknown:
        yield later(singleuser["profileList"])
        return
    yield from stated(singleuser.at("cpu", "limit"), cpu(limits))
    yield from stated(singleuser.at("memory", "limit"), memory(limits))
    extra = singleuser.at("extraResource", "limits")
    yield from gpus(extra, limits, required=False)
    yield from unread(singleuser, EVERY_PODS_PIECES)
    for profile in profiles(resource.values):
        yield from override(profile[OVERRIDE], limits, whole=True)
        for choice in choices(profile):
            yield from override(choice[OVERRIDE], limits, whole=False)


def admission_is_within(resource: Resource, limits: StackLimits) -> Iterator[Finding]:
    """What the hub's admission takes for the largest server, on whichever way it is asked."""
    if resource.type != RELEASE:
        return
    quotas = resource.values.at("custom", "mlhub", "quotas")
    server, most = quotas["server"], limits.server
    for node, bound in (
        (server["cpu"], cpu(limits)),
        (server["memory"], replace(memory(limits), read=kubernetes)),
        (server["gpu"], Bound(kubernetes, most.gpu, f"at most {most.gpu} GPUs are required")),
        (
            quotas.at("user", "servers"),
            Bound(kubernetes, limits.user_servers, f"at most {limits.user_servers} is required"),
        ),
    ):
        given = bound.read(node.value)
        if node.unknown:
            yield later(node)
        elif given is None or given > bound.most:
            yield breach(node, bound.wanted)


def choices_are_listed(resource: Resource, _limits: StackLimits) -> Iterator[Finding]:
    """What people type is seen by no rule: not by this pack, and not before the server starts."""
    if resource.type != RELEASE:
        return
    for profile in profiles(resource.values):
        for option in profile["profile_options"].parts():
            enabled = option.at("unlisted_choice", "enabled")
            if enabled.unknown:
                yield later(enabled)
            elif enabled.value:
                yield breach(enabled, "list the choices instead: no rule sees what people type")
