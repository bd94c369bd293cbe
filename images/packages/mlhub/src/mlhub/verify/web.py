"""HTTP as a browser would: cookies, redirects, and addresses that mean something else in here."""

import ssl
from collections.abc import Mapping
from http.cookiejar import Cookie
from typing import Any

import requests
from requests.adapters import HTTPAdapter
from requests.cookies import RequestsCookieJar

LOOPBACK = ("localhost", "127.0.0.1")
TIMEOUT = (5, 30)  # seconds to connect, and between bytes


class Unreachable(Exception):  # noqa: N818 - it is a finding, and no defect of this program
    """Says what did not answer, and why."""


class Via(HTTPAdapter):
    """Sends what is meant for `published` to `target`, as the ingress in between would."""

    def __init__(self, published: str, target: str):
        super().__init__()
        self.published, self.target = published.rstrip("/"), target.rstrip("/")

    def send(self, request: requests.PreparedRequest, *args: Any, **options: Any) -> Any:
        meant = request.url or ""
        request.url = self.target + meant.removeprefix(self.published)
        scheme, host = self.published.split("://", 1)
        said = {"Host": host, "X-Forwarded-Proto": scheme}
        request.headers.update(said)
        try:
            response = super().send(request, *args, **options)
        finally:
            # Cookies and redirects are of the published address, and a redirect's request begins
            # with the headers of the one before it.
            request.url = meant
            for header in said:
                request.headers.pop(header, None)
        response.url = meant
        return response


class Trusting(HTTPAdapter):
    """Trusts whom the machine does, or SSL_CERT_FILE's authorities, beside those of requests."""

    def init_poolmanager(self, *args: Any, **options: Any) -> None:
        super().init_poolmanager(*args, ssl_context=ssl.create_default_context(), **options)

    def proxy_manager_for(self, proxy: str, **options: Any) -> Any:
        return super().proxy_manager_for(proxy, ssl_context=ssl.create_default_context(), **options)


class AsBrowsers(RequestsCookieJar):
    """Cookies for secure connections go to this machine as well (W3C, "Secure Contexts")."""

    def set_cookie(self, cookie: Cookie, *args: Any, **options: Any) -> None:
        if cookie.domain.removesuffix(".local") in LOOPBACK:
            cookie.secure = False
        super().set_cookie(cookie, *args, **options)


def session(via: Mapping[str, str]) -> requests.Session:
    made = requests.Session()
    made.cookies = AsBrowsers()
    made.mount("https://", Trusting())
    for published, target in via.items():
        made.mount(published, Via(published, target))
    return made


def ask(web: requests.Session, method: str, url: str, **given: Any) -> requests.Response:
    """The answer, whatever its status; raises Unreachable in words without it."""
    try:
        return web.request(method, url, **{"timeout": TIMEOUT, **given})
    except requests.RequestException as error:
        raise Unreachable(f"{method} {url} got no answer: {reason(error)}") from error


def reason(error: BaseException) -> str:
    """The innermost cause, which is the one that a person can act on."""
    inner = error
    while (cause := inner.__cause__ or inner.__context__) is not None:
        inner = cause
    return str(inner).rsplit(": ", 1)[-1].rstrip(")'") or type(inner).__name__
