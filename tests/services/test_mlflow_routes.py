"""What of MLflow is open to whoever has logged in: a newer MLflow must not open more unseen."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import requests

from components import mlflow_server
from tests.services.mlflow_server import PACKAGE, ROOT

OPEN = {
    "GET /": "the page",
    "GET /health": "for probes",
    "GET /static-files/<path:path>": "the page",
    "GET /version": "a number",
    "GET /mlflow/server-info": "what MLflow can do",
    "GET /mlflow/ui-telemetry": "says that it is off",
    "POST /mlflow/ui-telemetry": "says that it is off",
    "GET /mlflow/users/current": "one's own name",
    "GET /mlflow/users/current/permissions": "one's own rights",
    # Upstream filters the answer by what one may read
    "GET /graphql": "filtered",
    "POST /graphql": "filtered",
    "GET /mlflow/experiments/search": "filtered",
    "POST /mlflow/experiments/search": "filtered",
    "POST /mlflow/runs/search": "filtered",
    "GET /mlflow/registered-models/search": "filtered",
    "GET /mlflow/workspaces": "filtered",
    "GET /mlflow/gateway/endpoints/list": "filtered",
    "GET /mlflow/gateway/secrets/list": "filtered",
    # The gateway is off
    "GET /mlflow/gateway/budgets/get": "off",
    "GET /mlflow/gateway/budgets/list": "off",
    "GET /mlflow/gateway/budgets/windows": "off",
    "GET /mlflow/gateway/provider-config": "off",
    "GET /mlflow/gateway/secrets/config": "off",
    "GET /mlflow/gateway/supported-models": "off",
    "GET /mlflow/gateway/supported-providers": "off",
}

OPEN_OF_FASTAPI = {
    "GET /gateway/mlflow/v1/models": "off",
    "GET /health": "for probes",
    "GET /mlflow/server-info": "what MLflow can do",
    # Execution of jobs is off
    "POST /jobs/": "off",
    "GET /jobs/{job_id}": "off",
    "PATCH /jobs/cancel/{job_id}": "off",
    "POST /jobs/search": "filtered",
    # What one makes there needs a right of the workspace's, and what one finds is filtered
    "POST /mlflow/mcp-servers": "guarded",
    "GET /mlflow/mcp-servers": "filtered",
    "GET /mlflow/mcp-servers/endpoints": "filtered",
    # A name has a slash, and then another rule guards it
    "GET /mlflow/mcp-servers/{name:path}": "nothing there",
    "PATCH /mlflow/mcp-servers/{name:path}": "nothing there",
    "DELETE /mlflow/mcp-servers/{name:path}": "nothing there",
}


@pytest.fixture(scope="module")
def routes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    folder: Path = tmp_path_factory.mktemp("routes")
    config = folder / mlflow_server.AUTH_CONFIG_FILE
    config.write_text(mlflow_server.auth_config(f"sqlite:///{folder}/mlflow.db"))
    environment = mlflow_server.environment(
        hub_api="http://127.0.0.1:1/hub/api", hub_url="http://127.0.0.1:1", config=str(config)
    )
    environment |= {
        "PATH": os.environ["PATH"],
        "HOME": str(folder),
        "PYTHONPATH": f"{PACKAGE / 'src'}:{ROOT}",
        "JUPYTERHUB_API_TOKEN": "a token",
        "MLFLOW_AUTH_ADMIN_PASSWORD": "a password of the bootstrap",
        "MLFLOW_FLASK_SERVER_SECRET_KEY": "a key of the bootstrap",
        # As `mlflow server` sets them for its workers
        "MLFLOW_ENABLE_WORKSPACES": "true",
        "_MLFLOW_SGI_NAME": "uvicorn",
    }
    command = [sys.executable, "-m", "tests.services.mlflow_routes"]
    ended = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stderr
    found: dict[str, Any] = json.loads(ended.stdout)
    return found


@pytest.mark.parametrize(("kind", "judged"), [("flask", OPEN), ("fastapi", OPEN_OF_FASTAPI)])
def test_M7_no_route_is_open_to_all_but_those_that_were_judged(routes, kind, judged):
    """Read a new one in MLflow's source; then close it in `mlhub.mlflow.app`, or judge it here."""
    assert set(routes[kind]) == set(judged)


def addresses(why: str) -> list[tuple[str, str]]:
    """Method and path of those that were judged so."""
    found = [*OPEN.items(), *OPEN_OF_FASTAPI.items()]
    return [(*route.split(" ", 1),) for route, judged in found if judged == why]


@pytest.mark.parametrize(("method", "path"), addresses("off"))
def test_what_is_off_answers_nothing(server, hub_double, method, path):
    prefix = "" if path.startswith("/gateway") else "/ajax-api/3.0"
    answer = requests.request(
        method,
        f"{server.url}{prefix}{path.format(job_id=1)}",
        headers={"Authorization": f"Bearer {hub_double.person('mallory')}"},
        json={"job_name": "invoke_scorer", "params": {}} if method == "POST" else None,
        timeout=60,
    )
    assert answer.status_code in (403, 404, 501) or "not enabled" in answer.text, answer.text


def test_M7_a_stranger_finds_none_of_a_teams_mcp_servers(server, hub_double):
    path, team = "/api/3.0/mlflow/mcp-servers", {"X-MLFLOW-WORKSPACE": "fraud"}
    name = "com.example/of-the-team"
    editor, mallory = hub_double.person("mira", fraud="editor"), hub_double.person("mallory")
    assert server.ask(path, editor, {"name": name}, **team)[0] == 200
    assert name in server.ask(path, editor, **team)[1]
    for search in (path, f"{path}/endpoints"):
        assert name not in server.ask(search, mallory, **team)[1]
    assert server.ask(f"{path}/{name}", mallory, **team)[0] == 403
    assert server.ask(path, mallory, {"name": f"{name}-2"}, **team)[0] == 403
