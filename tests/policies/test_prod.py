"""What holds where people work and not in a demonstration: TLS, real people, a released chart."""

from typing import Any

import pytest

from tests.policies.stack import (
    HUB,
    UNKNOWN,
    Place,
    changed,
    extra,
    marked,
    program,
    refusals,
    remarks,
)

CLIENT = ("keycloak:openid/client:Client", "jupyterhub")
PROVIDER = ("pulumi:providers:keycloak", "keycloak")
IDENTITY = ("values", "custom", "mlhub", "identity")
HTTPS = "an address that begins with https:// is required"

BREACHES: dict[str, tuple[tuple[str, str], Place, Any, str, str]] = {
    "no ingress": (
        HUB, ("values", "ingress"), {"enabled": False}, "tls",
        "Release jupyterhub: ingress.enabled is false; true is required: people come by TLS alone",
    ),
    "a port of the node beside the ingress": (
        HUB, ("values", "proxy", "service", "type"), "NodePort", "tls",
        "Release jupyterhub: proxy.service.type is NodePort; ClusterIP is required",
    ),
    "browsers that stay with plain HTTP": (
        HUB,
        ("values", "ingress", "annotations", "nginx.ingress.kubernetes.io/ssl-redirect"), "false",
        "tls",
        "ingress.annotations.nginx.ingress.kubernetes.io/ssl-redirect is false; true is required",
    ),
    "a Keycloak without TLS": (
        HUB, (*IDENTITY, "public_url"), "http://keycloak.example.com", "tls",
        f"custom.mlhub.identity.public_url is http://keycloak.example.com; {HTTPS}",
    ),
    "a way back without TLS": (
        HUB, (*IDENTITY, "callback_url"), "http://jupyter.example.com/hub/oauth_callback", "tls",
        "custom.mlhub.identity.callback_url is http://jupyter.example.com/hub/oauth_callback",
    ),
    "a redirect URI without TLS": (
        CLIENT, ("validRedirectUris", 0), "http://jupyter.example.com/hub/oauth_callback", "tls",
        "Client jupyterhub: validRedirectUris[0] is http://jupyter.example.com/hub/oauth_callback; "
        + HTTPS,
    ),
    "an administration without TLS": (
        PROVIDER, ("url",), "http://keycloak.example.com", "tls",
        f"keycloak keycloak: url is http://keycloak.example.com; {HTTPS}",
    ),
    "another minor version of the chart": (
        HUB, ("version",), "4.5.0", "pinned-chart",
        "Release jupyterhub: version is 4.5.0 from https://hub.jupyter.org/helm-chart; "
        "4.4 from https://hub.jupyter.org/helm-chart is required",
    ),
    "a version that begins alike": (
        HUB, ("version",), "4.40.0", "pinned-chart", "version is 4.40.0 from",
    ),
    "the chart from another repository": (
        HUB, ("repositoryOpts", "repo"), "https://charts.example.org", "pinned-chart",
        "version is 4.4.0 from https://charts.example.org; 4.4 from https://hub.jupyter.org",
    ),
    "the embedded node's chart": (
        HUB, ("chart",), "charts/jupyterhub-lite", "pinned-chart",
        "chart is charts/jupyterhub-lite; jupyterhub is required",
    ),
    "an image of the embedded node": (
        HUB, ("values", "hub", "image", "name"), "localhost:5000/mlhub/hub", "images-by-digest",
        "an image from harbor.example.com/mlhub is required",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", BREACHES)
def test_prod_is_refused_what_a_demonstration_may_do(case: str) -> None:
    which, place, value, rule, message = BREACHES[case]
    ((told_rule, told),) = refusals(changed(program("prod"), which, {place: value}))
    assert told_rule == rule
    assert message in told


@pytest.mark.parametrize(
    ("which", "place", "value"),
    [
        (HUB, ("version",), "4.4.1"),
        (HUB, ("repositoryOpts", "repo"), "https://hub.jupyter.org/helm-chart/"),
    ],
)
def test_what_is_as_good_passes(which: tuple[str, str], place: Place, value: str) -> None:
    assert refusals(changed(program("prod"), which, {place: value})) == []


@pytest.mark.parametrize(
    ("which", "place", "path"),
    [
        (HUB, ("values", "ingress", "enabled"), "ingress.enabled"),
        (HUB, ("values", "ingress", "tls"), "ingress.tls"),
        (PROVIDER, ("url",), "url"),
        (CLIENT, ("validRedirectUris", 0), "validRedirectUris[0]"),
    ],
)
def test_what_is_not_known_yet_is_remarked(which: tuple[str, str], place: Place, path: str) -> None:
    resources = changed(program("prod"), which, {place: UNKNOWN})
    assert refusals(resources) == []
    assert ("tls", path) in remarks(resources)


@pytest.mark.parametrize(("stack", "allowed"), [("local", True), ("prod", False)])
def test_people_are_made_up_in_demonstrations_alone(stack: str, allowed: bool) -> None:
    inputs = {"username": "eve", "initialPassword": {"value": marked("x"), "temporary": False}}
    person = extra("keycloak:index/user:User", "user-eve", inputs, stack=stack)
    told = refusals([*program(stack), person])
    assert told == [] if allowed else [rule for rule, _ in told] == ["no-demo-users"]
    if not allowed:
        assert "User user-eve: initialPassword makes up a person" in told[0][1]


def test_a_person_without_a_password_of_ours_is_nobody_made_up() -> None:
    person = extra("keycloak:index/user:User", "user-eve", {"username": "eve"}, stack="prod")
    assert refusals([*program("prod"), person]) == []
