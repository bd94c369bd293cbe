"""No pod reaches into its node, and no user's pod into the cluster.

Looked for by name, in every Kubernetes object and in the whole of a Release's values: wherever a
chart or a spawner takes a piece of a pod, Kubernetes' and KubeSpawner's spellings are the same but
for underscores.
"""

from collections.abc import Callable, Iterable, Iterator

from mlhub_policies.limits import StackLimits
from mlhub_policies.rule import RELEASE, Finding, Resource, breach, later
from mlhub_policies.tree import Node

TEXTS = frozenset({"data", "stringData", "labels", "annotations", "matchLabels", "extraConfig"})
"""Texts beneath these names are the user's, and no part of a pod. A profile's option or choice may
be called so as well, and holds more than texts."""


def truthy(node: Node) -> bool:
    return node.value is True or str(node.value).lower() == "true"


def given(node: Node) -> bool:
    return not node.absent and node.value not in ("", False, 0)


def root(node: Node) -> bool:
    return not isinstance(node.value, bool) and node.value in (0, "0")


FORBIDDEN: dict[str, tuple[Callable[[Node], bool], str]] = {
    "privileged": (truthy, "a pod without privileges is required"),
    "allowprivilegeescalation": (truthy, "false is required"),
    "hostnetwork": (truthy, "a pod with a network of its own is required"),
    "hostpid": (truthy, "a pod with processes of its own is required"),
    "hostipc": (truthy, "a pod with memory of its own is required"),
    "hostpath": (given, "a volume that is no folder of the node is required"),
    "hostprocess": (truthy, "a pod of its own is required"),
    "hostport": (given, "a Service is required where a port has to be reached"),
    "runasuser": (root, "a user other than root is required"),
    "runasgroup": (root, "a group other than root's is required"),
    "runasnonroot": (lambda node: node.value is False, "true is required"),
    "procmount": (lambda node: node.value not in (None, "Default"), "Default is required"),
    "uid": (root, "a user other than root is required"),
    "blockwithiptables": (truthy, "false is required, for it adds a privileged container"),
}
"""What may not be, by a name in small letters without underscores, and what to do instead."""

STRUCTURE = frozenset(
    {
        "spec", "template", "containers", "initcontainers", "extracontainers", "volumes",
        "extravolumes", "securitycontext", "containersecuritycontext", "podsecuritycontext",
        "extrapodconfig", "extracontainerconfig", "kubespawneroverride", "singleuser", "hub",
        "proxy", "chp", "values", "profilelist", "profileoptions", "choices", "ports", "storage",
        "cloudmetadata", "seccompprofile", "capabilities", "",
    }
)  # fmt: skip
"""Where an unknown value could hide one of the forbidden; the last is a Release's values."""


def plain(name: str) -> str:
    return name.replace("_", "").lower()


def nothing_of_the_node(resource: Resource, _limits: StackLimits) -> Iterator[Finding]:
    if not resource.of_kubernetes:
        return
    top = resource.values if resource.type == RELEASE else resource.inputs
    for node in top.walk(skip=TEXTS):
        name = plain(node.key)
        forbidden = FORBIDDEN.get(name)
        if node.unknown:
            if forbidden or name in STRUCTURE:
                yield later(node)
        elif forbidden and forbidden[0](node):
            yield breach(node, forbidden[1])
        elif name == "capabilities" and any(node["add"].parts()):
            added = node["add"]
            wanted = "a container that adds no capability is required"
            yield later(added) if added.unknown else breach(added, wanted)
        elif name == "seccompprofile" and node["type"].unknown:
            yield later(node["type"])
        elif name == "seccompprofile" and node["type"].value == "Unconfined":
            yield breach(node["type"], "RuntimeDefault is required")
    if resource.type == RELEASE:
        yield from _metadata_is_not_blocked_by_privilege(resource.values)


def _metadata_is_not_blocked_by_privilege(values: Node) -> Iterator[Finding]:
    """The official chart adds the privileged container unless told not to."""
    node = values.at("singleuser", "cloudMetadata", "blockWithIptables")
    if node.absent and not values["singleuser"].unknown:
        yield breach(node, FORBIDDEN["blockwithiptables"][1])


CONTAINERS = frozenset({"containers", "initcontainers", "extracontainers"})
READ_ONLY = "readOnlyRootFilesystem"


def images_are_read_only(resource: Resource, _limits: StackLimits) -> Iterator[Finding]:
    """Stated wherever a container's security is: what a profile states replaces what `mlhub.hub`
    says of users' pods, and the official chart says nothing of hub and proxy."""
    if not resource.of_kubernetes:
        return
    release = resource.type == RELEASE
    for node in (resource.values if release else resource.inputs).walk(skip=TEXTS):
        if node.unknown and plain(node.key) in STRUCTURE:
            yield later(node)
        elif not node.unknown:
            yield from _read_only(_contexts(node))
    if release:
        hub_and_proxy = (resource.values["hub"], resource.values.at("proxy", "chp"))
        contexts = (part["containerSecurityContext"] for part in hub_and_proxy)
        yield from _read_only(context for context in contexts if context.absent)


def _contexts(node: Node) -> Iterator[Node]:
    """The containers' security contexts that are stated right at a node."""
    name = plain(node.key)
    if name in CONTAINERS and not node.path.endswith("]"):
        yield from (container["securityContext"] for container in node.parts())
    elif name == "containersecuritycontext":
        yield node
    elif name == "extracontainerconfig":
        yield from (part for part in node.parts() if plain(part.key) == "securitycontext")


def _read_only(contexts: Iterable[Node]) -> Iterator[Finding]:
    for context in contexts:
        node = context[READ_ONLY]
        if node.unknown:
            yield later(node)
        elif node.value is not True:
            yield breach(node, "true is required: what is written to has a volume")


def namespaces_are_restricted(resource: Resource, _limits: StackLimits) -> Iterator[Finding]:
    """Pod Security's last word, also over what no rule sees."""
    if not resource.of_kubernetes or resource.kind != "Namespace":
        return
    labels = resource.inputs.at("metadata", "labels")
    label = labels["pod-security.kubernetes.io/enforce"]
    if label.unknown:
        yield later(label)
    elif label.value != "restricted":
        yield breach(label, "restricted is required")


def user_pods_know_no_cluster(resource: Resource, _limits: StackLimits) -> Iterator[Finding]:
    """A user's pod carries no token of the cluster's."""
    if resource.type != RELEASE:
        return
    for node in resource.values["singleuser"].walk(skip=TEXTS):
        name = plain(node.key)
        if node.unknown and name in STRUCTURE:
            yield later(node)
        if name == "automountserviceaccounttoken" and (node.unknown or truthy(node)):
            yield later(node) if node.unknown else breach(node, "false is required")
        if name in ("serviceaccountname", "serviceaccount") and given(node):
            wanted = "none is required: a user's pod has no business with the cluster"
            yield later(node) if node.unknown else breach(node, wanted)
        if name == "serviceaccounttoken" and given(node):
            wanted = "a volume without a token of the cluster's is required"
            yield later(node) if node.unknown else breach(node, wanted)


ALL = "*"
OTHERS = frozenset({"escalate", "bind", "impersonate"})
"""Verbs by which who has few rights takes those of others."""

EVERYBODY = frozenset(
    {"system:authenticated", "system:unauthenticated", "system:serviceaccounts", "system:anonymous"}
)


def rights_are_small(resource: Resource, _limits: StackLimits) -> Iterator[Finding]:
    """No binding to cluster-admin or to everybody, no role over everything."""
    if resource.kind in ("ClusterRoleBinding", "RoleBinding"):
        role = resource.inputs.at("roleRef", "name")
        if role.unknown:
            yield later(role)
        elif role.value in ("cluster-admin", "admin", "edit"):
            yield breach(role, "a role of the few verbs that are needed is required")
        for subject in resource.inputs["subjects"].parts():
            name = subject["name"]
            text = str(name.value)
            if name.unknown:
                yield later(name)
            elif text in EVERYBODY or text.startswith("system:serviceaccounts:"):
                yield breach(name, "one service account is required")
            elif text == "default" and subject["kind"].value == "ServiceAccount":
                yield breach(name, "a service account of its own is required: default is every pod")
    if resource.kind in ("ClusterRole", "Role"):
        yield from _role(resource.inputs)


def _role(role: Node) -> Iterator[Finding]:
    for rule in role["rules"].parts():
        for node in (*rule["verbs"].parts(), *rule["resources"].parts()):
            if node.unknown:
                yield later(node)
            elif node.value == ALL:
                yield breach(node, "the names of those that are needed are required")
            elif node.key == "verbs" and node.value in OTHERS:
                yield breach(node, "another is required: by it come rights that are not here")
        yield from _secrets_unread(rule)
    collected = role["aggregationRule"]
    if collected.unknown:
        yield later(collected)
    elif not collected.absent:
        yield breach(collected, "rules are required: those of other roles are not seen here")


def _secrets_unread(rule: Node) -> Iterator[Finding]:
    """To make a Secret is no right to read those of others."""
    if not any(node.value == "secrets" for node in rule["resources"].parts()):
        return
    if any(True for _ in rule["resourceNames"].parts()):
        return
    for node in rule["verbs"].parts():
        if node.value in ("get", "list", "watch"):
            yield breach(node, "resourceNames are required: all Secrets are everybody's")
