"""`python -m mlhub.execution.trigger`: what a schedule's CronJob runs. It calls the API, no more.

It asks again for as long as the service says that it may help, within the Job's own deadline.
Standard library alone: it starts in a pod of 64 MiB.
"""

import json
import os
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

TOKEN = Path("/var/run/mlhub/token")
LONGEST_PAUSE = 60.0
TRYING_SECONDS = 570.0


def scheduled(job: str) -> int:
    """The time, in seconds since 1970, for which the CronJob controller made the Job."""
    return int(job.rpartition("-")[2]) * 60


def fire(url: str, token: str, at: int) -> tuple[int, str, float]:
    """Status (0 for silence), what was said, and the seconds after which to ask again."""
    request = urllib.request.Request(  # noqa: S310 (the service's own address)
        url,
        data=json.dumps({"at": at}).encode(),
        headers={"Authorization": f"Bearer {token}", "Content-Type": "application/json"},
        method="POST",
    )
    try:
        with urllib.request.urlopen(request, timeout=90) as answer:  # noqa: S310
            return answer.status, answer.read(2000).decode(), 0
    except urllib.error.HTTPError as error:
        pause = error.headers.get("Retry-After") or "15"
        said = error.read(2000).decode(errors="replace")
        return error.code, said, float(pause) if pause.isdigit() else 15.0
    except (OSError, ValueError) as error:
        return 0, type(error).__name__, 10.0


def main() -> int:
    url, at = os.environ["MLHUB_FIRE_URL"], scheduled(os.environ["MLHUB_JOB"])
    token = TOKEN.read_text(encoding="ascii").strip()
    until = time.monotonic() + TRYING_SECONDS
    while True:
        status, said, pause = fire(url, token, at)
        print(f"{status or 'no answer'}: {said}", flush=True)
        if 200 <= status < 300:
            return 0
        pause = min(pause, LONGEST_PAUSE)
        if (status and status < 500 and status != 429) or time.monotonic() + pause > until:
            return 1
        time.sleep(pause)


if __name__ == "__main__":
    sys.exit(main())
