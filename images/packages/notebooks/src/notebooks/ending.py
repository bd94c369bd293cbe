"""A Jupyter Server extension: how long this server may go on, asked of the hub and told in the lab.

Each minute it reports to the hub when a GPU was last used and hears when the server must stop, for
its idleness, its age or its unused GPU. The lab asks here (`lab/remoteEntry.js`) and shows it.
"""

import json
import os
import time
from datetime import datetime
from typing import Any

from jupyter_server.base.handlers import JupyterHandler
from jupyter_server.serverapp import ServerApp
from jupyter_server.utils import url_path_join
from tornado import web
from tornado.httpclient import AsyncHTTPClient, HTTPError
from tornado.ioloop import PeriodicCallback
from traitlets import Float
from traitlets.config import LoggingConfigurable

from notebooks.activity import REPORT_EVERY
from notebooks.gpu import GpuUse, of_this_server

LOOK_SECONDS = 2.0
"""Between looks at the GPUs."""


class Ending(LoggingConfigurable):
    """Reports to the hub, and remembers its answer."""

    interval = Float(config=True, help="Seconds between reports to the hub.")

    def __init__(self, server: ServerApp, gpus: GpuUse) -> None:
        super().__init__(parent=server)
        if not self.interval:
            self.interval = float(os.environ.get(REPORT_EVERY) or 300)
        self._server, self._gpus = server, gpus
        self._url = os.environ["JUPYTERHUB_ACTIVITY_URL"]
        self._name = os.environ.get("JUPYTERHUB_SERVER_NAME", "")
        self._told: dict[str, Any] = {}
        self._at = 0.0

    def start(self) -> None:
        if self._gpus.used is not None:
            PeriodicCallback(self._gpus.look, 1000 * LOOK_SECONDS).start()
        PeriodicCallback(self.report, 1000 * self.interval).start()

    async def report(self) -> None:
        """Tell and hear; a hub that is away is asked again with the next."""
        active: datetime = self._server.web_app.last_activity()  # type: ignore[no-untyped-call]
        about = {"last_activity": active.isoformat()}
        if self._gpus.used is not None:
            about["gpu_used"] = self._gpus.used.isoformat()
        try:
            answer = await AsyncHTTPClient().fetch(
                self._url,
                method="POST",
                headers={"Authorization": f"token {os.environ['JUPYTERHUB_API_TOKEN']}"},
                body=json.dumps({"servers": {self._name: about}}),
                request_timeout=10,
            )
            ends = json.loads(answer.body or "{}").get("ends", {})
        except (HTTPError, OSError, ValueError) as error:
            self.log.warning("The hub does not say how long this server may go on: %s", error)
            return
        self._told, self._at = ends.get(self._name, {}), time.monotonic()

    def now(self) -> dict[str, Any]:
        """`seconds` until it stops, `why`, and what would `keep` it; empty where it stays."""
        if not self._told:
            return {}
        left = self._told["seconds"] - (time.monotonic() - self._at)
        return self._told | {"seconds": max(0, round(left))}


class EndingHandler(JupyterHandler):
    """No API handler of Jupyter's, for those count as activity."""

    def initialize(self, ending: Ending) -> None:
        self._ending = ending

    @web.authenticated
    def get(self) -> None:
        self.set_header("Cache-Control", "no-store")
        self.finish(self._ending.now())


def _jupyter_server_extension_points() -> list[dict[str, Any]]:
    return [{"module": "notebooks.ending"}]


def _load_jupyter_server_extension(server: ServerApp) -> None:
    if "JUPYTERHUB_ACTIVITY_URL" not in os.environ:
        return  # a server of nobody's hub
    ending = Ending(server, of_this_server())
    ending.start()
    path = url_path_join(server.web_app.settings["base_url"], "mlhub", "ending")
    route = (path, EndingHandler, {"ending": ending})
    server.web_app.add_handlers(".*$", [route])  # type: ignore[no-untyped-call]
    server.log.info("The lab says when this server has to stop.")
