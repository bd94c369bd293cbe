"""Discovery: the documented shape, key by key."""

import jsonschema
import pytest
import yaml

from components.discovery import (
    Discovery,
    DiscoveryArgs,
    hub_endpoints,
    service_document,
)
from tests.unit.recorder import run

MLFLOW = "http://mlflow-service.mlflow.svc.cluster.local:5000"

TEXT = {"type": "string", "minLength": 1}


def exactly(**properties):
    return {
        "type": "object",
        "additionalProperties": False,
        "required": list(properties),
        "properties": properties,
    }


SHAPE = exactly(
    service=exactly(
        name={"const": "jupyterhub"},
        display_name=TEXT,
        description=TEXT,
        type=TEXT,
        category={"const": "ai"},
        icon=TEXT,
        endpoints={
            "type": "array",
            "minItems": 1,
            "items": exactly(
                name=TEXT,
                type=TEXT,
                url={"type": "string", "pattern": "^https?://"},
                health_url={"type": "string", "pattern": "^https?://"},
                description=TEXT,
                primary={"type": "boolean"},
            ),
        },
        dependencies={"type": "array", "items": TEXT},
        scaling=exactly(
            resource_type={"const": "deployment"},
            resource_name={"const": "hub"},
            namespace={"const": "jupyterhub"},
            min_replicas={"const": 1},
            can_disable={"type": "boolean"},
        ),
    )
)
"""As the T section documents it, and no key beside."""


def config_map(mlflow_uri: str | None = MLFLOW):
    monitor = run(
        lambda: Discovery(
            "discovery",
            DiscoveryArgs(
                namespace="jupyterhub",
                hub_url="https://jupyter.example.com",
                mlflow_uri=mlflow_uri,
            ),
        )
    )
    return monitor.one("kubernetes:core/v1:ConfigMap", "thinkube-service-config").plain


@pytest.mark.parametrize("mlflow_uri", [None, MLFLOW])
def test_T12_the_document_is_in_the_documented_shape(mlflow_uri):
    made = config_map(mlflow_uri)
    assert list(made["data"]) == ["service.yaml"]
    jsonschema.validate(yaml.safe_load(made["data"]["service.yaml"]), SHAPE)


def test_T12_the_labels_are_those_that_discovery_looks_for():
    labels = config_map()["metadata"]["labels"]
    assert labels["thinkube.io/managed"] == "true"
    assert labels["thinkube.io/service-name"] == "jupyterhub"
    document = yaml.safe_load(config_map()["data"]["service.yaml"])
    assert labels["thinkube.io/service-type"] == document["service"]["type"]


def test_T12_the_endpoints_are_the_public_address_and_mlflows():
    service = yaml.safe_load(config_map()["data"]["service.yaml"])["service"]
    by_name = {endpoint["name"]: endpoint for endpoint in service["endpoints"]}
    assert by_name["web"]["url"] == "https://jupyter.example.com"
    assert by_name["web"]["health_url"] == "https://jupyter.example.com/hub/health"
    assert by_name["mlflow"]["url"] == MLFLOW
    assert [name for name, endpoint in by_name.items() if endpoint["primary"]] == ["web"]
    assert "mlflow" in service["dependencies"]


def test_a_stack_without_mlflow_promises_none():
    service = yaml.safe_load(config_map(None)["data"]["service.yaml"])["service"]
    assert "mlflow" not in str(service["endpoints"]).lower()
    assert service["dependencies"] == ["keycloak"]


@pytest.mark.parametrize("count", [0, 2])
def test_other_than_one_primary_endpoint_is_refused(count):
    endpoints = hub_endpoints("https://jupyter.example.com", None)[:1] * count
    with pytest.raises(ValueError, match="exactly one must be"):
        service_document("jupyterhub", endpoints, [])
