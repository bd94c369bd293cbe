"""pulumi-resource-docker for machines where the official plug-in cannot be had.

One function, which is all that the program asks of it: the digest that a tag names at a registry.
Nothing of a Docker daemon is used; there need not be one.
"""

import json
import logging
import re
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

import requests

from bootstrap.plugins.process import EngineLog
from bootstrap.plugins.provider import Package, main
from bootstrap.plugins.schema import Function, PluginError, Property
from bootstrap.plugins.values import has_unknown
from bootstrap.plugins.web import root_cause, trust

ACCEPT = ", ".join(
    (
        "application/vnd.oci.image.index.v1+json",
        "application/vnd.docker.distribution.manifest.list.v2+json",
        "application/vnd.oci.image.manifest.v1+json",
        "application/vnd.docker.distribution.manifest.v2+json",
    )
)
"""An index counts as the image itself: its digest stands for every platform."""

IMAGE = re.compile(
    r"(?P<registry>localhost|[a-zA-Z0-9-]+(?:\.[a-zA-Z0-9-]+)+|[a-zA-Z0-9.-]+(?=:[0-9]+/))"
    r"(?P<port>:[0-9]+)?/(?P<repository>[a-z0-9._/-]+)"
    r"(?::(?P<tag>[A-Za-z0-9_][A-Za-z0-9._-]{0,127}))?(?:@(?P<digest>sha256:[0-9a-f]{64}))?"
)
CHALLENGE = re.compile(r'(\w+)="([^"]*)"')
SECONDS = 30


@dataclass(frozen=True)
class Registry:
    """An entry of the provider's `registryAuth`. The address has its scheme."""

    address: str
    username: str | None = None
    password: str | None = None

    def __repr__(self) -> str:
        return f"Registry({self.address}, {self.username})"

    @property
    def auth(self) -> tuple[str, str] | None:
        return (self.username, self.password or "") if self.username else None


def registries(config: Mapping[str, Any]) -> dict[str, Registry]:
    """By host[:port], the registries that the provider has credentials or a scheme for."""
    given = config.get("registryAuth", "[]")
    if has_unknown(given):
        raise PluginError("the docker provider's registryAuth will be known only after `pulumi up`")
    found = {}
    for entry in json.loads(given) if isinstance(given, str) else given:
        address = entry["address"]
        if "://" not in address:
            address = f"https://{address}"
        address = address.rstrip("/")
        if not entry.get("username") and not entry.get("authDisabled"):
            raise PluginError(
                f"the docker provider's registryAuth for {address} has neither username and "
                "password nor authDisabled; give one (this plug-in reads no Docker config file)"
            )
        who = {} if entry.get("authDisabled") else entry
        found[address.split("://", 1)[1]] = Registry(
            address, who.get("username"), who.get("password")
        )
    return found


class GetRegistryImage(Function):
    token = "docker:index/getRegistryImage:getRegistryImage"  # noqa: S105 - a type token
    arguments = (
        Property("name", required=True),
        Property("insecureSkipVerify", "boolean", default=False),
    )

    def __init__(self, package: "Docker"):
        self._package = package

    def call(self, arguments: dict[str, Any]) -> dict[str, Any]:
        name, insecure = arguments["name"], arguments.get("insecureSkipVerify", False)
        digest = self.digest(name, verify=not insecure)
        return {
            "id": digest, "name": name, "sha256Digest": digest, "insecureSkipVerify": insecure,
        }  # fmt: skip

    def digest(self, name: str, verify: bool) -> str:
        parts = IMAGE.fullmatch(name)
        if parts is None:
            raise PluginError(
                f'"{name}" names no image of a registry; host[:port]/project/image:tag is required'
            )
        host = parts["registry"] + (parts["port"] or "")
        registry = self._package.registries().get(host, Registry(f"https://{host}"))
        reference = parts["digest"] or parts["tag"] or "latest"
        url = f"{registry.address}/v2/{parts['repository']}/manifests/{reference}"
        try:
            return manifest_digest(url, registry, name, verify)
        except requests.RequestException as error:
            raise PluginError(
                f"the registry {registry.address} does not answer ({root_cause(error)})"
            ) from None


def manifest_digest(url: str, registry: Registry, name: str, verify: bool) -> str:
    with requests.Session() as http:
        # Otherwise a ~/.netrc of the user's would stand in for the provider's settings.
        http.auth = NoNetrc(registry.auth)
        asked = {"headers": {"Accept": ACCEPT}, "timeout": SECONDS, "verify": trust(verify)}
        response = http.head(url, **asked)  # type: ignore[arg-type]
        if response.status_code == HTTPStatus.UNAUTHORIZED:
            challenge = response.headers.get("WWW-Authenticate", "")
            if challenge.lower().startswith("bearer"):
                asked["headers"] = {"Accept": ACCEPT} | bearer(http, challenge, asked["verify"])
                http.auth = NoNetrc(None)
                response = http.head(url, **asked)  # type: ignore[arg-type]
        if response.status_code == HTTPStatus.NOT_FOUND:
            raise PluginError(f"{name} is not in the registry {registry.address}")
        if response.status_code in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
            who = registry.username or "someone without a name"
            raise PluginError(
                f"the registry {registry.address} does not let {who} see {name} "
                f"(HTTP {response.status_code})"
            )
        if not response.ok or "Docker-Content-Digest" not in response.headers:
            raise PluginError(
                f"the registry {registry.address} answered HTTP {response.status_code} without a "
                f"digest for {name}"
            )
        return response.headers["Docker-Content-Digest"]


class NoNetrc(requests.auth.AuthBase):
    def __init__(self, account: tuple[str, str] | None):
        self.account = account

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        return requests.auth.HTTPBasicAuth(*self.account)(request) if self.account else request


def bearer(http: requests.Session, challenge: str, verify: Any) -> dict[str, str]:
    """The header that the registry's token service gives for the account of `http`."""
    asked = dict(CHALLENGE.findall(challenge))
    query = {key: asked[key] for key in ("service", "scope") if key in asked}
    answer = http.get(asked.get("realm", ""), params=query, timeout=SECONDS, verify=verify)
    if not answer.ok:
        return {}
    token = answer.json()
    return {"Authorization": f"Bearer {token.get('token') or token.get('access_token')}"}


class Docker(Package):
    name = "docker"
    version = "5.2.0"
    config = (
        Property("disableDockerDaemonCheck", "boolean"),
        Property("host"),
        Property("registryAuth", "list", secret=True),
    )
    types = {}  # noqa: RUF012 - none, and never any

    def __init__(self) -> None:
        function = GetRegistryImage(self)
        self.functions = {function.token: function}
        self._lock = threading.Lock()
        self._config: dict[str, Any] = {}

    def configure(self, config: dict[str, Any], log: EngineLog) -> None:
        with self._lock:
            self._config = config

    def registries(self) -> dict[str, Registry]:
        with self._lock:
            return registries(self._config)


def run() -> None:
    logging.getLogger("urllib3").setLevel(logging.ERROR)
    main(Docker())
