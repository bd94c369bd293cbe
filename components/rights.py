"""What a service account may do in the cluster: a role, and the binding that gives it to it."""

from collections.abc import Mapping, Sequence

import pulumi
import pulumi_kubernetes as k8s

HUB_ACCOUNT = "hub"
"""The hub's service account in both charts."""

Role = k8s.rbac.v1.Role | k8s.rbac.v1.ClusterRole
Binding = k8s.rbac.v1.RoleBinding | k8s.rbac.v1.ClusterRoleBinding


def allow(
    name: str,
    account: str,
    namespace: pulumi.Input[str],
    rules: Sequence[k8s.rbac.v1.PolicyRuleArgsDict],
    *,
    labels: Mapping[str, str],
    opts: pulumi.ResourceOptions,
    everywhere: bool = False,
) -> tuple[Role, Binding]:
    """Lets the account of that namespace do what `rules` say there; both parts have the name.

    `everywhere`: of the whole cluster, for what has no namespace.
    """
    metadata: k8s.meta.v1.ObjectMetaArgsDict = {"name": name, "labels": dict(labels)}
    if not everywhere:
        metadata["namespace"] = namespace
    make_role = k8s.rbac.v1.ClusterRole if everywhere else k8s.rbac.v1.Role
    make_binding = k8s.rbac.v1.ClusterRoleBinding if everywhere else k8s.rbac.v1.RoleBinding

    role = make_role(name, metadata=metadata, rules=list(rules), opts=opts)
    binding = make_binding(
        name,
        metadata=metadata,
        role_ref={
            "api_group": "rbac.authorization.k8s.io",
            "kind": make_role.__name__,
            "name": name,
        },
        subjects=[{"kind": "ServiceAccount", "name": account, "namespace": namespace}],
        opts=pulumi.ResourceOptions.merge(opts, pulumi.ResourceOptions(depends_on=[role])),
    )
    return role, binding
