"""How many spawns a second a hub bears, and at what cost, beside the same hub without our code.

    PYTHONPATH=images/packages/mlhub/src .venv/bin/python -m tests.services.load

Both hubs are real, each in a process of its own with a database of its own: the one of the chart
with `mlhub.hub`, and one of the same chart values with JupyterHub's, KubeSpawner's and
OAuthenticator's own classes set alike. Keycloak, Kubernetes and the users' servers are doubles, so
that a pod is ready at once and the hub alone is measured. Both run at the same time and a few
people go to the one, then to the other, so that other work on the machine meets them alike. What
counts is the hub's processor time over the whole of each part, what it does by itself included.
"""

import argparse
import asyncio
import json
import platform
import statistics
import tempfile
import time
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiohttp
import psutil
from aiohttp import web
from yarl import URL

from tests.ports import free_port
from tests.services.hub import IDENTITY, POD, PROFILES, chart_values
from tests.services.keycloak import PEOPLE, REALM, Keycloak
from tests.services.kubernetes import Kubernetes, kubeconfig
from tests.services.process import ROOT, HubProcess

PAGE = ROOT / "docs" / "hub.md"
MARKS = ("<!-- load -->", "<!-- /load -->")
AT_ONCE = 8
"""People who go to one hub at the same time, and then to the other; the Hub's own bound is 100."""
START_SECONDS = 600
"""How long a start is waited for; it is measured, not judged."""
REPORTS = 3
"""How often each server reports."""
REPORT_SECONDS = 60
"""How often a server reports its activity (components/values.py)."""
RUNNING = {
    "phase": "Running",
    "podIP": "127.0.0.1",
    "containerStatuses": [{"name": "notebook", "ready": True, "state": {"running": {}}}],
    "conditions": [{"type": "PodScheduled", "status": "True"}],
}
PLAIN = """
connect = "{keycloak}/realms/{realm}/protocol/openid-connect"
c.JupyterHub.update(authenticator_class="generic-oauth", allow_named_servers=True)
c.GenericOAuthenticator.update(
    authorize_url=connect + "/auth", token_url=connect + "/token",
    userdata_url=connect + "/userinfo", oauth_callback_url="{callback}",
    scope=["openid", "profile"], username_claim="preferred_username", enable_pkce=True,
    manage_groups=True, auth_state_groups_key=lambda state: state["oauth_user"]["groups"],
    allowed_groups={{"/mlhub/users"}}, enable_auth_state=True, auth_refresh_age=300,
    refresh_pre_spawn=True,
)
c.KubeSpawner.update(
    slug_scheme="safe", delete_pvc=False, automount_service_account_token=False,
    pod_security_context={{"runAsNonRoot": True, "seccompProfile": {{"type": "RuntimeDefault"}}}},
    container_security_context={{
        "capabilities": {{"drop": ["ALL"]}}, "readOnlyRootFilesystem": True
    }},
)
"""


@dataclass(frozen=True)
class Figures:
    """Of one hub with so many people, in seconds; `cpu` is processor time of the hub's process."""

    log_in_cpu: float
    spawn_cpu: float
    spawn_wall: float
    report_cpu: float
    """For one report of every server."""
    restart: float
    restart_cpu: float

    @property
    def cpu(self) -> float:
        return self.log_in_cpu + self.spawn_cpu + self.report_cpu


class World:
    """What is around the hubs, and the two hubs' values."""

    def __init__(self, folder: Path, users: int):
        self.folder = folder
        self.names = [f"user{n}" for n in range(users)]
        self._runners: list[web.AppRunner] = []

    async def __aenter__(self) -> "World":
        self.kubernetes = Kubernetes(then=lambda pod: RUNNING)
        self.hub_port = free_port()
        self.keycloak = Keycloak(f"http://127.0.0.1:{self.hub_port}/hub/oauth_callback")
        self.keycloak.people = {name: ["/mlhub/users"] for name in self.names}
        self.keycloak.address = await self._serve(self.keycloak.application())
        api = await self._serve(self.kubernetes.application())
        server = web.Application()
        server.router.add_get("/user/{name}/api", lambda _: web.json_response({"version": "1"}))
        self.server_port = URL(await self._serve(server)).port
        self.kubeconfig = self.folder / "kubeconfig"
        self.kubeconfig.write_text(kubeconfig(api))
        return self

    async def __aexit__(self, *_: Any) -> None:
        self.kubernetes.close()
        for runner in self._runners:
            await runner.cleanup()

    async def _serve(self, app: web.Application) -> str:
        runner = web.AppRunner(app, shutdown_timeout=0, access_log=None)
        await runner.setup()
        self._runners.append(runner)
        port = free_port()
        await web.TCPSite(runner, "127.0.0.1", port, backlog=2048).start()
        return f"http://127.0.0.1:{port}"

    def hub(self, *, ours: bool) -> HubProcess:
        identity = IDENTITY | {
            "public_url": self.keycloak.address,
            "internal_url": self.keycloak.address,
            "callback_url": self.keycloak.redirect_uri,
            "people_client": PEOPLE[0],
        }
        quotas = {
            "server": {"cpu": 16, "memory": "64Gi", "gpu": 4},
            "user": {"servers": 3},
            "groups": {"/mlhub/users": {"cpu": 1e6}},
        }
        plain = PLAIN.format(
            keycloak=self.keycloak.address, realm=REALM, callback=self.keycloak.redirect_uri
        )
        given = {
            "custom": {"mlhub": {"identity": identity, "quotas": quotas}},
            "hub": {"config": {"KubeSpawner": {"port": self.server_port}}},
            "singleuser": {"profileList": PROFILES},
        }
        values = chart_values(given)
        if not ours:
            values["hub"]["extraConfig"] = {"plain": plain}
        return HubProcess(self.folder, values, self.hub_port, self.kubeconfig, POD)


def _used(hub: HubProcess) -> float:
    times = psutil.Process(hub.pid).cpu_times()
    return times.user + times.system


class Side:
    """One of the two hubs, its people and what they cost it."""

    def __init__(self, world: World, *, ours: bool):
        self.world = world
        self.hub = world.hub(ours=ours)
        self.browsers = {name: _browser(self.hub, world, name) for name in world.names}
        self.cpu: dict[str, float] = {}
        self.wall: dict[str, float] = {}

    async def log_in(self, names: Iterable[str]) -> None:
        await _each(names, lambda name: _log_in(self.browsers[name]))

    async def spawn(self, names: Iterable[str]) -> None:
        await _each(names, lambda name: _spawn(self.browsers[name], name))

    async def report(self, names: Iterable[str]) -> None:
        await _report(self.hub, self.world, set(names))

    async def restart(self, _: Iterable[str]) -> None:
        await self.hub.kill()
        await self.hub.start(START_SECONDS)

    async def close(self) -> None:
        for browser in self.browsers.values():
            await browser.close()
        await self.hub.kill()

    def figures(self) -> Figures:
        return Figures(
            self.cpu["log_in"],
            self.cpu["spawn"],
            self.wall["spawn"],
            self.cpu["report"] / REPORTS,
            self.wall["restart"],
            self.cpu["restart"],
        )


async def measure(sides: Sequence[Side]) -> None:
    """Everybody logs in, starts a server and reports; the hubs start again beside the servers."""
    for side in sides:
        await side.hub.start(START_SECONDS)
    names = sides[0].world.names
    few = [names[n : n + AT_ONCE] for n in range(0, len(names), AT_ONCE)]
    await _part(sides, "log_in", few)
    await _part(sides, "spawn", few)
    for side in sides:
        assert len(side.world.kubernetes.kept["pods"]) == len(names)
    await _part(sides, "report", few * REPORTS)
    await _part(sides, "restart", [names])
    for side in sides:
        side.cpu["restart"] = _used(side.hub)


async def _part(sides: Sequence[Side], part: str, groups: Iterable[list[str]]) -> None:
    before = [_used(side.hub) for side in sides]
    for side in sides:
        side.wall[part] = 0.0
    for number, names in enumerate(groups):
        for side in sides if number % 2 else reversed(sides):
            began = time.monotonic()
            await getattr(side, part)(names)
            side.wall[part] += time.monotonic() - began
    for side, used in zip(sides, before, strict=True):
        side.cpu[part] = _used(side.hub) - used


async def _each(names: Iterable[str], does: Any) -> None:
    door = asyncio.Semaphore(AT_ONCE)

    async def one(name: str) -> None:
        async with door:
            await does(name)

    await asyncio.gather(*map(one, names))


def _browser(hub: HubProcess, world: World, name: str) -> aiohttp.ClientSession:
    browser = hub.browser()
    browser.cookie_jar.update_cookies({"who": name}, URL(world.keycloak.address))
    return browser


async def _log_in(browser: aiohttp.ClientSession) -> None:
    async with browser.get("/hub/oauth_login?next=/hub/api/") as page:
        text = await page.text()
        assert page.status == 200, (page.status, page.url, text[-600:])


async def _spawn(browser: aiohttp.ClientSession, name: str) -> None:
    xsrf = next((c.value for c in browser.cookie_jar if c.key == "_xsrf"), "")
    headers = {"X-XSRFToken": xsrf, "Referer": f"{browser._base_url}hub/home"}
    options = {"profile": "standard", "size": "small"}
    url = f"/hub/api/users/{name}/server"
    async with browser.post(url, json=options, headers=headers) as answer:
        assert answer.status in (201, 202), await answer.text()
    if answer.status == 202:
        async with browser.get(f"{url}/progress", headers=headers) as progress:
            events = [
                json.loads(line[5:]) async for line in progress.content if line[:5] == b"data:"
            ]
        assert events[-1].get("ready"), events


async def _report(hub: HubProcess, world: World, names: Collection[str]) -> None:
    """Their servers tell the hub that they are active, as they do every minute."""
    tokens = {}
    for pod in world.kubernetes.kept["pods"].values():
        given = {entry["name"]: entry.get("value") for entry in _environment(pod)}
        if (name := given["JUPYTERHUB_USER"]) in names:
            tokens[name] = given["JUPYTERHUB_API_TOKEN"]
    now = datetime.now(UTC).isoformat()
    async with aiohttp.ClientSession(hub.url) as client:

        async def report(name: str) -> None:
            url, headers = (
                f"/hub/api/users/{name}/activity",
                {"Authorization": f"token {tokens[name]}"},
            )
            body = {"servers": {"": {"last_activity": now}}, "last_activity": now}
            async with client.post(url, json=body, headers=headers) as answer:
                assert answer.status == 200, await answer.text()

        await _each(tokens, report)


def _environment(pod: dict[str, Any]) -> Any:
    return pod["spec"]["containers"][0]["env"]


async def compare(users: int, rounds: int) -> list[tuple[Figures, Figures]]:
    """Ours and the plain hub's figures."""
    pairs = []
    for number in range(rounds):
        with tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory() as other:
            async with World(Path(one), users) as first, World(Path(other), users) as second:
                sides = (Side(first, ours=True), Side(second, ours=False))
                try:
                    await measure(sides)
                finally:
                    for side in sides:
                        await side.close()
        pairs.append((sides[0].figures(), sides[1].figures()))
        print(f"{users} people, round {number + 1}: {ratio(pairs[-1:]):.2f}", flush=True)
    return pairs


def ratio(pairs: list[tuple[Figures, Figures]]) -> float:
    """Processor time of our hub by that of the plain one; the median of the rounds."""
    return statistics.median(ours.cpu / plain.cpu for ours, plain in pairs)


def row(users: int, pairs: list[tuple[Figures, Figures]]) -> str:
    def mid(pick: Any) -> tuple[float, float]:
        return tuple(statistics.median(pick(pair[i]) for pair in pairs) for i in (0, 1))

    rate = mid(lambda f: users / f.spawn_wall)
    spawn = mid(lambda f: 1000 * f.spawn_cpu / users)
    # A report a minute for each server that runs.
    steady = mid(lambda f: 100 * f.report_cpu / REPORT_SECONDS)
    start, used = mid(lambda f: f.restart), mid(lambda f: f.restart_cpu)
    return (
        f"| {users} | {rate[0]:.1f} / {rate[1]:.1f} | {spawn[0]:.0f} / {spawn[1]:.0f} ms "
        f"| {steady[0]:.2g} / {steady[1]:.2g} % | {start[0]:.1f} / {start[1]:.1f} s "
        f"| {used[0]:.1f} / {used[1]:.1f} s | {ratio(pairs):.2f} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description="ours and a plain hub under load")
    parser.add_argument("--users", type=int, nargs="+", default=[10, 100, 1000])
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    loads, lines = [psutil.getloadavg()[0]], []
    for users in given.users:
        lines.append(row(users, asyncio.run(compare(users, given.rounds))))
        print(lines[-1], flush=True)
        loads.append(psutil.getloadavg()[0])
    when = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    body = "\n".join(
        [
            f"{when}. {psutil.cpu_count()} cores, load {min(loads):.0f} to {max(loads):.0f}, "
            f"Python {platform.python_version()}, SQLite; median of rounds: {given.rounds}; "
            "ours / plain.",
            "",
            "| people | spawns a second | hub's processor time a spawn | of a core, all servers "
            "reporting | restart beside them | of that, processor | processor, ours to plain |",
            "|---|---|---|---|---|---|---|",
            *lines,
        ]
    )
    print(body)
    before, rest = PAGE.read_text().split(MARKS[0])
    after = rest.split(MARKS[1])[1]
    PAGE.write_text(f"{before}{MARKS[0]}\n\n{body}\n\n{MARKS[1]}{after}")


if __name__ == "__main__":
    main()
