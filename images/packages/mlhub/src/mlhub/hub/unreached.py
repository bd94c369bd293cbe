"""The page of what the proxy could not reach, by what that was.

JupyterHub's says of everything that "your server appears to be down", also of a service, and of the
hub itself, which answers again by the time at which the proxy asks it for the page.
"""

from http import HTTPStatus
from typing import Any

from jupyterhub.handlers.pages import ProxyErrorHandler  # type: ignore[import-untyped]

RESTARTED = "JupyterHub did not answer: it has just restarted. This page loads again by itself."


class UnreachedHandler(ProxyErrorHandler):  # type: ignore[misc]
    """`?url=` is the path that the proxy was asked for."""

    async def get(self, status_code_s: str) -> None:
        path = self.get_argument("url", "")
        services = f"{self.base_url}services/"
        words: dict[str, Any] = {}
        if path.startswith(self.hub.base_url):
            words = {"message": RESTARTED, "again": True}
        elif path.startswith(services):
            name = path.removeprefix(services).partition("?")[0].partition("/")[0]
            words = {
                "message": f"The service {name} does not answer. Try again in a minute; if it "
                "lasts, tell your administrator."
            }
        if status_code_s != "503" or not words:
            await super().get(status_code_s)
            return
        self.set_header("Content-Type", "text/html")
        page = await self.render_template(
            "error.html",
            status_code=HTTPStatus.SERVICE_UNAVAILABLE.value,
            status_message=HTTPStatus.SERVICE_UNAVAILABLE.phrase,
            logo_url=f"{self.hub.base_url}home",
            **words,
        )
        self.write(page)
