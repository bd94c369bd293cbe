"""Secrets and identity by our plug-ins: the real CLI, a real Keycloak."""

import re
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.engine.conftest import PROGRAM, Applied, Server, configured
from tests.engine.stack import Stack

pytestmark = [pytest.mark.engine, pytest.mark.timeout(600)]

UNDER_A_COMPONENT = """
    import pulumi
    import pulumi_keycloak as keycloak

    config = pulumi.Config()
    server = keycloak.Provider(
        "keycloak",
        url=config.require("url"),
        username=config.require("username"),
        password=config.require_secret("password"),
        client_id="admin-cli",
        realm="master",
        initial_login=False,
    )
    identity = pulumi.ComponentResource(
        "mlhub:identity:Identity", "identity", {}, pulumi.ResourceOptions(providers=[server])
    )
    keycloak.Realm(
        "realm",
        realm=config.require("realm"),
        display_name="engine test",
        opts=pulumi.ResourceOptions(parent=identity),
    )
"""


def test_a_preview_reaches_no_server(platform: Stack, realm: str, server: Server) -> None:
    platform.configure(url="http://127.0.0.1:9")
    start = time.monotonic()
    assert platform.changes() == {"create": 14}
    assert time.monotonic() - start < 170, "the preview waited for the server"
    assert realm not in {found["realm"] for found in server.admin().get_realms()}


def test_T1_the_realm_is_as_the_program_says(applied: Applied, server: Server) -> None:
    stack, admin = applied.stack, server.admin(applied.realm)
    client = admin.get_client(stack("stack", "output", "client_uuid").strip())
    assert client["redirectUris"] == ["http://localhost:30888/hub/oauth_callback"]
    assert client["attributes"]["pkce.code.challenge.method"] == "S256"
    assert client["secret"] == stack.secret("client_secret")
    assert (client["publicClient"], client["standardFlowEnabled"]) == (False, True)
    assert not client["directAccessGrantsEnabled"]
    assert not client["implicitFlowEnabled"]
    assert not client["serviceAccountsEnabled"]
    (mapper,) = client["protocolMappers"]
    assert mapper["config"]["full.path"] == "true"
    assert set(client["defaultClientScopes"]) == {
        "basic", "profile", "email", "roles", "web-origins", "acr",
    }  # fmt: skip
    assert stack("stack", "output", "users").strip() == "/mlhub/users"
    assert server.login(applied.realm, "alice", stack.secret("alice"))["access_token"]
    (group,) = admin.get_user_groups(admin.get_user_id("alice"))
    assert group["path"] == "/mlhub/users"
    assert [r["name"] for r in admin.get_group_realm_roles(group["id"])] == ["mlhub-access"]


def test_a_second_up_and_a_refresh_change_nothing(applied: Applied) -> None:
    applied.stack.up("--expect-no-changes")
    applied.stack("refresh", "--yes", "--skip-preview", "--expect-no-changes")
    assert applied.stack.changes() == {}


def test_V9_no_generated_secret_is_in_plain_state_or_output(
    applied: Applied, server: Server
) -> None:
    stack = applied.stack
    hidden = stack("stack", "export", "--show-secrets")
    exported = stack.export()
    files = [f.read_text() for f in stack.folder.glob("state/**/*") if f.is_file()]
    assert any("alice@mlhub.example" in text for text in files), "the state lies elsewhere"
    for word in (stack.secret("alice"), stack.secret("client_secret"), server.password):
        assert word in hidden
        assert word not in exported
        assert word not in applied.printed
        assert not any(word in text for text in files)


def test_our_plug_ins_say_that_they_are_ours(applied: Applied, bin_dir: Path) -> None:
    """Where the official ones were found, ours are not there and nothing is said."""
    for name in ("random", "keycloak"):
        said = f"the official pulumi-resource-{name} is not installed" in applied.printed
        assert said == (bin_dir / f"pulumi-resource-{name}").is_file()


def test_T1_drift_is_seen_and_reconciled_by_the_next_up(
    platform: Stack, realm: str, server: Server
) -> None:
    platform.up()
    admin = server.admin(realm)
    uuid = platform("stack", "output", "client_uuid").strip()
    client = admin.get_client(uuid)
    client["directAccessGrantsEnabled"] = True
    client["redirectUris"].append("http://elsewhere/*")
    client["attributes"]["pkce.code.challenge.method"] = ""
    admin.update_client(uuid, client)
    (mapper,) = client["protocolMappers"]
    admin.remove_client_mapper(uuid, mapper["id"])
    user = admin.get_user_id("alice")
    admin.update_user(user, {"enabled": False})
    (group,) = admin.get_user_groups(user)
    admin.group_user_remove(user, group["id"])
    admin.update_realm(realm, {"registrationAllowed": True})
    roles = admin.get_client_scopes()
    phone = next(scope["id"] for scope in roles if scope["name"] == "phone")
    admin.add_client_default_client_scope(uuid, phone, {})

    seen = platform("preview", "--refresh", "--diff")
    assert "directAccessGrantsEnabled" in seen
    platform.up("--refresh")

    client = admin.get_client(uuid)
    assert not client["directAccessGrantsEnabled"]
    assert client["redirectUris"] == ["http://localhost:30888/hub/oauth_callback"]
    assert client["attributes"]["pkce.code.challenge.method"] == "S256"
    assert [m["name"] for m in client["protocolMappers"]] == ["groups"]
    assert "phone" not in client["defaultClientScopes"]
    assert admin.get_user(user)["enabled"]
    assert [g["id"] for g in admin.get_user_groups(user)] == [group["id"]]
    assert not admin.get_realm(realm)["registrationAllowed"]
    assert platform.changes() == {}


def test_a_change_of_the_program_is_an_update_in_place(
    platform: Stack, realm: str, server: Server
) -> None:
    platform.up()
    before = {r["urn"]: r["id"] for r in platform.resources() if r.get("id")}
    program = PROGRAM.replace('access_token_lifespan="10m"', 'access_token_lifespan="1h"')
    program = program.replace('pkce_code_challenge_method="S256",', "")
    program = program.replace('name="users"', 'name="people"')
    (platform.project / "__main__.py").write_text(program)
    assert platform.changes() == {"update": 3}
    platform.up()
    assert {r["urn"]: r["id"] for r in platform.resources() if r.get("id")} == before
    admin = server.admin(realm)
    assert admin.get_realm(realm)["accessTokenLifespan"] == 3600
    client = admin.get_client(platform("stack", "output", "client_uuid").strip())
    assert not client["attributes"].get("pkce.code.challenge.method")
    assert platform("stack", "output", "users").strip() == "/mlhub/people"
    assert platform.changes() == {}


def test_what_the_state_has_forgotten_is_found_again(
    platform: Stack, realm: str, server: Server
) -> None:
    """As after a kill between the server's answer and the state file, for every type at once."""
    platform.up()
    before = {r["urn"]: r["id"] for r in platform.resources() if "keycloak:" in r["type"]}
    password = platform.secret("alice")
    platform.forget(lambda resource: resource["type"].startswith("keycloak:"))
    printed = platform.up()
    found = set(re.findall(r'Keycloak (\w+) "(\S+)".* is there from an earlier run', printed))
    assert found == {
        ("Group", "mlhub"), ("Group", "users"), ("Client", "jupyterhub"), ("User", "alice"),
        ("Role", "mlhub-access"), ("GroupMembershipProtocolMapper", "groups"),
    } | {(kind, name) for kind, name in found if kind == "Realm"}  # fmt: skip
    assert len(found) == 7
    assert {r["urn"]: r["id"] for r in platform.resources() if "keycloak:" in r["type"]} == before
    assert platform.secret("alice") == password
    assert server.login(realm, "alice", password)["access_token"]
    assert platform.changes() == {}


def test_a_lost_state_file_does_not_lock_the_realm(
    platform: Stack, stack: Callable[[str], Stack], realm: str, server: Server
) -> None:
    """A new state generates new passwords, and they are the ones that work."""
    platform.up()
    old = platform.secret("alice")
    again = stack(PROGRAM)
    again.configure(url=server.url, username=server.username, password=server.password, realm=realm)
    again.up()
    assert again.secret("alice") != old
    assert server.login(realm, "alice", again.secret("alice"))["access_token"]
    assert again.changes() == {}


def test_what_others_made_is_refused_and_the_command_that_is_printed_takes_it_over(
    stack: Callable[[str], Stack], realm: str, server: Server
) -> None:
    """As in mlhub: a component has the object, and there are no default providers."""
    admin = server.admin()
    admin.create_realm({"realm": realm, "enabled": True, "displayName": "by hand"})
    platform = configured(stack(UNDER_A_COMPONENT), server, realm)
    platform.refuse_default_providers()
    refusal = platform.fails("up", "--yes", "--skip-preview")
    assert "is there already and was not made by this stack" in refusal
    assert admin.get_realm(realm)["displayName"] == "by hand"

    command = re.search(r"`(pulumi import [^`]+)`", refusal)
    assert command, refusal
    platform.shell(command[1])
    platform.up()
    assert admin.get_realm(realm)["displayName"] == "engine test"
    (made,) = (r for r in platform.resources() if r["type"] == "keycloak:index/realm:Realm")
    assert made["urn"].split("::")[2] == f"mlhub:identity:Identity${made['type']}"
    assert platform.changes() == {}


@pytest.mark.parametrize("when", ["realm", "users"])
def test_an_up_that_was_killed_leaves_no_process_and_the_next_one_finishes(
    platform: Stack, realm: str, server: Server, when: str
) -> None:
    admin = server.admin()
    running = platform.start("up", "--yes", "--skip-preview")
    path = f"{server.url}/admin/realms/{realm}" + ("" if when == "realm" else f"/{when}")
    deadline = time.monotonic() + 180
    while not (answer := admin.connection.raw_get(path)).ok or not answer.json():
        assert time.monotonic() < deadline
        assert running.poll() is None, platform.kill(running)
    platform.kill(running)
    platform.wait_for_no_process()

    assert "locked" in platform.fails("up", "--yes", "--skip-preview")
    platform("cancel", "--yes")
    platform.up()
    assert platform.changes() == {}
    assert server.login(realm, "alice", platform.secret("alice"))["access_token"]


def test_a_wrong_password_is_one_sentence_that_does_not_repeat_it(platform: Stack) -> None:
    platform.configure(password="not-the-password-9")
    refusal = platform.fails("up", "--yes", "--skip-preview")
    assert "refused the log-in of" in refusal
    assert "not-the-password-9" not in refusal
    assert "Traceback" not in refusal


def test_destroy_leaves_nothing(platform: Stack, realm: str, server: Server) -> None:
    platform.up()
    platform("destroy", "--yes", "--skip-preview")
    assert realm not in {found["realm"] for found in server.admin().get_realms()}
    assert platform.resources() == []


def test_a_realm_that_somebody_deleted_is_made_again_and_no_destroy_needs_it(
    platform: Stack, realm: str, server: Server
) -> None:
    platform.up()
    server.admin().delete_realm(realm)
    platform.up("--refresh")
    assert server.login(realm, "alice", platform.secret("alice"))["access_token"]
    server.admin().delete_realm(realm)
    platform("destroy", "--yes", "--skip-preview")
    assert platform.resources() == []
