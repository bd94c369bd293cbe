"""A hub in a process of its own: to be killed, or to be measured without the test's own work."""

import asyncio
import contextlib
import json
import os
import signal
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import aiohttp

from tests.services.hub import CONFIG, Routes, merged, mount

ROOT = Path(__file__).parents[2]


class HubProcess:
    """One hub's configuration and database in `folder`; started, killed and started again."""

    def __init__(
        self,
        folder: Path,
        values: Mapping[str, Any],
        port: int,
        kubeconfig: Path,
        environment: Mapping[str, str] | None = None,
    ):
        self.url = f"http://127.0.0.1:{port}"
        self.folder = folder
        mount(folder, merged(values, {"cull": {"enabled": False}}))
        self._environment = os.environ | {
            "MLHUB_HUB_ETC": str(folder),
            "KUBECONFIG": str(kubeconfig),
            "PYTHONPATH": f"{ROOT}:{ROOT / 'images/packages/mlhub/src'}",
            **(environment or {}),
        }
        self._database = folder / "hub.sqlite"
        self._process: asyncio.subprocess.Process | None = None

    @property
    def pid(self) -> int:
        assert self._process
        return self._process.pid

    async def start(self, seconds: float = 120) -> float:
        """Seconds until it answers; AssertionError with its log after so many."""
        began = time.monotonic()
        with (self.folder / "log").open("ab") as log, (self.folder / "audit").open("ab") as audit:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "jupyterhub",
                f"--config={CONFIG}",
                f"--JupyterHub.db_url=sqlite:///{self._database}",
                f"--JupyterHub.hub_bind_url={self.url}",
                f"--JupyterHub.hub_connect_url={self.url}",
                f"--JupyterHub.proxy_class={Routes.__module__}.{Routes.__name__}",
                env=self._environment,
                cwd=self.folder,
                stdout=audit,
                stderr=log,
            )
        async with aiohttp.ClientSession() as client:
            while time.monotonic() < began + seconds:
                with contextlib.suppress(aiohttp.ClientError):
                    async with client.get(f"{self.url}/hub/health") as answer:
                        if answer.status == 200:
                            return time.monotonic() - began
                assert self._process.returncode is None, self.log()
                await asyncio.sleep(0.05)
        raise AssertionError(self.log())

    async def kill(self) -> None:
        if self._process and self._process.returncode is None:
            self._process.send_signal(signal.SIGKILL)
            await self._process.wait()

    def log(self) -> str:
        return (self.folder / "log").read_text()[-5000:]

    def audit(self) -> list[dict[str, Any]]:
        """The trail so far, over every start."""
        lines = (self.folder / "audit").read_text().splitlines()
        return [json.loads(line) for line in lines if line.startswith("{")]

    def browser(self) -> aiohttp.ClientSession:
        """A browser of one's own, with no cookies yet."""
        return aiohttp.ClientSession(self.url, cookie_jar=aiohttp.CookieJar(unsafe=True))
