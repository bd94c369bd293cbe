"""Run a notebook for a person from a pipeline, which has a client of its own in the realm.

    HUB=http://localhost:30888 REALM=http://localhost:30880/realms/mlhub \
    CLIENT_ID=nightly-reports CLIENT_SECRET=… python pipeline.py alice ./report.ipynb 2026-11-22

The key at the end makes it safe to say again: the same key is the same run.
"""

import os
import sys
import time
from typing import Any

import requests

API = os.environ["HUB"] + "/services/execution"


def token() -> str:
    answer = requests.post(
        os.environ["REALM"] + "/protocol/openid-connect/token",
        data={"grant_type": "client_credentials"},
        auth=(os.environ["CLIENT_ID"], os.environ["CLIENT_SECRET"]),
        timeout=30,
    )
    answer.raise_for_status()
    return str(answer.json()["access_token"])


def look(run_id: str) -> dict[str, Any]:
    """The run as it is now, asked for again for five minutes while a part on the way restarts."""
    until = time.monotonic() + 300
    while True:
        try:
            # A realm's tokens live for minutes; a run may live longer.
            headers = {"Authorization": f"Bearer {token()}"}
            answer = requests.get(f"{API}/runs/{run_id}", headers=headers, timeout=30)
            answer.raise_for_status()
            return dict(answer.json())
        except requests.RequestException as error:
            status = 503 if error.response is None else error.response.status_code
            if status not in (429, 502, 503, 504) or time.monotonic() > until:
                sys.exit(f"Run {run_id} was not seen to end: {error}")
        time.sleep(2)


def main(person: str, notebook: str, key: str) -> int:
    headers = {"Authorization": f"Bearer {token()}", "Idempotency-Key": key}
    body = {"username": person, "notebook_name": notebook}
    answer = requests.post(f"{API}/execute", json=body, headers=headers, timeout=90)
    if answer.status_code != 202:
        print(answer.status_code, answer.text, file=sys.stderr)
        return 1
    run = answer.json()
    print("run", run["run_id"], file=sys.stderr)
    while run["status"] in ("queued", "running"):
        time.sleep(2)
        run = look(run["run_id"])
    print(run["status"], run["output_notebook"], run["message"] or "")
    return 0 if run["status"] == "succeeded" else 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
