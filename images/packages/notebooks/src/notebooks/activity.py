"""A Jupyter Server extension: a server that computes is active.

The hub culls servers by their last activity, and Jupyter counts messages: a cell that computes for
two hours without printing looks idle, and its server would be stopped under it. While a kernel is
busy or a command runs in a terminal, this extension reports activity
(https://github.com/jupyterhub/jupyterhub/issues/1498).

A cell that waits in `input()` is busy, too. What must end however busy it is, is bounded by the
culler's maximum age.
"""

import os
from datetime import UTC, datetime
from typing import Any

import psutil  # type: ignore[import-untyped,unused-ignore]
from jupyter_server.serverapp import ServerApp
from tornado.ioloop import PeriodicCallback
from traitlets import Bool, Float, default
from traitlets.config import LoggingConfigurable

REPORT_EVERY = "JUPYTERHUB_ACTIVITY_INTERVAL"
"""Seconds between a server's reports to the hub; JupyterHub's own default is 300."""


class KeepActive(LoggingConfigurable):
    """Looks for computation and notes it where Jupyter Server takes its last activity from."""

    terminals = Bool(
        True, config=True, help="A command that runs in a terminal keeps the server active."
    )
    interval = Float(
        config=True, help="Seconds between looks; by default twice for each report to the hub."
    )

    @default("interval")
    def _interval_of_reports(self) -> float:
        return max(1.0, float(os.environ.get(REPORT_EVERY) or 300) / 2)

    def __init__(self, server: ServerApp) -> None:
        super().__init__(parent=server)
        self.server = server

    def busy_kernels(self) -> list[str]:
        """Ids of the kernels that execute something now."""
        kernels: list[dict[str, Any]] = self.server.kernel_manager.list_kernels()  # type: ignore[no-untyped-call]
        return [kernel["id"] for kernel in kernels if kernel["execution_state"] == "busy"]

    def running_terminals(self) -> list[str]:
        """Names of the terminals whose shell has a process beneath it."""
        manager = self.server.web_app.settings.get("terminal_manager")
        return [
            name
            for name, terminal in (manager.terminals.items() if manager else ())
            if has_children(terminal.ptyproc.pid)
        ]

    def look(self) -> None:
        working = self.busy_kernels() + (self.running_terminals() if self.terminals else [])
        if working:
            times: dict[str, datetime] = self.server.web_app.settings["last_activity_times"]
            times["notebooks.activity"] = datetime.now(UTC)
            self.log.debug("Active: %s", ", ".join(working))

    def start(self) -> None:
        PeriodicCallback(self.look, 1000 * self.interval).start()


def has_children(pid: int) -> bool:
    try:
        return bool(psutil.Process(pid).children())
    except psutil.NoSuchProcess:
        return False


def _jupyter_server_extension_points() -> list[dict[str, Any]]:
    return [{"module": "notebooks.activity"}]


def _load_jupyter_server_extension(server: ServerApp) -> None:
    KeepActive(server).start()
    server.log.info("A busy kernel keeps this server active.")
