"""MLflow's resources in the stacks that have it: address, pod, Secrets, who may talk to it."""

import configparser
import json
import tomllib
from typing import Any
from urllib.parse import urlsplit

import pytest
from packaging.requirements import Requirement

from components import mlflow_server, names
from components.network import to_service
from components.platform import Platform
from tests.unit.recorder import (
    ROOT,
    STACKS,
    Monitor,
    Registration,
    is_secret,
    platform,
    run,
    stack_file,
)
from tests.unit.test_images_locks import pinned

SECRET = "kubernetes:core/v1:Secret"
DEPLOYMENT = "kubernetes:apps/v1:Deployment"
POLICY = "kubernetes:networking.k8s.io/v1:NetworkPolicy"
RELEASE = "kubernetes:helm.sh/v3:Release"


@pytest.fixture(params=STACKS)
def stack(request: pytest.FixtureRequest) -> Monitor:
    return platform(request.param)


def deployment(stack: Monitor) -> dict[str, Any]:
    return stack.one(DEPLOYMENT, "mlflow").plain["spec"]


def pod(stack: Monitor) -> dict[str, Any]:
    return deployment(stack)["template"]["spec"]


def containers(stack: Monitor) -> list[dict[str, Any]]:
    return [*pod(stack)["initContainers"], *pod(stack)["containers"]]


def values(stack: Monitor) -> dict[str, Any]:
    return stack.one(RELEASE, "jupyterhub").plain["values"]


def hub_url(stack: Monitor) -> str:
    """As browsers reach it."""
    return str(values(stack)["custom"]["mlhub"]["identity"]["callback_url"]).removesuffix(
        "/hub/oauth_callback"
    )


def policy(stack: Monitor, name: str) -> dict[str, Any]:
    return stack.one(POLICY, name).plain["spec"]


def test_J3_servers_have_the_documented_address_and_it_is_the_services(stack):
    address = "http://mlflow-service.mlflow.svc.cluster.local:5000"
    assert values(stack)["singleuser"]["extraEnv"]["MLFLOW_TRACKING_URI"] == address
    service = stack.one("kubernetes:core/v1:Service", "mlflow-service").plain
    assert service["metadata"]["namespace"] == "mlflow"
    assert [port["port"] for port in service["spec"]["ports"]] == [5000]
    labels = deployment(stack)["template"]["metadata"]["labels"]
    assert service["spec"]["selector"].items() <= labels.items()


def test_J3_a_down_mlflow_costs_a_cell_seconds(stack):
    environment = values(stack)["singleuser"]["extraEnv"]
    assert environment["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] == "2"
    assert environment["MLFLOW_HTTP_REQUEST_TIMEOUT"] == "5"


def test_J3_the_server_answers_to_every_name_of_its_service_with_the_port(stack):
    (hosts,) = [a for a in pod(stack)["containers"][0]["args"] if a.startswith("--allowed-hosts=")]
    assert set(hosts.partition("=")[2].split(",")) == {
        "mlflow-service.mlflow.svc.cluster.local:5000",
        "mlflow-service.mlflow.svc:5000",
        "mlflow-service.mlflow:5000",
        urlsplit(hub_url(stack)).netloc,
    }


def test_J3_the_page_is_the_hubs_and_takes_changes_from_there_alone(stack):
    args = pod(stack)["containers"][0]["args"]
    assert f"--cors-allowed-origins={hub_url(stack)}" in args
    told = values(stack)["hub"]
    assert told["config"]["Proxy"]["extra_routes"]["/services/mlflow/"] == (
        "http://mlflow-service.mlflow.svc.cluster.local:5000"
    )
    service = told["services"]["mlflow"]
    assert service["oauth_redirect_uri"].startswith("/services/mlflow/")
    assert "url" not in service, "the hub would wait for it"
    scopes = set(told["loadRoles"]["user"]["scopes"])
    assert {"self", "access:services!service=mlflow", "access:services!service=execution"} <= scopes
    hub = stack.one(SECRET, "mlhub-hub").plain["stringData"]
    mlflow = stack.one(SECRET, "mlflow").plain["stringData"]
    assert hub["hub.services.mlflow.apiToken"] == mlflow["hub-token"]


def test_the_pod_has_no_privilege_and_its_image_a_digest(stack):
    assert pod(stack)["securityContext"]["runAsNonRoot"] is True
    assert pod(stack)["automountServiceAccountToken"] is False
    for container in containers(stack):
        security = container["securityContext"]
        assert security["readOnlyRootFilesystem"] is True
        assert security["allowPrivilegeEscalation"] is False
        assert security["capabilities"] == {"drop": ["ALL"]}
        assert "@sha256:" in container["image"]
        assert container["resources"]["limits"].keys() == {"cpu", "memory"}


def test_T13_tables_are_upgraded_before_a_server_starts_and_one_server_runs_at_a_time(stack):
    tables, server = containers(stack)
    assert tables["args"][:3] == ["mlflow", "db", "upgrade"]
    assert f"--backend-store-uri={tables['args'][3]}" in server["args"]
    assert deployment(stack)["strategy"] == {"type": "Recreate"}
    assert deployment(stack)["replicas"] == 1


def test_V9_its_secrets_are_generated_have_fixed_names_and_are_not_readable(stack):
    mlflow = stack.one(SECRET, "mlflow")
    assert set(mlflow.plain["stringData"]) == {
        "database-password",
        "admin-password",
        "flask-secret-key",
        "hub-token",
    }
    postgres = stack.one(SECRET, "postgres").plain["stringData"]
    assert postgres["mlflow-password"] == mlflow.plain["stringData"]["database-password"]
    for secret in (mlflow, stack.one(SECRET, "mlflow-s3")):
        assert secret.plain["metadata"]["namespace"] == "mlflow"
        data = secret.inputs["stringData"]
        assert is_secret(data) or all(is_secret(value) for value in data.values())


def test_J8_every_key_that_the_pod_takes_is_in_a_secret_of_its_namespace(stack):
    there = {
        (s.plain["metadata"]["name"], key)
        for s in stack.of_type(SECRET)
        if s.plain["metadata"]["namespace"] == "mlflow"
        for key in s.plain["stringData"]
    }
    for container in containers(stack):
        for variable in container["env"]:
            if reference := variable.get("valueFrom"):
                key = reference["secretKeyRef"]
                assert (key["name"], key["key"]) in there


def test_J3_the_keys_of_s3_are_with_the_server_alone(stack):
    def mentions(registration: Registration) -> bool:
        return "mlflow-s3" in json.dumps(registration.plain)

    assert {(r.type, r.name) for r in stack.registrations if mentions(r)} == {
        (SECRET, "mlflow-s3"),
        (DEPLOYMENT, "mlflow"),
    }


def test_M7_nobody_may_do_anything_unless_granted_and_the_hub_says_who_one_is(stack):
    made = stack.one("kubernetes:core/v1:ConfigMap", "mlflow").plain["data"]["basic_auth.ini"]
    config = configparser.ConfigParser()
    config.read_string(made)
    assert config["mlflow"]["default_permission"] == "NO_PERMISSIONS"
    assert config["mlflow"]["grant_default_workspace_access"] == "false"
    assert config["mlflow"]["authorization_function"] == "mlhub.mlflow.app:authenticate"
    assert "password" not in made
    server = containers(stack)[1]
    assert {"--app-name=mlhub", "--enable-workspaces"} <= set(server["args"])
    environment = {v["name"]: v.get("value") for v in server["env"]}
    assert environment["JUPYTERHUB_API_URL"] == (
        "http://hub.jupyterhub.svc.cluster.local:8081/hub/api"
    )
    assert environment["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] == "false"


def test_the_bootstrap_admin_can_be_no_person():
    """JupyterHub's `Authenticator.validate_username` refuses a slash."""
    from jupyterhub.auth import Authenticator

    assert not Authenticator().validate_username(mlflow_server.BOOTSTRAP_ADMIN)


# Who may talk to whom


def test_T11_mlflow_is_asked_by_the_hubs_namespace_on_its_port_and_asks_no_more_than_it_needs(
    stack,
):
    spec = policy(stack, "mlflow")
    assert set(spec["policyTypes"]) == {"Ingress", "Egress"}
    (ingress,) = spec["ingress"]
    (peer,) = ingress["from"]
    name = "kubernetes.io/metadata.name"
    assert peer["namespaceSelector"]["matchLabels"] == {name: "jupyterhub"}
    assert [port["port"] for port in ingress["ports"]] == [5000]
    ports = [[port["port"] for port in rule["ports"]] for rule in spec["egress"]]
    assert ports[:2] == [[5432], [8081]]
    assert ports[3] == [53, 53]
    assert all(rule.get("to") for rule in spec["egress"][:3])


def test_T11_postgres_and_the_hub_let_mlflow_in_and_servers_may_go_there(stack):
    mlflow = names.selector("mlflow")
    (rule,) = policy(stack, "postgres")["ingress"]
    assert mlflow in [peer["podSelector"]["matchLabels"] for peer in rule["from"]]
    (to_hub,) = values(stack)["hub"]["networkPolicy"]["ingress"]
    assert to_hub["from"][0]["podSelector"]["matchLabels"] == mlflow
    assert to_hub["ports"] == [{"port": 8081, "protocol": "TCP"}]
    to_mlflow = values(stack)["singleuser"]["networkPolicy"]["egress"]
    assert {"port": 5000, "protocol": "TCP"} in to_mlflow[0]["ports"]


def test_T11_the_proxy_may_go_to_mlflow(stack):
    spec = policy(stack, "proxy-to-mlflow")
    assert spec["podSelector"]["matchLabels"]["component"] == "proxy"
    (rule,) = spec["egress"]
    (peer,) = rule["to"]
    assert peer["podSelector"]["matchLabels"] == names.selector("mlflow")
    assert rule["ports"] == [{"port": 5000, "protocol": "TCP"}]


def test_T11_s3_is_reached_by_its_addresses_or_by_its_namespace():
    outside = to_service("https://s3.example.com", ["10.0.9.0/24"])
    assert outside["to"] == [{"ip_block": {"cidr": "10.0.9.0/24"}}]
    assert outside["ports"] == [{"port": 443, "protocol": "TCP"}]
    inside = to_service("http://s3.seaweedfs.svc.cluster.local:8333", [])
    space = {"kubernetes.io/metadata.name": "seaweedfs"}
    assert inside["to"] == [{"namespace_selector": {"match_labels": space}}]
    assert inside["ports"] == [{"port": 8333, "protocol": "TCP"}]
    with pytest.raises(ValueError, match="outside the cluster"):
        to_service("https://s3.example.com", [])


def test_J3_on_local_artifacts_go_to_the_stacks_own_s3():
    server = {v["name"]: v.get("value") for v in containers(platform("local"))[1]["env"]}
    s3 = "http://seaweedfs-s3.foundation.svc.cluster.local:8333"
    assert server["MLFLOW_S3_ENDPOINT_URL"] == s3
    (to_s3,) = [
        rule
        for rule in policy(platform("local"), "mlflow")["egress"]
        if [port["port"] for port in rule["ports"]] == [8333]
    ]
    space = {"kubernetes.io/metadata.name": "foundation"}
    assert to_s3["to"] == [{"namespaceSelector": {"matchLabels": space}}]


# The stacks without it, and the image


def test_a_stack_without_mlflow_has_nothing_of_it():
    stack = stack_file("local").model_copy(update={"mlflow": None})
    monitor = run(lambda: Platform(stack))
    kinds = (DEPLOYMENT, POLICY, "kubernetes:core/v1:Namespace")
    assert not [r for r in monitor.registrations if "mlflow" in r.name and r.type in kinds]
    assert "mlflow" not in json.dumps(values(monitor)).lower()


@pytest.mark.parametrize("image", ["hub", "mlflow"])
def test_what_the_package_needs_in_a_service_is_in_the_services_image(image):
    package = tomllib.loads((ROOT / "images/packages/mlhub/pyproject.toml").read_text())
    locked = pinned(ROOT / "images" / image / "requirements.txt")
    for line in package["project"]["optional-dependencies"][image]:
        wanted = Requirement(line)
        assert locked[wanted.name] in wanted.specifier, line


def test_servers_and_mlflow_speak_the_same_version_of_mlflow():
    server = pinned(ROOT / "images/mlflow/requirements.txt")["mlflow"]
    client = pinned(ROOT / "images/ml-cpu/requirements.txt")["mlflow"]
    assert server.split(".")[:2] == client.split(".")[:2]
