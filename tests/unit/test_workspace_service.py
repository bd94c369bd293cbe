"""The workspaces' API as a component: what it registers and may do, and settings that it takes."""

import pulumi
import pulumi_keycloak as keycloak
import pulumi_kubernetes as k8s
import pulumi_random as random
import pytest

from components import workspace_server, workspaces
from components.platform import with_services
from components.workspace_service import WorkspaceService, WorkspaceServiceArgs
from mlhub.hub.api import MEMBERS_SCOPE
from mlhub.workspaces.__main__ import PORT
from mlhub.workspaces.claims import LABEL
from mlhub.workspaces.mounts import ROLES, claim_name, group_path
from mlhub.workspaces.settings import Settings
from tests.unit.recorder import STACKS, Monitor, is_secret, platform, readable, run, stack_file

CLIENT = "keycloak:openid/client:Client"
GRANT = "keycloak:openid/clientServiceAccountRole:ClientServiceAccountRole"
POLICY = "kubernetes:networking.k8s.io/v1:NetworkPolicy"


@pytest.fixture(scope="module")
def made() -> Monitor:
    def program() -> WorkspaceService:
        config = stack_file("dev")
        providers = [
            k8s.Provider("kubernetes"),
            random.Provider("random"),
            keycloak.Provider("keycloak"),
        ]
        return WorkspaceService(
            "workspace-service",
            WorkspaceServiceArgs(
                realm_id="mlhub-dev",
                namespace=config.hub.namespace,
                foundation_namespace=config.foundation.namespace,
                settings=workspace_server.settings(config),
                image="registry/execution:1@sha256:0",
                pull_secrets=[],
                database_password=pulumi.Output.secret("the-database-password"),
                kubernetes_api={
                    "to": [{"ip_block": {"cidr": "10.0.0.1/32"}}],
                    "ports": [{"port": 6443}],
                },
                keycloak={"to": [{"ip_block": {"cidr": "10.0.8.10/32"}}]},
            ),
            pulumi.ResourceOptions(providers=providers),
        )

    return run(program)


@pytest.mark.parametrize("stack", STACKS)
def test_M8_the_settings_of_every_stack_are_those_that_the_service_takes(stack):
    config, monitor = stack_file(stack), platform(stack)
    data = monitor.one("kubernetes:core/v1:ConfigMap", "workspaces").plain["data"]
    settings = Settings.model_validate_json(data["workspaces.json"])
    assert settings.claims.largest_gib <= 100
    classes = monitor.of_type("kubernetes:storage.k8s.io/v1:StorageClass")
    by_name = {each.plain["metadata"]["name"]: each.plain for each in classes}
    assert by_name[settings.claims.storage_class]["reclaimPolicy"] == "Retain"
    (claim, *_) = [
        c.plain
        for c in monitor.of_type("kubernetes:core/v1:PersistentVolumeClaim")
        if c.name.startswith("workspace-")
    ]
    assert claim["spec"]["storageClassName"] == settings.claims.storage_class
    assert claim["spec"]["accessModes"] == [settings.claims.access_mode]
    assert settings.keycloak.access_groups == list(config.identity.access_groups)
    assert settings.base_path == "/services/workspaces"
    assert settings.limits.grace_days == 7


def test_T14_the_service_may_make_and_end_claims_of_one_namespace_and_nothing_else(made):
    roles = [r for r in made.registrations if "rbac.authorization.k8s.io" in r.type]
    assert sorted(r.type.rpartition(":")[2] for r in roles) == ["Role", "RoleBinding"]
    (role,) = [r.plain for r in roles if r.type.endswith(":Role")]
    allowed = {
        (resource, verb)
        for rule in role["rules"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }
    assert allowed == {("persistentvolumeclaims", verb) for verb in ("create", "get", "delete")}


def test_T1_in_keycloak_it_is_a_client_without_a_page_and_with_one_role(made):
    (client,) = made.of_type(CLIENT)
    given = client.plain
    assert given["clientId"] == "mlhub-workspaces"
    assert given["serviceAccountsEnabled"] is True
    flows = ("standardFlowEnabled", "implicitFlowEnabled", "directAccessGrantsEnabled")
    assert not any(given[flow] for flow in flows)
    assert [r.plain["role"] for r in made.of_type(GRANT)] == ["manage-users"]


def test_V9_no_secret_is_readable_and_the_pod_names_only_the_secret(made):
    (secret,) = made.of_type("kubernetes:core/v1:Secret")
    assert secret.name == "mlhub-workspaces"
    data = secret.inputs["stringData"]
    assert is_secret(data) or all(is_secret(value) for value in data.values())
    for registration in made.registrations:
        for text in readable(registration.inputs):
            assert "the-database-password" not in text
            assert "the-mock-made-this-secret" not in text


def test_the_pod_is_restricted_and_listens_where_the_service_does(made):
    deployment = made.one("kubernetes:apps/v1:Deployment", "workspaces").plain["spec"]
    (container,) = deployment["template"]["spec"]["containers"]
    assert container["command"][-1] == "mlhub.workspaces"
    assert container["ports"][0]["containerPort"] == PORT
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    assert deployment["template"]["spec"]["securityContext"]["runAsNonRoot"] is True


def test_T11_only_the_proxy_reaches_the_service_and_it_reaches_what_it_asks(made):
    policy = made.one(POLICY, "workspaces").plain["spec"]
    (way_in,) = policy["ingress"]
    assert way_in["from"] == [
        {"podSelector": {"matchLabels": {"app": "jupyterhub", "component": "proxy"}}}
    ]
    ports = [[p["port"] for p in rule.get("ports", [])] for rule in policy["egress"]]
    assert ports == [[8081], [5432], [6443], [], [53, 53]]
    assert made.one(POLICY, "proxy-to-workspaces").plain["spec"]["policyTypes"] == ["Egress"]


@pytest.mark.parametrize("stack", STACKS)
def test_the_hub_lets_people_and_their_servers_use_it_and_itself_tell_of_members(stack):
    values = with_services({"hub": {"config": {}}}, stack_file(stack))["hub"]
    roles = values["loadRoles"]
    assert roles["workspaces"]["scopes"] == [MEMBERS_SCOPE] == [workspace_server.MEMBERS_SCOPE]
    for role in ("user", "server"):
        assert "access:services!service=workspaces" in roles[role]["scopes"]
        assert "access:services!service=execution" in roles[role]["scopes"]
    assert "self" in roles["user"]["scopes"]
    assert "url" not in values["services"]["workspaces"]
    target = "http://workspaces.jupyterhub.svc.cluster.local:8003"
    assert values["config"]["Proxy"]["extra_routes"]["/services/workspaces/"] == target


def test_the_program_and_the_services_call_things_by_the_same_names():
    assert workspaces.ROLES == ROLES
    assert workspaces.WORKSPACE_LABEL == LABEL
    assert workspaces.claim_name("churn") == claim_name("churn")
    assert workspaces.group_path("churn", "owner") == group_path("churn", "owner")
