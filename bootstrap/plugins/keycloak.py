"""pulumi-resource-keycloak for machines where the official plug-in cannot be had.

The types that the program uses (`keycloak_objects`, `keycloak_links`), against a real Keycloak by
its admin REST API. Configured without reaching the server: a preview needs none.
"""

import logging
import threading
from collections.abc import Callable, Mapping
from typing import Any

from bootstrap.plugins.keycloak_admin import Admin, Login
from bootstrap.plugins.keycloak_links import (
    ClientDefaultScopes,
    ClientServiceAccountRole,
    GetClient,
    GroupRoles,
    UserGroups,
)
from bootstrap.plugins.keycloak_objects import (
    AudienceProtocolMapper,
    Client,
    Group,
    GroupMembershipProtocolMapper,
    Realm,
    Role,
    User,
    is_true,
)
from bootstrap.plugins.process import EngineLog
from bootstrap.plugins.provider import Package, main
from bootstrap.plugins.schema import PluginError, Property, ResourceType
from bootstrap.plugins.values import has_unknown

STARTUP_SECONDS = 180
"""How long a server that refuses connections or answers 503 may take: it was just deployed."""

REQUEST_SECONDS = 30
"""Least patience with one request; the official default of 5 is short for a busy machine."""

TYPES: tuple[Callable[[Callable[[], Admin]], ResourceType], ...] = (
    Realm, Client, GroupMembershipProtocolMapper, AudienceProtocolMapper, ClientDefaultScopes,
    ClientServiceAccountRole, Group, User, UserGroups, Role, GroupRoles,
)  # fmt: skip


class Keycloak(Package):
    name = "keycloak"
    version = "6.14.1"
    config = (
        Property("url"),
        Property("basePath"),
        Property("adminUrl"),
        Property("realm"),
        Property("clientId"),
        Property("clientSecret", secret=True),
        Property("username"),
        Property("password", secret=True),
        Property("clientTimeout", "integer"),
        Property("initialLogin", "boolean"),
        Property("tlsInsecureSkipVerify", "boolean"),
    )

    def __init__(self) -> None:
        self.types = {t.type: t for t in (make(self.server) for make in TYPES)}
        self.functions = {GetClient.token: GetClient(self.server)}
        self._lock = threading.Lock()
        self._config: dict[str, Any] = {}
        self._progress: Callable[[str], None] = lambda message: None
        self._admin: Admin | None = None

    def configure(self, config: dict[str, Any], log: EngineLog) -> None:
        self._config, self._progress, self._admin = config, log.progress, None

    def cancel(self) -> None:
        if self._admin is not None:
            self._admin.cancel()

    def server(self) -> Admin:
        with self._lock:
            if self._admin is None:
                self._admin = Admin(login(self._config), self._progress)
            return self._admin


def login(config: Mapping[str, Any]) -> Login:
    """The provider's configuration. Settings that are no strings arrive as JSON."""
    if has_unknown(config):
        unknown = sorted(key for key, value in config.items() if has_unknown(value))
        raise PluginError(
            f"the keycloak provider's {', '.join(unknown)} will be known only after `pulumi up`"
        )
    if not config.get("url") and not config.get("adminUrl"):
        raise PluginError("the keycloak provider has no url; give the server's, such as "
                          "http://localhost:8080")  # fmt: skip
    if "clientId" not in config:
        raise PluginError("the keycloak provider has no clientId; admin-cli is there by default")
    base = config.get("adminUrl") or config["url"]
    return Login(
        url=base.rstrip("/") + config.get("basePath", "").rstrip("/") + "/",
        realm=config.get("realm") or "master",
        client_id=config["clientId"],
        client_secret=config.get("clientSecret"),
        username=config.get("username"),
        password=config.get("password"),
        timeout=max(REQUEST_SECONDS, int(config.get("clientTimeout") or 0)),
        wait_seconds=STARTUP_SECONDS,
        verify=not is_true(config.get("tlsInsecureSkipVerify", False)),
    )


def run() -> None:
    # Its "Retrying …" on standard error would stand among the results; we say what we wait for.
    logging.getLogger("urllib3").setLevel(logging.ERROR)
    main(Keycloak())
