"""The proxy starts, asks for its token, takes a route, and has a page for while no hub answers."""

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


def without_a_hub(accept: str) -> tuple[int, str]:
    url = f"http://127.0.0.1:{port}/hub/home"
    try:
        with urllib.request.urlopen(
            urllib.request.Request(url, None, {"Accept": accept}), timeout=5
        ) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


assert not shutil.which("npm"), "npm belongs in the build stage"
assert oct(os.stat("/opt/proxy").st_uid) == "0o0", "the program must not be writable by its user"
subprocess.run(["configurable-http-proxy", "--version"], check=True)

environment = {**os.environ, "CONFIGPROXY_AUTH_TOKEN": "smoke"}
port, api_port, nobody = free_port(), free_port(), f"http://127.0.0.1:{free_port()}"
proxy = subprocess.Popen(
    ["configurable-http-proxy", "--ip=127.0.0.1", f"--port={port}"]
    + ["--api-ip=127.0.0.1", f"--api-port={api_port}"]
    + [f"--default-target={nobody}", f"--error-target={nobody}/hub/error"],
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
    status, page = without_a_hub("text/html,*/*;q=0.8")
    assert status == 503 and "This page tries again by itself" in page, (status, page)
    assert without_a_hub("application/json") == (503, "Service Unavailable")
finally:
    proxy.terminate()
    proxy.wait(10)
