"""The Release's values: right for both charts, and what the rows ask of the hub and its pods."""

import ipaddress
import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from components import names
from components.config import Mirror, Profile, StackFile
from components.platform import Platform
from components.profiles import DEDICATED, override, profile_list
from mlhub.hub import settings
from tests.unit.recorder import ROOT, platform, run, stack_file

Z2JH = Path(__file__).parent / "data" / "z2jh-values.schema.json"
LITE = ROOT / "charts" / "jupyterhub-lite"
EXCEPT = (
    "10.0.0.0/8",
    "100.64.0.0/10",
    "169.254.0.0/16",
    "172.16.0.0/12",
    "192.168.0.0/16",
    "198.18.0.0/15",
    "240.0.0.0/4",
)


@pytest.fixture(scope="module")
def stack() -> StackFile:
    return stack_file("local")


@pytest.fixture(scope="module")
def values() -> dict[str, Any]:
    """As the Release is registered with them, digests resolved."""
    release = platform("local").one("kubernetes:helm.sh/v3:Release", "jupyterhub")
    return release.plain["values"]


def without_required(schema: Any) -> Any:
    """Helm checks values over the chart's defaults, which bring whatever is required."""
    if isinstance(schema, dict):
        return {key: without_required(part) for key, part in schema.items() if key != "required"}
    return schema


@pytest.fixture(params=[Z2JH, LITE / "values.schema.json"], ids=["z2jh", "lite"])
def schema(request: pytest.FixtureRequest) -> Any:
    return without_required(json.loads(request.param.read_text()))


def test_T4_the_values_pass_the_schema_of_both_charts(values, schema):
    jsonschema.validate(values, schema)


@pytest.mark.parametrize(
    ("section", "wrong"),
    [
        # Beside singleuser.storage it would do nothing and say nothing.
        ("singleuser", {"extraVolumes": []}),
        ("hub", {"existingSecret": 1}),
        ("proxy", {"service": {"type": "Port"}}),
    ],
)
def test_T4_a_key_or_a_value_that_no_chart_knows_would_not_pass(values, schema, section, wrong):
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(values | {section: values[section] | wrong}, schema)


def test_T4_values_are_literal_but_for_digests(values):
    text = json.dumps(values)
    assert text.count("@sha256:") == 3 + len(values["singleuser"]["profileList"])


def test_custom_mlhub_is_what_the_hub_reads(values):
    given = settings.parse(values["custom"]["mlhub"])
    assert given.identity.public_url == "http://localhost:30880"
    assert given.identity.internal_url == "http://keycloak.foundation.svc.cluster.local:8080"
    assert given.identity.login_url == names.after_logout_url("http://localhost:30888")


def test_T3_the_hub_has_one_authenticator_and_it_is_not_the_charts_default(values):
    authenticator = values["hub"]["config"]["JupyterHub"]["authenticator_class"]
    module, _, name = authenticator.rpartition(".")
    assert hasattr(__import__(module, fromlist=[name]), name)


def test_T2_the_client_comes_from_its_secret_alone(values):
    assert values["hub"]["extraEnv"] == {
        variable: {"valueFrom": {"secretKeyRef": {"name": "jupyterhub-oidc-secret", "key": key}}}
        for variable, key in [
            ("OAUTH_CLIENT_ID", "client_id"),
            ("OAUTH_CLIENT_SECRET", "client_secret"),
        ]
    }


def test_the_hubs_database_url_names_its_driver_and_no_password(values):
    assert values["hub"]["db"] == {
        "type": "postgres",
        "url": "postgresql+psycopg2://jupyterhub@postgres.foundation.svc.cluster.local:5432/jupyterhub",
        "upgrade": True,
    }


def test_J1_the_hub_is_published_on_its_node_port(values):
    assert values["proxy"]["service"] == {"type": "NodePort", "nodePorts": {"http": 30888}}


def test_V2_each_person_has_a_volume_of_10Gi_by_name(values):
    storage = values["singleuser"]["storage"]
    assert storage["capacity"] == "10Gi"
    assert storage["dynamic"]["pvcNameTemplate"] == "claim-{username}"
    assert storage["dynamic"]["storageClass"] == "jupyterhub-homes"


def test_V4_idle_servers_stop_after_an_hour(values):
    assert (values["cull"]["timeout"], values["cull"]["every"]) == (3600, 600)
    interval = values["singleuser"]["extraEnv"]["JUPYTERHUB_ACTIVITY_INTERVAL"]
    assert int(interval) < values["cull"]["every"] < values["cull"]["timeout"]


def test_V5_people_land_in_the_lab(values):
    assert values["singleuser"]["defaultUrl"] == "/lab"


def test_V8_the_default_profile_has_5G_and_a_guarantee_of_half(values):
    (default,) = [p for p in values["singleuser"]["profileList"] if p["default"]]
    assert default["display_name"] == "Standard (CPU)"
    assert default["kubespawner_override"]["mem_limit"] == "5G"
    assert default["kubespawner_override"]["mem_guarantee"] == "2.5G"


def test_V8_what_starts_without_the_form_gets_the_default_profile(values):
    (default,) = [p for p in values["singleuser"]["profileList"] if p["default"]]
    chosen, single = default["kubespawner_override"], values["singleuser"]
    assert single["memory"] == {"limit": chosen["mem_limit"], "guarantee": chosen["mem_guarantee"]}
    assert single["cpu"] == {"limit": chosen["cpu_limit"], "guarantee": chosen["cpu_guarantee"]}
    assert f"{single['image']['name']}:{single['image']['tag']}" == chosen["image"]


def test_T11_user_pods_reach_the_internet_and_nothing_private(values):
    rules = values["singleuser"]["networkPolicy"]
    assert rules["enabled"] is True
    # The chart's own rule for the internet opens 100.64.0.0/10 and most of 169.254.0.0/16.
    for closed in ("nonPrivateIPs", "privateIPs", "cloudMetadataServer"):
        assert rules["egressAllowRules"][closed] is False
    everywhere = [rule for rule in rules["egress"] if "ports" not in rule]
    assert everywhere == [{"to": [{"ipBlock": {"cidr": "0.0.0.0/0", "except": [*EXCEPT]}}]}]


def test_T11_no_user_pod_reaches_pods_or_nodes_of_a_cloud_by_what_is_not_private(values):
    (block,) = (
        rule["to"][0]["ipBlock"]
        for rule in values["singleuser"]["networkPolicy"]["egress"]
        if "ports" not in rule
    )
    closed = [ipaddress.ip_network(cidr) for cidr in block["except"]]
    for address, reached in {
        "100.64.3.7": False,  # pods of EKS and GKE (RFC 6598)
        "198.19.0.9": False,  # the other range of EKS' custom networking (RFC 2544)
        "240.0.0.8": False,  # pods of GKE (class E)
        "169.254.170.23": False,  # the agent of EKS that gives credentials to pods
        "169.254.169.254": False,
        "10.244.0.5": False,
        "140.82.112.3": True,
    }.items():
        assert any(ipaddress.ip_address(address) in net for net in closed) is not reached, address


def test_T11_user_pods_reach_a_mirror_at_a_private_address_that_the_stack_names(stack):
    mirror = Mirror(addresses=("10.0.7.5/32",), ports=(80, 443))
    network = stack.network.model_copy(
        update={"mirrors": (mirror,), "pip_index": "https://pypi.example.com/simple"}
    )
    made = run(lambda: Platform(stack.model_copy(update={"network": network})))
    release = made.one("kubernetes:helm.sh/v3:Release", "jupyterhub")
    single = release.plain["values"]["singleuser"]
    assert single["networkPolicy"]["egress"][-1] == {
        "to": [{"ipBlock": {"cidr": "10.0.7.5/32"}}],
        "ports": [{"port": 80, "protocol": "TCP"}, {"port": 443, "protocol": "TCP"}],
    }
    assert single["networkPolicy"]["egressAllowRules"]["privateIPs"] is False
    assert single["extraEnv"]["PIP_INDEX_URL"] == "https://pypi.example.com/simple"


def test_T11_the_hub_reaches_keycloak_postgres_and_the_api_server_by_pod_port(values):
    policy = values["hub"]["networkPolicy"]
    assert policy["egressAllowRules"]["privateIPs"] is False
    ports = [[port["port"] for port in rule["ports"]] for rule in policy["egress"]]
    assert ports == [[8080], [5432], [443, 6443], [53, 53]]
    assert policy["egress"][2]["to"] == [{"ipBlock": {"cidr": "172.31.250.1/32"}}]


def test_T11_names_are_resolved_wherever_a_cluster_has_its_resolver(values):
    node = {
        "to": [{"ipBlock": {"cidr": "169.254.20.10/32"}}],
        "ports": [{"port": 53, "protocol": "UDP"}, {"port": 53, "protocol": "TCP"}],
    }
    for part in (values["hub"], values["proxy"]["chp"], values["singleuser"]):
        policy = part["networkPolicy"]
        rules = policy["egressAllowRules"]
        assert {name for name in rules if name.startswith("dnsPorts") and rules[name]} == {
            "dnsPortsCloudMetadataServer",
            "dnsPortsKubeSystemNamespace",
            "dnsPortsPrivateIPs",
        }
        assert rules["cloudMetadataServer"] is False
        assert node in policy["egress"]


def test_no_privileged_container_blocks_the_metadata_address(values):
    assert values["singleuser"]["cloudMetadata"]["blockWithIptables"] is False


# Profiles

STANDARD = {
    "slug": "standard-cpu",
    "name": "Standard (CPU)",
    "description": "All of it.",
    "default": True,
    "image": "ml-cpu",
    "cpu": {"limit": 4.0, "guarantee": 1.0},
    "memory": {"limit": "8G", "guarantee": "2G"},
    "gpu": 0,
}


def test_T5_standard_cpu_has_the_resources_of_the_table():
    assert override(Profile.model_validate(STANDARD), "image") == {
        "image": "image",
        "cpu_limit": 4,
        "cpu_guarantee": 1,
        "mem_limit": "8G",
        "mem_guarantee": "2G",
        "extra_resource_limits": {"nvidia.com/gpu": "0"},
        "extra_resource_guarantees": {"nvidia.com/gpu": "0"},
        "tolerations": [*DEDICATED],
    }


def test_T5_a_gpu_profile_asks_for_as_many_as_it_is_limited_to():
    found = override(Profile.model_validate(STANDARD | {"gpu": 2}), "image")
    assert found["extra_resource_limits"] == found["extra_resource_guarantees"]
    assert found["extra_resource_limits"] == {"nvidia.com/gpu": "2"}


def test_T5_every_profile_sets_the_same_keys_so_that_none_leaks_to_the_next(stack: StackFile):
    found = profile_list(stack.profiles, {"ml-cpu": "image"})
    assert len({frozenset(p["kubespawner_override"]) for p in found}) == 1
    assert [p["slug"] for p in found] == ["standard-cpu", "small-cpu", "own-size"]


def test_the_chart_in_the_stack_file_is_there(stack: StackFile):
    chart = yaml.safe_load((ROOT / stack.hub.chart.path / "Chart.yaml").read_text())
    assert chart["name"]
