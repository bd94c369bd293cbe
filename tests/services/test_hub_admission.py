"""One admission for every way to start something, on a real hub."""

import asyncio
import json
import time
from collections import Counter
from datetime import UTC, datetime, tzinfo
from typing import Any

import aiohttp
import pytest

from mlhub.admission import Charge, Holding, Size
from mlhub.admission.holdings import metadata
from mlhub.hub import desk as desks
from mlhub.hub import spawner as spawners
from mlhub.hub.api import SCOPE
from tests.services.hub import PROFILES, SECRETS, Hub, logged_in, until
from tests.services.test_hub_spawn import RUNNING, outcome

QUOTAS = {
    "server": {"cpu": 16, "memory": "64Gi", "gpu": 4},
    "user": {"servers": 3, "memory": "100Gi", "gpu_hours": 10},
    "groups": {"/mlhub/users": {"cpu": 100}},
}
GPU_PROFILE = {
    "slug": "gpu",
    "display_name": "GPU",
    "kubespawner_override": {
        "cpu_limit": 2,
        "mem_limit": "4G",
        "extra_resource_limits": {"nvidia.com/gpu": "2"},
    },
}
STARTED = (201, 202)
VALUES = {
    "custom": {"mlhub": {"quotas": QUOTAS}},
    "hub": {
        "services": {"execution": {}, "stranger": {}},
        "loadRoles": {"execution": {"scopes": [SCOPE], "services": ["execution"]}},
    },
    "singleuser": {"profileList": [*PROFILES, GPU_PROFILE]},
}


@pytest.fixture
async def hub(start_hub: Any) -> Hub:
    hub: Hub = await start_hub(VALUES)
    hub.wait_for_refusals(30)
    return hub


def service(name: str) -> dict[str, str]:
    return {"Authorization": f"token {SECRETS[f'hub.services.{name}.apiToken']}"}


def run_ask(run: str, **given: Any) -> dict[str, Any]:
    asked = {"user": "alice", "run": run, "profile": "standard", "cpu": 1, "memory": "1Gi"}
    return asked | given


async def reserve(hub: Hub, headers: dict[str, str], **ask: Any) -> tuple[int, dict[str, Any]]:
    url = f"{hub.url}/hub/api/mlhub/admission"
    async with (
        aiohttp.ClientSession() as session,
        session.post(url, json=run_ask(**ask), headers=headers) as answer,
    ):
        return answer.status, await answer.json()


def xsrf(browser: aiohttp.ClientSession) -> str:
    return next(cookie for cookie in browser.cookie_jar if cookie.key == "_xsrf").value


async def by_api(browser: aiohttp.ClientSession, name: str, **options: str) -> tuple[int, str]:
    url, headers = f"/hub/api/users/alice/servers/{name}", {"X-XSRFToken": xsrf(browser)}
    async with browser.post(url, json=options, headers=headers) as answer:
        return answer.status, await answer.text()


async def by_form(browser: aiohttp.ClientSession, name: str) -> tuple[int, str]:
    form = {"profile": "standard", "_xsrf": xsrf(browser)}
    url = f"/hub/spawn/alice/{name}"
    async with browser.post(url, data=form, allow_redirects=False) as page:
        return page.status, await page.text()


async def by_link(browser: aiohttp.ClientSession, name: str) -> tuple[int, str]:
    url = f"/hub/spawn/alice/{name}?opt-profile=standard"
    async with browser.get(url, allow_redirects=False) as page:
        return page.status, await page.text()


async def test_M9_a_hundred_at_once_over_every_route_get_exactly_three(
    hub, alice, kubernetes, audited
):
    token = service("execution")

    async def by_run(_: Any, name: str) -> tuple[int, str]:
        status, body = await reserve(hub, token, run=name)
        return status, json.dumps(body)

    routes = [by_api, by_form, by_link, by_run]
    answers = [asyncio.create_task(routes[n % 4](alice, f"n{n}")) for n in range(100)]
    await until(lambda: len(audited(".ask")) == 100)
    outcomes = Counter((line["event"], line["outcome"]) for line in audited(".ask"))
    admitted = sum(count for (_, outcome), count in outcomes.items() if outcome == "admitted")
    assert admitted == 3, outcomes
    assert {event for event, _ in outcomes} == {"server.ask", "run.ask"}
    held = hub.app.authenticator.office.desk.ledger.held()
    assert len(held) == 3
    servers = [holding for holding in held if "/run/" not in holding.name]
    await until(lambda: len(kubernetes.kept["pods"]) == len(servers))
    assert len(kubernetes.kept["persistentvolumeclaims"]) <= 1
    # By the form or a link the page that waits shows it, where the hub is busy for a second.
    texts = [text for status, text in await asyncio.gather(*answers) if status == 429]
    assert len(texts) >= 25
    assert all("3 of 3 servers running; stop one" in text for text in texts)


@pytest.mark.parametrize("route", [by_api, by_form, by_link])
async def test_M9_a_refusal_is_429_says_why_and_makes_neither_pod_nor_volume(
    hub, alice, kubernetes, route
):
    token = service("execution")
    for n in range(3):
        assert (await reserve(hub, token, run=f"r{n}"))[0] == 200
    status, text = await route(alice, "fourth")
    if status == 302:
        # The form and a link wait for a second, then the page for the start tells.
        status, text = await outcome(alice, "alice/fourth")
    assert (status, "You have 3 of 3 servers running" in text) == (429, True), text
    assert not kubernetes.kept["pods"]
    assert not kubernetes.kept["persistentvolumeclaims"]


async def test_M9_a_refused_name_leaves_no_record(hub, alice, monkeypatch):
    monkeypatch.setattr(spawners, "FORGET_SECONDS", 0.2)
    token = service("execution")
    for n in range(3):
        await reserve(hub, token, run=f"r{n}")
    assert (await by_api(alice, "fourth"))[0] == 429
    await until(lambda: "fourth" not in hub.user("alice").orm_spawners)


async def test_M9_more_than_one_server_may_have_is_403(hub, alice, start_hub):
    status, body = await reserve(hub, service("execution"), run="r", cpu=17)
    assert status == 403
    assert body["sentence"] == "You asked for 17 CPU; one server may have at most 16 CPU."
    assert body["fits"] == {"cpu": 16, "memory": 64 * 2**30, "gpu": 4}


async def test_a_start_that_fails_gives_its_share_back(hub, alice, kubernetes):
    kubernetes.refuse = lambda kind, item: "exceeded quota: x" if kind == "pods" else None
    for _ in range(4):
        assert (await by_api(alice, "one"))[0] == 503
    assert not hub.app.authenticator.office.desk.ledger.held()


async def admitted(hub: Hub, browser: aiohttp.ClientSession, name: str, **options: str) -> None:
    """A server of alice's that holds its share from here on. Its pod never runs, so that nobody
    waits for the answer; to whatever is asked afterwards it is waited for."""
    ledger = hub.app.authenticator.office.desk.ledger
    hub.wait_for_refusals(1)
    assert (await by_api(browser, name, **options))[0] in STARTED
    await until(lambda: f"alice/{name}" in {holding.name for holding in ledger.held()})
    hub.wait_for_refusals(30)


async def test_a_server_that_is_stopped_gives_its_share_back_at_once(hub, alice, kubernetes):
    kubernetes.then = lambda pod: RUNNING
    for name in ("a", "b", "c"):
        await admitted(hub, alice, name)
    await until(lambda: len(kubernetes.kept["pods"]) == 3)
    assert (await by_api(alice, "d"))[0] == 429
    headers = {"X-XSRFToken": xsrf(alice)}
    async with alice.delete("/hub/api/users/alice/servers/a", headers=headers) as answer:
        assert answer.status in (202, 204)
    await until(lambda: len(kubernetes.kept["pods"]) == 2)
    await until(lambda: len(hub.app.authenticator.office.desk.ledger.held()) == 2)
    await admitted(hub, alice, "d")


def pod(name: str, kind: str, owner: str = "alice", **limits: str) -> dict[str, Any]:
    held = Holding(name, owner, Size(), frozenset({Charge("user", owner)}))
    return {
        "metadata": {"name": name.replace("/", "-"), "namespace": "jupyterhub"}
        | metadata(held, kind),
        "spec": {"containers": [{"resources": {"limits": {"cpu": "1", **limits}}}]},
        "status": {"phase": "Running", "startTime": "2026-01-01T00:00:00Z"},
    }


async def test_M9_a_list_that_comes_late_takes_no_pod_back_that_was_told_of_since(hub, kubernetes):
    """Its promise has ended, so that its share would be given a second time."""
    pods = hub.app.authenticator.office.desk.pods
    await pods.loaded.wait()
    kubernetes.late, before = asyncio.Event(), len(kubernetes.lists)
    refreshed = asyncio.create_task(pods.refresh())
    await until(lambda: len(kubernetes.lists) > before)
    kubernetes.put("pods", pod("alice/a", "server"))
    await until(lambda: pods.items)
    kubernetes.late.set()
    await refreshed
    assert [held.name for held in pods.items.values()] == ["alice/a"]
    kubernetes.kept["pods"].clear()
    await pods.refresh()
    assert [*pods.items] == [], "a list of the same moment is believed"


async def test_M9_a_restarted_hub_counts_what_the_cluster_holds(start_hub, kubernetes, keycloak):
    kubernetes.put("pods", pod("alice/a", "server"))
    kubernetes.put("pods", pod("alice/run/x", "run"))
    finished = pod("alice/run/y", "run")
    finished["status"]["phase"] = "Succeeded"
    kubernetes.put("pods", finished)
    hub = await start_hub(VALUES)
    hub.wait_for_refusals(30)
    keycloak.at_the_browser = "alice"
    async with hub.browser() as alice:
        await logged_in(alice)
        await admitted(hub, alice, "one")
        assert (await by_api(alice, "two"))[0] == 429
        done = kubernetes.kept["pods"]["alice-run-x"]
        done["status"]["phase"] = "Failed"
        kubernetes.put("pods", done)
        await until(lambda: len(hub.app.authenticator.office.desk.ledger.held()) == 2)
        await admitted(hub, alice, "two")


async def test_M9_the_pod_carries_what_it_holds(hub, alice, kubernetes):
    hub.wait_for_refusals(0)  # the pod never runs
    await by_api(alice, "one", profile="standard", size="large")
    await until(lambda: kubernetes.kept["pods"])
    (made,) = kubernetes.kept["pods"].values()
    assert made["metadata"]["labels"]["mlhub/holder"] == "server"
    notes = made["metadata"]["annotations"]
    assert (notes["mlhub/name"], notes["mlhub/owner"]) == ("alice/one", "alice")
    assert json.loads(notes["mlhub/charges"]) == [["group", "/mlhub/users"], ["user", "alice"]]
    assert notes["mlhub/profile"] == "standard"
    (held,) = hub.app.authenticator.office.desk.ledger.held()
    assert held.size == Size(4, 2 * 2**30, 0)


async def test_nothing_starts_while_nobody_knows_what_runs(
    start_hub, kubernetes, keycloak, monkeypatch, audited
):
    monkeypatch.setattr(desks, "LOAD_SECONDS", 0.2)
    kubernetes.silent.add("pods")
    hub = await start_hub(VALUES)
    hub.wait_for_refusals(30)
    keycloak.at_the_browser = "alice"
    async with hub.browser() as alice:
        await logged_in(alice)
        status, text = await by_api(alice, "one")
    assert (status, "Kubernetes does not say what runs" in text) == (503, True)
    ((outcome, why),) = ((line["outcome"], line["why"]) for line in audited("server.ask"))
    assert (outcome, why.startswith("Kubernetes does not say what runs")) == ("refused", True)


async def test_a_profile_without_a_limit_is_refused_where_there_is_one(
    start_hub, keycloak, audited
):
    boundless = {"slug": "x", "display_name": "X", "kubespawner_override": {"cpu_limit": None}}
    hub = await start_hub(VALUES, {"singleuser": {"profileList": [boundless]}})
    hub.wait_for_refusals(30)
    keycloak.at_the_browser = "alice"
    async with hub.browser() as alice:
        await logged_in(alice)
        status, text = await by_api(alice, "one")
    assert (status, "states no limit of cpu" in text) == (403, True), text
    (line,) = audited("server.ask")
    assert (line["outcome"], "states no limit of cpu" in line["why"]) == ("refused", True)


class Wednesday(datetime):
    """A clock in the middle of a week: on a Monday's morning no ten hours can be used up yet."""

    @classmethod
    def now(cls, tz: tzinfo | None = None) -> datetime:
        return datetime(2026, 11, 25, 12, tzinfo=tz or UTC)


async def test_GPU_hours_that_are_used_up_refuse_GPU_servers_alone(
    hub, alice, kubernetes, monkeypatch
):
    monkeypatch.setattr(desks, "datetime", Wednesday)
    labels = {"nvidia.com/gpu.present": "true"}
    ready = {
        "allocatable": {"nvidia.com/gpu": "4"},
        "conditions": [{"type": "Ready", "status": "True"}],
    }
    kubernetes.put("nodes", {"metadata": {"name": "node-a", "labels": labels}, "status": ready})
    kubernetes.put("pods", pod("alice/old", "server", **{"nvidia.com/gpu": "1"}))
    await until(lambda: hub.app.authenticator.office.nodes.items)
    desk = hub.app.authenticator.office.desk
    await until(lambda: desk.pods.items)
    desk.count_hours()
    status, text = await by_api(alice, "one", profile="gpu")
    assert (status, "of 10 GPU-hours this week" in text) == (429, True), text
    await admitted(hub, alice, "one", profile="other")


async def test_a_server_of_a_workspace_counts_against_it_and_is_for_its_members(
    start_hub, keycloak
):
    limits = {"workspace": {"servers": 1}}
    hub = await start_hub(VALUES, {"custom": {"mlhub": {"quotas": limits}}})
    keycloak.at_the_browser = "alice"
    hub.wait_for_refusals(30)
    async with hub.browser() as alice:
        await logged_in(alice)
        status, text = await by_api(alice, "a", workspace="churn")
        assert (status, "no member of a workspace named" in text) == (403, True)
        keycloak.people["alice"] = ["/mlhub/users", "/workspaces/churn/viewer"]
        await logged_in(alice)
        await admitted(hub, alice, "a", workspace="churn")
        status, text = await by_api(alice, "b", workspace="churn")
        assert (status, "The workspace churn has 1 of 1 server running" in text) == (429, True)
        await admitted(hub, alice, "b", workspace="")


# The API for what is started elsewhere


async def test_a_run_holds_its_share_from_the_promise_to_the_end_of_its_pod(hub, alice, kubernetes):
    token = service("execution")
    status, body = await reserve(hub, token, run="r1", cpu=2, gpu=1)
    assert (status, body["admitted"], body["expires_in"]) == (200, True, 120)
    assert body["accounts"][0]["of"] == {"kind": "user", "name": "alice"}
    assert body["accounts"][0]["remains"]["servers"] == 3
    ledger = hub.app.authenticator.office.desk.ledger
    made = pod("alice/run/r1", "run", **{"nvidia.com/gpu": "1"})
    made["metadata"] |= body["pod"]
    kubernetes.put("pods", made)
    await until(lambda: ledger.owner_of(body["reservation"]) is None)  # the pod counts itself
    (held,) = ledger.held()
    assert (held.name, held.uid != "") == ("alice/run/r1", True)
    made["status"]["phase"] = "Succeeded"
    kubernetes.put("pods", made)
    await until(lambda: not ledger.held())


async def test_a_run_that_does_not_come_gives_its_share_back(hub, alice, monkeypatch):
    token = service("execution")
    _, body = await reserve(hub, token, run="r1", seconds=60)
    ledger = hub.app.authenticator.office.desk.ledger
    assert len(ledger.held()) == 1
    later = time.time() + 61
    monkeypatch.setattr(ledger, "_clock", lambda: later)
    assert not ledger.held()
    _, body = await reserve(hub, token, run="r2")
    url = f"{hub.url}/hub/api/mlhub/admission/{body['reservation']}"
    async with aiohttp.ClientSession(headers=token) as session:
        statuses = [(await session.delete(url)).status for _ in range(2)]
    assert statuses == [204, 404]
    assert not ledger.held()


async def test_reservations_need_their_scope_and_a_person_sees_their_own(hub, alice):
    for headers in ({}, service("stranger"), {"X-XSRFToken": xsrf(alice)}):
        client = alice if "X-XSRFToken" in headers else aiohttp.ClientSession(hub.url)
        async with client.post("/hub/api/mlhub/admission", json={}, headers=headers) as answer:
            assert answer.status == 403
        if client is not alice:
            await client.close()
    async with alice.get("/hub/api/mlhub/admission", headers={"Referer": "/hub/home"}) as answer:
        mine = await answer.json()
    assert mine["accounts"][0]["remains"]["servers"] == 3
    assert mine["server"] == {"cpu": 16, "memory": 64 * 2**30, "gpu": 4}


@pytest.mark.parametrize(
    ("wrong", "status", "sentence"),
    [
        ({"cpu": -1}, 400, "cpu: Input should be greater than or equal to 0"),
        ({"memory": "lots"}, 400, "'lots' is no Kubernetes quantity"),
        ({"colour": "red"}, 400, "colour: Extra inputs are not permitted"),
        ({"user": "nobody"}, 404, "Nobody named 'nobody' has ever logged in"),
        ({"workspace": "churn"}, 403, "alice is no member of workspace churn"),
    ],
)
async def test_a_wrong_ask_is_named(hub, alice, audited, *, wrong, status, sentence):
    found, body = await reserve(hub, service("execution"), run="r", **wrong)
    assert (found, sentence in body["message"]) == (status, True), body
    refused = [line["why"] for line in audited("run.ask")]
    assert refused == ([body["message"]] if status == 403 else [])
