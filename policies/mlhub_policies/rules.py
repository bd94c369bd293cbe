"""All rules, in the order in which docs/policies.md lists them."""

from collections.abc import Iterator, Sequence

from mlhub_policies import data, hub, images, network, pods, quotas, secrets, servers
from mlhub_policies.limits import Limits, LimitsError, of_stack
from mlhub_policies.rule import Finding, Resource, Rule, StackRule

KNOWN = Rule(
    "known-stack",
    "The organization has set limits for the stack.",
    lambda _resource, _limits: iter(()),
)
"""Breached where there are no limits that a check could be given (`findings`)."""

RULES = (
    KNOWN,
    Rule(
        "server-limits",
        "Every profile, each of its choices and the default server state CPU and memory limits "
        "and GPUs within the organization's, and state resources nowhere else.",
        servers.sizes_are_stated,
    ),
    Rule(
        "admission-limits",
        "The hub's admission lets nobody have a larger server or more servers than the "
        "organization.",
        servers.admission_is_within,
    ),
    Rule(
        "listed-choices",
        "A profile offers listed choices only.",
        servers.choices_are_listed,
    ),
    Rule(
        "no-privilege",
        "No pod is privileged or reaches its node's network, processes, memory, ports or files.",
        pods.nothing_of_the_node,
    ),
    Rule(
        "read-only-images",
        "No container writes to its image, and no profile has one that may.",
        pods.images_are_read_only,
    ),
    Rule(
        "restricted-namespaces",
        "Every namespace enforces Pod Security's restricted level.",
        pods.namespaces_are_restricted,
    ),
    Rule(
        "no-cluster-access",
        "A user's pod carries no service account of the cluster.",
        pods.user_pods_know_no_cluster,
    ),
    Rule(
        "small-rights",
        "No binding reaches cluster-admin or everybody, no role everything, every Secret or what "
        "other roles have.",
        pods.rights_are_small,
    ),
    Rule(
        "images-by-digest",
        "Every image is named by its digest and comes from a registry of the stack's.",
        images.by_digest_from_ours,
    ),
    Rule(
        "access-by-group",
        "Our authenticator decides who comes in, by Keycloak group, and nothing beside it.",
        hub.people_come_by_group,
    ),
    Rule(
        "no-demo-users",
        "People are made up in demonstrations only.",
        hub.demo_users_stay_in_demonstrations,
    ),
    Rule(
        "network-policies",
        "Network policies of hub, proxy and users' pods are on and not opened wide: of private "
        "addresses users' pods reach a few, and none of them another user's. No way out of any "
        "pod, but to DNS, leads everywhere.",
        network.policies_are_on,
    ),
    Rule(
        "tls",
        "Browsers come by TLS wherever the stack does not allow plain HTTP; every ingress has it.",
        network.browsers_come_by_tls,
    ),
    Rule(
        "no-readable-secret",
        "No secret is readable in the state, in a chart's values or in a pod's description.",
        secrets.nothing_is_readable,
    ),
    Rule(
        "data-kept",
        "What holds people's work is protected, and volumes outlive their claims.",
        data.data_is_kept,
    ),
    Rule(
        "quota-limits",
        "Every ResourceQuota and LimitRange stays within the organization's limits.",
        quotas.quotas_are_within,
    ),
    Rule(
        "idle-culling",
        "Idle servers are stopped within the stack's time.",
        hub.idle_servers_stop,
    ),
    Rule(
        "pinned-chart",
        "The Release installs a known chart in a whole version.",
        hub.chart_is_pinned,
    ),
    Rule(
        "values-in-sight",
        "Nothing in the Release takes its values out of the rules' sight: no other code, file, "
        "spawner or renderer.",
        hub.everything_is_in_sight,
    ),
)

STACK_RULES = (
    StackRule(
        "closed-namespaces",
        "Every namespace has a NetworkPolicy that refuses what no other allows.",
        network.closed_namespaces,
    ),
    StackRule(
        "user-quotas",
        "The namespace of users' pods has a ResourceQuota and a LimitRange.",
        quotas.users_have_a_quota,
    ),
)


def stack_of(urn: str) -> str:
    """`urn:pulumi:<stack>::<project>::…` (a `policy analyze` of a file knows no other name)."""
    return urn.split("::", 1)[0].removeprefix("urn:pulumi:")


def findings(rule: Rule, resource: Resource, limits: Limits) -> Iterator[Finding]:
    """What a rule finds in a resource. In a stack without limits the first rule alone speaks."""
    try:
        own = of_stack(limits, stack_of(resource.urn))
    except LimitsError as error:
        if rule is KNOWN:
            yield Finding("stack", f"is {stack_of(resource.urn)}; {error}")
        return
    yield from rule.check(resource, own)


def stack_findings(
    rule: StackRule, resources: Sequence[Resource], limits: Limits
) -> Iterator[tuple[Resource, Finding]]:
    if resources and stack_of(resources[0].urn) in limits.stacks:
        yield from rule.check(resources, limits.stacks[stack_of(resources[0].urn)])
