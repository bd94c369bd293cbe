"""What was promised holds when the hub is killed in between: the hub is a process of its own."""

import asyncio
from collections import Counter
from typing import Any

import aiohttp
import pytest

from tests.services import test_hub_admission as routes
from tests.services.hub import chart_values, merged, until
from tests.services.process import HubProcess

LIMIT = 10
AT_ONCE = 50
PROMISED = 2
"""Runs that have their share before the crowd comes, of which servers might leave them none."""
LASTS = 600
"""Seconds for which a run's share is promised; longer than any of this takes."""


@pytest.fixture
async def hub(hub_pod: Any, hub_port: int, keycloak: Any, kubernetes: Any, tmp_path: Any) -> Any:
    identity = {
        "public_url": keycloak.address,
        "internal_url": keycloak.address,
        "callback_url": keycloak.redirect_uri,
    }
    quotas = {"user": {"servers": LIMIT}, "groups": {}, "server": routes.QUOTAS["server"]}
    values = merged(routes.VALUES, {"custom": {"mlhub": {"identity": identity}}})
    values["custom"]["mlhub"]["quotas"] = quotas
    hub = HubProcess(hub_pod, chart_values(values), hub_port, tmp_path / "kubeconfig")
    await hub.start()
    yield hub
    await hub.kill()


def held(hub: HubProcess, kubernetes: Any) -> Counter[str]:
    """What takes shares: pods of servers, and runs promised. A hub that is killed may not have told
    the run itself any more; it is in the trail."""
    asks = [line for line in hub.audit() if line["event"] == "run.ask"]
    promised = {line["what"] for line in asks if line["outcome"] == "admitted"}
    return Counter(servers=len(kubernetes.kept["pods"]), runs=len(promised))


async def test_M9_a_hundred_at_once_get_exactly_the_limit_over_a_killed_hub(hub, alice, kubernetes):
    """Fifty over four routes, the hub killed among them; fifty more at the next one."""
    token = routes.service("execution")

    async def by_run(_: Any, name: str) -> tuple[int, str]:
        status, _ = await routes.reserve(hub, token, run=name, seconds=LASTS)
        return status, ""

    for number in range(PROMISED):
        assert (await by_run(alice, f"early{number}"))[0] == 200
    # Few runs: they need no Keycloak, and if they were ten no server might get a share.
    each = [by_run, *[routes.by_api, routes.by_form, routes.by_link] * 8]

    def fifty(first: int) -> list[asyncio.Task[Any]]:
        numbers = range(first, first + AT_ONCE)
        return [asyncio.create_task(each[n % len(each)](alice, f"n{n}")) for n in numbers]

    def answered() -> int:
        """Of the crowd's."""
        return sum(line["event"].endswith(".ask") for line in hub.audit()) - PROMISED

    before = fifty(0)
    await until(lambda: answered() >= LIMIT)
    await hub.kill()
    await asyncio.gather(*before, return_exceptions=True)
    assert await hub.start()
    after = fifty(AT_ONCE)
    await until(lambda: answered() >= AT_ONCE, 200)
    results = await asyncio.gather(*after, return_exceptions=True)
    assert not [r for r in results if isinstance(r, BaseException)], results
    await until(lambda: held(hub, kubernetes).total() >= LIMIT)
    await asyncio.sleep(1)
    by = held(hub, kubernetes)
    assert (by.total(), by["runs"] >= PROMISED, by["servers"] >= 1) == (LIMIT, True, True), by
    assert (await routes.reserve(hub, token, run="another"))[0] == 429


async def test_M9_a_run_that_was_promised_counts_at_the_next_hub_and_once(hub, alice, kubernetes):
    token = routes.service("execution")
    asked = [await routes.reserve(hub, token, run=f"r{n}", seconds=LASTS) for n in range(LIMIT)]
    kept = [body for _, body in asked]
    url = f"{hub.url}/hub/api/mlhub/admission/{kept[0]['reservation']}"
    async with aiohttp.ClientSession(headers=token) as session:
        assert (await session.delete(url)).status == 204
    await hub.kill()
    made = routes.pod("alice/run/r1", "run")
    made["metadata"] |= kept[1]["pod"]
    kubernetes.put("pods", made)
    await hub.start()
    assert (await routes.reserve(hub, token, run="one-more"))[0] == 200, "r0 was given back"
    status, body = await routes.reserve(hub, token, run="two-more")
    assert (status, body["accounts"][0]["used"]["servers"]) == (429, LIMIT)
    status, body = await routes.reserve(hub, token, run="r2", reservation=kept[2]["reservation"])
    assert (status, body["reservation"]) == (200, kept[2]["reservation"]), "it can be renewed"
