"""The workspaces service against a real Keycloak: the role matrix, where it is Keycloak's to hold.

In a realm of its own, with the one right that the stack gives the service's account. Kubernetes and
the Hub are doubles.
"""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from aiohttp.web import Application, AppRunner, TCPSite

from tests.engine.conftest import Server, own_realm
from tests.services.workspaces import (
    ADMINS,
    CLIENT,
    MATRIX,
    PEOPLE,
    ROLES,
    SECRET,
    USERS,
    Hub,
    Service,
    Volumes,
    attempt,
    furnished,
    serving,
    settings,
)


@pytest.fixture(scope="module")
def furnished_realm(server: Server) -> Iterator[str]:
    """A realm with the people, their groups, and the service's client."""
    with own_realm(server) as name:
        server.admin().create_realm({"realm": name, "enabled": True})
        admin = server.admin(name)
        above = admin.create_group({"name": "mlhub"})
        groups = {
            path: admin.create_group({"name": path.rpartition("/")[2]}, parent=above)
            for path in (USERS, ADMINS)
        }
        admin.create_group({"name": "workspaces"})
        for who, path in PEOPLE.items():
            account = {"username": who, "email": f"{who}@example.com", "enabled": True}
            id = admin.create_user(account)
            if path:
                admin.group_user_add(id, groups[path])
        client = admin.create_client(
            {
                "clientId": CLIENT,
                "secret": SECRET,
                "serviceAccountsEnabled": True,
                "standardFlowEnabled": False,
                "fullScopeAllowed": True,
            }
        )
        management = admin.get_client_id("realm-management")
        account = admin.get_client_service_account_user(client)["id"]
        right = admin.get_client_role(management, "manage-users")
        admin.assign_client_role(account, management, [right])
        yield name


@pytest_asyncio.fixture
async def service(
    server: Server, furnished_realm: str, tmp_path: Path
) -> AsyncIterator[tuple[Service, Hub]]:
    runners, addresses = [], []
    hub = Hub()
    for double in (hub, Volumes()):
        runners.append(AppRunner(_application(double), shutdown_timeout=0))
        await runners[-1].setup()
        site = TCPSite(runners[-1], "127.0.0.1", 0)
        await site.start()
        addresses.append(f"http://127.0.0.1:{site._server.sockets[0].getsockname()[1]}")
    database = f"sqlite:///{tmp_path}/workspaces.db"
    given = settings(server.url, f"{addresses[0]}/hub/api", addresses[1], database)
    keycloak = given.keycloak.model_copy(update={"realm": furnished_realm})
    async with serving(given.model_copy(update={"keycloak": keycloak})) as serves:
        yield serves, hub
    for runner in runners:
        await runner.cleanup()


def _application(double: Any) -> Application:
    made: Application = double.application()
    return made


@pytest.mark.asyncio
async def test_M7_the_role_matrix_holds_on_a_real_keycloak(service, server, furnished_realm):
    serves, hub = service
    assert (await serves.ask("", "GET", "/health")).json()["status"] == "healthy"
    slug = await furnished(serves)
    for operation in ("get", "change", "delete", "restore", "leave"):
        statuses = MATRIX[operation]
        found = {role: await attempt(serves, slug, operation, role) for role in ROLES}
        assert found == dict(zip(ROLES, statuses, strict=True)), operation
    (mine,) = (await serves.ask("olga", "GET", "/workspaces")).json()["workspaces"]
    assert (mine["name"], mine["size"], mine["created_by"]) == ("Fraud Detection", "10Gi", "olga")
    assert mine["restorable_until"] is None
    again = await serves.ask("sam", "POST", "/workspaces", name="Fraud Detection")
    assert (again.status_code, again.json()["type"]) == (409, "taken")
    await serves.ask("olga", "DELETE", f"/workspaces/{slug}/members/otto")
    last = await serves.ask("olga", "DELETE", f"/workspaces/{slug}/members/olga")
    assert (last.status_code, last.json()["type"]) == (409, "last-owner")
    admin = server.admin(furnished_realm)
    paths = {g["path"] for g in admin.get_user_groups(admin.get_user_id("vera"))}
    assert paths == {USERS, f"/workspaces/{slug}/viewer"}, "which is what tokens carry"
    assert ("vera", slug, "viewer") in hub.told
