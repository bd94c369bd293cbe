"""Whether what a stack uses answers: the chart's repository, Keycloak, Harbor.

Asked before the first resource is registered, as `components.preflight` does for files and the
cluster; each answer is a sentence for a person, and none at all is a yes.
"""

import os
import ssl
import urllib.error
import urllib.request
from collections.abc import Iterator

from components.config import Chart, Harbor, KeycloakServer, StackFile

CONNECT_SECONDS = 5
CHART_VARIABLE = "MLHUB_HUB_CHART"
"""Points a preview at a chart's folder where the repository cannot be reached."""

NOT_FOUND = 404


def silences(stack: StackFile) -> Iterator[str]:
    """What does not answer, or not as it should."""
    if stack.hub.chart.repository is not None:
        yield from chart_repository(stack.hub.chart)
    if stack.identity.keycloak is not None:
        yield from keycloak(stack.identity.keycloak, stack.identity.realm)
    if stack.registry.harbor is not None:
        yield from harbor(stack.registry.harbor)


def chart_repository(chart: Chart) -> Iterator[str]:
    if why := refused(f"{chart.repository}/index.yaml"):
        yield (
            f"hub.chart.repository is {chart.repository}, which does not answer ({why}); connect "
            f"to it, or unpack chart {chart.name} {chart.version} in a folder and name that: for a "
            f"preview as {CHART_VARIABLE}=<folder>, for `up` as hub.chart.path (the stack's "
            "charts in policies/limits.yaml have to know it)"
        )


def keycloak(server: KeycloakServer, realm: str) -> Iterator[str]:
    why = refused(f"{server.url}/realms/{realm}")
    if why == NOT_FOUND:
        yield (
            f"identity.realm is {realm}, which the Keycloak at {server.url} does not have; make "
            "the realm there, or correct the name"
        )
    elif why:
        yield (
            f"identity.keycloak.url is {server.url}, which does not answer ({why}); start it or "
            "connect to its network, then run the same command again"
        )


def harbor(server: Harbor) -> Iterator[str]:
    if why := refused(f"{server.url}/api/v2.0/ping"):
        yield (
            f"registry.harbor.url is {server.url}, where no Harbor answers ({why}); start it or "
            "connect to its network, then run the same command again"
        )


def refused(url: str) -> str | int | None:
    """Why a GET of `url` fails, as a reason or the HTTP status; None where it does not."""
    try:
        with urllib.request.urlopen(url, timeout=CONNECT_SECONDS):  # noqa: S310 - checked as http(s)
            return None
    except urllib.error.HTTPError as error:
        return error.code
    except urllib.error.URLError as error:
        reason = error.reason
        if isinstance(reason, ssl.SSLCertVerificationError):
            bundle = os.environ.get("SSL_CERT_FILE") or "the machine's own"
            return f"{reason.verify_message}, by the authorities of {bundle}"
        return str(getattr(reason, "strerror", None) or reason)
    except OSError as error:
        return str(error.strerror or error)
