"""Who may talk to whom, and that nobody listens on the way."""

import ipaddress
import re
from collections.abc import Iterator, Sequence
from typing import TypeGuard

from mlhub_policies.limits import StackLimits
from mlhub_policies.rule import RELEASE, Finding, Resource, breach, later
from mlhub_policies.tree import Node

USERS = ("singleuser",)
PROXY = ("proxy", "chp")
POLICED = (("hub",), PROXY, USERS)
FEW = 256
SHORTEST_IPV6 = 16
"""A prefix that is shorter is a part of the internet, which is 2000::/3."""

DNS = 53
PRIVATE = (
    "10.0.0.0/8", "100.64.0.0/10", "169.254.0.0/16", "172.16.0.0/12", "192.168.0.0/16",
    "198.18.0.0/15", "240.0.0.0/4",
)  # fmt: skip
"""Where clusters have pods, nodes and agents, and the internet has nothing: RFC 1918, 6598, 3927
and 2544, and class E."""

REDIRECTS = frozenset({"ssl-redirect", "force-ssl-redirect"})
"""Annotations of ingress-nginx without which a browser may stay with plain HTTP."""

LISTENERS = re.compile(r"mirror-target|auth-url|server-alias|.*-snippet")
"""Annotations of ingress-nginx that give requests, cookies and all, to somebody else, serve a host
that no certificate names, or are its configuration, which may be anything."""

USERS_LABELS = {
    "app": "jupyterhub",
    "component": "singleuser-server",
    "app.kubernetes.io/name": "jupyterhub",
    "app.kubernetes.io/component": "singleuser-server",
}
"""Those of users' pods, by the official chart and KubeSpawner; runs have the same."""

OF_NAMESPACE = "kubernetes.io/metadata.name"
"""The label of a namespace that is its name."""

NAMESPACE = "kubernetes:core/v1:Namespace"
POLICY = "kubernetes:networking.k8s.io/v1:NetworkPolicy"

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def policies_are_on(resource: Resource, _limits: StackLimits) -> Iterator[Finding]:
    if resource.of_kubernetes and resource.kind == "NetworkPolicy":
        yield from _of_its_own(resource)
    if resource.type != RELEASE:
        return
    for place in POLICED:
        policy = resource.values.at(*place, "networkPolicy")
        enabled = policy["enabled"]
        if enabled.unknown:
            yield later(enabled)
        elif enabled.value is not True:
            yield breach(enabled, "true is required")
        access = policy["interNamespaceAccessLabels"]
        if access.unknown:
            yield later(access)
        elif access.value not in (None, "ignore"):
            yield breach(access, "ignore is required: a label alone would open every namespace")
        ports = policy["allowedIngressPorts"]
        if place != PROXY and (ports.unknown or ports.value):
            wanted = "none is required: it would be open to everybody"
            yield later(ports) if ports.unknown else breach(ports, wanted)
        yield from _rules(policy, resource.inputs["namespace"], users=place == USERS)
    rules = resource.values.at("singleuser", "networkPolicy", "egressAllowRules")
    for name, why in (
        ("cloudMetadataServer", "the node's credentials are there"),
        ("privateIPs", "other people's pods are there"),
    ):
        node = rules[name]
        if node.unknown or node.value:
            yield later(node) if node.unknown else breach(node, f"false is required: {why}")
    internet = rules["nonPrivateIPs"]
    if internet.unknown:
        yield later(internet)
    elif internet.value is not False:
        why = "pods and agents of clouds are in 100.64.0.0/10 and 169.254.0.0/16"
        yield breach(internet, f"false is required: {why}")


def _of_its_own(resource: Resource) -> Iterator[Finding]:
    """One beside the chart's. Those that choose a pod add up, so it has to be as narrow."""
    spec, namespace = resource.inputs["spec"], resource.inputs.at("metadata", "namespace")
    if resource.type != POLICY:
        yield Finding("spec", "is no whole NetworkPolicy; one is required, which a rule can read")
        return
    unknown = _unknown_labels(spec["podSelector"])
    yield from (later(node) for node in unknown)
    users = not unknown and _may_be_users(spec["podSelector"])
    yield from _rules(spec, namespace, users=users)


def _rules(policy: Node, namespace: Node, *, users: bool) -> Iterator[Finding]:
    """Of a NetworkPolicy's spec or what the chart puts into one; `users`: of users' pods."""
    for direction in ("ingress", "egress"):
        for rule in policy[direction].parts():
            if rule.unknown:
                yield later(rule)
            elif rule.value == {}:
                yield breach(rule, "a rule that names peers or ports is required")
            elif direction == "egress":
                yield from _somewhere(rule, few=users)
            elif users:
                yield from _callers(rule, namespace)
    if users:
        yield from _few_in_all(policy["egress"])


def _callers(rule: Node, namespace: Node) -> Iterator[Finding]:
    """Who may come to users' pods: no address, where other people are, and no other user."""
    peers = rule["from"]
    if not peers.unknown and not any(peers.parts()):
        yield breach(peers, "pods are required: without, it means everybody")
    for peer in peers.parts():
        if peer.unknown:
            yield later(peer)
            continue
        if not peer["ipBlock"].absent:
            wanted = "pods are required: anybody may be behind an address"
            unknown = peer["ipBlock"].unknown
            yield later(peer["ipBlock"]) if unknown else breach(peer["ipBlock"], wanted)
            continue
        yield from _namespaces(peer["namespaceSelector"])
        of_pods = peer["podSelector"]
        if _is_elsewhere(peer["namespaceSelector"], namespace):
            continue
        if unknown_labels := _unknown_labels(of_pods):
            yield from (later(node) for node in unknown_labels)
        elif _may_be_users(of_pods):
            yield breach(of_pods, "labels are required that no user's pod has")


def _is_elsewhere(selector: Node, namespace: Node) -> bool:
    """Whether pods of a namespace are chosen that is not the policy's own."""
    name = selector.at("matchLabels", OF_NAMESPACE)
    return not name.absent and not name.unknown and name.value != namespace.value


def _unknown_labels(selector: Node) -> list[Node]:
    labels = selector["matchLabels"]
    parts = [selector] if selector.unknown else [labels[name] for name in USERS_LABELS]
    return [node for node in parts if node.unknown]


def _may_be_users(selector: Node) -> bool:
    """Whether no label that it asks for is other than users' pods'."""
    labels = selector["matchLabels"]
    return all(labels[name].value in (None, value) for name, value in USERS_LABELS.items())


def _few_in_all(egress: Node) -> Iterator[Finding]:
    """Of ranges that are few each there may be as many as one likes."""
    old: list[ipaddress.IPv4Network] = []
    new: list[ipaddress.IPv6Network] = []
    for rule in egress.parts():
        for peer in () if rule.unknown or _names_alone(rule) else rule["to"].parts():
            network = _network(str(peer.at("ipBlock", "cidr").value))
            if not _is_few(network):
                continue
            if isinstance(network, ipaddress.IPv4Network):
                old.append(network)
            else:
                new.append(network)
    count = sum(each.num_addresses for each in ipaddress.collapse_addresses(old))
    count += sum(each.num_addresses for each in ipaddress.collapse_addresses(new))
    if count > FEW:
        yield Finding(egress.path, f"names {count} addresses; at most {FEW} in all are required")


def _somewhere(rule: Node, *, few: bool = False) -> Iterator[Finding]:
    """A rule that names no one means everywhere, which names alone (DNS) may be asked."""
    peers = rule["to"]
    if _names_alone(rule):
        return
    if peers.unknown:
        yield later(peers)
        return
    if not any(peers.parts()):
        yield breach(peers, "pods or addresses are required: without, it means everywhere")
    for peer in peers.parts():
        yield from _addresses(peer["ipBlock"], few=few)
        yield from _namespaces(peer["namespaceSelector"])


def _names_alone(rule: Node) -> bool:
    """Whether the port of DNS is all that is open; a resolver may be at any address."""
    ports = list(rule["ports"].parts())
    return bool(ports) and all(p["port"].value == DNS and p["endPort"].absent for p in ports)


def _addresses(block: Node, *, few: bool) -> Iterator[Finding]:
    """To the internet, or to `few` addresses: a range that holds other people's pods would be
    `privateIPs` by another name."""
    cidr = block["cidr"]
    if cidr.unknown:
        yield later(cidr)
        return
    network = None if cidr.absent else _network(str(cidr.value))
    if isinstance(network, ipaddress.IPv4Network) and _holds(network):
        yield from _internet(network, block["except"])
    elif isinstance(network, ipaddress.IPv6Network) and network.prefixlen < SHORTEST_IPV6:
        yield breach(cidr, "fewer addresses are required: it means everywhere")
    elif few and not cidr.absent and not _is_few(network):
        yield breach(cidr, f"at most {FEW} addresses are required, and none of 169.254.0.0/16")


def _holds(network: ipaddress.IPv4Network) -> list[str]:
    """The private ranges that a larger one holds. Halves of all addresses are such, too."""
    private = {text: ipaddress.IPv4Network(text) for text in PRIVATE}
    return [text for text, of in private.items() if of != network and of.subnet_of(network)]


def _internet(network: ipaddress.IPv4Network, exceptions: Node) -> Iterator[Finding]:
    """All addresses but those where clusters have pods, nodes and agents."""
    unknown = [part for part in exceptions.parts() if part.unknown]
    if unknown:
        yield later(unknown[0])
        return
    named = [_network(str(part.value)) for part in exceptions.parts()]
    closed = [each for each in named if isinstance(each, ipaddress.IPv4Network)]
    opened = [
        private
        for private in _holds(network)
        if not any(ipaddress.IPv4Network(private).subnet_of(each) for each in closed)
    ]
    if opened:
        are = "are" if len(opened) > 1 else "is"
        wanted = f"{', '.join(opened)} {are} required in it, or it means everywhere"
        yield breach(exceptions, wanted)


def _network(cidr: str) -> Network | None:
    try:
        return ipaddress.ip_network(cidr, strict=False)
    except ValueError:
        return None


def _is_few(network: Network | None) -> TypeGuard[Network]:
    return network is not None and network.num_addresses <= FEW and not network.is_link_local


def _namespaces(selector: Node) -> Iterator[Finding]:
    """Of a selector that is there and empty every namespace is one."""
    chosen = (selector["matchLabels"], selector["matchExpressions"])
    if any(node.unknown for node in chosen):
        yield later(selector)
    elif not selector.absent and not any(node.value for node in chosen):
        yield breach(selector, "a namespace's label is required: without, it means every one")


def closed_namespaces(
    resources: Sequence[Resource], _limits: StackLimits
) -> Iterator[tuple[Resource, Finding]]:
    """Each namespace has a policy that refuses whatever no other allows."""
    closing = [r for r in resources if r.type == POLICY and _closes(r.inputs["spec"])]
    names = [r.inputs.at("metadata", "namespace") for r in closing]
    perhaps = [
        r.inputs.at("metadata", "namespace")
        for r in resources
        if r.type == POLICY and _may_close(r.inputs["spec"])
    ]
    for namespace in (r for r in resources if r.type == NAMESPACE):
        name = namespace.inputs.at("metadata", "name")
        if any(not n.unknown and n.value == name.value for n in names):
            continue
        if name.unknown or any(n.unknown or n.value == name.value for n in perhaps):
            yield namespace, later(name)
            continue
        yield (
            namespace,
            breach(
                name,
                "a NetworkPolicy in it is required with podSelector {}, policyTypes Ingress and "
                "Egress, and no rule",
            ),
        )


def _closes(spec: Node) -> bool:
    return (
        not spec.at("podSelector", "matchLabels").value
        and not spec.at("podSelector", "matchExpressions").value
        and {node.value for node in spec["policyTypes"].parts()} == {"Ingress", "Egress"}
        and not any(spec["ingress"].parts())
        and not any(spec["egress"].parts())
    )


def _may_close(spec: Node) -> bool:
    """Whether a policy closes, as far as it is known."""
    places = (
        spec.at("podSelector", "matchLabels"),
        spec.at("podSelector", "matchExpressions"),
        *spec["policyTypes"].parts(),
        spec["ingress"],
        spec["egress"],
    )
    return _closes(spec) or any(place.unknown for place in places)


def browsers_come_by_tls(resource: Resource, limits: StackLimits) -> Iterator[Finding]:
    if resource.type == RELEASE:
        yield from _hub(resource.values, limits)
    elif resource.kind == "Ingress" and resource.of_kubernetes:
        yield from _hosts(
            resource.inputs.at("spec", "tls"),
            [rule["host"] for rule in resource.inputs.at("spec", "rules").parts()],
        )
        yield from _annotations(resource.inputs.at("metadata", "annotations"), limits)
    elif resource.type == "pulumi:providers:keycloak":
        skip = resource.inputs["tlsInsecureSkipVerify"]
        if skip.unknown:
            yield later(skip)
        elif str(skip.value).lower() == "true":
            yield breach(skip, "false is required: name the authority in rootCaCertificate")
        if not limits.plain_http:
            yield from _https(resource.inputs["url"])
    elif resource.type == "keycloak:openid/client:Client" and not limits.plain_http:
        for node in resource.inputs["validRedirectUris"].parts():
            yield from _https(node)
    elif resource.type == "keycloak:index/realm:Realm":
        required = resource.inputs["sslRequired"]
        if required.unknown:
            yield later(required)
        elif required.value == "none":
            yield breach(required, "external or all is required")


def _https(node: Node) -> Iterator[Finding]:
    if node.unknown:
        yield later(node)
    elif not str(node.value).startswith("https://"):
        yield breach(node, "an address that begins with https:// is required")


def _hub(values: Node, limits: StackLimits) -> Iterator[Finding]:
    ingress = values["ingress"]
    if ingress["enabled"].value is True:
        yield from _hosts(ingress["tls"], list(ingress["hosts"].parts()))
        yield from _annotations(ingress["annotations"], limits)
    elif ingress["enabled"].unknown:
        yield later(ingress["enabled"])
    elif not limits.plain_http:
        yield breach(ingress["enabled"], "true is required: people come by TLS alone")
    if not limits.plain_http:
        kind = values.at("proxy", "service", "type")
        if kind.unknown:
            yield later(kind)
        elif kind.value != "ClusterIP":
            yield breach(kind, "ClusterIP is required: the ingress is the one way in")
        for name in ("public_url", "callback_url"):
            yield from _https(values.at("custom", "mlhub", "identity", name))


def _annotations(annotations: Node, limits: StackLimits) -> Iterator[Finding]:
    """What would have the controller pass TLS over, or let somebody listen behind it."""
    for node in annotations.parts():
        name = node.key.rpartition("/")[2]
        if LISTENERS.fullmatch(name):
            yield breach(node, "none is required: it is for others to read, or for no rule")
        elif node.unknown:
            yield later(node)
        elif name in REDIRECTS and not limits.plain_http and str(node.value).lower() != "true":
            yield breach(node, "true is required: people come by TLS alone")


def _hosts(tls: Node, hosts: Sequence[Node]) -> Iterator[Finding]:
    """Each host is in a part of `tls` that names a Secret."""
    if tls.unknown:
        yield later(tls)
        return
    covered = {
        host.value
        for part in tls.parts()
        if not part["secretName"].absent
        for host in part["hosts"].parts()
    }
    if not hosts:
        yield breach(Node("ingress.hosts", None), "the host names are required")
    for host in hosts:
        if host.unknown:
            yield later(host)
        elif host.value not in covered:
            yield breach(host, f"{tls.path} has to name it with a secretName, or it has no TLS")
