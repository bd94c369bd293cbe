"""What mlhub asks of its plug-ins, small: generated secrets, a realm, a client, a user."""

import pulumi
import pulumi_keycloak as keycloak
import pulumi_random as random

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
opts = pulumi.ResourceOptions(provider=server)
print(f"realm {config.require('realm')} in stack {pulumi.get_stack()}")

realm = keycloak.Realm(
    "realm",
    realm=config.require("realm"),
    display_name="engine test",
    registration_allowed=False,
    access_token_lifespan="10m",
    opts=opts,
)
top = keycloak.Group("top", realm_id=realm.id, name="mlhub", opts=opts)
users = keycloak.Group("users", realm_id=realm.id, parent_id=top.id, name="users", opts=opts)

client_secret = random.RandomPassword("client-secret", length=32, special=False)
client = keycloak.openid.Client(
    "jupyterhub",
    realm_id=realm.id,
    client_id="jupyterhub",
    client_secret=client_secret.result,
    access_type="CONFIDENTIAL",
    standard_flow_enabled=True,
    direct_access_grants_enabled=False,
    pkce_code_challenge_method="S256",
    valid_redirect_uris=["http://localhost:30888/hub/oauth_callback"],
    valid_post_logout_redirect_uris=["http://localhost:30888/hub/"],
    web_origins=[],
    full_scope_allowed=False,
    opts=opts,
)
keycloak.openid.GroupMembershipProtocolMapper(
    "groups",
    realm_id=realm.id,
    client_id=client.id,
    name="groups",
    claim_name="groups",
    full_path=True,
    add_to_access_token=False,
    opts=opts,
)
keycloak.openid.ClientDefaultScopes(
    "scopes",
    realm_id=realm.id,
    client_id=client.id,
    default_scopes=["basic", "profile", "email", "roles", "web-origins", "acr"],
    opts=opts,
)

alice_password = random.RandomPassword("alice", length=24, special=False)
alice = keycloak.User(
    "alice",
    realm_id=realm.id,
    username="alice",
    email="alice@mlhub.example",
    email_verified=True,
    first_name="Alice",
    last_name="Demo",
    initial_password={"value": alice_password.result, "temporary": False},
    opts=opts,
)
keycloak.UserGroups("alice", realm_id=realm.id, user_id=alice.id, group_ids=[users.id], opts=opts)
role = keycloak.Role("access", realm_id=realm.id, name="mlhub-access", opts=opts)
keycloak.GroupRoles("users", realm_id=realm.id, group_id=users.id, role_ids=[role.id], opts=opts)

pulumi.export("users", users.path)
pulumi.export("alice", alice_password.result)
pulumi.export("client_secret", client_secret.result)
pulumi.export("client_uuid", client.id)
