"""The proxy starts, asks for its token, and takes a route."""

# ruff: noqa: S101, PT018, S310, RUF005

import json
import os
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def call(token: str, data: bytes | None = None) -> int:
    url = f"http://127.0.0.1:{api_port}/api/routes/smoke"
    request = urllib.request.Request(url, data, {"Authorization": f"token {token}"})
    try:
        with urllib.request.urlopen(request, timeout=5) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        return error.code


assert not shutil.which("npm"), "npm belongs in the build stage"
assert oct(os.stat("/opt/proxy").st_uid) == "0o0", "the program must not be writable by its user"
subprocess.run(["configurable-http-proxy", "--version"], check=True)

environment = {**os.environ, "CONFIGPROXY_AUTH_TOKEN": "smoke"}
api_port = free_port()
proxy = subprocess.Popen(
    ["configurable-http-proxy", "--ip=127.0.0.1", f"--port={free_port()}"]
    + ["--api-ip=127.0.0.1", f"--api-port={api_port}"],
    env=environment,
)
try:
    deadline = time.monotonic() + 20
    while True:
        try:
            refused = call("wrong")
            break
        except urllib.error.URLError:
            assert time.monotonic() < deadline and proxy.poll() is None, "the proxy did not start"
            time.sleep(0.1)
    assert refused == 403, refused
    assert call("smoke", json.dumps({"target": "http://127.0.0.1:1"}).encode()) == 201
finally:
    proxy.terminate()
    proxy.wait(10)
