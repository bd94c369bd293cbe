"""The Keycloak objects that the program uses, each as a resource type.

An object that is made here carries the URN of its resource (users: an id derived from it), so that
an `up` which was killed between the server's answer and the state file recognises its own work and
goes on, while anything made by others is refused and left alone.
"""

import re
import uuid
from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from bootstrap.plugins.keycloak_admin import Admin, ConflictError, NotFoundError, at
from bootstrap.plugins.schema import Call, Failure, Made, PluginError, Property, ResourceType
from bootstrap.plugins.values import UNKNOWN

MARK = "pulumi-urn"
"""The attribute that names the resource an object belongs to."""


def is_true(value: Any) -> bool:
    return str(value).lower() == "true"


def quoted(value: bool) -> str:
    return str(value).lower()


DURATION = re.compile(r"(\d+(?:\.\d+)?)(h|m|s)")


def seconds(duration: str) -> int:
    """A Go duration, `1h30m`, in seconds. Raises ValueError."""
    parts = DURATION.findall(duration)
    if not parts or "".join(n + u for n, u in parts) != duration:
        raise ValueError(duration)
    return int(sum(float(n) * {"h": 3600, "m": 60, "s": 1}[u] for n, u in parts))


def duration(total: int) -> str:
    """As Go writes it: 5400 is `1h30m0s`."""
    hours, minutes = total // 3600, total // 60 % 60
    text = f"{hours}h" if hours else ""
    text += f"{minutes}m" if total >= 60 else ""
    return f"{text}{total % 60}s"


def same_duration(old: str, new: str) -> bool:
    try:
        return seconds(old) == seconds(new)
    except ValueError:
        return old == new


@dataclass(frozen=True)
class Field:
    """A property and its place in Keycloak's representation."""

    property: Property
    place: tuple[str, ...]
    to_server: Callable[[Any], Any] = lambda value: value
    from_server: Callable[[Any], Any] = lambda value: value

    def put(self, representation: dict[str, Any], value: Any) -> None:
        for key in self.place[:-1]:
            representation = representation.setdefault(key, {})
        representation[self.place[-1]] = self.to_server(value)

    def take(self, representation: Mapping[str, Any]) -> Any:
        """The property's value; its zero where the server has none."""
        found: Any = representation
        for key in self.place:
            found = found.get(key) if isinstance(found, Mapping) else None
        return self.property.zero if found is None else self.from_server(found)


def text(name: str, *place: str, **options: Any) -> Field:
    return Field(Property(name, **options), place or (name,))


def flag(name: str, *place: str, **options: Any) -> Field:
    return Field(Property(name, "boolean", **options), place or (name,))


def attribute_flag(name: str, key: str, **options: Any) -> Field:
    return Field(Property(name, "boolean", **options), ("attributes", key), quoted, is_true)


def texts(name: str, *place: str, **options: Any) -> Field:
    return Field(Property(name, "set", **options), place or (name,))


def lifespan(name: str, **options: Any) -> Field:
    shape = Property(name, same=same_duration, computed=True, **options)
    return Field(shape, (name,), seconds, duration)


REALM_ID = Property("realmId", required=True, replace=True)
IMPORT = Property("import", "boolean", default=False, replace=True)


class KeycloakObject(ResourceType):
    """An object with a representation of its own on the server."""

    fields: tuple[Field, ...]
    own: tuple[Property, ...] = (REALM_ID,)
    """Properties outside the representation: where the object is, or what is only written."""

    label: str
    """The property that a person knows the object by."""

    def __init__(self, server: Callable[[], Admin]):
        self._server = server
        self.properties = (*self.own, *(f.property for f in self.fields))

    @property
    def admin(self) -> Admin:
        return self._server()

    # Where an object is

    @abstractmethod
    def path(self, id: str, place: Mapping[str, Any]) -> str:
        """The object's own path; `place` holds the properties in `own`."""

    @abstractmethod
    def make(self, inputs: Mapping[str, Any], body: dict[str, Any], call: Call) -> str:
        """Makes the object and gives its id. Raises `ConflictError` where one is there already."""

    @abstractmethod
    def find(self, inputs: Mapping[str, Any]) -> dict[str, Any] | None:
        """The representation of the object of that name, if there is one."""

    @abstractmethod
    def import_place(self, id: str) -> tuple[str, dict[str, Any]]:
        """The object's id and place in an id given to `pulumi import`."""

    # Representations

    def body(self, inputs: Mapping[str, Any], urn: str, base: dict[str, Any]) -> dict[str, Any]:
        """`inputs` laid over `base`, the representation as it is (empty for a new object)."""
        for field in self.fields:
            p = field.property
            if p.output:
                continue
            if p.name in inputs:
                field.put(base, inputs[p.name])
            elif not p.computed and base.get("id"):
                field.put(base, p.zero)
        self.mark(base, urn)
        return base

    def mark(self, body: dict[str, Any], urn: str) -> None:
        body.setdefault("attributes", {})[MARK] = urn

    def marked(self, found: Mapping[str, Any], inputs: Mapping[str, Any], urn: str) -> bool:
        mark = found.get("attributes", {}).get(MARK)
        return urn in (mark if isinstance(mark, list) else [mark])

    def state(self, found: Mapping[str, Any], known: Mapping[str, Any]) -> dict[str, Any]:
        """The object as found; where that means the same as `known`, in the words of `known`."""
        state = {p.name: known[p.name] for p in self.own if p.name in known}
        for field in self.fields:
            p, value = field.property, field.take(found)
            same = p.name in known and p.equal(known[p.name], value)
            state[p.name] = known[p.name] if same else value
        return state

    # The operations

    def create(self, inputs: dict[str, Any], call: Call) -> Made:
        if inputs.get("import"):
            found = self.find(inputs)
            if found is None:
                raise PluginError(f"{self.titled(inputs)} is to be imported and is not there")
            return self.adopt(found, inputs, call)
        try:
            id = self.make(inputs, self.body(inputs, call.urn, {}), call)
        except NotFoundError as gone:
            raise PluginError(
                f"{self.titled(inputs)} cannot be made: {gone} is not there; "
                "run `pulumi refresh`, then `pulumi up`"
            ) from None
        except ConflictError as conflict:
            found = self.find(inputs)
            if found is None or not self.marked(found, inputs, call.urn):
                raise self.taken(inputs, found, conflict, call) from None
            call.tell(f"{self.titled(inputs)} is there from an earlier run of this stack; going on")
            return self.adopt(found, inputs, call)
        return Made(id, self.state(self.admin.get(self.path(id, inputs)), inputs))

    def adopt(self, found: dict[str, Any], inputs: dict[str, Any], call: Call) -> Made:
        id = self.id_of(found)
        return Made(id, self.update(id, {}, inputs, call))

    def taken(
        self,
        inputs: Mapping[str, Any],
        found: Mapping[str, Any] | None,
        conflict: ConflictError,
        call: Call,
    ) -> PluginError:
        if found is None:
            return PluginError(f"{self.titled(inputs)} cannot be made: {conflict}")
        id = self.id_of(found)
        imported = id if "realmId" not in inputs else self.import_id(id, inputs)
        return PluginError(
            f"{self.titled(inputs)} is there already and was not made by this stack; delete it and "
            f"run again, or take it over first with `{call.import_command(imported)}`"
        )

    def read(self, id: str, state: dict[str, Any]) -> Made | None:
        known = state
        if not state:
            id, known = self.import_place(id)
        try:
            found = self.admin.get(self.path(id, known))
        except NotFoundError:
            return None
        known = {**{p.name: p.default for p in self.own if p.default is not None}, **known}
        return Made(id, self.state(found, known))

    def update(
        self, id: str, state: dict[str, Any], inputs: dict[str, Any], call: Call
    ) -> dict[str, Any]:
        path = self.path(id, inputs)
        try:
            self.admin.put(path, self.body(inputs, call.urn, self.admin.get(path)))
        except NotFoundError:
            raise PluginError(
                f"{self.titled(inputs)} is gone from the server; run `pulumi refresh`, then "
                "`pulumi up`"
            ) from None
        return self.state(self.admin.get(path), inputs)

    def delete(self, id: str, state: dict[str, Any]) -> None:
        if not state.get("import"):
            self.admin.delete(self.path(id, state))

    def id_of(self, found: Mapping[str, Any]) -> str:
        return str(found["id"])

    def import_id(self, id: str, inputs: Mapping[str, Any]) -> str:
        return f"{inputs['realmId']}/{id}"

    def titled(self, inputs: Mapping[str, Any]) -> str:
        kind = self.type.rsplit(":", 1)[1]
        where = f" in realm {inputs['realmId']}" if "realmId" in inputs else ""
        return f'Keycloak {kind} "{inputs[self.label]}"{where}'


def split_import(id: str, token: str, shape: str) -> list[str]:
    parts = id.split("/")
    if len(parts) != shape.count("/") + 1 or not all(parts):
        raise PluginError(f'{token}: "{id}" cannot be imported; give {shape}')
    return parts


def location_id(response: Any) -> str:
    return str(response.headers["Location"].rsplit("/", 1)[1])


class InRealm(KeycloakObject):
    """What most objects have in common: `<realm>/<collection>/<id>`."""

    collection: str

    def path(self, id: str, place: Mapping[str, Any]) -> str:
        return at("realms", place["realmId"], self.collection, id)

    def import_place(self, id: str) -> tuple[str, dict[str, Any]]:
        realm, own_id = split_import(id, self.type, "<realm>/<id>")
        return own_id, {"realmId": realm}


class Realm(KeycloakObject):
    type = "keycloak:index/realm:Realm"
    label = "realm"
    own = ()
    fields = (
        text("realm", named=True, replace=True),
        text("internalId", "id", computed=True, replace=True),
        flag("enabled", default=True),
        text("displayName", computed=True),
        text("displayNameHtml", computed=True),
        flag("userManagedAccess", "userManagedAccessAllowed", default=False),
        flag("organizationsEnabled", default=False),
        flag("registrationAllowed", computed=True),
        flag("registrationEmailAsUsername", computed=True),
        flag("editUsernameAllowed", computed=True),
        flag("resetPasswordAllowed", computed=True),
        flag("rememberMe", computed=True),
        flag("verifyEmail", computed=True),
        flag("loginWithEmailAllowed", computed=True),
        flag("duplicateEmailsAllowed", computed=True),
        text("sslRequired", default="external", one_of=("none", "external", "all")),
        text("loginTheme"),
        text("accountTheme"),
        text("adminTheme"),
        text("emailTheme"),
        text("defaultSignatureAlgorithm", computed=True),
        flag("revokeRefreshToken", default=False),
        Field(Property("refreshTokenMaxReuse", "integer", default=0), ("refreshTokenMaxReuse",)),
        lifespan("ssoSessionIdleTimeout"),
        lifespan("ssoSessionMaxLifespan"),
        lifespan("ssoSessionIdleTimeoutRememberMe"),
        lifespan("ssoSessionMaxLifespanRememberMe"),
        lifespan("offlineSessionIdleTimeout"),
        lifespan("offlineSessionMaxLifespan"),
        flag("offlineSessionMaxLifespanEnabled", default=False),
        lifespan("clientSessionIdleTimeout"),
        lifespan("clientSessionMaxLifespan"),
        lifespan("accessTokenLifespan"),
        lifespan("accessTokenLifespanForImplicitFlow"),
        lifespan("accessCodeLifespan"),
        lifespan("accessCodeLifespanLogin"),
        lifespan("accessCodeLifespanUserAction"),
        lifespan("actionTokenGeneratedByUserLifespan"),
        lifespan("actionTokenGeneratedByAdminLifespan"),
        text("passwordPolicy"),
    )

    def validate(self, inputs: Mapping[str, Any]) -> Iterable[Failure]:
        for field in self.fields:
            p = field.property
            value = inputs.get(p.name)
            if p.same is not same_duration or value is None or value is UNKNOWN:
                continue
            try:
                seconds(value)
            except ValueError:
                reason = f'{self.type}: {p.name} is "{value}"; a duration such as 1h30m is required'
                yield Failure(p.name, reason)

    def path(self, id: str, place: Mapping[str, Any]) -> str:
        return at("realms", id)

    def make(self, inputs: Mapping[str, Any], body: dict[str, Any], call: Call) -> str:
        body.setdefault("id", inputs["realm"])
        self.admin.post("/realms", body)
        # A token says which realms it may manage, and this one is new.
        self.admin.log_in_again()
        return str(inputs["realm"])

    def find(self, inputs: Mapping[str, Any]) -> dict[str, Any] | None:
        try:
            return dict(self.admin.get(at("realms", inputs["realm"])))
        except NotFoundError:
            return None

    def id_of(self, found: Mapping[str, Any]) -> str:
        return str(found["realm"])

    def import_place(self, id: str) -> tuple[str, dict[str, Any]]:
        return id, {}


ACCESS_TYPES = {
    "CONFIDENTIAL": {"publicClient": False, "bearerOnly": False},
    "PUBLIC": {"publicClient": True, "bearerOnly": False},
    "BEARER-ONLY": {"publicClient": False, "bearerOnly": True},
}


class Client(InRealm):
    type = "keycloak:openid/client:Client"
    label = "clientId"
    collection = "clients"
    own = (
        REALM_ID,
        IMPORT,
        Property("accessType", required=True, one_of=tuple(ACCESS_TYPES)),
        Property("serviceAccountUserId", output=True),
        Property("resourceServerId", output=True),
    )
    fields = (
        text("clientId", named=True),
        text("name", computed=True),
        flag("enabled", default=True),
        text("description", computed=True),
        text("clientSecret", "secret", computed=True, secret=True),
        text("clientAuthenticatorType", default="client-secret"),
        flag("standardFlowEnabled", computed=True),
        flag("implicitFlowEnabled", computed=True),
        flag("directAccessGrantsEnabled", computed=True),
        flag("serviceAccountsEnabled", computed=True),
        flag("frontchannelLogoutEnabled", "frontchannelLogout", computed=True),
        texts("validRedirectUris", "redirectUris", computed=True),
        texts("webOrigins", computed=True),
        Field(
            Property("validPostLogoutRedirectUris", "set", computed=True),
            ("attributes", "post.logout.redirect.uris"),
            "##".join,
            lambda joined: joined.split("##") if joined else [],
        ),
        text("rootUrl", computed=True),
        text("adminUrl", computed=True),
        text("baseUrl", computed=True),
        text("pkceCodeChallengeMethod", "attributes", "pkce.code.challenge.method",
             one_of=("", "plain", "S256")),
        text("accessTokenLifespan", "attributes", "access.token.lifespan", computed=True),
        text("clientSessionIdleTimeout", "attributes", "client.session.idle.timeout",
             computed=True),
        text("clientSessionMaxLifespan", "attributes", "client.session.max.lifespan",
             computed=True),
        text("loginTheme", "attributes", "login_theme", computed=True),
        text("frontchannelLogoutUrl", "attributes", "frontchannel.logout.url", computed=True),
        text("backchannelLogoutUrl", "attributes", "backchannel.logout.url", computed=True),
        attribute_flag("backchannelLogoutSessionRequired", "backchannel.logout.session.required",
                       default=True),
        attribute_flag("useRefreshTokens", "use.refresh.tokens", default=True),
        attribute_flag("useRefreshTokensClientCredentials",
                       "client_credentials.use_refresh_token", default=False),
        attribute_flag("oauth2DeviceAuthorizationGrantEnabled",
                       "oauth2.device.authorization.grant.enabled", default=False),
        attribute_flag("standardTokenExchangeEnabled", "standard.token.exchange.enabled",
                       default=False),
        flag("fullScopeAllowed", default=True),
        flag("consentRequired", computed=True),
        flag("alwaysDisplayInConsole", default=False),
    )  # fmt: skip

    def validate(self, inputs: Mapping[str, Any]) -> Iterable[Failure]:
        public = inputs["accessType"] == "PUBLIC"
        if public and inputs.get("serviceAccountsEnabled") is True:
            yield Failure(
                "serviceAccountsEnabled",
                f"{self.type}: a PUBLIC client has no service account; use CONFIDENTIAL",
            )
        redirects = inputs.get("standardFlowEnabled") is True
        if redirects and not inputs.get("validRedirectUris"):
            yield Failure(
                "validRedirectUris",
                f"{self.type}: standardFlowEnabled needs at least one entry in validRedirectUris",
            )

    def body(self, inputs: Mapping[str, Any], urn: str, base: dict[str, Any]) -> dict[str, Any]:
        if not base:
            # What the program leaves out is off, as with the official plug-in; Keycloak's own
            # default for a new client has the standard flow on.
            base = {f.place[0]: False for f in self.fields
                    if f.property.type == "boolean" and len(f.place) == 1}  # fmt: skip
            base["protocol"] = "openid-connect"
        base |= ACCESS_TYPES[inputs["accessType"]]
        return super().body(inputs, urn, base)

    def make(self, inputs: Mapping[str, Any], body: dict[str, Any], call: Call) -> str:
        return location_id(self.admin.post(at("realms", inputs["realmId"], "clients"), body))

    def find(self, inputs: Mapping[str, Any]) -> dict[str, Any] | None:
        clients = at("realms", inputs["realmId"], "clients")
        return next(iter(self.admin.get(clients, clientId=inputs["clientId"])), None)

    def state(self, found: Mapping[str, Any], known: Mapping[str, Any]) -> dict[str, Any]:
        state = super().state(found, known)
        state["accessType"] = next(
            name
            for name, flags in ACCESS_TYPES.items()
            if all(bool(found.get(key)) == value for key, value in flags.items())
        )
        state["serviceAccountUserId"] = ""
        if state["serviceAccountsEnabled"]:
            path = self.path(found["id"], known) + "/service-account-user"
            state["serviceAccountUserId"] = self.admin.get(path)["id"]
        state["resourceServerId"] = found["id"] if found.get("authorizationServicesEnabled") else ""
        return state


def mapper_flag(name: str, key: str, default: bool = True) -> Field:
    return Field(Property(name, "boolean", default=default), ("config", key), quoted, is_true)


class ProtocolMapper(KeycloakObject):
    """What puts something into a client's tokens; it belongs to a client or to a scope."""

    label = "name"
    own = (
        REALM_ID,
        Property("clientId", replace=True),
        Property("clientScopeId", replace=True),
    )
    mapper: str
    """Keycloak's own name for the kind."""

    def validate(self, inputs: Mapping[str, Any]) -> Iterable[Failure]:
        if ("clientId" in inputs) == ("clientScopeId" in inputs):
            yield Failure("clientId", f"{self.type}: give exactly one of clientId, clientScopeId")

    def models(self, place: Mapping[str, Any]) -> str:
        kind, owner = "clients", place.get("clientId")
        if owner is None:
            kind, owner = "client-scopes", place["clientScopeId"]
        return at("realms", place["realmId"], kind, owner, "protocol-mappers", "models")

    def path(self, id: str, place: Mapping[str, Any]) -> str:
        return self.models(place) + at(id)

    def body(self, inputs: Mapping[str, Any], urn: str, base: dict[str, Any]) -> dict[str, Any]:
        base |= {"protocol": "openid-connect", "protocolMapper": self.mapper}
        return super().body(inputs, urn, base)

    def mark(self, body: dict[str, Any], urn: str) -> None:
        body["config"][MARK] = urn

    def marked(self, found: Mapping[str, Any], inputs: Mapping[str, Any], urn: str) -> bool:
        return bool(found.get("config", {}).get(MARK) == urn)

    def make(self, inputs: Mapping[str, Any], body: dict[str, Any], call: Call) -> str:
        return location_id(self.admin.post(self.models(inputs), body))

    def find(self, inputs: Mapping[str, Any]) -> dict[str, Any] | None:
        mappers = self.admin.get(self.models(inputs))
        return next((m for m in mappers if m["name"] == inputs["name"]), None)

    def import_place(self, id: str) -> tuple[str, dict[str, Any]]:
        shape = "<realm>/client/<client id>/<id> or <realm>/client-scope/<scope id>/<id>"
        parts = id.split("/")
        owners = {"client": "clientId", "client-scope": "clientScopeId"}
        if len(parts) != 4 or parts[1] not in owners:
            raise PluginError(f'{self.type}: "{id}" cannot be imported; give {shape}')
        return parts[3], {"realmId": parts[0], owners[parts[1]]: parts[2]}

    def import_id(self, id: str, inputs: Mapping[str, Any]) -> str:
        if "clientId" in inputs:
            return f"{inputs['realmId']}/client/{inputs['clientId']}/{id}"
        return f"{inputs['realmId']}/client-scope/{inputs['clientScopeId']}/{id}"


class GroupMembershipProtocolMapper(ProtocolMapper):
    type = "keycloak:openid/groupMembershipProtocolMapper:GroupMembershipProtocolMapper"
    mapper = "oidc-group-membership-mapper"
    fields = (
        text("name", named=True, replace=True),
        text("claimName", "config", "claim.name", required=True),
        mapper_flag("fullPath", "full.path"),
        mapper_flag("addToIdToken", "id.token.claim"),
        mapper_flag("addToAccessToken", "access.token.claim"),
        mapper_flag("addToUserinfo", "userinfo.token.claim"),
        mapper_flag("addToTokenIntrospection", "introspection.token.claim", default=False),
    )


class AudienceProtocolMapper(ProtocolMapper):
    type = "keycloak:openid/audienceProtocolMapper:AudienceProtocolMapper"
    mapper = "oidc-audience-mapper"
    fields = (
        text("name", named=True, replace=True),
        text("includedClientAudience", "config", "included.client.audience"),
        text("includedCustomAudience", "config", "included.custom.audience"),
        mapper_flag("addToIdToken", "id.token.claim"),
        mapper_flag("addToAccessToken", "access.token.claim"),
        mapper_flag("addToTokenIntrospection", "introspection.token.claim"),
    )

    def validate(self, inputs: Mapping[str, Any]) -> Iterable[Failure]:
        yield from super().validate(inputs)
        if ("includedClientAudience" in inputs) == ("includedCustomAudience" in inputs):
            yield Failure(
                "includedClientAudience",
                f"{self.type}: give exactly one of includedClientAudience, includedCustomAudience",
            )


def many(values: Mapping[str, str]) -> dict[str, list[str]]:
    """Attributes as Keycloak has them: `##` stands between the values of one key."""
    return {key: value.split("##") for key, value in values.items()}


def joined(values: Mapping[str, list[str]]) -> dict[str, str]:
    return {key: "##".join(value) for key, value in values.items() if key != MARK}


ATTRIBUTES = Field(Property("attributes", "map"), ("attributes",), many, joined)


class Group(InRealm):
    type = "keycloak:index/group:Group"
    label = "name"
    collection = "groups"
    own = (REALM_ID, Property("parentId", replace=True))
    fields = (
        text("name", named=True),
        text("description", computed=True),
        ATTRIBUTES,
        text("path", output=True),
    )

    def mark(self, body: dict[str, Any], urn: str) -> None:
        body.setdefault("attributes", {})[MARK] = [urn]

    def make(self, inputs: Mapping[str, Any], body: dict[str, Any], call: Call) -> str:
        return location_id(self.admin.post(self.siblings(inputs), body))

    def siblings(self, inputs: Mapping[str, Any]) -> str:
        groups = at("realms", inputs["realmId"], "groups")
        return groups + at(inputs["parentId"], "children") if "parentId" in inputs else groups

    def find(self, inputs: Mapping[str, Any]) -> dict[str, Any] | None:
        query = {"search": inputs["name"], "exact": "true", "briefRepresentation": "false"}
        found = self.admin.get(self.siblings(inputs), **query)
        return next((g for g in found if g["name"] == inputs["name"]), None)

    def state(self, found: Mapping[str, Any], known: Mapping[str, Any]) -> dict[str, Any]:
        parent = {"parentId": found["parentId"]} if found.get("parentId") else {}
        return super().state(found, known) | parent


class User(InRealm):
    type = "keycloak:index/user:User"
    label = "username"
    collection = "users"
    own = (REALM_ID, IMPORT, Property("initialPassword", "object", initial=True, secret=True))
    fields = (
        text("username", required=True, replace=True),
        text("email"),
        flag("emailVerified", default=False),
        text("firstName"),
        text("lastName"),
        flag("enabled", default=True),
        texts("requiredActions"),
    )

    def validate(self, inputs: Mapping[str, Any]) -> Iterable[Failure]:
        name = inputs["username"]
        if name is not UNKNOWN and name != name.lower():
            yield Failure("username", f'{self.type}: username is "{name}"; use lower case')
        password = inputs.get("initialPassword", {})
        if password is UNKNOWN or not password:
            return
        if not isinstance(password, dict) or not {"value"} <= set(password) <= {
            "value", "temporary",
        }:  # fmt: skip
            yield Failure(
                "initialPassword", f"{self.type}: initialPassword needs value, may have temporary"
            )

    def derived_id(self, inputs: Mapping[str, Any], urn: str) -> str:
        """A user takes no attributes beyond the realm's profile, so its id is the mark."""
        return str(
            uuid.uuid5(uuid.NAMESPACE_URL, f"{urn} {inputs['realmId']} {inputs['username']}")
        )

    def mark(self, body: dict[str, Any], urn: str) -> None:
        pass

    def marked(self, found: Mapping[str, Any], inputs: Mapping[str, Any], urn: str) -> bool:
        return bool(found["id"] == self.derived_id(inputs, urn))

    def make(self, inputs: Mapping[str, Any], body: dict[str, Any], call: Call) -> str:
        """One request for user and password, and the only one that takes an id: partial import."""
        body["id"] = self.derived_id(inputs, call.urn)
        if credential := self.credential(inputs):
            body["credentials"] = [credential]
        self.admin.post(
            at("realms", inputs["realmId"], "partialImport"),
            {"ifResourceExists": "FAIL", "users": [body]},
        )
        return str(body["id"])

    @staticmethod
    def credential(inputs: Mapping[str, Any]) -> dict[str, Any] | None:
        password = inputs.get("initialPassword")
        if not password:
            return None
        temporary = bool(password.get("temporary", False))
        return {"type": "password", "value": password["value"], "temporary": temporary}

    def find(self, inputs: Mapping[str, Any]) -> dict[str, Any] | None:
        users = at("realms", inputs["realmId"], "users")
        return next(iter(self.admin.get(users, username=inputs["username"], exact="true")), None)

    def adopt(self, found: dict[str, Any], inputs: dict[str, Any], call: Call) -> Made:
        made = super().adopt(found, inputs, call)
        if not inputs.get("import") and (credential := self.credential(inputs)):
            self.admin.put(self.path(made.id, inputs) + "/reset-password", credential)
        return made


class Role(InRealm):
    type = "keycloak:index/role:Role"
    label = "name"
    collection = "roles-by-id"
    own = (
        REALM_ID,
        IMPORT,
        Property("clientId", replace=True),
        Property("compositeRoles", "set", computed=True),
    )
    fields = (
        text("name", named=True),
        text("description", computed=True),
        Field(Property("attributes", "map", computed=True), ("attributes",), many, joined),
    )

    def mark(self, body: dict[str, Any], urn: str) -> None:
        body.setdefault("attributes", {})[MARK] = [urn]

    def named(self, inputs: Mapping[str, Any]) -> str:
        realm = at("realms", inputs["realmId"])
        if "clientId" in inputs:
            realm += at("clients", inputs["clientId"])
        return realm + "/roles"

    def make(self, inputs: Mapping[str, Any], body: dict[str, Any], call: Call) -> str:
        self.admin.post(self.named(inputs), body)
        id = str(self.admin.get(self.named(inputs) + at(inputs["name"]))["id"])
        self.compose(id, inputs)
        return id

    def find(self, inputs: Mapping[str, Any]) -> dict[str, Any] | None:
        try:
            return dict(self.admin.get(self.named(inputs) + at(inputs["name"])))
        except NotFoundError:
            return None

    def update(
        self, id: str, state: dict[str, Any], inputs: dict[str, Any], call: Call
    ) -> dict[str, Any]:
        self.compose(id, inputs)
        return super().update(id, state, inputs, call)

    def compose(self, id: str, inputs: Mapping[str, Any]) -> None:
        if "compositeRoles" not in inputs:
            return
        composites = self.path(id, inputs) + "/composites"
        now, wanted = {r["id"] for r in self.admin.get(composites)}, set(inputs["compositeRoles"])
        if now - wanted:
            self.admin.delete(composites, [{"id": role} for role in now - wanted])
        if wanted - now:
            self.admin.post(composites, [{"id": role} for role in wanted - now])

    def state(self, found: Mapping[str, Any], known: Mapping[str, Any]) -> dict[str, Any]:
        state = super().state(found, known)
        roles = self.admin.get(self.path(found["id"], known) + "/composites")
        state["compositeRoles"] = sorted(role["id"] for role in roles)
        return state
