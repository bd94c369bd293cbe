"""A real Prometheus reads the running stack, and everything that is asked of it has an answer.

The local stack has no Prometheus operator, so its Services for metrics are made here, from what the
program would make. A person's server runs meanwhile, for the volumes in it are what a kubelet tells
about.
"""

import ast
import json
import math
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser

from components import names
from components.alerts import HIDDEN_ZERO, alerts
from components.monitoring import parts, service_spec, stack_panels, stack_rules
from components.stackfile import read
from tests.e2e.conftest import seat
from tests.e2e.platform import NAMESPACE, Kubectl, wait_until
from tests.e2e.prometheus import (
    Prometheus,
    api_on_loopback,
    kubelet_config,
    prometheus,
    scrape_configs,
)

STACK = read("local")


@pytest.fixture(scope="module")
def services(kubectl: Kubectl) -> Iterator[None]:
    """The Services by which metrics are found."""
    made = [
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {
                "name": part.service,
                "namespace": NAMESPACE,
                "labels": names.labels(part.service),
            },
            "spec": service_spec(part),
        }
        for part in parts(STACK)
    ]
    document = json.dumps({"apiVersion": "v1", "kind": "List", "items": made})
    kubectl("apply", "-f", "-", stdin=document)
    yield
    kubectl("delete", "-f", "-", stdin=document)


@pytest.fixture(scope="module")
def watching(
    services: None, kubectl: Kubectl, browser: Browser, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Prometheus]:
    """A Prometheus that has seen a server start while it watched."""
    (node,) = [item["metadata"]["name"] for item in kubectl.json("get", "nodes")["items"]]
    folder = tmp_path_factory.mktemp("prometheus")
    with api_on_loopback() as api:
        scrape = [
            config for part in parts(STACK) for config in scrape_configs(part, NAMESPACE, kubectl)
        ]
        scrape.append(kubelet_config(node, api))
        rules = stack_rules(STACK, "https://git.example.com/docs")
        with prometheus(folder, scrape, rules) as found:
            jobs = {part.service for part in parts(STACK)} | {"kubelet"}
            wait_until(
                "every target answers",
                lambda: {s["metric"]["job"] for s in found.query("up == 1")} >= jobs,
            )
            alice = seat(browser, kubectl, "alice").log_in()
            if kubectl.pod(alice.pod) is not None:
                alice.stop_server()
            alice.start_server()
            try:
                wait_until(
                    "the kubelet has measured a volume",
                    lambda: found.query("kubelet_volume_stats_used_bytes"),
                    120,
                )
                yield found
            finally:
                alice.stop_server()
                alice.leave()


def test_every_panel_of_the_dashboard_has_data(watching: Prometheus) -> None:
    asked = {
        f"{panel['title']}: {target['expr']}": target["expr"]
        for panel in stack_panels(STACK)["panels"]
        for target in panel["targets"]
    }
    assert len(asked) > 15
    silent = set(asked)

    def all_answer() -> bool:
        for name in list(silent):
            if watching.query(asked[name]):
                silent.remove(name)
        return not silent

    try:
        wait_until("every expression has data", all_answer)
    except AssertionError:
        pytest.fail(f"no data: {sorted(silent)}")


def test_every_alert_looks_at_something_and_none_fires_on_a_stack_that_works(
    watching: Prometheus,
) -> None:
    (group,) = watching.get("rules", type="alert")["groups"]
    stated = alerts(
        NAMESPACE,
        foundation=STACK.foundation.namespace,
        execution=True,
        workspaces=True,
        verify=STACK.verify,
        start_seconds=STACK.hub.start_timeout,
    )
    assert [rule["name"] for rule in group["rules"]] == [alert.name for alert in stated]
    for alert in stated:
        assert watching.query(alert.value.removesuffix(HIDDEN_ZERO)), alert
    wait_until(
        "every rule was evaluated without an error",
        lambda: all(
            rule["health"] == "ok"
            for each in watching.get("rules", type="alert")["groups"]
            for rule in each["rules"]
        ),
    )
    firing = watching.query(
        'ALERTS{alertname=~"Mlhub.*Down|MlhubKubernetesSilent",alertstate="firing"}'
    )
    assert not firing


def seconds(watching: Prometheus, expression: str) -> float | None:
    """What the one series says, once that is a number above 0."""
    (said,) = [float(series["value"][1]) for series in watching.query(expression)] or [math.nan]
    return said if math.isfinite(said) and said > 0 else None


def test_a_start_is_counted_where_the_dashboard_looks(watching: Prometheus) -> None:
    """That the numbers move, and not only that there are some."""
    latency = [
        target["expr"]
        for panel in stack_panels(STACK)["panels"]
        if panel["title"] == "Spawn latency"
        for target in panel["targets"]
    ]
    for expression in latency:
        # Not a number before a start lies between two looks.
        assert wait_until(expression, lambda e=expression: seconds(watching, e), 120) < 600
    admitted = 'increase(mlhub_admissions_total{kind="server",outcome="admitted"}[10m])'
    wait_until("the admission was counted", lambda: above_zero(watching, admitted))
    held = 'mlhub_quota_used{group="/mlhub/users",dimension="cpu"}'
    wait_until("what alice holds is told", lambda: above_zero(watching, held), 90)


def above_zero(found: Prometheus, expression: str) -> bool:
    return any(float(series["value"][1]) > 0 for series in found.query(expression))


def test_no_label_holds_a_person(watching: Prometheus) -> None:
    for series in watching.get("series", **{"match[]": '{__name__=~"mlhub_.*|jupyterhub_.*"}'}):
        for label, value in series.items():
            assert "alice" not in value, (label, series)


def test_nobody_in_the_cluster_reads_metrics_where_no_monitoring_is(kubectl: Kubectl) -> None:
    """From a namespace without policies, from where Keycloak can be reached."""

    def address(namespace: str, selector: str) -> str:
        pods = kubectl.json("-n", namespace, "get", "pods", "-l", selector)["items"]
        return str(pods[0]["status"]["podIP"])

    places = {"keycloak": (address("foundation", "app.kubernetes.io/name=keycloak"), 8080)}
    places["hub"] = (address(NAMESPACE, "component=hub"), names.METRICS_PORT)
    for service in (names.EXECUTION, names.WORKSPACES):
        pod = address(NAMESPACE, f"app.kubernetes.io/name={service}")
        places[service] = (pod, names.METRICS_PORT)
    ask = (
        "import json, socket\n"
        "def reached(place):\n"
        "    try: return bool(socket.create_connection(tuple(place), 3))\n"
        "    except OSError: return False\n"
        f"places = json.loads('{json.dumps(places)}')\n"
        "print({name: reached(place) for name, place in places.items()})"
    )
    deployment = kubectl.json("-n", NAMESPACE, "get", "deploy", names.EXECUTION)
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    said = kubectl(
        "-n", "default", "run", "metrics-reader", "--rm", "--attach", "--quiet", "--restart=Never",
        f"--image={container['image']}", "--command", "--", "python3", "-c", ask,
    )  # fmt: skip
    assert ast.literal_eval(said.strip()) == {
        "keycloak": True, "hub": False, names.EXECUTION: False, names.WORKSPACES: False,
    }  # fmt: skip


def test_services_log_a_line_of_json_for_each_record(kubectl: Kubectl) -> None:
    for deployment in ("hub", names.EXECUTION, names.WORKSPACES):
        lines = kubectl("-n", NAMESPACE, "logs", f"deploy/{deployment}", "--tail=200").splitlines()
        told = [json.loads(line) for line in lines if line.startswith("{")]
        assert any({"time", "level", "logger", "message"} <= line.keys() for line in told)
        if deployment != "hub":  # whose culler is another program's
            assert len(told) == len(lines), lines
