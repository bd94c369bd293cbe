"""Metrics and logs of a real hub: what Prometheus reads, and what it must not."""

import json
import logging
import math
from typing import Any

import aiohttp
from prometheus_client import REGISTRY

from mlhub import metrics
from mlhub.logs import JsonFormatter
from tests.ports import free_port
from tests.services.hub import logged_in, merged, until
from tests.services.test_hub_admission import VALUES, reserve, service


def admissions(**labels: str) -> float:
    found = REGISTRY.get_sample_value("mlhub_admissions_total", labels)
    assert found is not None, labels
    return found


async def test_the_hub_shows_decisions_and_quotas_and_nobodys_name(
    start_hub: Any, keycloak: Any, kubernetes: Any
):
    port = free_port()
    hub = await start_hub(merged(VALUES, {"custom": {"mlhub": {"metrics_port": port}}}))
    keycloak.at_the_browser = "alice"
    async with hub.browser() as alice:
        await logged_in(alice)
    yes = {"kind": "run", "outcome": "admitted", "reason": ""}
    no = {"kind": "run", "outcome": "refused"}
    before = [admissions(**yes), *(admissions(**no, reason=r) for r in ("largest", "servers"))]

    assert (await reserve(hub, service("execution"), run="huge", cpu=99))[0] == 403
    for name in ("one", "two", "three"):
        assert (await reserve(hub, service("execution"), run=name))[0] == 200
    status, _ = await reserve(hub, service("execution"), run="four")
    assert status == 429

    after = [admissions(**yes), *(admissions(**no, reason=r) for r in ("largest", "servers"))]
    assert [now - then for now, then in zip(after, before, strict=True)] == [3, 1, 1]

    labels = {"app.kubernetes.io/name": "verify", "app.kubernetes.io/part-of": "mlhub"}
    about = {"name": "verify-now", "labels": labels, "creationTimestamp": "2026-11-29T04:17:00Z"}
    kubernetes.put("pods", {"metadata": about, "status": {"phase": "Failed"}})
    record = {"metadata": {"name": "mlhub-backup"}, "data": {"began": "2026-11-30T02:15:00+00:00"}}
    kubernetes.put("configmaps", record)
    hub.app.authenticator.office.keeper.look_now()
    used = {"group": "/mlhub/users", "dimension": "cpu"}
    await until(lambda: REGISTRY.get_sample_value("mlhub_quota_used", used) == 3)
    await until(lambda: REGISTRY.get_sample_value("mlhub_verify_failed") == 1)
    backup = "mlhub_backup_timestamp_seconds"
    await until(lambda: REGISTRY.get_sample_value(backup) == 1796004900)
    kubernetes.drop("configmaps", "mlhub-backup")
    hub.app.authenticator.office.keeper.look_now()
    await until(lambda: math.isnan(REGISTRY.get_sample_value(backup) or 0))
    async with (
        aiohttp.ClientSession() as prometheus,
        prometheus.get(f"http://127.0.0.1:{port}/metrics") as answer,
    ):
        shown = await answer.text()
    assert 'mlhub_quota_limit{dimension="cpu",group="/mlhub/users"} 100.0' in shown
    assert 'mlhub_volume_requested_bytes{kind="home"}' in shown
    assert "jupyterhub_server_spawn_duration_seconds_bucket" in shown
    assert "mlhub_kubernetes_seen 1.0" in shown
    assert "alice" not in shown

    async with hub.browser() as stranger:
        assert (await stranger.get("/hub/metrics")).status in (401, 403), "by the proxy's way"


def test_a_hub_that_ends_gives_its_port_back():
    port = free_port()
    for _ in range(2):
        metrics.serve(port)()


async def test_the_hubs_log_is_a_line_of_json_for_each_record(hub: Any):
    (handler,) = [h for h in hub.app.log.handlers if isinstance(h.formatter, JsonFormatter)]
    try:
        raise ValueError("a\nb")
    except ValueError as error:
        fault = (ValueError, error, error.__traceback__)
    record = logging.LogRecord("x", logging.ERROR, "f", 1, "%s “\nof two lines”", ("1",), fault)
    line = handler.formatter.format(record)
    assert "\n" not in line
    told = json.loads(line)
    assert (told["level"], told["logger"], told["message"]) == ("error", "x", "1 “\nof two lines”")
    assert "ValueError: a\nb" in told["exception"]
