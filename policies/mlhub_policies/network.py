"""Who may talk to whom, and that nobody listens on the way."""

import ipaddress
from collections.abc import Iterator, Sequence

from mlhub_policies.limits import StackLimits
from mlhub_policies.rule import RELEASE, Finding, Resource, breach, later
from mlhub_policies.tree import Node

USERS = ("singleuser",)
POLICED = (("hub",), ("proxy", "chp"), USERS)
FEW = 256
DNS = 53
NAMESPACE = "kubernetes:core/v1:Namespace"
POLICY = "kubernetes:networking.k8s.io/v1:NetworkPolicy"


def policies_are_on(resource: Resource, _limits: StackLimits) -> Iterator[Finding]:
    if resource.type == POLICY:
        for rule in resource.inputs.at("spec", "egress").parts():
            yield from [later(rule)] if rule.unknown else _somewhere(rule)
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
        yield from _rules(policy, few=place == USERS)
    rules = resource.values.at("singleuser", "networkPolicy", "egressAllowRules")
    for name, why in (
        ("cloudMetadataServer", "the node's credentials are there"),
        ("privateIPs", "other people's pods are there"),
    ):
        node = rules[name]
        if node.unknown or node.value:
            yield later(node) if node.unknown else breach(node, f"false is required: {why}")


def _rules(policy: Node, *, few: bool) -> Iterator[Finding]:
    for direction in ("ingress", "egress"):
        for rule in policy[direction].parts():
            if rule.unknown:
                yield later(rule)
            elif rule.value == {}:
                yield breach(rule, "a rule that names peers or ports is required")
            elif direction == "egress":
                yield from _somewhere(rule)
                if few and not _names_alone(rule):
                    yield from _few_addresses(rule["to"])


def _somewhere(rule: Node) -> Iterator[Finding]:
    """A rule that names no one means everywhere, which names alone (DNS) may be asked."""
    peers = rule["to"]
    if _names_alone(rule):
        return
    if peers.unknown:
        yield later(peers)
    elif not any(peers.parts()):
        yield breach(peers, "pods or addresses are required: without, it means everywhere")


def _names_alone(rule: Node) -> bool:
    """Whether the port of DNS is all that is open; a resolver may be at any address."""
    ports = list(rule["ports"].parts())
    return bool(ports) and all(p["port"].value == DNS and p["endPort"].absent for p in ports)


def _few_addresses(peers: Node) -> Iterator[Finding]:
    """A range that holds other people's pods would be `privateIPs` by another name."""
    for peer in peers.parts():
        cidr = peer.at("ipBlock", "cidr")
        if cidr.unknown:
            yield later(cidr)
        elif cidr.value is not None and not _is_few(str(cidr.value)):
            yield breach(cidr, f"at most {FEW} addresses are required, and none of 169.254.0.0/16")


def _is_few(cidr: str) -> bool:
    try:
        network = ipaddress.ip_network(cidr)
    except ValueError:
        return False
    return network.num_addresses <= FEW and not network.is_link_local


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
