"""What the mlflow image must be able to do, asked at build and wherever one doubts it."""

# ruff: noqa: S101, S108, S310

import importlib
import importlib.util
import os
import shutil
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path

for module in ("boto3", "psycopg2", "sqlalchemy.dialects.postgresql.psycopg2", "mlhub.mlflow.hub"):
    importlib.import_module(module)
subprocess.run(["uv", "pip", "check", "--system", "--quiet", "--no-cache"], check=True)
left_over = [tool for tool in ("gcc", "cc", "make", "node", "sudo") if shutil.which(tool)]
assert not left_over, f"{left_over} in the mlflow image"

(package,) = importlib.util.find_spec("mlflow").submodule_search_locations
page = Path(package, "server/js/build")
opened = "mlflow.assistant.fab.autoOpenedOnFirstLoad"
assert f'"{opened}_v1"' in (page / "index.html").read_text(), "the assistant opens by itself"
scripts = [script.read_text() for script in (page / "static/js").glob("*.js")]
assert any(f'"{opened}"' in script for script in scripts), "the assistant is another in this MLflow"

DATABASE, ADDRESS = "sqlite:////tmp/mlflow.db", "http://127.0.0.1:15000"
with open("/tmp/basic_auth.ini", "w", encoding="utf-8") as config:
    config.write(
        f"[mlflow]\ndefault_permission = NO_PERMISSIONS\ndatabase_uri = {DATABASE}\n"
        "admin_username = smoke/test\n"
        "authorization_function = mlhub.mlflow.app:authenticate\n"
    )
environment = os.environ | {
    "HOME": "/tmp",
    "JUPYTERHUB_API_URL": "http://127.0.0.1:9/hub/api",  # where nobody is
    "JUPYTERHUB_API_TOKEN": "for the smoke test alone",
    "MLHUB_HUB_URL": "http://127.0.0.1:9",
    "MLFLOW_AUTH_ADMIN_PASSWORD": "for the smoke test alone",
    "MLFLOW_AUTH_CONFIG_PATH": "/tmp/basic_auth.ini",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_FLASK_SERVER_SECRET_KEY": "for the smoke test alone",
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
}


def status(path: str, token: str | None = None) -> int:
    request = urllib.request.Request(ADDRESS + path)
    if token:
        request.add_header("Authorization", f"Bearer {token}")
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return 0


subprocess.run(["mlflow", "db", "upgrade", DATABASE], check=True, env=environment)
command = ["mlflow", "server", "--host=127.0.0.1", "--port=15000", "--workers=1"]
command += ["--app-name=mlhub", "--enable-workspaces", f"--backend-store-uri={DATABASE}"]
command += ["--artifacts-destination=/tmp/artifacts", "--allowed-hosts=127.0.0.1:15000"]
server = subprocess.Popen(command, env=environment, cwd="/tmp")
try:
    deadline = time.monotonic() + 180
    while status("/health") != 200:
        assert server.poll() is None, "MLflow ended"
        assert time.monotonic() < deadline, "MLflow does not start"
        time.sleep(0.5)
    runs = "/api/2.0/mlflow/experiments/get?experiment_id=0"
    assert status(runs) == 401, "MLflow answers somebody without a token"
    assert status(runs, "a token") == 503, "MLflow does not ask the Hub"
finally:
    server.terminate()
    server.wait(30)
