"""A whole JupyterHub in the test's own process, configured by the chart's own file.

The values are the chart's defaults with the test's on top, as Helm would merge them; only the
database, the addresses and the proxy are other than in the pod.
"""

import asyncio
import copy
import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import jsonschema
import yaml
from jupyterhub.app import JupyterHub
from jupyterhub.proxy import Proxy

from mlhub.hub import MlhubSpawner
from tests.services.keycloak import CLIENT_ID, CLIENT_SECRET, PEOPLE, REALM
from tests.services.waiting import eventually

CHART = Path(__file__).parents[2] / "charts" / "jupyterhub-lite"
CONFIG = CHART / "files" / "jupyterhub_config.py"
SECRETS = {
    "hub.config.JupyterHub.cookie_secret": "ab" * 32,
    "hub.config.CryptKeeper.keys": "cd" * 32,
    "hub.config.ConfigurableHTTPProxy.auth_token": "token of the proxy",
    "hub.db.password": "password of the database",
    "hub.services.jupyterhub-idle-culler.apiToken": "ef" * 32,
    "hub.services.execution.apiToken": "01" * 32,
    "hub.services.workspaces.apiToken": "67" * 32,
    "hub.services.mlflow.apiToken": "45" * 32,
    "mlhub.people.client_secret": PEOPLE[1],
    "hub.services.stranger.apiToken": "23" * 32,
}
POD = {
    "POD_NAMESPACE": "jupyterhub",
    "OAUTH_CLIENT_ID": CLIENT_ID,
    "OAUTH_CLIENT_SECRET": CLIENT_SECRET,
}
"""The environment of a hub pod."""
IDENTITY = {
    "public_url": "http://keycloak.example.com",
    "internal_url": "http://keycloak.example.com",
    "realm": REALM,
    "callback_url": "http://hub.example.com/hub/oauth_callback",
    "access_groups": ["/mlhub/users", "/mlhub/admins"],
    "admin_groups": ["/mlhub/admins"],
}
PROFILES = [
    {
        "slug": "standard",
        "display_name": "Standard",
        "default": True,
        "kubespawner_override": {"mem_limit": "2G"},
        "profile_options": {
            "size": {
                "display_name": "Size",
                "choices": {
                    "small": {"display_name": "S", "kubespawner_override": {"cpu_limit": 1}},
                    "large": {"display_name": "L", "kubespawner_override": {"cpu_limit": 4}},
                },
            }
        },
    },
    {"slug": "other", "display_name": "Other", "kubespawner_override": {"cpu_limit": 2}},
]
VALUES: dict[str, Any] = {
    "custom": {"mlhub": {"identity": IDENTITY}},
    "hub": {
        "image": {"name": "localhost:5000/mlhub/hub", "tag": "1"},
        "existingSecret": "mlhub-hub",
        "db": {"url": "postgresql+psycopg2://jupyterhub@postgres:5432/jupyterhub"},
        "extraConfig": {"mlhub": "from mlhub.hub import configure\nconfigure(c)\n"},
    },
    "proxy": {"chp": {"image": {"name": "localhost:5000/mlhub/proxy", "tag": "1"}}},
    "singleuser": {
        "image": {"name": "localhost:5000/mlhub/ml-cpu", "tag": "1"},
        "cpu": {"limit": 4, "guarantee": 1},
        "memory": {"limit": "8G", "guarantee": "2G"},
        "storage": {
            "dynamic": {"storageClass": "local-path", "pvcNameTemplate": "claim-{username}"}
        },
    },
}


class Routes(Proxy):  # type: ignore[misc]
    """A proxy that only remembers its routes; the tests talk to the hub itself."""

    should_start = False

    def __init__(self, **kwargs: Any):
        super().__init__(**kwargs)
        self.routes: dict[str, Any] = {}

    async def get_all_routes(self) -> dict[str, Any]:
        return self.routes

    async def add_route(self, routespec: str, target: str, data: Any) -> None:
        self.routes[routespec] = {"routespec": routespec, "target": target, "data": data}

    async def delete_route(self, routespec: str) -> None:
        self.routes.pop(routespec, None)


def merged(under: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """`over` on top of `under`, as Helm merges values: mappings by key, anything else whole."""
    result = copy.deepcopy(dict(under))
    for key, value in over.items():
        both = isinstance(value, Mapping) and isinstance(result.get(key), Mapping)
        result[key] = merged(result[key], value) if both else copy.deepcopy(value)
    return result


def chart_values(*given: Mapping[str, Any]) -> dict[str, Any]:
    """What the hub pod reads, from values that the chart's schema takes."""
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    for layer in (VALUES, *given):
        values = merged(values, layer)
    jsonschema.validate(values, json.loads((CHART / "values.schema.json").read_text()))
    return values | {
        "Chart": {"Name": "jupyterhub-lite", "Version": "0.1.0"},
        "Release": {"Name": "jupyterhub", "Namespace": "jupyterhub"},
    }


def mount(etc: Path, values: Mapping[str, Any], secrets: Mapping[str, str] = SECRETS) -> None:
    """The folder that the chart mounts in the hub pod."""
    for folder in ("secret", "existing-secret"):
        (etc / folder).mkdir(parents=True, exist_ok=True)
    (etc / "secret" / "values.yaml").write_text(yaml.safe_dump(dict(values)))
    for key, value in secrets.items():
        (etc / "existing-secret" / key).write_text(value)


async def until(holds: Callable[[], Any], seconds: float = 150) -> None:
    """Return once `holds` does; a busy machine may be slow."""
    await eventually(holds, seconds, every=0.02)


async def logged_in(browser: aiohttp.ClientSession) -> None:
    """Whoever is at the browser is, from here on."""
    async with browser.get("/hub/oauth_login?next=/hub/home") as page:
        assert (page.status, page.url.path) == (200, "/hub/home"), await page.text()


@dataclass
class Hub:
    app: JupyterHub
    url: str

    def browser(self) -> aiohttp.ClientSession:
        """A browser of one's own, with no cookies yet."""
        return aiohttp.ClientSession(self.url, cookie_jar=aiohttp.CookieJar(unsafe=True))

    def wait_for_refusals(self, seconds: float) -> None:
        """How long a request for a server waits for its answer; a busy machine may be slow."""
        self.app.tornado_application.settings["slow_spawn_timeout"] = seconds

    def user(self, name: str) -> Any:
        return next(user for user in self.app.users.values() if user.name == name)


@asynccontextmanager
async def initialized(etc: Path, values: Mapping[str, Any], *argv: str) -> AsyncIterator[Any]:
    """A JupyterHub that has read everything and serves nothing yet.

    What is no business of the test's is on the command line, which JupyterHub puts over the file.
    """
    mount(etc, values)
    app = JupyterHub.instance(config_file=str(CONFIG))
    try:
        await app.initialize(["--JupyterHub.db_url=sqlite://", *argv])
        yield app
    finally:
        # JupyterHub.stop() cancels every task of the loop, the test's among them.
        for stop in (app.http_server, app.metrics_collector, *app._periodic_callbacks.values()):
            if stop:
                stop.stop()
        await MlhubSpawner._stop_all_reflectors()
        await app.cleanup()
        JupyterHub.clear_instance()


@asynccontextmanager
async def running(etc: Path, values: Mapping[str, Any], port: int) -> AsyncIterator[Hub]:
    """A JupyterHub that serves on 127.0.0.1:`port`, without the culler."""
    url = f"http://127.0.0.1:{port}"
    values = merged(values, {"cull": {"enabled": False}})
    argv = (
        f"--JupyterHub.hub_bind_url={url}",
        f"--JupyterHub.hub_connect_url={url}",
        f"--JupyterHub.proxy_class={Routes.__module__}.{Routes.__name__}",
    )
    async with initialized(etc, values, *argv) as app:
        app.init_signal = lambda: None
        await app.start()
        try:
            yield Hub(app, url)
        finally:
            for user in app.users.values():
                for spawner in user.spawners.values():
                    if spawner._start_future:
                        spawner._start_future.cancel()
            await asyncio.sleep(0)
