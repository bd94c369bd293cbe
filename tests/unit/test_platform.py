"""The whole program against mocks: what is registered, how, and what nobody may read."""

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import certifi
import pulumi
import pytest
import yaml

from components import images
from components.images import machine_trust
from components.mirrors import machine_mirrors
from components.platform import Platform
from components.storage import Storage, StorageArgs
from tests.doubles.tls import certificate
from tests.unit.recorder import (
    ROOT,
    Monitor,
    Registration,
    platform,
    readable,
    run,
    stack_file,
)

SECRET = "kubernetes:core/v1:Secret"
NAMESPACE = "kubernetes:core/v1:Namespace"
POLICY = "kubernetes:networking.k8s.io/v1:NetworkPolicy"


@pytest.fixture
def local() -> Monitor:
    return platform("local")


def customs(monitor: Monitor) -> Iterator[Registration]:
    """Every resource of a provider, without the providers themselves."""
    for registration in monitor.registrations:
        if registration.custom and not registration.type.startswith("pulumi:providers:"):
            yield registration


def pods(monitor: Monitor) -> dict[str, dict[str, Any]]:
    """Pod specs of the foundation's workloads by name."""
    tokens = ("kubernetes:apps/v1:Deployment", "kubernetes:apps/v1:StatefulSet")
    return {
        r.name: r.plain["spec"]["template"]["spec"]
        for r in monitor.registrations
        if r.type in tokens and r.plain["metadata"]["namespace"] == "foundation"
    }


# What holds for every resource


def test_two_resources_of_one_urn_are_refused():
    def twice() -> None:
        for _ in range(2):
            Storage(
                "storage",
                StorageArgs(class_name="homes", provisioner="x.y/z", parameters={}, labels={}),
            )

    with pytest.raises(AssertionError, match="two resources have the URN"):
        run(twice)


def test_an_output_in_a_string_is_refused():
    with pytest.raises(Exception, match="__str__"):
        str(pulumi.Output.from_input("x"))


def test_T1_every_up_compares_with_what_is_there_and_no_default_provider_exists():
    project = yaml.safe_load((ROOT / "Pulumi.yaml").read_text())
    assert project["options"] == {"refresh": "always"}
    assert project["config"] == {"pulumi:disable-default-providers": ["*"]}


# Secrets


def test_T2_the_oidc_secret_has_the_two_keys_in_the_hubs_namespace(local: Monitor):
    secret = local.one(SECRET, "jupyterhub-oidc-secret").plain
    assert secret["metadata"]["name"] == "jupyterhub-oidc-secret"
    assert secret["metadata"]["namespace"] == "jupyterhub"
    assert set(secret["stringData"]) == {"client_id", "client_secret"}


def test_T2_the_client_and_the_secret_hold_the_same_value(local: Monitor):
    client = local.one("keycloak:openid/client:Client", "jupyterhub").plain
    secret = local.one(SECRET, "jupyterhub-oidc-secret").plain["stringData"]
    assert (client["clientId"], client["clientSecret"]) == (
        secret["client_id"],
        secret["client_secret"],
    )


def test_T2_a_secret_that_others_manage_leaves_client_and_secret_to_them():
    stack = stack_file("local")
    given = stack.identity.model_copy(update={"existing_secret": "sso-client"})
    monitor = run(lambda: Platform(stack.model_copy(update={"identity": given})))
    assert "jupyterhub" not in {r.name for r in monitor.of_type("keycloak:openid/client:Client")}
    assert "jupyterhub-oidc-secret" not in {r.name for r in monitor.of_type(SECRET)}
    release = monitor.one("kubernetes:helm.sh/v3:Release", "jupyterhub")
    assert '"sso-client"' in json.dumps(release.plain["values"]["hub"]["extraEnv"])


# Data


def test_T13_what_holds_data_is_protected_and_kept(local: Monitor):
    kept = {(r.type.split(":")[-1], r.name) for r in local.registrations if r.protect}
    shared = ["datasets", "models", "shared-artifacts-pvc", "shared-data-pvc"]
    places = [f"jupyterhub.{name}" for name in shared]
    places += [f"financial-mlops-pytorch.{name}" for name in shared[2:]]
    assert kept == {
        *(("PersistentVolume", place) for place in places),
        *(("PersistentVolumeClaim", place) for place in places),
        ("Namespace", "foundation"),
        ("Namespace", "jupyterhub"),
        ("Namespace", "mlflow"),
        ("PersistentVolumeClaim", "postgres-data"),
        ("PersistentVolumeClaim", "seaweedfs-data"),
        ("Realm", "realm"),
        ("Group", "group-mlhub"),
        ("Group", "group-mlhub--users"),
        ("Group", "group-mlhub--admins"),
        *(
            ("Group", f"group-workspaces{below}")
            for below in (
                "",
                "--forecasting",
                "--forecasting--owner",
                "--forecasting--editor",
                "--forecasting--viewer",
            )
        ),
        ("PersistentVolumeClaim", "workspace-forecasting"),
        ("Release", "jupyterhub"),
    }
    for registration in local.registrations:
        if registration.protect and not registration.type.endswith(":Release"):
            assert registration.retain_on_delete, registration.urn


def test_T13_a_deleted_claim_leaves_its_volume(local: Monitor):
    homes = local.one("kubernetes:storage.k8s.io/v1:StorageClass", "storage-homes").plain
    assert homes["reclaimPolicy"] == "Retain"
    values = local.one("kubernetes:helm.sh/v3:Release", "jupyterhub").plain["values"]
    dynamic = values["singleuser"]["storage"]["dynamic"]
    assert dynamic["storageClass"] == homes["metadata"]["name"]
    data = local.one("kubernetes:storage.k8s.io/v1:StorageClass", "foundation-data-volumes").plain
    assert (data["reclaimPolicy"], data["provisioner"]) == ("Retain", "rancher.io/local-path")
    for name in ("postgres-data", "seaweedfs-data"):
        claim = local.one("kubernetes:core/v1:PersistentVolumeClaim", name).plain
        assert claim["spec"]["storageClassName"] == data["metadata"]["name"] == "foundation-data"


# Keycloak


def test_T1_the_client_has_one_way_in_and_one_way_back(local: Monitor):
    client = local.one("keycloak:openid/client:Client", "jupyterhub").plain
    assert client["accessType"] == "CONFIDENTIAL"
    assert client["validRedirectUris"] == ["http://localhost:30888/hub/oauth_callback"]
    assert client["validPostLogoutRedirectUris"] == ["http://localhost:30888/hub/login"]
    assert client["webOrigins"] == []
    assert client["pkceCodeChallengeMethod"] == "S256"
    assert client["standardFlowEnabled"] is True
    for other_way in (
        "directAccessGrantsEnabled",
        "implicitFlowEnabled",
        "serviceAccountsEnabled",
        "fullScopeAllowed",
    ):
        assert client[other_way] is False, other_way


def test_T1_groups_are_claimed_by_their_full_path(local: Monitor):
    token = "keycloak:openid/groupMembershipProtocolMapper:GroupMembershipProtocolMapper"
    mapper = local.one(token, "jupyterhub-groups").plain
    assert mapper["fullPath"] is True
    assert mapper["claimName"] == "groups"
    assert mapper["addToUserinfo"] is True


def test_T1_the_default_scopes_keep_the_one_that_carries_sub(local: Monitor):
    token = "keycloak:openid/clientDefaultScopes:ClientDefaultScopes"
    scopes = local.one(token, "jupyterhub-default-scopes").plain["defaultScopes"]
    assert {"basic", "profile", "email", "roles", "web-origins", "acr"} == set(scopes)


def test_T3_groups_are_made_from_their_paths_parents_first(local: Monitor):
    groups = {r.name: r.plain for r in local.of_type("keycloak:index/group:Group")}
    assert "parentId" not in groups["group-mlhub"]
    for leaf in ("users", "admins"):
        group = groups[f"group-mlhub--{leaf}"]
        assert (group["name"], group["parentId"]) == (leaf, "group-mlhub-id")


def test_T3_the_outsider_of_the_demonstration_is_in_no_group(local: Monitor):
    token = "keycloak:index/userGroups:UserGroups"
    members = {r.name: r.plain["groupIds"] for r in local.of_type(token)}
    assert members["user-mallory"] == []
    assert members["user-carol"] == ["group-mlhub--admins-id"]
    assert members["user-alice"] == members["user-bob"] == ["group-mlhub--users-id"]


def test_nobody_is_made_up_where_the_stack_file_lists_nobody():
    stack = stack_file("local")
    real = stack.identity.model_copy(update={"demo_users": ()})
    monitor = run(lambda: Platform(stack.model_copy(update={"identity": real})))
    assert not monitor.of_type("keycloak:index/user:User")
    assert "demo-users" not in {r.name for r in monitor.of_type(SECRET)}


def test_keycloak_is_asked_nothing_before_it_runs(local: Monitor):
    provider = local.one("pulumi:providers:keycloak", "keycloak")
    deployment = local.one("kubernetes:apps/v1:Deployment", "keycloak")
    assert deployment.urn in provider.dependencies


# The release


def test_T4_chart_and_images_are_pinned(local: Monitor):
    release = local.one("kubernetes:helm.sh/v3:Release", "jupyterhub").plain
    assert re.fullmatch(r"\d+\.\d+\.\d+\S*", release["version"])
    assert re.fullmatch(r"chart sha256:[0-9a-f]{64}", release["description"])
    values = release["values"]
    images = [
        values["hub"]["image"],
        values["proxy"]["chp"]["image"],
        values["singleuser"]["image"],
    ]
    references = [f"{image['name']}:{image['tag']}" for image in images]
    references += [
        profile["kubespawner_override"]["image"] for profile in values["singleuser"]["profileList"]
    ]
    references += [c["image"] for spec in pods(local).values() for c in spec["containers"]]
    for reference in references:
        assert re.fullmatch(r"localhost:5000/mlhub/[a-z-]+:local@sha256:[0-9a-f]{64}", reference)


def test_the_release_is_installed_whole_or_not_at_all(local: Monitor):
    release = local.one("kubernetes:helm.sh/v3:Release", "jupyterhub")
    assert release.plain["name"] == "jupyterhub"
    assert release.plain["namespace"] == "jupyterhub"
    assert release.plain["atomic"] is True
    assert release.plain["timeout"] >= 300
    assert release.plain["maxHistory"] == 10


def test_the_release_waits_for_what_the_hub_needs(local: Monitor):
    release = local.one("kubernetes:helm.sh/v3:Release", "jupyterhub")
    for token, name in [
        (SECRET, "mlhub-hub"),
        (SECRET, "jupyterhub-oidc-secret"),
        ("kubernetes:apps/v1:StatefulSet", "postgres"),
        ("kubernetes:apps/v1:Deployment", "keycloak"),
        ("keycloak:openid/clientDefaultScopes:ClientDefaultScopes", "jupyterhub-default-scopes"),
        ("kubernetes:storage.k8s.io/v1:StorageClass", "storage-homes"),
    ]:
        assert local.one(token, name).urn in release.dependencies, name


# Images


def test_images_stand_on_base_by_its_digest_and_base_on_the_stacks_debian(local: Monitor):
    images = {r.name: r.plain for r in local.of_type("docker-build:index:Image")}
    services = {"hub", "proxy", "keycloak", "postgres", "execution", "mlflow", "seaweedfs"}
    assert set(images) == {"base", "ml-cpu", *services}
    base = images.pop("base")
    assert base["buildArgs"] == {"DEBIAN_IMAGE": "localhost:5000/mlhub/debian:bookworm"}
    for image in images.values():
        (argument,) = image["buildArgs"].items()
        assert argument[0] == "BASE_IMAGE"
        assert re.fullmatch(r"localhost:5000/mlhub/base:local@sha256:[0-9a-f]{64}", argument[1])


def test_images_are_pushed_and_a_preview_builds_none(local: Monitor):
    for image in local.of_type("docker-build:index:Image"):
        assert image.plain["push"] is True
        assert image.plain["buildOnPreview"] is False
        assert image.plain["builder"] == {"name": "mlhub"}
        assert image.retain_on_delete


def test_the_machines_own_authorities_are_a_build_secret_and_no_reason_to_build(
    monkeypatch, tmp_path
):
    """Public ones are not: they made 5.4 of 6.2 MB of state, which is written down all the time."""
    own = certificate(tmp_path).authority.read_text()
    bundle = tmp_path / "ca.pem"
    bundle.write_text(f"# public\n{Path(certifi.where()).read_text()}\n# ours\n{own}")
    monkeypatch.setenv("SSL_CERT_FILE", str(bundle))
    monitor = run(lambda: Platform(stack_file("local")))
    assert len(monitor.of_type("docker-build:index:Image")) >= 6
    for image in monitor.of_type("docker-build:index:Image"):
        assert image.plain["secrets"]["ca"] == own
        assert own not in list(readable(image.inputs))
        assert image.plain["ignoreSecretsInDiffCalculation"] == ["ca", "mirrors"]


def test_public_authorities_alone_are_no_build_secret(monkeypatch):
    monkeypatch.setenv("SSL_CERT_FILE", certifi.where())
    assert machine_trust() == ""
    monkeypatch.delenv("SSL_CERT_FILE")
    assert machine_trust() == ""


def test_a_machine_without_authorities_of_its_own_has_the_secret_too_and_builds_nothing(
    monkeypatch,
):
    """docker-build ignores a changed secret, and not one that comes or goes: all was built anew
    when a runner behind a gateway and a laptop took turns.
    """
    for name in ("SSL_CERT_FILE", *MIRRORS):
        monkeypatch.delenv(name, raising=False)
    monitor = run(lambda: Platform(stack_file("local")))
    for image in monitor.of_type("docker-build:index:Image"):
        assert image.plain["secrets"] == {"ca": "", "mirrors": ""}
        assert image.plain["ignoreSecretsInDiffCalculation"] == ["ca", "mirrors"]


def test_the_authorities_of_the_distribution_are_public_ones(monkeypatch, tmp_path):
    theirs = certificate(tmp_path).authority
    monkeypatch.setenv("SSL_CERT_FILE", str(theirs))
    monkeypatch.setattr(images, "DISTRIBUTED", tmp_path)
    assert machine_trust() == ""


def test_a_bundle_that_cannot_be_read_is_one_sentence(monkeypatch, tmp_path):
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "none.pem"))
    with pytest.raises(pulumi.RunError, match=r"SSL_CERT_FILE names .*none.pem, which cannot be"):
        machine_trust()


MIRRORS = ("PIP_INDEX_URL", "UV_DEFAULT_INDEX", "NPM_CONFIG_REGISTRY", "MAVEN_MIRROR_URL")


def test_V9_the_machines_package_mirrors_are_secrets_of_each_build(monkeypatch):
    """Of a site without the internet, where no other way to packages is; with its account."""
    account = "https://us'er:pass@mirror.example.com/simple"
    for name in MIRRORS:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PIP_INDEX_URL", account)
    maven = "https://mirror.example.com/maven"
    monkeypatch.setenv("MAVEN_MIRROR_URL", maven)
    monitor = run(lambda: Platform(stack_file("local")))
    for image in monitor.of_type("docker-build:index:Image"):
        asked = "".join(f"echo ${name};" for name in MIRRORS)
        script = image.plain["secrets"]["mirrors"] + asked
        said = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=True)
        assert said.stdout.split("\n")[:4] == [*[account] * 2, "", maven]
        assert "us'er" not in "".join(readable(image.inputs))


@pytest.mark.parametrize(
    "address", ["mirror.example.com/simple", "https://a b", "https://a\nrm -r /"]
)
def test_what_is_no_address_of_a_mirror_is_one_sentence_without_it(monkeypatch, address):
    monkeypatch.setenv("NPM_CONFIG_REGISTRY", address)
    with pytest.raises(pulumi.RunError, match=r"^NPM_CONFIG_REGISTRY is no address") as error:
        machine_mirrors()
    assert address not in str(error.value)


# Pods and network


def test_foundation_pods_run_without_any_privilege(local: Monitor):
    assert set(pods(local)) == {"keycloak", "postgres", "seaweedfs"}
    for spec in pods(local).values():
        assert spec["automountServiceAccountToken"] is False
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        for container in spec["containers"]:
            context = container["securityContext"]
            assert context["allowPrivilegeEscalation"] is False
            assert context["readOnlyRootFilesystem"] is True
            assert context["capabilities"] == {"drop": ["ALL"]}
            assert set(container["resources"]) == {"requests", "limits"}


def test_keycloak_is_probed_on_its_management_port_which_no_service_shows(local: Monitor):
    (container,) = pods(local)["keycloak"]["containers"]
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert container[probe]["httpGet"]["port"] == 9000
    service = local.one("kubernetes:core/v1:Service", "keycloak").plain["spec"]
    assert [(p["port"], p["nodePort"]) for p in service["ports"]] == [(8080, 30880)]


def test_T11_postgres_hears_keycloak_and_the_hub_alone(local: Monitor):
    policy = local.one(POLICY, "postgres").plain
    assert policy["metadata"]["namespace"] == "foundation"
    (rule,) = policy["spec"]["ingress"]
    assert [port["port"] for port in rule["ports"]] == [5432]
    labels = [peer["podSelector"]["matchLabels"] for peer in rule["from"]]
    assert labels[0]["app.kubernetes.io/name"] == "keycloak"
    assert labels[1] == {"app": "jupyterhub", "component": "hub"}
    hub = rule["from"][1]["namespaceSelector"]["matchLabels"]
    assert hub == {"kubernetes.io/metadata.name": "jupyterhub"}
    assert "egress" not in policy["spec"]
    assert "Egress" in policy["spec"]["policyTypes"]


def test_T11_what_no_policy_allows_is_refused_in_both_namespaces(local: Monitor):
    for name, namespace in [
        ("jupyterhub-nothing", "jupyterhub"),
        ("foundation-nothing", "foundation"),
    ]:
        policy = local.one(POLICY, name).plain
        assert policy["metadata"]["namespace"] == namespace
        assert policy["spec"] == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}


def test_J9_names_are_those_that_are_documented(local: Monitor):
    assert {n.plain["metadata"]["name"] for n in local.of_type(NAMESPACE)} == {
        "jupyterhub",
        "foundation",
        "mlflow",
    }
    assert {s.plain["metadata"]["name"] for s in local.of_type(SECRET)} == {
        "demo-users",
        "execution-client-nightly-reports",
        "jupyterhub-oidc-secret",
        "mlhub-verify",
        "keycloak-admin",
        "mlhub-execution",
        "mlflow",
        "mlflow-s3",
        "mlhub-hub",
        "mlhub-workspaces",
        "postgres",
        "seaweedfs-s3",
    }
    assert {s.plain["metadata"]["name"] for s in local.of_type("kubernetes:core/v1:Service")} == {
        "execution",
        "keycloak",
        "mlflow-service",
        "postgres",
        "seaweedfs",
        "seaweedfs-s3",
        "workspaces",
    }
