"""pulumi-resource-harbor for machines where the official plug-in cannot be had.

The types that the program uses, against a real Harbor by its API v2.0. Configured without reaching
the server: a preview needs none.
"""

import logging
import threading
from collections.abc import Callable, Mapping
from typing import Any

from bootstrap.plugins.harbor_api import Account
from bootstrap.plugins.harbor_api import Harbor as Server
from bootstrap.plugins.harbor_objects import Project
from bootstrap.plugins.harbor_retention import RetentionPolicy
from bootstrap.plugins.harbor_robots import RobotAccount
from bootstrap.plugins.process import EngineLog
from bootstrap.plugins.provider import Package, main
from bootstrap.plugins.schema import PluginError, Property, ResourceType
from bootstrap.plugins.values import has_unknown

REQUEST_SECONDS = 30
STARTUP_SECONDS = 60

TYPES: tuple[Callable[[Callable[[], Server]], ResourceType], ...] = (
    Project, RobotAccount, RetentionPolicy,
)  # fmt: skip


class Harbor(Package):
    name = "harbor"
    version = "3.10.21"
    config = (
        Property("url"),
        Property("username"),
        Property("password", secret=True),
        Property("insecure", "boolean"),
        Property("apiVersion", "integer"),
    )

    def __init__(self) -> None:
        self.types = {t.type: t for t in (make(self.server) for make in TYPES)}
        self._lock = threading.Lock()
        self._config: dict[str, Any] = {}
        self._progress: Callable[[str], None] = lambda message: None
        self._server: Server | None = None

    def configure(self, config: dict[str, Any], log: EngineLog) -> None:
        self._config, self._progress, self._server = config, log.progress, None

    def cancel(self) -> None:
        if self._server is not None:
            self._server.cancel()

    def server(self) -> Server:
        with self._lock:
            if self._server is None:
                self._server = Server(account(self._config), self._progress)
            return self._server


def account(config: Mapping[str, Any]) -> Account:
    """The provider's configuration. Settings that are no strings arrive as JSON."""
    known = {p.name: config[p.name] for p in Harbor.config if p.name in config}
    if has_unknown(known):
        unknown = sorted(key for key, value in known.items() if has_unknown(value))
        raise PluginError(
            f"the harbor provider's {', '.join(unknown)} will be known only after `pulumi up`"
        )
    if missing := [key for key in ("url", "username", "password") if not known.get(key)]:
        raise PluginError(f"the harbor provider has no {' and no '.join(missing)}; give it")
    if str(known.get("apiVersion", 2)) != "2":
        raise PluginError(
            f"the harbor provider's apiVersion is {known['apiVersion']}; this plug-in knows 2 alone"
        )
    return Account(
        url=known["url"].rstrip("/"),
        username=known["username"],
        password=known["password"],
        verify=str(known.get("insecure", False)).lower() != "true",
        timeout=REQUEST_SECONDS,
        wait_seconds=STARTUP_SECONDS,
    )


def run() -> None:
    logging.getLogger("urllib3").setLevel(logging.ERROR)
    main(Harbor())
