"""`charts/jupyterhub-lite` as Helm renders it: by the plug-in that also installs the Release.

It stands here since nothing on PyPI renders a chart; the plug-in does, and needs no cluster for it.
"""

import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
import yaml
from google.protobuf import json_format, struct_pb2
from pulumi.runtime.proto import provider_pb2, provider_pb2_grpc

from tests.services.hub import CHART, VALUES, merged

Objects = dict[tuple[str, str], Any]
INGRESS = {"enabled": True, "hosts": ["hub.example.com"], "tls": [{"secretName": "tls"}]}


@pytest.fixture(scope="module")
def plugin(bin_dir: Path) -> Iterator[provider_pb2_grpc.ResourceProviderStub]:
    """The Kubernetes plug-in, told of no cluster."""
    with subprocess.Popen(
        [bin_dir / "pulumi-resource-kubernetes", "127.0.0.1:9"], stdout=subprocess.PIPE, text=True
    ) as process:
        address = f"127.0.0.1:{process.stdout.readline().strip()}"
        with grpc.insecure_channel(address) as channel:
            stub = provider_pb2_grpc.ResourceProviderStub(channel)
            stub.Configure(provider_pb2.ConfigureRequest(acceptSecrets=True), timeout=180)
            yield stub
        process.terminate()


@pytest.fixture(scope="module")
def render(plugin: provider_pb2_grpc.ResourceProviderStub) -> Callable[..., Objects]:
    """`render(values)`: the chart's objects by kind and name, from minimal values and those."""

    def template(*given: dict[str, Any]) -> Objects:
        values = VALUES
        for layer in given:
            values = merged(values, layer)
        options = {
            "path": str(CHART),
            "release_name": "jupyterhub",
            "namespace": "jupyterhub",
            "kube_version": "1.34.4",
            "values": values,
        }
        args = struct_pb2.Struct()
        args.update({"jsonOpts": json.dumps(options)})
        request = provider_pb2.InvokeRequest(tok="kubernetes:helm:template", args=args)
        answer = plugin.Invoke(request, timeout=180)
        objects = json_format.MessageToDict(getattr(answer, "return"))["result"]
        return {(item["kind"], item["metadata"]["name"]): item for item in objects}

    return template


@pytest.fixture(scope="module")
def objects(render: Callable[..., Objects]) -> Objects:
    return render()


def pods(objects: Objects) -> dict[str, Any]:
    return {
        name: item["spec"]["template"]
        for (kind, name), item in objects.items()
        if kind == "Deployment"
    }


def container(objects: Objects, name: str) -> Any:
    return pods(objects)[name]["spec"]["containers"][0]


def test_nothing_is_rendered_but_what_the_chart_names(objects):
    assert set(objects) == {
        ("ConfigMap", "hub"),
        ("Secret", "hub"),
        ("ServiceAccount", "hub"),
        ("Role", "hub"),
        ("RoleBinding", "hub"),
        ("Service", "hub"),
        ("Service", "proxy-api"),
        ("Service", "proxy-public"),
        ("Deployment", "hub"),
        ("Deployment", "proxy"),
        ("NetworkPolicy", "hub"),
        ("NetworkPolicy", "proxy"),
        ("NetworkPolicy", "singleuser"),
    }


@pytest.mark.parametrize("name", ["hub", "proxy"])
def test_each_pod_is_as_restricted_as_pod_security_can_ask(objects, name):
    pod = pods(objects)[name]["spec"].get("securityContext", {})
    security = pod | container(objects, name)["securityContext"]
    assert security["runAsNonRoot"] is True
    assert security["runAsUser"] > 0
    assert security["allowPrivilegeEscalation"] is False
    assert security["readOnlyRootFilesystem"] is True
    assert security["capabilities"] == {"drop": ["ALL"]}
    assert security["seccompProfile"] == {"type": "RuntimeDefault"}


def test_T14_the_hub_may_do_what_kubespawner_does_in_its_namespace_and_no_more(objects):
    rights = {
        resource: set(rule["verbs"])
        for rule in objects["Role", "hub"]["rules"]
        for resource in rule["resources"]
    }
    manage = {"get", "watch", "list", "create", "delete"}
    assert rights == {
        "pods": manage,
        "persistentvolumeclaims": manage,
        "events": {"get", "watch", "list"},
    }
    assert objects["RoleBinding", "hub"]["roleRef"]["kind"] == "Role"
    assert pods(objects)["proxy"]["spec"]["automountServiceAccountToken"] is False


def test_one_hub_and_one_proxy_at_a_time_each_with_probes(objects):
    for name in ("hub", "proxy"):
        spec = objects["Deployment", name]["spec"]
        assert (spec["replicas"], spec["strategy"]) == (1, {"type": "Recreate"})
        assert {"livenessProbe", "readinessProbe"} <= container(objects, name).keys()


def test_T4_it_selects_as_zero_to_jupyterhub_does_so_that_either_takes_over_the_other(objects):
    for name in ("hub", "proxy"):
        select = {"app": "jupyterhub", "release": "jupyterhub", "component": name}
        assert objects["Deployment", name]["spec"]["selector"]["matchLabels"] == select
        assert select.items() <= pods(objects)[name]["metadata"]["labels"].items()


def test_V9_secrets_are_referred_to_and_never_rendered(objects):
    (token,) = container(objects, "proxy")["env"]
    assert token["valueFrom"]["secretKeyRef"] == {
        "name": "mlhub-hub",
        "key": "hub.config.ConfigurableHTTPProxy.auth_token",
    }
    volumes = {each["name"]: each for each in pods(objects)["hub"]["spec"]["volumes"]}
    assert volumes["existing-secret"]["secret"] == {"secretName": "mlhub-hub"}
    assert set(objects["Secret", "hub"]["stringData"]) == {"values.yaml"}


def test_the_hub_reads_the_values_with_the_release_in_them(objects):
    values = yaml.safe_load(objects["Secret", "hub"]["stringData"]["values.yaml"])
    assert values["custom"] == VALUES["custom"]
    assert values["Release"] == {"Name": "jupyterhub", "Namespace": "jupyterhub"}
    assert values["cull"]["timeout"] == 3600
    config = objects["ConfigMap", "hub"]["data"]["jupyterhub_config.py"]
    assert config == (CHART / "files" / "jupyterhub_config.py").read_text()


def test_a_changed_value_restarts_the_hub_and_leaves_the_proxy_alone(render, objects):
    changed = pods(render({"cull": {"timeout": 60}}))
    assert changed["hub"] != pods(objects)["hub"]
    assert changed["proxy"] == pods(objects)["proxy"]


def test_T11_users_reach_the_hub_the_proxy_and_names_and_no_private_address(objects):
    policy = objects["NetworkPolicy", "singleuser"]["spec"]
    assert policy["podSelector"]["matchLabels"]["component"] == "singleuser-server"
    (ingress,) = policy["ingress"]
    label = {"hub.jupyter.org/network-access-singleuser": "true"}
    assert ingress == {
        "ports": [{"port": 8888}],
        "from": [{"podSelector": {"matchLabels": label}}],
    }
    to_hub, to_proxy, names, internet = policy["egress"]
    assert [to_hub["ports"], to_proxy["ports"]] == [[{"port": 8081}], [{"port": 8000}]]
    assert {each["port"] for each in names["ports"]} == {53}
    assert {"ipBlock": {"cidr": "169.254.169.254/32"}} in names["to"]
    assert internet["to"][0]["ipBlock"]["except"] == [
        "10.0.0.0/8",
        "172.16.0.0/12",
        "192.168.0.0/16",
        "169.254.169.254/32",
    ]


def test_T11_only_what_carries_the_label_reaches_the_hub_and_the_proxys_api(objects):
    (hub,) = objects["NetworkPolicy", "hub"]["spec"]["ingress"]
    assert hub["from"] == [
        {"podSelector": {"matchLabels": {"hub.jupyter.org/network-access-hub": "true"}}}
    ]
    public, _, api = objects["NetworkPolicy", "proxy"]["spec"]["ingress"]
    assert public == {"ports": [{"port": 8000}]}
    assert api["ports"] == [{"port": 8001}]
    assert api["from"] == [
        {"podSelector": {"matchLabels": {"hub.jupyter.org/network-access-proxy-api": "true"}}}
    ]


def test_T11_every_rule_off_leaves_the_charts_own_parts_alone(render):
    off = dict.fromkeys(
        [
            "cloudMetadataServer",
            "dnsPortsCloudMetadataServer",
            "dnsPortsKubeSystemNamespace",
            "dnsPortsPrivateIPs",
            "nonPrivateIPs",
            "privateIPs",
        ],
        False,
    )
    own = {"to": [{"ipBlock": {"cidr": "192.0.2.1/32"}}]}
    policy = {"egressAllowRules": off, "egress": [own]}
    rendered = render({"singleuser": {"networkPolicy": policy}})
    to_hub, to_proxy, last = rendered["NetworkPolicy", "singleuser"]["spec"]["egress"]
    assert (to_hub["ports"], to_proxy["ports"], last) == ([{"port": 8081}], [{"port": 8000}], own)


def test_J1_the_hub_is_published_by_node_port_or_ingress(render):
    service = {"type": "NodePort", "nodePorts": {"http": 30888}}
    rendered = render({"proxy": {"service": service}, "ingress": INGRESS})
    public = rendered["Service", "proxy-public"]["spec"]
    assert (public["type"], public["ports"][0]["nodePort"]) == ("NodePort", 30888)
    ingress = rendered["Ingress", "jupyterhub"]["spec"]
    (path,) = ingress["rules"][0]["http"]["paths"]
    assert (ingress["rules"][0]["host"], path["path"]) == ("hub.example.com", "/")
    assert path["backend"]["service"] == {"name": "proxy-public", "port": {"name": "http"}}
    assert ingress["tls"] == [{"secretName": "tls"}]


def test_a_disruption_budget_is_made_where_it_is_asked_for(render):
    wanted = {"enabled": True, "maxUnavailable": 0}
    budget = render({"hub": {"pdb": wanted}})["PodDisruptionBudget", "hub"]["spec"]
    assert budget["maxUnavailable"] == 0
    assert budget["selector"]["matchLabels"]["component"] == "hub"


def test_environment_by_value_and_by_reference_reaches_the_hub(render):
    reference = {"valueFrom": {"secretKeyRef": {"name": "oidc", "key": "client_id"}}}
    env = container(render({"hub": {"extraEnv": {"A": "b", "ID": reference}}}), "hub")["env"]
    assert {"name": "A", "value": "b"} in env
    assert {"name": "ID", **reference} in env


def test_T4_helm_refuses_a_key_that_the_chart_does_not_know(render):
    with pytest.raises(grpc.RpcError, match="additional properties 'extraVolumes' not allowed"):
        render({"singleuser": {"extraVolumes": []}})
