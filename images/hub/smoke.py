"""What the hub image must be able to do, asked at build and wherever one doubts it."""

# ruff: noqa: S101

import importlib
import shutil
import subprocess

for module in (
    "jupyterhub.app",
    "jupyterhub_idle_culler",
    "kubespawner",
    "oauthenticator.generic",
    "psycopg2",
    "pycurl",
    "tornado.curl_httpclient",
    "sqlalchemy.dialects.postgresql.psycopg2",
    "mlhub.hub",
    "mlhub.verify.__main__",
):
    importlib.import_module(module)

subprocess.run(["uv", "pip", "check", "--system", "--quiet", "--no-cache"], check=True)
subprocess.run(["jupyterhub", "--version"], check=True)
subprocess.run(
    ["python3", "-m", "jupyterhub_idle_culler", "--help"], check=True, capture_output=True
)
left_over = [tool for tool in ("gcc", "cc", "make", "node", "sudo") if shutil.which(tool)]
assert not left_over, f"{left_over} in the hub image"
