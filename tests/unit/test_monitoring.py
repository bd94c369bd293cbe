"""What Prometheus and Grafana are told: it fits their own definitions, and opens one port to one
namespace."""

import functools
import json
import math
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jsonschema
import jupyterhub.metrics  # noqa: F401 (its metrics are in the registry)
import pytest
from prometheus_client import REGISTRY

import mlhub.execution.metrics
import mlhub.execution.problems
import mlhub.hub.metrics
import mlhub.metrics
from components import names
from components.alerts import Alert, alerts
from components.config import Hub, Verify
from components.monitoring import stack_panels
from mlhub.admission import Charge, Holding, Quotas, Size
from mlhub.execution.outcome import judge
from mlhub.execution.settings import Limits
from mlhub.execution.store import Run
from tests.unit.recorder import ROOT, STACKS, Monitor, platform, stack_file

MONITORED = [stack for stack in STACKS if stack != "local"]
POLICY = "kubernetes:networking.k8s.io/v1:NetworkPolicy"
OTHERS = {"up", "kubelet_volume_stats_used_bytes", "kubelet_volume_stats_capacity_bytes"}
"""Series that are not the platform's own."""


@pytest.fixture(scope="module", params=MONITORED)
def monitor(request: pytest.FixtureRequest) -> Monitor:
    return platform(request.param)


def every_alert() -> list[Alert]:
    return of_stack(execution=True, workspaces=True, verify=Verify())


of_stack = functools.partial(
    alerts,
    "jupyterhub",
    foundation="foundation",
    start_seconds=Hub.model_fields["start_timeout"].default,
)


def expressions() -> list[str]:
    shown = stack_panels(stack_file("prod"))["panels"]
    return [
        *(target["expr"] for panel in shown for target in panel["targets"]),
        *(alert.expression for alert in every_alert()),
    ]


def definitions() -> dict[str, Any]:
    text = (ROOT / "tests" / "unit" / "data" / "monitoring-crds.json").read_text()
    return {
        item["spec"]["names"]["kind"]: item["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
        for item in json.loads(text)["items"]
    }


def strictly(schema: Any) -> Any:
    """As the API server takes it: a field that is not defined is none."""
    if isinstance(schema, list):
        return [strictly(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    found = {key: strictly(part) for key, part in schema.items()}
    if isinstance(schema.get("pattern"), str):
        # Go takes a flag anywhere, Python at the start alone.
        found["pattern"] = re.sub(r"^\^\(\?i\)", "(?i)^", schema["pattern"])
    if isinstance(schema.get("properties"), dict) and schema.get("type") == "object":
        found.setdefault("additionalProperties", False)
    return found


def test_a_stack_without_the_section_has_nothing_of_it():
    urns = " ".join(r.urn for r in platform("local").registrations)
    assert "monitoring" not in urns.lower()


def test_the_objects_are_what_the_operator_defines(monitor: Monitor):
    kinds = {}
    for kind, schema in definitions().items():
        found = monitor.of_type(f"kubernetes:monitoring.coreos.com/v1:{kind}")
        kinds[kind] = len(found)
        spec = strictly(schema)["properties"]["spec"]
        for made in found:
            jsonschema.validate(made.plain["spec"], spec)
            assert made.plain["metadata"]["labels"]["release"] == "kube-prometheus-stack"
    assert kinds == {"ServiceMonitor": 3, "PrometheusRule": 1}


def test_the_check_of_the_definitions_finds_a_wrong_field():
    spec = strictly(definitions()["ServiceMonitor"])["properties"]["spec"]
    with pytest.raises(jsonschema.ValidationError, match="ports"):
        jsonschema.validate({"selector": {}, "endpoints": [{"ports": "metrics"}]}, spec)


def test_a_monitor_finds_its_service_and_that_the_pods(monitor: Monitor):
    for made in monitor.of_type("kubernetes:monitoring.coreos.com/v1:ServiceMonitor"):
        service = monitor.one("kubernetes:core/v1:Service", made.plain["metadata"]["name"]).plain
        wanted = made.plain["spec"]["selector"]["matchLabels"]
        assert wanted.items() <= service["metadata"]["labels"].items()
        (port,) = service["spec"]["ports"]
        assert [e["port"] for e in made.plain["spec"]["endpoints"]] == [port["name"]]
        assert port["targetPort"] == names.METRICS_PORT
    pods = {
        r.name: r.plain["spec"]["template"]["metadata"]["labels"]
        for r in monitor.of_type("kubernetes:apps/v1:Deployment")
    }
    for part in (names.EXECUTION, names.WORKSPACES):
        service = monitor.one("kubernetes:core/v1:Service", f"{part}-metrics").plain
        assert service["spec"]["selector"].items() <= pods[part].items()


def test_metrics_are_read_from_one_namespace_alone(monitor: Monitor):
    opened = {}
    for policy in monitor.of_type(POLICY):
        for rule in policy.plain["spec"].get("ingress", []):
            ports = [port["port"] for port in rule.get("ports", [])]
            assert ports, policy.urn
            if names.METRICS_PORT in ports:
                assert ports == [names.METRICS_PORT]
                opened[policy.name] = rule["from"]
    peer = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}
    assert opened == {f"{part}-metrics": [peer] for part in ("hub", "execution", "workspaces")}


def test_the_port_is_the_one_that_the_services_serve():
    assert names.METRICS_PORT == mlhub.metrics.PORT
    values = platform("local").one("kubernetes:helm.sh/v3:Release", "jupyterhub").plain["values"]
    assert values["custom"]["mlhub"]["metrics_port"] == names.METRICS_PORT


def test_the_dashboard_is_found_by_grafana_and_names_the_stacks_namespace(monitor: Monitor):
    shown = monitor.one("kubernetes:core/v1:ConfigMap", "mlhub-dashboard").plain
    assert shown["metadata"]["labels"]["grafana_dashboard"] == "1"
    # Grafana's sidecar writes the files of all namespaces into one folder.
    assert set(shown["data"]) == {"mlhub-jupyterhub.json"}
    panels = json.loads(shown["data"]["mlhub-jupyterhub.json"])["panels"]
    assert len(panels) > 10
    places = {(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in panels}
    assert len(places) == len(panels)


def test_every_series_that_is_asked_for_is_one_that_somebody_shows():
    ours = {sample.name for family in REGISTRY.collect() for sample in family.samples} | {
        f"{family.name}_total" for family in REGISTRY.collect() if family.type == "counter"
    }
    named = set()
    for expression in expressions():
        named |= set(re.findall(r"\b([a-z_]+)\{", expression))
    histograms = {name for name in named if name.endswith("_bucket")}
    assert histograms
    families = {f.name for f in REGISTRY.collect()}
    for name in named - OTHERS:
        base = re.sub(r"_(bucket|count|sum)$", "", name)
        assert name in ours or base in families, name


def refusals() -> set[str]:
    """The reasons for which the hub's code refuses or gives up a start."""
    said = "".join(p.read_text() for p in Path(mlhub.hub.metrics.__file__).parent.glob("*.py"))
    pattern = r'(?:Trouble\(\s*"|\bRefusal\([^()]*reason=")(\w+)"'
    return set(re.findall(pattern, said))


def test_a_start_that_fails_is_counted_from_the_first_of_its_reason():
    """An increase needs a 0 before it, and each `up` may start the hub anew."""
    assert {"image", "volume", "capacity", "identity", "kubernetes", "choice"} <= refusals()
    name = "jupyterhub_server_spawn_duration_seconds_count"
    for reason in refusals():
        labels = {"status": "failure", "reason": reason}
        assert REGISTRY.get_sample_value(name, labels) is not None, reason
    assert REGISTRY.get_sample_value(name, {"status": "error", "reason": "exited"}) is not None


def test_every_expression_is_of_one_stack_alone():
    for expression in expressions():
        for series in re.findall(r"\b[a-z_]+\{[^}]*\}", expression):
            assert re.search(r'namespace(="jupyterhub"|=~"jupyterhub\|foundation")', series), series


def test_a_full_database_is_seen_as_a_full_home_is():
    (full,) = [alert for alert in every_alert() if alert.name == "MlhubVolumeFull"]
    spaces = re.findall(r'namespace=~"([^"]*)"', full.value)
    assert spaces == ["jupyterhub|foundation"] * 2
    assert "by (namespace, persistentvolumeclaim)" in full.value


@pytest.mark.parametrize("alert", every_alert(), ids=lambda alert: alert.name)
def test_every_alert_leads_to_a_section_of_the_run_book(alert: Alert):
    sections = re.findall(
        r"^### (\S+)$", (ROOT / "docs" / "operations.md").read_text(), re.MULTILINE
    )
    assert alert.name in sections


@pytest.mark.parametrize("stack", MONITORED)
def test_every_alert_says_of_which_namespace_it_is(stack: str):
    """Two stacks of one Prometheus are otherwise one alert to Alertmanager."""
    made = platform(stack).one("kubernetes:monitoring.coreos.com/v1:PrometheusRule", "mlhub-rules")
    (group,) = made.plain["spec"]["groups"]
    for rule in group["rules"]:
        if "by (namespace, " not in rule["expr"]:
            assert rule["labels"].get("namespace") == "jupyterhub", rule["alert"]


def test_what_is_held_is_told_by_group_and_never_by_person():
    group, alice = Charge("group", "/mlhub/gpu"), Charge("user", "alice-the-person")
    quotas = Quotas.model_validate({"groups": {"/mlhub/gpu": {"gpu": 4, "gpu_hours": 10}}})
    held = [Holding("a/", "alice-the-person", Size(2, 1024, 3), frozenset({group, alice}))]
    mlhub.hub.metrics.tell(held, quotas, {group: 2.5, alice: 2.5})

    def told(name: str, **labels: str) -> float | None:
        return REGISTRY.get_sample_value(name, labels)

    assert told("mlhub_quota_used", group="/mlhub/gpu", dimension="gpu") == 3
    assert told("mlhub_quota_limit", group="/mlhub/gpu", dimension="gpu") == 4
    assert told("mlhub_held", dimension="cpu") == 2
    assert told("mlhub_gpu_hours_week", group="/mlhub/gpu") == 2.5
    assert told("mlhub_gpu_hours_week", group="all") == 2.5
    labels = [sample.labels for family in REGISTRY.collect() for sample in family.samples]
    assert "alice-the-person" not in str(labels)


def test_volumes_are_told_by_what_they_are_for():
    def claim(name: str, size: str) -> dict[str, Any]:
        return {
            "metadata": {"name": name},
            "spec": {"resources": {"requests": {"storage": size}}},
        }

    mlhub.hub.metrics.tell_volumes(
        [claim("claim-alice", "1Gi"), claim("claim-bob", "2Gi"), claim("workspace-a", "4Gi"),
         claim("datasets", "8Gi")]
    )  # fmt: skip
    for kind, size in (("home", 3), ("workspace", 4), ("shared", 8)):
        told = REGISTRY.get_sample_value("mlhub_volume_requested_bytes", {"kind": kind})
        assert told == size * 2**30
    assert REGISTRY.get_sample_value("mlhub_volumes", {"kind": "home"}) == 2


def test_T12_the_newest_verification_that_has_ended_is_told_by_its_pod():
    def pod(day: int, phase: str) -> dict[str, Any]:
        made = f"2026-11-{day:02}T04:17:00Z"
        return {"metadata": {"creationTimestamp": made}, "status": {"phase": phase}}

    def told(*pods: dict[str, Any]) -> tuple[float | None, str]:
        mlhub.hub.metrics.tell_verified(pods)
        when = REGISTRY.get_sample_value("mlhub_verified_timestamp_seconds")
        assert when is not None
        day = datetime.fromtimestamp(when, UTC).strftime("%m-%dT%H:%M")
        return REGISTRY.get_sample_value("mlhub_verify_failed"), day

    assert told(pod(3, "Failed"), pod(5, "Running"), pod(4, "Succeeded")) == (0, "11-04T04:17")
    assert told(pod(6, "Failed"), pod(4, "Succeeded")) == (1, "11-04T04:17")
    assert told() == (1, "11-04T04:17"), "a node that is gone takes nothing back"
    assert told(pod(7, "Succeeded"), pod(6, "Failed")) == (0, "11-07T04:17")


def test_T12_the_hub_looks_for_the_pods_that_the_program_makes():
    selector = ",".join(f"{key}={value}" for key, value in names.selector(names.VERIFY).items())
    assert selector == mlhub.hub.metrics.VERIFY_PODS


def test_T13_the_age_of_the_last_backup_is_told_where_one_was_made():
    def told() -> float:
        return REGISTRY.get_sample_value("mlhub_backup_timestamp_seconds") or 0.0

    mlhub.hub.metrics.tell_backup({"began": "2026-11-30T02:15:00+00:00", "archive": "a.age"})
    assert datetime.fromtimestamp(told(), UTC).isoformat() == "2026-11-30T02:15:00+00:00"
    mlhub.hub.metrics.tell_backup(None)
    assert math.isnan(told()), "which is above nothing, so that no alert is raised"


@pytest.mark.parametrize("stack", STACKS)
def test_T13_the_hub_may_read_the_record_of_a_backup_and_no_other_configmap(stack: str):
    role = platform(stack).one("kubernetes:rbac.authorization.k8s.io/v1:Role", "mlhub-backup").plain
    assert role["metadata"]["namespace"] == "jupyterhub"
    (rule,) = role["rules"]
    assert rule["resources"] == ["configmaps"]
    assert rule["resourceNames"] == [mlhub.hub.metrics.BACKUP_RECORD] == [names.BACKUP_RECORD]
    assert rule["verbs"] == ["get"]


def test_T12_a_suspended_schedule_is_not_missed():
    def named(verify: Verify | None) -> set[str]:
        found = of_stack(execution=False, workspaces=False, verify=verify)
        return {alert.name for alert in found if "Verify" in alert.name}

    assert named(None) == set()
    assert named(Verify(suspended=True)) == {"MlhubVerifyFailed"}
    assert named(Verify()) == {"MlhubVerifyFailed", "MlhubVerifyMissing"}


def test_a_runs_wait_and_its_length_are_counted_once_it_ends():
    run = Run("r", "alice", "alice", "a.ipynb", "b.ipynb", False, {}, "small", 60, None, 100.0)

    def told(name: str, **labels: str) -> float:
        return REGISTRY.get_sample_value(name, labels) or 0.0

    before = told("mlhub_run_seconds_sum", status="failed"), told("mlhub_run_wait_seconds_sum")
    mlhub.execution.metrics.changed(run, "running", 107.0, None)
    started = Run(**{**vars(run), "started": 107.0, "status": "running"})
    mlhub.execution.metrics.changed(started, "failed", None, 137.0)
    after = told("mlhub_run_seconds_sum", status="failed"), told("mlhub_run_wait_seconds_sum")
    assert (after[0] - before[0], after[1] - before[1]) == (30.0, 7.0)

    mlhub.execution.metrics.tell([run], 160.0)
    assert told("mlhub_runs", status="queued") == 1
    assert told("mlhub_run_oldest_queued_seconds") == 60.0


@pytest.mark.parametrize("stack", MONITORED)
def test_a_run_that_waits_raises_its_alert_before_it_has_failed_for_that(stack: str):
    """As the service knows the stack's limit; then it is queued no more."""
    data = platform(stack).one("kubernetes:core/v1:ConfigMap", "execution").plain["data"]
    limits = Limits.model_validate(json.loads(data["execution.json"])["limits"])
    run = Run("r", "alice", "alice", "a.ipynb", "b.ipynb", False, {}, "small", 60, None, 0.0)
    waits = next(s for s in range(0, 7200, 10) if judge(run, {}, None, s, limits) is not None)
    (rules,) = (
        platform(stack)
        .one("kubernetes:monitoring.coreos.com/v1:PrometheusRule", "mlhub-rules")
        .plain["spec"]["groups"]
    )
    (rule,) = [rule for rule in rules["rules"] if rule["alert"] == "MlhubRunsWait"]
    beyond = int(rule["expr"].rpartition("> ")[2])
    assert beyond <= waits - 60, "between them Prometheus looks twice"
