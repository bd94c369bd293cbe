"""What is linked to a Keycloak object: scopes to a client, groups to a user, roles to a group."""

from abc import abstractmethod
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from bootstrap.plugins.keycloak_admin import Admin, NotFoundError, at
from bootstrap.plugins.keycloak_objects import REALM_ID, split_import
from bootstrap.plugins.schema import Call, Function, Made, PluginError, Property, ResourceType


class Links(ResourceType):
    """What one object is linked to: made by reconciling, so a killed run finishes by itself."""

    owner: Property
    targets: Property
    switch: bool = True
    """Whether the type has `exhaustive`; without it every link that is not asked for goes."""

    def __init__(self, server: Callable[[], Admin]):
        self._server = server
        self.properties = (REALM_ID, self.owner, self.targets)
        if self.switch:
            self.properties += (Property("exhaustive", "boolean", default=True),)

    @property
    def admin(self) -> Admin:
        return self._server()

    @abstractmethod
    def linked(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """What is linked now: by the name used in `targets`, whatever `unlink` needs of it."""

    @abstractmethod
    def link(self, inputs: Mapping[str, Any], names: set[str]) -> None: ...

    @abstractmethod
    def unlink(self, inputs: Mapping[str, Any], linked: dict[str, Any]) -> None: ...

    def create(self, inputs: dict[str, Any], call: Call) -> Made:
        state = self.update("", {}, inputs, call)
        return Made(f"{inputs['realmId']}/{inputs[self.owner.name]}", state)

    def read(self, id: str, state: dict[str, Any]) -> Made | None:
        known = state
        if not state:
            realm, owner = split_import(id, self.type, f"<realm>/<{self.owner.name}>")
            known = {"realmId": realm, self.owner.name: owner, self.targets.name: []}
            known |= {"exhaustive": True} if self.switch else {}
        try:
            linked = set(self.linked(known))
        except NotFoundError:
            return None
        if not known.get("exhaustive", True):
            linked &= set(known[self.targets.name])
        return Made(id, {**known, self.targets.name: sorted(linked)})

    def update(
        self, id: str, state: dict[str, Any], inputs: dict[str, Any], call: Call
    ) -> dict[str, Any]:
        wanted = set(inputs[self.targets.name])
        try:
            now = self.linked(inputs)
            surplus = set(now) - wanted
            if not inputs.get("exhaustive", True):
                surplus &= set(state.get(self.targets.name, ()))
            if surplus:
                self.unlink(inputs, {name: now[name] for name in surplus})
            if wanted - set(now):
                self.link(inputs, wanted - set(now))
        except NotFoundError as gone:
            raise PluginError(
                f"{self.type}: {gone} is not on the server; check {self.owner.name} and "
                f"{self.targets.name}, or run `pulumi refresh`"
            ) from None
        return {**inputs, self.targets.name: sorted(wanted)}

    def delete(self, id: str, state: dict[str, Any]) -> None:
        try:
            now = self.linked(state)
            mine = set(state[self.targets.name])
            self.unlink(state, {name: now[name] for name in mine & set(now)})
        except NotFoundError:
            pass


class ClientDefaultScopes(Links):
    type = "keycloak:openid/clientDefaultScopes:ClientDefaultScopes"
    owner = Property("clientId", required=True, replace=True)
    targets = Property("defaultScopes", "set", required=True)
    switch = False

    def scopes(self, inputs: Mapping[str, Any], kind: str) -> str:
        return at("realms", inputs["realmId"], "clients", inputs["clientId"], kind)

    def linked(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        scopes = self.admin.get(self.scopes(inputs, "default-client-scopes"))
        return {scope["name"]: scope["id"] for scope in scopes}

    def link(self, inputs: Mapping[str, Any], names: set[str]) -> None:
        every = self.admin.get(at("realms", inputs["realmId"], "client-scopes"))
        ids = {scope["name"]: scope["id"] for scope in every}
        if missing := names - set(ids):
            raise PluginError(
                f"{self.type}: realm {inputs['realmId']} has no client scope "
                f"{', '.join(sorted(missing))}; it has {', '.join(sorted(ids))}"
            )
        for name in sorted(names):
            # Keycloak keeps an optional scope optional when it is added as a default one.
            self.admin.delete(self.scopes(inputs, "optional-client-scopes") + at(ids[name]))
            self.admin.put(self.scopes(inputs, "default-client-scopes") + at(ids[name]))

    def unlink(self, inputs: Mapping[str, Any], linked: dict[str, Any]) -> None:
        for id in linked.values():
            self.admin.delete(self.scopes(inputs, "default-client-scopes") + at(id))


class UserGroups(Links):
    type = "keycloak:index/userGroups:UserGroups"
    owner = Property("userId", required=True, replace=True)
    targets = Property("groupIds", "set", required=True)

    def groups(self, inputs: Mapping[str, Any]) -> str:
        return at("realms", inputs["realmId"], "users", inputs["userId"], "groups")

    def linked(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        return {group["id"]: group["id"] for group in self.admin.get(self.groups(inputs))}

    def link(self, inputs: Mapping[str, Any], names: set[str]) -> None:
        for id in sorted(names):
            self.admin.put(self.groups(inputs) + at(id))

    def unlink(self, inputs: Mapping[str, Any], linked: dict[str, Any]) -> None:
        for id in linked:
            self.admin.delete(self.groups(inputs) + at(id))


class GroupRoles(Links):
    type = "keycloak:index/groupRoles:GroupRoles"
    owner = Property("groupId", required=True, replace=True)
    targets = Property("roleIds", "set", required=True)

    def mappings(self, inputs: Mapping[str, Any]) -> str:
        return at("realms", inputs["realmId"], "groups", inputs["groupId"], "role-mappings")

    def linked(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        mappings = self.admin.get(self.mappings(inputs))
        roles = list(mappings.get("realmMappings", ()))
        for client in mappings.get("clientMappings", {}).values():
            roles += client["mappings"]
        return {role["id"]: role for role in roles}

    def of(self, inputs: Mapping[str, Any], role: Mapping[str, Any]) -> str:
        kind = at("clients", role["containerId"]) if role["clientRole"] else "/realm"
        return self.mappings(inputs) + kind

    def link(self, inputs: Mapping[str, Any], names: set[str]) -> None:
        for id in sorted(names):
            role = self.admin.get(at("realms", inputs["realmId"], "roles-by-id", id))
            self.admin.post(self.of(inputs, role), [role])

    def unlink(self, inputs: Mapping[str, Any], linked: dict[str, Any]) -> None:
        for role in linked.values():
            self.admin.delete(self.of(inputs, role), [role])


class ClientServiceAccountRole(ResourceType):
    """One role of one client's, for the service account of another."""

    type = "keycloak:openid/clientServiceAccountRole:ClientServiceAccountRole"
    properties = tuple(
        Property(name, required=True, replace=True)
        for name in ("realmId", "serviceAccountUserId", "clientId", "role")
    )

    def __init__(self, server: Callable[[], Admin]):
        self._server = server

    def _mappings(self, place: Mapping[str, Any]) -> str:
        user = at("realms", place["realmId"], "users", place["serviceAccountUserId"])
        return user + at("role-mappings", "clients", place["clientId"])

    def _role(self, place: Mapping[str, Any]) -> dict[str, Any]:
        """Raises NotFoundError where the client has no such role."""
        client = at("realms", place["realmId"], "clients", place["clientId"])
        found: dict[str, Any] = self._server().get(client + at("roles", place["role"]))
        return found

    def create(self, inputs: dict[str, Any], call: Call) -> Made:
        try:
            role = self._role(inputs)
            self._server().post(self._mappings(inputs), [role])
        except NotFoundError as gone:
            raise PluginError(
                f"{self.type}: {gone} is not on the server; check clientId, role and "
                "serviceAccountUserId, or run `pulumi refresh`"
            ) from None
        return Made(f"{inputs['serviceAccountUserId']}/{role['id']}", dict(inputs))

    def read(self, id: str, state: dict[str, Any]) -> Made | None:
        try:
            if not state:
                shape = "<realmId>/<serviceAccountUserId>/<clientId>/<roleId>"
                realm, user, client, role = split_import(id, self.type, shape)
                name = self._server().get(at("realms", realm, "roles-by-id", role))["name"]
                state = {"realmId": realm, "serviceAccountUserId": user}
                state |= {"clientId": client, "role": name}
            held = self._server().get(self._mappings(state))
        except NotFoundError:
            return None
        mine = [role for role in held if role["name"] == state["role"]]
        return Made(f"{state['serviceAccountUserId']}/{mine[0]['id']}", state) if mine else None

    def update(
        self, id: str, state: dict[str, Any], inputs: dict[str, Any], call: Call
    ) -> dict[str, Any]:
        raise PluginError(f"{self.type} is replaced when it changes, never updated")

    def delete(self, id: str, state: dict[str, Any]) -> None:
        with suppress(NotFoundError):
            self._server().delete(self._mappings(state), [self._role(state)])


class GetClient(Function):
    """The id of a client that is there, such as the realm's own `realm-management`."""

    token = "keycloak:openid/getClient:getClient"  # noqa: S105 - a type token
    arguments = (Property("realmId", required=True), Property("clientId", required=True))

    def __init__(self, server: Callable[[], Admin]):
        self._server = server

    def call(self, arguments: dict[str, Any]) -> dict[str, Any]:
        realm, client = arguments["realmId"], arguments["clientId"]
        found = self._server().get(at("realms", realm, "clients"), clientId=client)
        if not found:
            raise PluginError(f"realm {realm} has no client {client}; check its name")
        return {**arguments, "id": found[0]["id"]}
