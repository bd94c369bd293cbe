"""What holds in each of the four stacks that mlhub brings, whatever its file says."""

import re
from collections.abc import Iterator, Mapping
from typing import Any, get_args, get_origin

import kubernetes.client
import pulumi_docker_build
import pulumi_keycloak
import pulumi_kubernetes
import pulumi_random
import pulumiverse_harbor
import pytest
from pulumi._types import input_type_types, is_input_type

from tests.unit.recorder import (
    GIVEN,
    MADE_UP,
    ROOT,
    STACKS,
    Monitor,
    Registration,
    is_secret,
    platform,
    readable,
)

SECRET = "kubernetes:core/v1:Secret"
NAMESPACE = "kubernetes:core/v1:Namespace"
RELEASE = "kubernetes:helm.sh/v3:Release"
IDS = {"username", "client_id", "access_key_id", ".dockerconfigjson"}
"""Keys of Secrets whose values are no secrets, or are made of one that Harbor gives out."""


@pytest.fixture(params=STACKS)
def stack(request: pytest.FixtureRequest) -> Monitor:
    return platform(request.param)


def customs(monitor: Monitor) -> Iterator[Registration]:
    """Every resource of a provider, without the providers themselves."""
    for registration in monitor.registrations:
        if registration.custom and not registration.type.startswith("pulumi:providers:"):
            yield registration


def workloads(monitor: Monitor) -> Iterator[tuple[str, dict[str, Any]]]:
    """Namespace and pod spec of whatever makes pods."""
    for registration in monitor.registrations:
        if registration.type.rpartition(":")[2] in ("Deployment", "StatefulSet", "Job"):
            plain = registration.plain
            yield plain["metadata"]["namespace"], plain["spec"]["template"]["spec"]
        if registration.type.endswith(":CronJob"):
            plain = registration.plain
            job = plain["spec"]["jobTemplate"]["spec"]
            yield plain["metadata"]["namespace"], job["template"]["spec"]


def test_every_resource_has_the_explicit_provider_of_its_package(stack: Monitor):
    for resource in customs(stack):
        package = resource.type.split(":")[0]
        assert f"pulumi:providers:{package}::" in resource.provider, resource.urn


def test_every_resource_belongs_to_a_component(stack: Monitor):
    components = {r.urn for r in stack.registrations if not r.custom}
    for resource in customs(stack):
        assert resource.parent in components, resource.urn


def test_every_component_has_a_token_of_ours_and_registers_its_outputs(stack: Monitor):
    components = [r for r in stack.registrations if not r.custom]
    assert len(components) >= 10
    for component in components:
        module, name = re.fullmatch(r"mlhub:(\w+):(\w+)", component.type).groups()
        assert name.lower().endswith(module), component.type
        assert component.urn in stack.outputs, f"{component.urn} registers no outputs"


def unknown(model: str, value: Any, where: str) -> Iterator[str]:
    """The property names in `value` that Kubernetes' own model of the type does not have."""
    if inner := re.fullmatch(r"[Ll]ist\[(.*)\]|[Dd]ict[\[(]str, (.*)[\])]", model):
        parts = value if isinstance(value, list) else list(value.values())
        for part in parts:
            yield from unknown(inner[1] or inner[2], part, where)
    elif known := getattr(kubernetes.client, model, None):
        types = {known.attribute_map[key]: kind for key, kind in known.openapi_types.items()}
        for key, part in value.items():
            if key not in types:
                yield f"{where}.{key}"
            else:
                yield from unknown(types[key], part, f"{where}.{key}")


def test_every_property_is_one_that_kubernetes_knows(stack: Monitor):
    looked_at = 0
    for resource in customs(stack):
        if not resource.type.startswith("kubernetes:") or resource.type == RELEASE:
            continue
        if resource.type.startswith("kubernetes:monitoring.coreos.com/"):
            continue  # held to the operator's own definitions by test_monitoring
        _, version, kind = re.fullmatch(r"kubernetes:(.*/)?(v\d+):(\w+)", resource.type).groups()
        strange = [*unknown(f"{version.capitalize()}{kind}", resource.plain, kind)]
        assert not strange, (resource.urn, strange)
        assert hasattr(kubernetes.client, f"{version.capitalize()}{kind}"), kind
        looked_at += 1
    assert looked_at > 15


def test_the_page_of_rights_names_every_kind_that_the_program_makes(stack: Monitor):
    page = (ROOT / "docs" / "rights.md").read_text()
    (row,) = [line for line in page.splitlines() if line.startswith("| Kubernetes | who runs")]
    for resource in customs(stack):
        package, kind = resource.type.split(":")[0], resource.type.rpartition(":")[2]
        assert package != "kubernetes" or kind == "Release" or f"`{kind}`" in row, kind


def test_a_property_that_kubernetes_does_not_know_is_found():
    service = {"spec": {"ports": [{"node_port": 1}], "selector": {"a_b": "c"}}}
    assert [*unknown("V1Service", service, "Service")] == ["Service.spec.ports.node_port"]


SDKS = {
    "docker-build": pulumi_docker_build,
    "harbor": pulumiverse_harbor,
    "keycloak": pulumi_keycloak,
    "kubernetes": pulumi_kubernetes,
    "random": pulumi_random,
}
"""Each is generated from its provider's schema, names and types."""


def inputs_of(token: str) -> type:
    """What the SDK takes for a resource, e.g. `ClientArgs` for `keycloak:openid/client:Client`."""
    package, module, name = token.split(":")
    found: Any = SDKS[package]
    for part in ["helm", "v3"] if token == RELEASE else [module.partition("/")[0]]:
        found = found if part == "index" else getattr(found, part)
    return getattr(found, f"{name}Args")


def inputs_in(annotation: Any) -> type | None:
    """The nested inputs that a property takes, by itself or in a list."""
    if isinstance(annotation, type) and is_input_type(annotation):
        return annotation
    return next(filter(None, map(inputs_in, get_args(annotation))), None)


def strange(inputs: type, value: dict[str, Any], where: str) -> Iterator[str]:
    """The property names in `value` that the provider's schema does not have."""
    known = input_type_types(inputs)
    for key, part in value.items():
        if key not in known:
            yield f"{where}.{key}"
        elif nested := inputs_in(known[key]):
            by_name = get_origin(known[key]) is Mapping and isinstance(part, dict)
            parts = part.values() if by_name else part if isinstance(part, list) else [part]
            for each in parts:
                if isinstance(each, dict):
                    yield from strange(nested, each, f"{where}.{key}")


def test_every_property_is_one_that_its_providers_schema_knows(stack: Monitor):
    looked_at = set()
    for resource in customs(stack):
        package = resource.type.split(":")[0]
        if package != "kubernetes" or resource.type == RELEASE:
            found = [*strange(inputs_of(resource.type), resource.plain, resource.type)]
            assert not found, (resource.urn, found)
            looked_at.add(package)
    assert looked_at >= {"docker-build", "keycloak", "kubernetes", "random"}


@pytest.mark.parametrize(
    ("token", "value", "where"),
    [
        ("keycloak:index/user:User", {"initialPassword": {"valu": "x"}}, ".initialPassword.valu"),
        (
            "harbor:index/robotAccount:RobotAccount",
            {"permissions": [{"accesses": [{"act": "pull"}]}]},
            ".permissions.accesses.act",
        ),
        (
            "docker-build:index:Image",
            {"tags": [], "context": {"named": {"any": {"place": "x"}}}},
            ".context.named.place",
        ),
        (RELEASE, {"values": {"any": 1}, "repositoryOpts": {"url": "x"}}, ".repositoryOpts.url"),
    ],
)
def test_a_property_that_a_schema_does_not_know_is_found(token: str, value: Any, where: str):
    assert [*strange(inputs_of(token), value, "")] == [where]


def test_V9_no_secret_is_readable_in_any_registration(stack: Monitor):
    made = [r for r in stack.registrations if r.type.endswith(":RandomPassword")]
    assert len(made) >= 12
    texts = [(r.urn, text) for r in stack.registrations for text in readable(r.inputs)]
    texts += [(urn, text) for urn, out in stack.outputs.items() for text in readable(out)]
    for urn, text in texts:
        assert MADE_UP not in text, f"a generated secret is readable in {urn}"
        assert GIVEN not in text, f"a given secret is readable in {urn}"


def test_V9_every_value_of_a_secret_is_kept_secret(stack: Monitor):
    for secret in stack.of_type(SECRET):
        data = secret.inputs["stringData"]
        for key, value in data.items():
            assert is_secret(data) or is_secret(value), (secret.name, key)
        for key, value in secret.plain["stringData"].items():
            assert MADE_UP in value or GIVEN in value or key in IDS, (secret.name, key)


def test_J8_every_secret_that_a_pod_refers_to_is_made_by_the_stack(stack: Monitor):
    made = {
        (s.plain["metadata"]["namespace"], s.plain["metadata"]["name"]): set(s.plain["stringData"])
        for s in stack.of_type(SECRET)
    }
    referred: list[tuple[str, str, str | None]] = []

    def look(value: Any, namespace: str) -> None:
        if isinstance(value, dict):
            if reference := value.get("secretKeyRef"):
                referred.append((namespace, reference["name"], reference["key"]))
            # The ingress' is made by an administrator, and asked for before (preflight).
            if "hosts" not in value and (
                name := value.get("secretName") or value.get("existingSecret")
            ):
                referred.append((namespace, name, None))
            for pull in value.get("imagePullSecrets") or []:
                name = pull if isinstance(pull, str) else pull["name"]
                referred.append((namespace, name, None))
            for part in value.values():
                look(part, namespace)
        elif isinstance(value, list):
            for part in value:
                look(part, namespace)

    for namespace, spec in workloads(stack):
        look(spec, namespace)
    look(stack.one(RELEASE, "jupyterhub").plain["values"], "jupyterhub")
    assert len(referred) >= 7
    for namespace, name, key in referred:
        assert (namespace, name) in made, (namespace, name)
        assert key is None or key in made[namespace, name], (name, key)


@pytest.mark.parametrize("name", ["dev", "staging", "prod"])
def test_J7_whatever_makes_pods_pulls_with_the_stacks_own_account(name: str):
    found = [spec.get("imagePullSecrets") for _, spec in workloads(platform(name))]
    assert len(found) >= 4
    assert found == [[{"name": "mlhub-registry"}]] * len(found)


def test_T13_a_destroy_is_refused_before_anything_is_gone(stack: Monitor):
    """Pulumi deletes from the ends of the dependencies: the one end there is, is protected."""
    by_urn = {r.urn: r for r in stack.registrations}
    release = stack.one(RELEASE, "jupyterhub")
    assert release.protect
    reached: set[str] = set()
    ahead = [release.urn]
    while ahead:
        here = by_urn[ahead.pop()]
        if here.urn not in reached:
            reached.add(here.urn)
            provider = here.provider.rpartition("::")[0]
            ahead += [u for u in (*here.dependencies, here.parent, provider) if u in by_urn]
    left = set(by_urn) - reached
    # Of these the state alone has anything: what only looks things up, groups others, or stays. And
    # the Job that tries what was applied holds nothing: the next `up` makes it anew.
    nothing_lost = ("pulumi:providers:", "mlhub:up:VerifyAfterUp")
    assert [
        urn
        for urn in left
        if by_urn[urn].custom and not by_urn[urn].retain_on_delete
        if not any(part in urn for part in nothing_lost)
    ] == []


def test_T13_an_up_does_not_wait_for_a_claim_that_is_bound_already(stack: Monitor):
    """Nothing more is told of one, and the provider would wait until its time is up."""
    claims = stack.of_type("kubernetes:core/v1:PersistentVolumeClaim")
    assert claims
    for claim in claims:
        assert claim.plain["metadata"]["annotations"]["pulumi.com/skipAwait"] == "true", claim.name


def test_no_database_is_on_a_mount_of_seaweedfs(stack: Monitor):
    claim = stack.one("kubernetes:core/v1:PersistentVolumeClaim", "postgres-data").plain
    (of,) = [
        made.plain["provisioner"]
        for made in stack.of_type("kubernetes:storage.k8s.io/v1:StorageClass")
        if made.plain["metadata"]["name"] == claim["spec"]["storageClassName"]
    ]
    assert of != "seaweedfs-csi-driver"


def test_namespaces_admit_restricted_pods_alone(stack: Monitor):
    for namespace in stack.of_type(NAMESPACE):
        labels = namespace.plain["metadata"]["labels"]
        assert labels["pod-security.kubernetes.io/enforce"] == "restricted"
