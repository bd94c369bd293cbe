"""Ways out of the platform's pods to what is there already, wherever that is.

A policy is applied once a Service's address has become a pod's, and Cilium matches no address range
with pods, so a service in the cluster is named by its namespace and its pods' ports.
"""

import json
from typing import Any

import pulumi
import pytest

from components.config import StackFile
from components.platform import Platform
from components.stackfile import load
from tests.policies.stack import refusals, resources_of
from tests.unit.recorder import Monitor, given_secrets, raw_config, run

POLICY = "kubernetes:networking.k8s.io/v1:NetworkPolicy"
INSIDE = "http://keycloak-http.keycloak.svc"
MINIO = "http://minio.minio.svc.cluster.local"
NO_ADDRESSES: dict[str, Any] = {"keycloak": [], "s3": []}


def dev(
    network: dict[str, Any], *, internal_url: str | None = INSIDE, endpoint: str = MINIO
) -> StackFile:
    """`dev` with its Keycloak and its S3 at those addresses."""
    config, secrets = raw_config("dev"), given_secrets()
    identity, mlflow, its = (
        json.loads(config[f"mlhub:{section}"]) for section in ("identity", "mlflow", "network")
    )
    if internal_url is not None:
        identity["keycloak"]["internal_url"] = internal_url
    mlflow["artifacts"]["endpoint"] = endpoint
    config["mlhub:identity"], config["mlhub:mlflow"] = json.dumps(identity), json.dumps(mlflow)
    config["mlhub:network"] = json.dumps(its | network)
    return load("dev", config | secrets, secrets)


def applied(stack: StackFile) -> Monitor:
    secrets = given_secrets()
    pulumi.runtime.set_all_config(secrets, list(secrets))
    return run(lambda: Platform(stack), "dev")


def ways_out(made: Monitor) -> dict[str, list[dict[str, Any]]]:
    """The egress rules of each that asks Keycloak, S3 or the API server."""
    release = made.one("kubernetes:helm.sh/v3:Release", "jupyterhub").plain["values"]
    found = {
        name: made.one(POLICY, name).plain["spec"]["egress"]
        for name in ("execution", "workspaces", "verify", "mlflow")
    }
    return found | {"hub": release["hub"]["networkPolicy"]["egress"]}


def to_namespace(name: str, *ports: int) -> dict[str, Any]:
    labels = {"kubernetes.io/metadata.name": name}
    return {"to": [{"namespaceSelector": {"matchLabels": labels}}], "ports": tcp(*ports)}


def to_addresses(cidr: str, *ports: int) -> dict[str, Any]:
    return {"to": [{"ipBlock": {"cidr": cidr}}], "ports": tcp(*ports)}


def tcp(*ports: int) -> list[dict[str, Any]]:
    return [{"port": port, "protocol": "TCP"} for port in ports]


@pytest.fixture(scope="module")
def inside() -> Monitor:
    """Keycloak and S3 behind Services of the cluster, whose pods have other ports."""
    ports = {"keycloak_ports": [8080], "s3_ports": [9000], "kubernetes_api_ports": [16443]}
    return applied(dev(NO_ADDRESSES | ports))


def test_T11_a_keycloak_of_the_cluster_is_reached_by_its_namespace_and_its_pods_port(inside):
    for name, rules in ways_out(inside).items():
        assert (to_namespace("keycloak", 8080) in rules) is (name != "mlflow"), name
        assert 80 not in [port["port"] for rule in rules for port in rule["ports"]], name


def test_T11_an_s3_of_the_cluster_is_reached_by_its_namespace_and_its_pods_port(inside):
    assert to_namespace("minio", 9000) in ways_out(inside)["mlflow"]


def test_T11_the_api_server_is_reached_where_it_listens(inside):
    found = ways_out(inside)
    for name in ("hub", "execution", "workspaces"):
        assert to_addresses("10.1.0.1/32", 16443) in found[name], name


def test_T11_the_policies_of_the_organization_allow_what_a_stack_names(inside):
    assert refusals(resources_of(inside, "dev")) == []


def test_T11_without_ports_of_their_own_services_have_those_of_their_addresses():
    found = ways_out(applied(dev(NO_ADDRESSES, endpoint=f"{MINIO}:9000")))
    assert to_namespace("keycloak", 80) in found["hub"]
    assert to_namespace("keycloak", 80) in found["verify"]
    assert to_namespace("minio", 9000) in found["mlflow"]
    assert to_addresses("10.1.0.1/32", 443, 6443) in found["hub"]


def test_T11_addresses_that_a_stack_names_are_open_as_well_for_a_service_may_lead_outside():
    rules = ways_out(applied(dev({})))["hub"]
    (keycloak,) = [rule for rule in rules if rule["ports"] == tcp(80)]
    assert keycloak["to"] == [
        *to_namespace("keycloak")["to"],
        *to_addresses("10.0.8.10/32")["to"],
    ]


def test_T11_a_keycloak_outside_is_reached_by_its_addresses_on_the_port_that_pods_ask():
    by_browsers = ways_out(applied(dev({}, internal_url=None)))
    by_pods = ways_out(applied(dev({}, internal_url="http://keycloak.internal:8080")))
    for name in ("hub", "execution", "workspaces", "verify"):
        assert to_addresses("10.0.8.10/32", 443) in by_browsers[name], name
        assert to_addresses("10.0.8.10/32", 8080) in by_pods[name], name
