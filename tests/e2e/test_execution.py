"""Notebooks run unattended on the real cluster: as their person, beside the original, to an end."""

import base64
import json
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from tests.e2e.platform import HUB_URL, KEYCLOAK_URL, NAMESPACE, Kubectl, Person, wait_until

API = f"{HUB_URL}/services/execution"
ENDED = {"succeeded", "failed", "cancelled", "lost"}
SMALL = {"profile": "small-cpu", "time_limit": 120}

FOLDER = "e2e-execution"


@dataclass
class Caller:
    """Somebody with a token."""

    token: str

    def __call__(self, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, Any]:
        """Status and JSON."""
        request = urllib.request.Request(
            API + path,
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Authorization": f"Bearer {self.token}", "Content-Type": "application/json"}
            | headers,
        )
        try:
            with urllib.request.urlopen(request, timeout=120) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            return error.code, json.load(error)

    def ended(self, run_id: str, seconds: float = 90) -> Any:
        def look() -> Any:
            run = self("GET", f"/runs/{run_id}")[1]
            return run if run["status"] in ENDED else None

        return wait_until(f"run {run_id} has ended", look, seconds)


def notebook(*sources: str) -> str:
    cells = [
        {
            "cell_type": "code",
            "id": f"cell-{number}",
            "metadata": {"tags": ["parameters"]} if number == 0 else {},
            "execution_count": None,
            "outputs": [],
            "source": source,
        }
        for number, source in enumerate(sources)
    ]
    return json.dumps({"cells": cells, "metadata": {}, "nbformat": 4, "nbformat_minor": 5})


GOOD = notebook("year = 1", "import os\nprint('year', year, 'as', os.getuid())")
BAD = notebook("a = 1", "print('before')", "{}['absent']", "print('after')")
LONG = notebook("a = 1", "import time; time.sleep(600)")
SLOW = notebook("a = 1", "import time; time.sleep(12)", "print('at the end')")
NOTEBOOKS = {"sum-of-years": GOOD, "broken": BAD, "long": LONG, "slow": SLOW}
