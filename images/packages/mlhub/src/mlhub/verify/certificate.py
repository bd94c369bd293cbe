"""What a person's browser thinks of the certificate at a published address, today and soon."""

import os
import ssl
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from http.client import HTTPException, HTTPSConnection
from urllib.parse import urlsplit

from requests.adapters import HTTPAdapter
from requests.utils import get_environ_proxies, select_proxy

from mlhub.verify.report import Failed, NotTried, Warned

CONNECT_SECONDS = 5
HOUR, DAY = 3600, 24 * 3600

WARN_DAYS, WARN_PART = 14, 0.25
FAIL_DAYS, FAIL_PART = 3, 0.1
"""How long before its end a certificate should have been renewed, and which part of its life that
is at most: one of a day or a week is renewed hours before."""

EXPIRED, NOT_YET, OTHER_NAME = 10, 9, (62, 64)
"""OpenSSL's numbers, X509_V_ERR_…; the last is of host names and of addresses."""


def look(url: str) -> None:
    """Returns where nobody is warned away from `url` and will not be soon.

    Raises Failed with what a browser holds against it, or where it ends within days; Warned where
    that is some days off.
    """
    found = shown(url)
    begins, ends = (ssl.cert_time_to_seconds(str(found[w])) for w in ("notBefore", "notAfter"))
    judge(ends - begins, ends, time.time())


def judge(life: float, ends: float, now: float) -> None:
    """By when the certificate ends and how long it was made for, in seconds."""
    left = ends - now
    day = datetime.fromtimestamp(ends, UTC).strftime("%Y-%m-%d %H:%M UTC")
    off = f"{left / DAY:.0f} days" if left >= 2 * DAY else f"{left / HOUR:.0f} hours"
    said = f"it ends on {day}, in {off}; it should have been renewed by now, see to what renews it"
    if left < min(FAIL_DAYS * DAY, FAIL_PART * life):
        raise Failed(said)
    if left < min(WARN_DAYS * DAY, WARN_PART * life):
        raise Warned(said)


def shown(url: str) -> Mapping[str, object]:
    """The certificate that `url` shows, checked as a browser does; raises Failed with what is
    wrong with it."""
    connection = connect(url)
    try:
        connection.connect()
        found = connection.sock.getpeercert() or {}
    except ssl.SSLCertVerificationError as error:
        raise Failed(against(error)) from error
    except (OSError, HTTPException) as error:
        why = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise Failed(f"{url} does not answer ({why})") from error
    finally:
        connection.close()
    return found


def connect(url: str) -> HTTPSConnection:
    """The way a browser goes, which may lead through a proxy."""
    parts = urlsplit(url)
    host, port = parts.hostname or "", parts.port or 443
    trust = ssl.create_default_context()  # reads SSL_CERT_FILE
    proxy = select_proxy(url, get_environ_proxies(url))
    if proxy is None:
        return HTTPSConnection(host, port, timeout=CONNECT_SECONDS, context=trust)
    at = urlsplit(proxy if "://" in proxy else f"http://{proxy}")
    if at.scheme != "http":
        raise NotTried(f"the way there leads through a proxy of {at.scheme}, which is not known")
    through = HTTPSConnection(
        at.hostname or "", at.port or 80, timeout=CONNECT_SECONDS, context=trust
    )
    through.set_tunnel(host, port, HTTPAdapter().proxy_headers(proxy))
    return through


def against(error: ssl.SSLCertVerificationError) -> str:
    """What is wrong, and what to do."""
    if error.verify_code == EXPIRED:
        return "it has expired; browsers warn people away. Renew it, or the one above it that has"
    if error.verify_code == NOT_YET:
        return "it is not valid yet; look at the clock of this machine and of who made it"
    if error.verify_code in OTHER_NAME:
        return f"it is for another name ({error.verify_message}); have one made for this address"
    bundle = os.environ.get("SSL_CERT_FILE") or "this machine"
    return (
        f"it is not trusted ({error.verify_message}), by the authorities of {bundle}; for an "
        "authority of your own set SSL_CERT_FILE, and let the ingress send those in between"
    )
