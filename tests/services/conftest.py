"""Real JupyterHub, OAuthenticator and KubeSpawner, in process, with doubles of what is around."""

import json
import logging
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientSession
from aiohttp.web import Application, AppRunner, TCPSite
from kubernetes_asyncio.config import kube_config
from kubespawner.clients import load_config

from components import mlflow_server
from mlhub.hub import audit
from tests.ports import free_port
from tests.services import mlflow_server as mlflow_doubles
from tests.services.hub import POD, Hub, chart_values, logged_in, running
from tests.services.keycloak import PEOPLE, Keycloak
from tests.services.kubernetes import Kubernetes, kubeconfig

BUCKET = "artifacts"


@pytest.fixture
async def serve() -> AsyncIterator[Callable[[Application], Any]]:
    """`await serve(app)` puts a web application on loopback and returns its address."""
    runners = []

    async def start(app: Application, port: int = 0) -> str:
        runner = AppRunner(app, shutdown_timeout=0)
        await runner.setup()
        runners.append(runner)
        port = port or free_port()
        await TCPSite(runner, "127.0.0.1", port).start()
        return f"http://127.0.0.1:{port}"

    yield start
    for runner in runners:
        await runner.cleanup()


@pytest.fixture(autouse=True)
def hub_pod(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The environment of a hub pod; returns the folder which the chart mounts."""
    etc = tmp_path / "etc"
    monkeypatch.setenv("MLHUB_HUB_ETC", str(etc))
    for name, value in POD.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("PGPASSWORD", "")  # the configuration sets it for its own process
    monkeypatch.chdir(tmp_path)
    return etc


@pytest.fixture(autouse=True)
def own_trail(monkeypatch: pytest.MonkeyPatch) -> None:
    """A hub sends the audit trail to standard output, which with `capsys` is one of the test's own:
    the next test would write to a closed file, and be told of it on its standard error."""
    for name, value in {"handlers": [], "level": logging.NOTSET, "propagate": True}.items():
        monkeypatch.setattr(audit.log, name, value)


@pytest.fixture
async def kubernetes(
    serve: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> AsyncIterator[Kubernetes]:
    """A Kubernetes that KubeSpawner takes for its own."""
    double = Kubernetes()
    path = tmp_path / "kubeconfig"
    path.write_text(kubeconfig(await serve(double.application())))
    monkeypatch.setattr(kube_config, "KUBE_CONFIG_DEFAULT_LOCATION", str(path))
    load_config.cache_clear()
    yield double
    double.close()
    load_config.cache_clear()


@pytest.fixture
def hub_port() -> int:
    return free_port()


@pytest.fixture
async def keycloak(serve: Any, hub_port: int) -> Keycloak:
    double = Keycloak(redirect_uri=f"http://127.0.0.1:{hub_port}/hub/oauth_callback")
    double.people = {
        "alice": ["/mlhub/users"],
        "bob": ["/mlhub/users", "/elsewhere/admins"],
        "carol": ["/mlhub/admins"],
        "mallory": None,
    }
    double.address = await serve(double.application())
    return double


@pytest.fixture
async def start_hub(
    hub_pod: Path, hub_port: int, keycloak: Keycloak, kubernetes: Kubernetes
) -> AsyncIterator[Callable[..., Any]]:
    """`await start_hub(values)`: a hub whose Keycloak and Kubernetes are the doubles."""
    started = []

    async def start(*given: dict[str, Any]) -> Hub:
        identity = {
            "public_url": keycloak.address,
            "internal_url": keycloak.address,
            "callback_url": keycloak.redirect_uri,
            "refresh_seconds": 1,
            "people_client": PEOPLE[0],
        }
        values = chart_values({"custom": {"mlhub": {"identity": identity}}}, *given)
        started.append(running(hub_pod, values, hub_port))
        return await started[-1].__aenter__()

    yield start
    for hub in started:
        await hub.__aexit__(None, None, None)


@pytest.fixture
async def hub(start_hub: Any) -> Hub:
    """A hub of the chart's defaults."""
    return await start_hub()


@pytest.fixture
async def alice(hub: Hub, keycloak: Keycloak) -> AsyncIterator[ClientSession]:
    """Alice's browser, logged in."""
    keycloak.at_the_browser = "alice"
    async with hub.browser() as browser:
        await logged_in(browser)
        yield browser


@pytest.fixture
def audited(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], list[dict[str, Any]]]:
    """`audited(event)`: the lines of the audit trail so far whose event ends so."""
    lines: list[dict[str, Any]] = []
    monkeypatch.setattr(audit.log, "info", lambda line: lines.append(json.loads(line)))
    return lambda event: [line for line in lines if line["event"].endswith(event)]


@pytest.fixture(scope="session")
def hub_double() -> Iterator[mlflow_doubles.HubDouble]:
    """Who bears which token, for the one MLflow of all tests."""
    double = mlflow_doubles.HubDouble()
    yield double
    double.close()


@pytest.fixture(scope="session")
def s3() -> Iterator[Any]:
    """An S3 service with MLflow's bucket; returns its client."""
    import boto3  # slow, and for these tests alone
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=free_port(), verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    keys = {"aws_access_key_id": "of the server", "aws_secret_access_key": "alone"}
    client = boto3.client(
        "s3", endpoint_url=f"http://{host}:{port}", region_name="us-east-1", **keys
    )
    client.create_bucket(Bucket=BUCKET)
    yield client
    server.stop()


@pytest.fixture(scope="session")
def server(
    hub_double: mlflow_doubles.HubDouble, s3: Any, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[mlflow_doubles.Server]:
    """The real MLflow, its artifacts in S3; one for all tests."""
    artifacts = mlflow_server.Artifacts(endpoint=s3.meta.endpoint_url, bucket=BUCKET)
    keys = {"AWS_ACCESS_KEY_ID": "of the server", "AWS_SECRET_ACCESS_KEY": "alone"}
    with mlflow_doubles.running(
        tmp_path_factory.mktemp("mlflow"),
        free_port(),
        hub_double.api,
        destination=artifacts.destination,
        extra=mlflow_server.s3_environment(artifacts) | keys,
    ) as running:
        yield running


@pytest.fixture
def client_of(server: mlflow_doubles.Server, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """MLflow's own client with nothing but a token, as a user pod has it."""
    from mlflow.tracking import MlflowClient

    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name, raising=False)

    def client(token: str, workspace: str | None = None) -> Any:
        monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", token)
        monkeypatch.delenv("MLFLOW_WORKSPACE", raising=False)
        if workspace is not None:
            monkeypatch.setenv("MLFLOW_WORKSPACE", workspace)
        return MlflowClient(tracking_uri=server.url, registry_uri=server.url)

    return client


@pytest.fixture(scope="session")
def alices_mlflow(
    server: mlflow_doubles.Server, hub_double: mlflow_doubles.HubDouble
) -> dict[str, str]:
    """The environment that a server of alice's has for the real MLflow."""
    return {
        "MLFLOW_TRACKING_URI": server.url,
        "MLFLOW_TRACKING_TOKEN": hub_double.person("alice"),
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
        "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",  # this machine may be busy
        "JUPYTERHUB_USER": "alice",
    }
