"""Whatever the program asks of random and keycloak is something that our plug-ins can do."""

from typing import Any

import pytest
from pulumi.runtime import rpc

from bootstrap.plugins.keycloak import Keycloak
from bootstrap.plugins.random import Random
from bootstrap.plugins.values import UNKNOWN
from tests.unit import recorder

PACKAGES = {"keycloak": Keycloak(), "random": Random()}


def seen(value: Any) -> Any:
    """As the plug-in decodes it: whole numbers are ints, the engine's placeholder is unknown."""
    if value == rpc.UNKNOWN:
        return UNKNOWN
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, dict):
        return {key: seen(part) for key, part in value.items()}
    return [seen(part) for part in value] if isinstance(value, list) else value


@pytest.mark.parametrize("package", PACKAGES)
def test_every_resource_of_the_local_stack_passes_our_checks(package: str) -> None:
    registered = [
        r for r in recorder.platform("local").registrations if r.type.startswith(f"{package}:")
    ]
    assert registered, f"the local stack uses nothing of {package}"
    for resource in registered:
        given = {key: seen(part) for key, part in resource.plain.items() if part is not None}
        assert PACKAGES[package].type_of(resource.urn).check(given) == [], resource.urn


@pytest.mark.parametrize("package", PACKAGES)
def test_every_provider_setting_is_one_that_we_know(package: str) -> None:
    token = f"pulumi:providers:{package}"
    providers = recorder.platform("local").of_type(token)
    known = {p.name for p in PACKAGES[package].config}
    assert providers
    for provider in providers:
        assert {key for key in provider.plain if key != "version"} <= known
