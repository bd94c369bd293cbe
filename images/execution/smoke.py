"""What the execution image must be able to do, asked at build and wherever one doubts it."""

# ruff: noqa: S101, S108, S310

import importlib
import json
import os
import shutil
import subprocess
import time
import urllib.error
import urllib.request
import zoneinfo
from pathlib import Path

for module in (
    "cronsim",
    "psycopg2",
    "sqlalchemy.dialects.postgresql.psycopg2",
    "cryptography.x509",
    "jwt",
    "mlhub.workspaces.__main__",
):
    importlib.import_module(module)
subprocess.run(["uv", "pip", "check", "--system", "--quiet", "--no-cache"], check=True)
left_over = [tool for tool in ("gcc", "cc", "make", "node", "sudo") if shutil.which(tool)]
assert not left_over, f"{left_over} in the execution image"
zoneinfo.ZoneInfo("Europe/Berlin")

NOWHERE = "http://127.0.0.1:9"
profile = {"slug": "small", "image": "image", "cpu_limit": 1, "cpu_guarantee": 1}
settings = {
    "database_url": "sqlite:////tmp/execution.db",
    "kubernetes_url": NOWHERE,
    "pod": {
        "namespace": "smoke",
        "labels": {},
        "home_claim": "claim-{username}",
        "home_mount": "/home/jovyan",
        "uid": 1000,
        "fs_gid": 100,
    },
    "profiles": [profile | {"mem_limit": "1G", "mem_guarantee": "1G"}],
    "hub": {
        "api_url": f"{NOWHERE}/hub/api",
        "scope": "access:services!service=execution",
        "patience_seconds": 0,
    },
    "trigger": {"image": "image", "url": NOWHERE},
}
Path("/tmp/execution.json").write_text(json.dumps(settings), encoding="utf-8")
environment = os.environ | {
    "MLHUB_EXECUTION_SETTINGS": "/tmp/execution.json",
    "JUPYTERHUB_API_TOKEN": "for the smoke test alone",
}


def status(path: str, token: str | None = None) -> int:
    request = urllib.request.Request(f"http://127.0.0.1:8002{path}")
    if token:
        request.add_header("Authorization", f"Bearer {token}")
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return 0


command = ["python3", "-sP", "-m", "mlhub.execution"]
service = subprocess.Popen(command, env=environment, cwd="/tmp")
try:
    deadline = time.monotonic() + 120
    while status("/health") != 200:
        assert service.poll() is None, "the service ended"
        assert time.monotonic() < deadline, "the service does not start"
        time.sleep(0.5)
    assert status("/docs") == 200
    assert status("/runs") == 401, "the service answers somebody without a token"
    with urllib.request.urlopen("http://127.0.0.1:9400/metrics", timeout=10) as shown:
        assert b'mlhub_requests_refused_total{reason="token",status="401"}' in shown.read()
    assert status("/runs", "a-token") == 503, "the service does not ask the Hub"
finally:
    service.terminate()
    service.wait(30)
