"""Each rule over resources other than the Release: what breaks it, and what is still right."""

from collections.abc import Mapping
from typing import Any

import pytest

from tests.policies.stack import (
    GONE,
    UNKNOWN,
    Place,
    changed,
    extra,
    marked,
    program,
    refusals,
    remarks,
    without,
)

DEPLOYMENT = ("kubernetes:apps/v1:Deployment", "keycloak")
STATEFUL = ("kubernetes:apps/v1:StatefulSet", "postgres")
NAMESPACE = ("kubernetes:core/v1:Namespace", "jupyterhub")
CLAIM = ("kubernetes:core/v1:PersistentVolumeClaim", "postgres-data")
CLASS = ("kubernetes:storage.k8s.io/v1:StorageClass", "storage-homes")
QUOTA = ("kubernetes:core/v1:ResourceQuota", "quotas-namespace")
RANGE = ("kubernetes:core/v1:LimitRange", "quotas-container-defaults")
SECRET = ("kubernetes:core/v1:Secret", "keycloak-admin")
REALM = ("keycloak:index/realm:Realm", "realm")
GROUP = ("keycloak:index/group:Group", "group-mlhub")
WAY = ("kubernetes:networking.k8s.io/v1:NetworkPolicy", "keycloak")
CLOSING = ("kubernetes:networking.k8s.io/v1:NetworkPolicy", "jupyterhub-nothing")
PROVIDER = ("pulumi:providers:keycloak", "keycloak")
POD = ("spec", "template", "spec")
CONTAINER = (*POD, "containers", 0)
DIGEST = "@sha256:" + 64 * "b"
CLOSED = "a NetworkPolicy in it is required with podSelector {}, policyTypes Ingress and Egress"
HUB_PODS = {"app": "jupyterhub", "component": "hub"}
IN_STATE = "is readable; a value marked secret is required"

BREACHES: dict[str, tuple[tuple[str, str], Place, Any, str, str]] = {
    "a privileged container": (
        DEPLOYMENT, (*CONTAINER, "securityContext", "privileged"), True, "no-privilege",
        "Deployment keycloak: spec.template.spec.containers[0].securityContext.privileged is true; "
        "a pod without privileges is required",
    ),
    "the node's network": (
        DEPLOYMENT, (*POD, "hostNetwork"), True, "no-privilege",
        "Deployment keycloak: spec.template.spec.hostNetwork is true",
    ),
    "a port of the node": (
        DEPLOYMENT, (*CONTAINER, "ports", 0, "hostPort"), 80, "no-privilege",
        "Deployment keycloak: spec.template.spec.containers[0].ports[0].hostPort is 80; "
        "a Service is required",
    ),
    "a folder of the node": (
        STATEFUL, (*POD, "volumes", 0), {"name": "n", "hostPath": {"path": "/"}}, "no-privilege",
        "StatefulSet postgres: spec.template.spec.volumes[0].hostPath is {'path': '/'}",
    ),
    "a way to everywhere": (
        WAY, ("spec", "egress", 0, "to"), [], "network-policies",
        "NetworkPolicy keycloak: spec.egress[0].to is []; pods or addresses are required: "
        "without, it means everywhere",
    ),
    "a container that writes to its image": (
        DEPLOYMENT, (*CONTAINER, "securityContext", "readOnlyRootFilesystem"), GONE,
        "read-only-images",
        "Deployment keycloak: spec.template.spec.containers[0].securityContext."
        "readOnlyRootFilesystem is not given; true is required",
    ),
    "an init container that does": (
        DEPLOYMENT, (*POD, "initContainers"),
        [{"name": "a", "image": f"localhost:5000/mlhub/a{DIGEST}"}], "read-only-images",
        "spec.template.spec.initContainers[0].securityContext.readOnlyRootFilesystem is not "
        "given; true is required",
    ),
    "no system call filter": (
        STATEFUL, (*POD, "securityContext", "seccompProfile", "type"), "Unconfined",
        "no-privilege",
        "spec.template.spec.securityContext.seccompProfile.type is Unconfined; "
        "RuntimeDefault is required",
    ),
    "an image by its tag": (
        DEPLOYMENT, (*CONTAINER, "image"), "localhost:5000/mlhub/keycloak:26", "images-by-digest",
        "Deployment keycloak: spec.template.spec.containers[0].image is "
        "localhost:5000/mlhub/keycloak:26; an image by its digest (…@sha256:…) is required",
    ),
    "an image from elsewhere": (
        STATEFUL, (*CONTAINER, "image"), f"docker.io/library/postgres:17{DIGEST}",
        "images-by-digest", "an image from localhost:5000/mlhub is required",
    ),
    "a password in the environment": (
        DEPLOYMENT, (*CONTAINER, "env", 0), {"name": "KC_DB_PASSWORD", "value": "hush"},
        "no-readable-secret",
        "Deployment keycloak: spec.template.spec.containers[0].env[0].value (KC_DB_PASSWORD) is "
        "readable; valueFrom.secretKeyRef is required",
    ),
    "a readable Secret": (
        SECRET, ("stringData",), {"username": marked("a"), "password": "hush"},
        "no-readable-secret",
        f"Secret keycloak-admin: stringData.password {IN_STATE}",
    ),
    "a readable Secret in base64": (
        SECRET, ("data",), {"password": "aHVzaA=="}, "no-readable-secret",
        f"Secret keycloak-admin: data.password {IN_STATE}",
    ),
    "a provider's password": (
        PROVIDER, ("password",), "hush", "no-readable-secret", f"password {IN_STATE}",
    ),
    "a person's password": (
        ("keycloak:index/user:User", "user-alice"), ("initialPassword", "value"), "hush",
        "no-readable-secret", f"User user-alice: initialPassword.value {IN_STATE}",
    ),
    "a namespace that admits anything": (
        NAMESPACE, ("metadata", "labels", "pod-security.kubernetes.io/enforce"), "privileged",
        "restricted-namespaces", "Namespace jupyterhub: metadata.labels.pod-security.kubernetes.io"
        "/enforce is privileged; restricted is required",
    ),
    "an unprotected namespace": (
        NAMESPACE, ("protect",), False, "data-kept",
        "Namespace jupyterhub: protect is false; true is required",
    ),
    "an unprotected claim": (
        CLAIM, ("protect",), False, "data-kept",
        "PersistentVolumeClaim postgres-data: protect is false",
    ),
    "an unprotected realm": (REALM, ("protect",), False, "data-kept", "Realm realm: protect is"),
    "an unprotected group": (
        GROUP, ("protect",), False, "data-kept", "Group group-mlhub: protect is false",
    ),
    "a class that deletes": (
        CLASS, ("reclaimPolicy",), "Delete", "data-kept",
        "StorageClass storage-homes: reclaimPolicy is Delete; Retain is required",
    ),
    "a class that deletes by default": (
        CLASS, ("reclaimPolicy",), GONE, "data-kept", "reclaimPolicy is not given; Retain",
    ),
    "a quota beyond the organization's": (
        QUOTA, ("spec", "hard", "limits.cpu"), "32.5", "quota-limits",
        "ResourceQuota quotas-namespace: spec.hard.limits.cpu is 32.5; "
        "an amount of at most 32 cores is required",
    ),
    "a quota that leaves something out": (
        QUOTA, ("spec", "hard", "requests.storage"), GONE, "quota-limits",
        "spec.hard.requests.storage is not given; an amount of at most 500Gi is required",
    ),
    "a quota with a GPU": (
        QUOTA, ("spec", "hard", "requests.nvidia.com/gpu"), "1", "quota-limits",
        "spec.hard.requests.nvidia.com/gpu is 1; an amount of at most 0 GPUs is required",
    ),
    "a range beyond the organization's": (
        RANGE, ("spec", "limits", 0, "max", "memory"), "65Gi", "quota-limits",
        "LimitRange quotas-container-defaults: spec.limits[0].max.memory is 65Gi; "
        "an amount of at most 64Gi is required",
    ),
    "a range without a maximum": (
        RANGE, ("spec", "limits", 0, "max"), GONE, "quota-limits",
        "spec.limits[0].max.cpu is not given; an amount of at most 32 cores is required",
    ),
    "a range for no container": (
        RANGE, ("spec", "limits"), [], "quota-limits",
        "spec.limits is []; a part of type Container with a max is required",
    ),
    "a policy that lets something in": (
        CLOSING, ("spec", "ingress"), [{"from": [{"podSelector": {"matchLabels": HUB_PODS}}]}],
        "closed-namespaces",
        f"Namespace jupyterhub: metadata.name is jupyterhub; {CLOSED}",
    ),
    "a policy for some pods": (
        CLOSING, ("spec", "podSelector", "matchLabels"), {"a": "b"}, "closed-namespaces", CLOSED,
    ),
    "a policy in one direction": (
        CLOSING, ("spec", "policyTypes"), ["Ingress"], "closed-namespaces", CLOSED,
    ),
    "a quota of another namespace": (
        QUOTA, ("metadata", "namespace"), "elsewhere", "user-quotas",
        "Release jupyterhub: namespace is jupyterhub; a ResourceQuota is required in it",
    ),
    "Keycloak without TLS for anybody": (
        REALM, ("sslRequired",), "none", "tls",
        "Realm realm: sslRequired is none; external or all is required",
    ),
    "a certificate that nobody checks": (
        PROVIDER, ("tlsInsecureSkipVerify",), "true", "tls",
        "tlsInsecureSkipVerify is true; false is required",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", BREACHES)
def test_a_resource_that_breaks_a_rule_is_refused_and_told_what_and_where(case: str) -> None:
    which, place, value, rule, message = BREACHES[case]
    told = refusals(changed(program("local"), which, {place: value}))
    assert {told_rule for told_rule, _ in told} == {rule}
    assert message in told[0][1]


EDGES: dict[str, tuple[tuple[str, str], Place, Any]] = {
    "escalation switched off": (DEPLOYMENT, (*CONTAINER, "securityContext", "privileged"), False),
    "an image by its digest alone": (
        DEPLOYMENT, (*CONTAINER, "image"), f"localhost:5000/mlhub/keycloak{DIGEST}",
    ),
    "a secret by reference": (
        DEPLOYMENT, (*CONTAINER, "env", 0),
        {"name": "A_PASSWORD", "valueFrom": {"secretKeyRef": {"name": "a", "key": "b"}}},
    ),
    "a file that holds a secret": (
        DEPLOYMENT, (*CONTAINER, "env", 0), {"name": "A_PASSWORD_FILE", "value": "/run/a"},
    ),
    "a Secret marked as a whole": (
        SECRET, ("stringData",), {**marked("x"), "value": {"password": "hush"}},
    ),
    "an empty password": (PROVIDER, ("password",), ""),
    "all of the quota": (QUOTA, ("spec", "hard", "limits.cpu"), "32"),
    "all of the quota in thousandths": (QUOTA, ("spec", "hard", "limits.cpu"), "32000m"),
    "all of the memory in other units": (QUOTA, ("spec", "hard", "limits.memory"), "65536Mi"),
    "TLS for everybody": (REALM, ("sslRequired",), "all"),
}  # fmt: skip


@pytest.mark.parametrize("case", EDGES)
def test_a_resource_at_the_edge_passes(case: str) -> None:
    which, place, value = EDGES[case]
    assert refusals(changed(program("local"), which, {place: value})) == []


def test_a_namespace_without_its_closing_policy_is_refused() -> None:
    ((rule, told),) = refusals(without(program("local"), *CLOSING))
    assert rule == "closed-namespaces"
    assert told.startswith(f"Namespace jupyterhub: metadata.name is jupyterhub; {CLOSED}")


@pytest.mark.parametrize(("which", "kind"), [(QUOTA, "ResourceQuota"), (RANGE, "LimitRange")])
def test_users_without_a_quota_are_refused(which: tuple[str, str], kind: str) -> None:
    ((rule, told),) = refusals(without(program("local"), *which))
    assert rule == "user-quotas"
    assert f"namespace is jupyterhub; a {kind} is required in it, for users' pods" in told


def pod(**more: Any) -> dict[str, Any]:
    return {
        "containers": [
            {
                "name": "a",
                "image": f"localhost:5000/mlhub/a{DIGEST}",
                "securityContext": {"readOnlyRootFilesystem": True},
            }
        ],
        "hostNetwork": True,
        **more,
    }


@pytest.mark.parametrize(
    ("token", "inputs"),
    [
        ("kubernetes:core/v1:Pod", {"spec": pod()}),
        ("kubernetes:batch/v1:Job", {"spec": {"template": {"spec": pod()}}}),
        (
            "kubernetes:batch/v1:CronJob",
            {"spec": {"jobTemplate": {"spec": {"template": {"spec": pod()}}}}},
        ),
        ("kubernetes:apps/v1:DaemonSet", {"spec": {"template": {"spec": pod()}}}),
        ("kubernetes:apps/v1:DeploymentPatch", {"spec": {"template": {"spec": pod()}}}),
        ("kubernetes:core/v1:PodList", {"items": [{"spec": pod()}]}),
        ("kubernetes:ray.io/v1:RayCluster", {"spec": {"head": {"template": {"spec": pod()}}}}),
    ],
)
def test_every_kind_that_holds_a_pod_is_looked_into(token: str, inputs: Mapping[str, Any]) -> None:
    ((rule, told),) = refusals([*program("local"), extra(token, "extra", inputs)])
    assert rule == "no-privilege"
    assert "hostNetwork is true" in told


ROLE = {"verbs": ["get"], "resources": ["nodes"], "apiGroups": [""]}
SUBJECT = {"kind": "ServiceAccount", "name": "hub", "namespace": "jupyterhub"}
RIGHTS: dict[str, tuple[str, dict[str, Any], str | None]] = {
    "a few rights": ("ClusterRole", {"rules": [ROLE]}, None),
    "every verb": (
        "ClusterRole", {"rules": [{**ROLE, "verbs": ["*"]}]}, "rules[0].verbs[0] is *",
    ),
    "every resource": (
        "Role", {"rules": [{**ROLE, "resources": ["*"]}]}, "rules[0].resources[0] is *",
    ),
    "to make Secrets": (
        "Role", {"rules": [{**ROLE, "verbs": ["create"], "resources": ["secrets"]}]}, None,
    ),
    "to read one Secret": (
        "Role", {"rules": [{**ROLE, "resources": ["secrets"], "resourceNames": ["mine"]}]}, None,
    ),
    "to read every Secret": (
        "Role", {"rules": [{**ROLE, "resources": ["secrets"]}]}, "rules[0].verbs[0] is get",
    ),
    "to give oneself more": (
        "ClusterRole",
        {"rules": [{**ROLE, "verbs": ["get", "escalate"], "resources": ["clusterroles"]}]},
        "rules[0].verbs[1] is escalate",
    ),
    "to bind anybody to anything": (
        "Role", {"rules": [{**ROLE, "verbs": ["bind"], "resources": ["roles"]}]},
        "rules[0].verbs[0] is bind",
    ),
    "to be somebody else": (
        "ClusterRole", {"rules": [{**ROLE, "verbs": ["impersonate"], "resources": ["users"]}]},
        "rules[0].verbs[0] is impersonate",
    ),
    "rights of other roles": (
        "ClusterRole", {"aggregationRule": {"clusterRoleSelectors": []}},
        "aggregationRule is {'clusterRoleSelectors': []}",
    ),
    "one service account": (
        "ClusterRoleBinding", {"roleRef": {"name": "nodes"}, "subjects": [SUBJECT]}, None,
    ),
    "cluster-admin": (
        "ClusterRoleBinding", {"roleRef": {"name": "cluster-admin"}, "subjects": [SUBJECT]},
        "roleRef.name is cluster-admin",
    ),
    "every service account": (
        "RoleBinding",
        {"roleRef": {"name": "nodes"},
         "subjects": [{"kind": "Group", "name": "system:serviceaccounts:jupyterhub"}]},
        "subjects[0].name is system:serviceaccounts:jupyterhub",
    ),
    "the service account of every pod": (
        "RoleBinding",
        {"roleRef": {"name": "nodes"}, "subjects": [{**SUBJECT, "name": "default"}]},
        "subjects[0].name is default",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", RIGHTS)
def test_T14_rights_in_the_cluster_are_few_and_for_one(case: str) -> None:
    kind, inputs, message = RIGHTS[case]
    token = f"kubernetes:rbac.authorization.k8s.io/v1:{kind}"
    told = refusals([*program("local"), extra(token, "rights", inputs)])
    if message is None:
        assert told == []
    else:
        ((rule, said),) = told
        assert rule == "small-rights"
        assert f"{kind} rights: {message}; " in said


QUOTAS_OF_ALL = {
    "limits.cpu": "32", "limits.memory": "64Gi", "requests.nvidia.com/gpu": 0,
    "requests.storage": "1Gi",
}  # fmt: skip
PATCHES: dict[str, tuple[str, dict[str, Any], str, str]] = {
    "a namespace that restricts no more": (
        "core/v1:NamespacePatch",
        {"metadata": {"labels": {"pod-security.kubernetes.io/enforce": "privileged"}}},
        "restricted-namespaces", "enforce is privileged; restricted is required",
    ),
    "a quota that grants more": (
        "core/v1:ResourceQuotaPatch", {"spec": {"hard": {**QUOTAS_OF_ALL, "pods": "100000"}}},
        "quota-limits", "spec.hard.pods is 100000; an amount of at most",
    ),
    "a range that grants more": (
        "core/v1:LimitRangePatch",
        {"spec": {"limits": [{"type": "Container", "max": {"cpu": "99", "memory": "1Gi"}}]}},
        "quota-limits", "spec.limits[0].max.cpu is 99; an amount of at most",
    ),
    "a policy that opens": (
        "networking.k8s.io/v1:NetworkPolicyPatch", {"spec": {"egress": [{}]}},
        "network-policies", "NetworkPolicy extra: spec is no whole NetworkPolicy",
    ),
    "a volume that goes with its claim": (
        "core/v1:PersistentVolumePatch", {"spec": {"persistentVolumeReclaimPolicy": "Delete"}},
        "data-kept", "spec.persistentVolumeReclaimPolicy is Delete; Retain is required",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", PATCHES)
def test_every_kind_counts_by_way_of_a_patch_as_well(case: str) -> None:
    kind, inputs, rule, message = PATCHES[case]
    told = refusals([*program("local"), extra(f"kubernetes:{kind}", "extra", inputs)])
    assert [told_rule for told_rule, _ in told] == [rule]
    assert message in told[0][1]


USERS: dict[str, Any] = {"matchLabels": {"app": "jupyterhub", "component": "singleuser-server"}}
FROM_USERS = [{"podSelector": USERS}]
WAYS: dict[str, tuple[dict[str, Any], str | None]] = {
    "users from everybody": ({"podSelector": USERS, "ingress": [{}]}, "spec.ingress[0] is {}"),
    "users from everybody at a port": (
        {"podSelector": USERS, "ingress": [{"ports": [{"port": 8888}]}]},
        "spec.ingress[0].from is not given; pods are required",
    ),
    "users from an address": (
        {"podSelector": USERS, "ingress": [{"from": [{"ipBlock": {"cidr": "10.0.0.1/32"}}]}]},
        "spec.ingress[0].from[0].ipBlock is {'cidr': '10.0.0.1/32'}; pods are required",
    ),
    "users from users": (
        {"podSelector": USERS, "ingress": [{"from": FROM_USERS}]},
        "spec.ingress[0].from[0].podSelector is",
    ),
    "every pod from every pod": (
        {"podSelector": {}, "ingress": [{"from": [{"podSelector": {}}]}]},
        "spec.ingress[0].from[0].podSelector is {}; labels are required",
    ),
    "users from users, whose namespace is named": (
        {"podSelector": USERS, "ingress": [{"from": [{"namespaceSelector": {
            "matchLabels": {"kubernetes.io/metadata.name": "jupyterhub"}}}]}]},
        "spec.ingress[0].from[0].podSelector is not given; labels are required",
    ),
    "users to private addresses": (
        {"podSelector": USERS, "egress": [{"to": [{"ipBlock": {"cidr": "10.0.0.0/8"}}]}]},
        "spec.egress[0].to[0].ipBlock.cidr is 10.0.0.0/8; at most 256 addresses are required",
    ),
    "every pod to a cloud's credentials": (
        {"podSelector": {}, "egress": [{"to": [{"ipBlock": {"cidr": "169.254.169.254/32"}}]}]},
        "cidr is 169.254.169.254/32; at most 256 addresses are required",
    ),
    "a pod to half of the internet": (
        {"podSelector": {"matchLabels": {"app.kubernetes.io/name": "a"}},
         "egress": [{"to": [{"ipBlock": {"cidr": "128.0.0.0/1"}}]}]},
        "ipBlock.except is not given; 169.254.0.0/16, 172.16.0.0/12, 192.168.0.0/16",
    ),
    "a pod to half of the internet's other addresses": (
        {"podSelector": {"matchLabels": {"app.kubernetes.io/name": "a"}},
         "egress": [{"to": [{"ipBlock": {"cidr": "8000::/1"}}]}]},
        "ipBlock.cidr is 8000::/1; fewer addresses are required",
    ),
    "a service from users": (
        {"podSelector": {"matchLabels": {"app.kubernetes.io/name": "a"}},
         "ingress": [{"from": FROM_USERS}]},
        None,
    ),
    "a service to addresses of the site": (
        {"podSelector": {"matchLabels": {"component": "hub"}},
         "egress": [{"to": [{"ipBlock": {"cidr": "10.8.0.0/16"}}]}]},
        None,
    ),
    "users from Prometheus": (
        {"podSelector": USERS, "ingress": [{"from": [{"namespaceSelector": {
            "matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}]}]},
        None,
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", WAYS)
def test_a_policy_beside_the_charts_opens_no_more_than_they_do(case: str) -> None:
    spec, message = WAYS[case]
    inputs = {"metadata": {"namespace": "jupyterhub"}, "spec": spec}
    token = "kubernetes:networking.k8s.io/v1:NetworkPolicy"
    told = refusals([*program("local"), extra(token, "extra", inputs)])
    assert [rule for rule, _ in told] == ([] if message is None else ["network-policies"])
    assert message is None or message in told[0][1]


@pytest.mark.parametrize(
    "place",
    [
        ("spec",), ("spec", "podSelector"), ("spec", "podSelector", "matchLabels", "component"),
        ("spec", "ingress"), ("spec", "ingress", 0), ("spec", "ingress", 0, "from"),
        ("spec", "ingress", 0, "from", 0), ("spec", "ingress", 0, "from", 0, "podSelector"),
    ],
)  # fmt: skip
def test_whom_a_policy_opens_to_whom_is_remarked_while_it_is_not_known(place: Place) -> None:
    token = "kubernetes:networking.k8s.io/v1:NetworkPolicy"
    spec = {"podSelector": USERS, "ingress": [{"from": [{"podSelector": USERS}]}]}
    inputs = {"metadata": {"namespace": "jupyterhub"}, "spec": spec}
    made = changed([extra(token, "extra", inputs)], (token, "extra"), {place: UNKNOWN})
    assert "network-policies" in {rule for rule, _ in remarks(made)}
    assert refusals(made) == []


def volume(policy: str) -> list[tuple[str, str]]:
    token = "kubernetes:core/v1:PersistentVolume"
    made = extra(token, "data", {"spec": {"persistentVolumeReclaimPolicy": policy}})
    return refusals([*program("local"), type(made)(**{**vars(made), "protect": True})])


def test_T13_a_volume_outlives_its_claim() -> None:
    assert volume("Retain") == []
    ((rule, told),) = volume("Delete")
    assert rule == "data-kept"
    assert "spec.persistentVolumeReclaimPolicy is Delete; Retain is required" in told


def ingress(tls: list[dict[str, Any]], **annotations: str) -> list[tuple[str, str]]:
    inputs = {
        "metadata": {"annotations": annotations},
        "spec": {"rules": [{"host": "mlflow.example.org"}], "tls": tls},
    }
    token = "kubernetes:networking.k8s.io/v1:Ingress"
    return refusals([*program("local"), extra(token, "mlflow", inputs)])


def test_an_ingress_of_ours_has_tls_for_each_host() -> None:
    assert ingress([{"hosts": ["mlflow.example.org"], "secretName": "mlflow-tls"}]) == []
    for tls in ([], [{"hosts": ["other.example.org"], "secretName": "a"}],
                [{"hosts": ["mlflow.example.org"]}]):  # fmt: skip
        ((rule, told),) = ingress(tls)
        assert rule == "tls"
        assert "Ingress mlflow: spec.rules[0].host is mlflow.example.org; spec.tls has to" in told


def test_an_ingress_of_ours_is_not_served_to_others() -> None:
    tls = [{"hosts": ["mlflow.example.org"], "secretName": "mlflow-tls"}]
    ((rule, told),) = ingress(tls, **{"nginx.ingress.kubernetes.io/server-alias": "a.example.org"})
    assert rule == "tls"
    assert "metadata.annotations.nginx.ingress.kubernetes.io/server-alias is a.example.org" in told


@pytest.mark.parametrize(
    "text",
    [
        "-----BEGIN RSA PRIVATE KEY-----\nMIIE",
        "redis://user:hush@cache:6379",
        "Bearer eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NSJ9.c2lnbmF0dXJl",
        "AKIAIOSFODNN7EXAMPLE",
    ],
)
def test_a_secret_is_known_by_its_form_wherever_it_is(text: str) -> None:
    config = extra("kubernetes:core/v1:ConfigMap", "settings", {"data": {"app.yaml": text}})
    ((rule, told),) = refusals([*program("local"), config])
    assert rule == "no-readable-secret"
    assert "ConfigMap settings: data.app.yaml holds " in told


def test_a_refusal_never_repeats_a_secret() -> None:
    for place, value in [
        (("stringData",), {"password": "hush-hush"}),
        (("metadata", "annotations"), {"token": "hush-hush"}),
        (("metadata", "hostPath"), marked("hush-hush")),
    ]:
        told = refusals(changed(program("local"), SECRET, {place: value}))
        assert told
        assert "hush-hush" not in str(told)


UNKNOWNS: dict[str, tuple[tuple[str, str], Place, str]] = {
    "spec.template.spec.containers[0].image": (
        DEPLOYMENT, (*CONTAINER, "image"), "images-by-digest",
    ),
    "spec.template.spec.volumes": (DEPLOYMENT, (*POD, "volumes"), "no-privilege"),
    "spec": (DEPLOYMENT, ("spec",), "no-privilege"),
    "stringData": (SECRET, ("stringData",), "no-readable-secret"),
    "reclaimPolicy": (CLASS, ("reclaimPolicy",), "data-kept"),
    "spec.hard.pods": (QUOTA, ("spec", "hard", "pods"), "quota-limits"),
    "metadata.name": (CLOSING, ("metadata", "namespace"), "closed-namespaces"),
    "namespace": (QUOTA, ("metadata", "namespace"), "user-quotas"),
}  # fmt: skip


@pytest.mark.parametrize("path", UNKNOWNS)
def test_what_is_not_known_yet_is_remarked_and_never_passed_over(path: str) -> None:
    which, place, rule = UNKNOWNS[path]
    resources = changed(program("local"), which, {place: UNKNOWN})
    assert refusals(resources) == []
    assert (rule, path) in remarks(resources)
