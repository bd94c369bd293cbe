"""The four parts find each other, a bucket is there, and without a key nobody reads it."""

# ruff: noqa: S101, S310

import json
import os
import subprocess
import time
import urllib.error
import urllib.request

KEY = {"accessKey": "key", "secretKey": "word"}
IDENTITIES = "/tmp/identities.json"  # noqa: S108
with open(IDENTITIES, "w", encoding="utf-8") as file:
    json.dump(
        {"identities": [{"name": "m", "credentials": [KEY], "actions": ["Read:smoke"]}]}, file
    )
environment = os.environ | {"SEAWEEDFS_BUCKETS": "smoke", "SEAWEEDFS_IDENTITIES": IDENTITIES}
parts = [
    subprocess.Popen(["mlhub-seaweedfs", part], env=environment)
    for part in ("master", "volume", "filer", "s3")
]


def ask(method: str, url: str, body: bytes | None = None) -> tuple[int, bytes]:
    try:
        with urllib.request.urlopen(
            urllib.request.Request(url, data=body, method=method), timeout=5
        ) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, b""
    except OSError:
        return 0, b""


deadline = time.monotonic() + 60
while ask("GET", "http://127.0.0.1:8333/smoke/x")[0] != 403:
    assert time.monotonic() < deadline, "the S3 gateway does not answer"
    time.sleep(0.5)
while ask("PUT", "http://127.0.0.1:8888/buckets/smoke/x", b"some bytes")[0] != 201:
    assert time.monotonic() < deadline, "the filer takes no file"
    time.sleep(0.5)
assert ask("GET", "http://127.0.0.1:8888/buckets/smoke/x") == (200, b"some bytes")
assert ask("GET", "http://127.0.0.1:8333/smoke/x")[0] == 403
for part in parts:
    part.kill()
