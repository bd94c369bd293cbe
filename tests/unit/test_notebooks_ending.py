"""A real Jupyter Server tells a hub when its GPU was used, and the lab how long it may go on.

There is no GPU here: `pynvml` is made up, with what NVIDIA documents of it.
"""

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import requests

from notebooks.gpu import GpuUse
from tests.unit.test_notebooks_activity import SOURCE, serve

ENDS = {"seconds": 600, "why": "It ran for 8 h; 8 h is the most.", "keep": "Nothing keeps it."}
PYNVML = """
class NVMLError(Exception): pass
class Rates: gpu = 0
def nvmlInit(): pass
def nvmlDeviceGetCount(): return 1
def nvmlDeviceGetHandleByIndex(index): return index
def nvmlDeviceGetUtilizationRates(gpu): return Rates
"""


@contextmanager
def a_hub(ends: dict[str, Any]) -> Iterator[tuple[str, list[Any]]]:
    """Where servers report: its address, and what was reported with which authorization."""
    heard: list[Any] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            heard.append((self.headers["Authorization"], body))
            self.send_response(200)
            self.end_headers()
            self.wfile.write(json.dumps({"ends": ends}).encode())

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", heard
    finally:
        server.shutdown()
        server.server_close()


def of_a_server(hub: str) -> dict[str, str]:
    """What the spawner sets in the pod."""
    return {
        "JUPYTERHUB_ACTIVITY_URL": hub,
        "JUPYTERHUB_SERVER_NAME": "second",
        "JUPYTERHUB_API_TOKEN": "token of the server",
    }


def wait_for(holds: Any) -> Any:
    deadline = time.monotonic() + 60
    while not (found := holds()):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    return found


def test_V4_a_server_reports_its_GPU_and_says_when_it_has_to_stop(tmp_path: Path):
    (tmp_path / "gpu").mkdir()
    (tmp_path / "gpu/pynvml.py").write_text(PYNVML)
    path = f"{SOURCE}:{tmp_path / 'gpu'}"
    began = datetime.now(UTC)
    with (
        a_hub({"second": ENDS}) as (url, heard),
        serve(tmp_path, PYTHONPATH=path, **of_a_server(url)) as server,
    ):
        told = wait_for(lambda: server.call("GET", "mlhub/ending"))
        assert 590 <= told.pop("seconds") <= 600
        assert told == {"why": ENDS["why"], "keep": ENDS["keep"]}
        quiet = server.quiet()
        server.call("GET", "mlhub/ending")
        assert server.last_activity() == quiet, "the question itself keeps no server"
        stranger = requests.get(f"{server.url}mlhub/ending", allow_redirects=False, timeout=20)
        assert stranger.status_code in (302, 403), "it is for the owner"
    authorization, body = heard[-1]
    assert authorization == "token token of the server"
    about = body["servers"]["second"]
    assert began <= datetime.fromisoformat(about["gpu_used"]) <= datetime.now(UTC)
    assert datetime.fromisoformat(about["last_activity"])


def test_a_server_without_a_GPU_says_nothing_of_one_and_lives_with_a_hub_that_is_away(tmp_path):
    with (
        a_hub({}) as (url, heard),
        serve(tmp_path, **of_a_server(url)) as server,
    ):
        wait_for(lambda: heard)
        assert server.call("GET", "mlhub/ending") == {}
    assert set(heard[0][1]["servers"]["second"]) == {"last_activity"}


class NVML(SimpleNamespace):
    """`pynvml`; `rates` are the GPUs' utilizations in percent, None for one that does not say."""

    class NVMLError(Exception):
        pass

    def nvmlInit(self) -> None:
        if self.driver == "missing":
            raise self.NVMLError

    def nvmlDeviceGetCount(self) -> int:
        return len(self.rates)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:
        return index

    def nvmlDeviceGetUtilizationRates(self, gpu: int) -> Any:
        if self.rates[gpu] is None:
            raise self.NVMLError
        return SimpleNamespace(gpu=self.rates[gpu])


@pytest.mark.parametrize(("rates", "moves"), [([0, 0], False), ([0, 1], True), ([100], True)])
def test_a_GPU_that_works_is_used_now_and_one_that_only_holds_memory_is_not(rates, moves):
    use = GpuUse(NVML(driver="there", rates=rates))
    before = use.used = datetime.now(UTC) - timedelta(hours=1)
    use.look()
    assert (use.used > before) is moves


@pytest.mark.parametrize(
    "library",
    [None, NVML(driver="missing", rates=[]), NVML(driver="there", rates=[])],
    ids=["no library", "no driver", "no GPU"],
)
def test_without_a_GPU_nothing_is_said(library):
    use = GpuUse(library)
    use.look()
    assert use.used is None


def test_a_slice_that_does_not_say_is_never_taken_for_idle():
    use = GpuUse(NVML(driver="there", rates=[None]))
    use.look()
    assert use.used is None
