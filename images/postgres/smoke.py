"""The server starts on nothing, survives a kill, and takes a changed password at its next start."""

# ruff: noqa: S101, PT018, PLW1510

import os
import signal
import subprocess
import tempfile
import time
from pathlib import Path

work = Path(tempfile.mkdtemp())
secrets = work / "secrets"
secrets.mkdir()
environment = {
    **os.environ,
    "PGDATA": str(work / "volume" / "pgdata"),
    "POSTGRES_SECRETS": str(secrets),
    "PGHOST": "127.0.0.1",
    "PGPORT": "54329",
}


def start() -> subprocess.Popen[bytes]:
    options = ["-c", "listen_addresses=127.0.0.1", "-c", "port=54329"]
    server = subprocess.Popen(["mlhub-postgres", *options], env=environment)
    deadline = time.monotonic() + 60
    while subprocess.run(["pg_isready", "--quiet"], env=environment).returncode:
        assert server.poll() is None and time.monotonic() < deadline, "PostgreSQL did not start"
        time.sleep(0.2)
    return server


def ask(role: str, password: str, sql: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["psql", "--username", role, "--dbname", role, "--no-align", "--tuples-only", "-c", sql],
        env={**environment, "PGPASSWORD": password},
        capture_output=True,
        text=True,
    )


for role in ("postgres", "jupyterhub", "keycloak"):
    (secrets / f"{role}-password").write_text(f"{role} fïrst's")
server = start()
assert ask("jupyterhub", "jupyterhub fïrst's", "CREATE TABLE t AS SELECT 1 AS a").returncode == 0
assert ask("keycloak", "wrong", "SELECT 1").returncode != 0
assert (
    "permission denied"
    in subprocess.run(
        ["psql", "--username", "keycloak", "--dbname", "jupyterhub", "-c", "SELECT 1"],
        env={**environment, "PGPASSWORD": "keycloak fïrst's"},
        capture_output=True,
        text=True,
    ).stderr
)
server.send_signal(signal.SIGKILL)
server.wait()
# A killed container has none of these left, and its successor waits for none.
deadline = time.monotonic() + 60
while subprocess.run(["pgrep", "--exact", "postgres"], stdout=subprocess.DEVNULL).returncode == 0:
    assert time.monotonic() < deadline, "processes of the killed server do not end"
    time.sleep(0.1)

(secrets / "jupyterhub-password").write_text("second")
server = start()
assert ask("jupyterhub", "jupyterhub fïrst's", "SELECT 1").returncode != 0
assert ask("jupyterhub", "second", "SELECT a FROM t").stdout.strip() == "1"
stop = time.monotonic()
server.send_signal(signal.SIGINT)
assert server.wait(20) == 0 and time.monotonic() - stop < 10, "no clean stop"
