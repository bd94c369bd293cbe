"""Log-in through Keycloak, and the membership that a session hangs on.

OAuthenticator asks for the groups at log-in alone: someone who is removed from a group keeps a
session that already runs (`refresh_user` never calls `check_allowed`). Here each refresh decides
anew. Four answers are told apart, for a session must end on two of them only:

- a member: the session goes on, with fresh groups;
- no longer a member: it ends, and the person's servers stop;
- the Keycloak session is over: it ends, too, and the browser logs in again; servers stop only if
  Keycloak, asked about the person, knows nobody who may use the hub;
- Keycloak does not answer: running servers stay usable, nothing new starts.
"""

import time
from collections.abc import Iterable
from typing import Any
from urllib.parse import urlencode

from jupyterhub.handlers import BaseHandler  # type: ignore[import-untyped]
from jupyterhub.user import User  # type: ignore[import-untyped]
from oauthenticator.generic import GenericOAuthenticator  # type: ignore[import-untyped]
from oauthenticator.oauth2 import (  # type: ignore[import-untyped]
    OAuthCallbackHandler,
    OAuthLoginHandler,
    OAuthLogoutHandler,
)
from tornado import web
from tornado.httpclient import HTTPClientError
from traitlets import Instance, Unicode

from mlhub.hub import api, audit, metrics, people, tokens
from mlhub.hub.activity import ActivityHandler
from mlhub.hub.groups import hub_group_name
from mlhub.hub.membership import Membership
from mlhub.hub.office import Office
from mlhub.hub.refusal import Refusal
from mlhub.hub.settings import Settings
from mlhub.hub.unreached import UnreachedHandler

SILENT = (
    "Keycloak, which knows who may use this hub, does not answer: nobody can log in or start a "
    "server for the moment. Servers that run stay usable. Try again in a minute; if it lasts, "
    "tell your administrator."
)


# JupyterHub 6.1.1 reads it wherever a refresh fails and sets it for API tokens alone.
BaseHandler._token_authenticated = getattr(BaseHandler, "_token_authenticated", False)


class KeycloakSilent(web.HTTPError):
    """Keycloak cannot be reached, or answers with a fault of its own."""

    def __init__(self, detail: str):
        super().__init__(503, SILENT)
        self.detail = detail


class BadGroupsClaim(web.HTTPError):
    """The groups claim has a shape from which nobody's membership can be read."""

    def __init__(self, claim: str, given: object):
        super().__init__(
            403,
            f"Keycloak sent the claim {claim!r} as {type(given).__name__}; a list of full group "
            "paths is required. The client's group-membership mapper needs Multivalued and Full "
            "group path on.",
        )


class LoginHandler(OAuthLoginHandler):  # type: ignore[misc]
    """To Keycloak's log-in page, if there is one to go to."""

    async def get(self) -> None:
        await self.authenticator.knock()
        super().get()


class CallbackHandler(OAuthCallbackHandler):  # type: ignore[misc]
    """Back from Keycloak; whoever is turned away can log in as somebody else."""

    async def get(self) -> None:
        self.extra_error_html = (
            f'<a href="{self.authenticator.end_session()}">Log in with another account</a>'
        )
        await super().get()


class LogoutHandler(OAuthLogoutHandler):  # type: ignore[misc]
    """Ends the Keycloak session with the Hub's, so that the next person has to log in."""

    _id_token: str | None = None

    async def handle_logout(self) -> None:
        await super().handle_logout()
        if self.current_user:
            audit.note("logout", self.current_user.name, "done")
            state = await self.current_user.get_auth_state() or {}
            self._id_token = state.get("id_token")

    async def render_logout_page(self) -> None:
        if self._id_token:
            self.redirect(self.authenticator.end_session(self._id_token))
        else:
            self.redirect(self.settings["login_url"])


class KeycloakAuthenticator(GenericOAuthenticator):  # type: ignore[misc]
    """A Keycloak realm decides who may log in and who is an admin, by group, and nothing else."""

    login_handler = LoginHandler
    callback_handler = CallbackHandler
    logout_handler = LogoutHandler

    mlhub = Instance(Settings, config=True, help="custom.mlhub of the chart's values")
    office: Office

    groups_claim = Unicode("groups", config=True, help="claim that holds the full group paths")
    discovery_url = Unicode(config=True, help="the realm's discovery document")
    end_session_url = Unicode(config=True, help="the realm's log-out endpoint, for the browser")
    after_logout_url = Unicode(config=True, help="where Keycloak sends people after log-out")

    def __init__(self, **kwargs: Any):
        super().__init__(**kwargs)
        self._unconfirmed: set[str] = set()
        """Who could not be asked about since they were last known to be members."""
        self._asked: dict[str, float] = {}
        """When those were asked about last whose session is over (monotonic seconds)."""
        self._over: dict[str, str] = {}
        """The refresh token of whose Keycloak session is over; a new log-in brings another."""
        self._membership = Membership(self.mlhub.identity, self.httpfetch, self.log)

    def get_handlers(self, app: Any) -> list[Any]:
        # The one call that the Hub makes when its database and users are there and it serves
        # nobody yet.
        self.office = Office(app, self.mlhub)
        self.office.start()
        return [
            *super().get_handlers(app),
            (r"/error/(\d+)", UnreachedHandler),
            (r"/api/users/([^/]+)/activity", ActivityHandler, {"keeper": self.office.keeper}),
            *api.handlers(self.office.desk),
            *tokens.handlers(self.office),
            *people.handlers(self.office),
        ]

    def end_session(self, id_token: str | None = None) -> str:
        """Where a browser ends its Keycloak session; with the id token it is not asked again."""
        query = {"client_id": self.client_id, "post_logout_redirect_uri": self.after_logout_url}
        if id_token:
            query["id_token_hint"] = id_token
        return f"{self.end_session_url}?{urlencode(query)}"

    async def knock(self) -> None:
        """Return if the realm answers; raises KeycloakSilent."""
        try:
            await self.httpfetch(self.discovery_url, "looking for the realm")
        except HTTPClientError as error:
            raise KeycloakSilent(f"{self.discovery_url}: {error}") from error

    async def fetch(self, req: Any, label: str = "fetching", **kwargs: Any) -> Any:
        """One request to Keycloak; a 4xx is its answer, anything else that fails is silence."""
        try:
            return await super().fetch(req, label, **kwargs)
        except HTTPClientError as error:
            if error.code < 500:
                raise
            silence = KeycloakSilent(f"{label}: {error}")
        except OSError as error:
            silence = KeycloakSilent(f"{label}: {error}")
        self.log.error("Keycloak does not answer: %s", silence.detail)
        raise silence

    async def update_auth_model(self, auth_model: dict[str, Any]) -> dict[str, Any]:
        # Not None, which would leave an admin of yesterday one for ever.
        auth_model["admin"] = False
        return auth_model

    async def get_user_groups(self, auth_state: dict[str, Any]) -> set[str]:
        """Hub group names of the user; raises BadGroupsClaim.

        Keycloak leaves the claim out for someone in no group at all.
        """
        claim = auth_state[self.user_auth_state_key].get(self.groups_claim, [])
        if not isinstance(claim, list) or not all(isinstance(path, str) for path in claim):
            raise BadGroupsClaim(self.groups_claim, claim)
        return {hub_group_name(path) for path in claim}

    async def get_authenticated_user(self, handler: Any, data: Any) -> dict[str, Any] | None:
        try:
            model: dict[str, Any] | None = await super().get_authenticated_user(handler, data)
        except BadGroupsClaim as error:
            audit.note("login", "", "refused", why=str(error.log_message))
            raise
        if model:
            self.office.keeper.let_in(model["name"])
            audit.note("login", model["name"], "admitted", admin=bool(model["admin"]))
        return model

    async def check_allowed(self, username: str, auth_model: dict[str, Any]) -> bool:
        allowed = self._is_member(auth_model)
        if not allowed:
            audit.note("login", username, "refused", why="no member of a group that may log in")
        return allowed

    def _is_member(self, auth_model: dict[str, Any]) -> bool:
        return not self.allowed_groups.isdisjoint(auth_model["groups"])

    async def refresh_user(
        self, user: User, handler: web.RequestHandler | None = None, **kwargs: Any
    ) -> dict[str, Any] | bool:
        auth_state = await user.get_auth_state() or {}
        refresh_token = auth_state.get("refresh_token")
        if not refresh_token or self._over.get(user.name) == refresh_token:
            return False
        try:
            auth_model = await self._ask_again(refresh_token, handler)
            ended = self._why_it_ends(user.name, auth_model)
        except KeycloakSilent:
            self._unconfirmed.add(user.name)
            return True
        except BadGroupsClaim as error:
            auth_model, ended = None, str(error.log_message)
        self._unconfirmed.discard(user.name)
        if ended:
            self.log.warning("The session of %s ends: %s", user.name, ended)
            audit.note("session", user.name, "ended", why=ended)
        if auth_model is None:
            # It may only have been too long.
            self._over[user.name] = refresh_token
            await self._look_up(user, auth_state)
        elif ended:
            self.office.keeper.turn_out(user.name, ended)
        return auth_model if auth_model and not ended else False

    async def ask_about(self, user: User) -> bool:
        """Refresh somebody without a request of theirs; False when Keycloak does not answer."""
        model = await self.refresh_user(user)
        if model is False:
            self._asked[user.name] = time.monotonic()
            await self._look_up(user, await user.get_auth_state() or {})
        else:
            # Only a session that goes on makes a person's own tokens good for another while.
            user._auth_refreshed = time.monotonic()
        if isinstance(model, dict):
            user.admin = model["admin"]
            user.sync_groups(model["groups"])
            await user.save_auth_state(model["auth_state"])
        return self.has_told(user)

    def has_told(self, user: User) -> bool:
        """Whether Keycloak answered when it was last asked about somebody."""
        return user.name not in self._unconfirmed

    def asked(self, user: User) -> float:
        """When Keycloak was last asked about somebody, whatever it said (monotonic seconds)."""
        return max(user._auth_refreshed or 0.0, self._asked.get(user.name, 0.0))

    async def workspace_names(self, slugs: Iterable[str]) -> dict[str, str]:
        """What people call these workspaces, by slug."""
        return await self._membership.workspace_names([*slugs])

    async def _look_up(self, user: User, auth_state: dict[str, Any]) -> None:
        """Somebody whose session cannot tell: stop their servers if they are gone, and let their
        roles be those that they have now."""
        claims = auth_state.get(self.user_auth_state_key) or {}
        found = await self._membership.look_up(user.name, claims.get("sub", ""))
        if found.silent:
            self._unconfirmed.add(user.name)
        elif found.why_not:
            self._unconfirmed.discard(user.name)
            self.office.keeper.turn_out(user.name, found.why_not)
        elif found.groups is not None:
            self._unconfirmed.discard(user.name)
            user.admin = not self.admin_groups.isdisjoint(found.groups)
            user.sync_groups(found.groups)
            user.db.commit()
            self.office.keeper.look_now()

    def _why_it_ends(self, name: str, auth_model: dict[str, Any] | None) -> str | None:
        if auth_model is None:
            return "the one at Keycloak is over"
        if auth_model["name"] != name:
            return f"the account has become {auth_model['name']} at Keycloak"
        if not self._is_member(auth_model):
            return "no longer a member of a group that may use this hub"
        return None

    async def _ask_again(
        self, refresh_token: str, handler: web.RequestHandler | None
    ) -> dict[str, Any] | None:
        """The user as Keycloak knows them now, or None when their session there is over.

        The refresh token is traded in each time: unlike the access token it says whether the
        session lives, and an access token would mostly be too old anyway.
        """
        try:
            token_info = await self.get_token_info(
                handler, self.build_refresh_token_request_params(refresh_token)
            )
            model: dict[str, Any] = await self._token_to_auth_model(
                {"refresh_token": refresh_token, **token_info}
            )
        except HTTPClientError:
            return None
        return model

    async def pre_spawn_start(self, user: User, spawner: Any) -> None:
        if user.name in self._unconfirmed:
            refusal = Refusal(SILENT, reason="identity", status=503)
            spawner.note_refusal(refusal, metrics.KEYCLOAK)
            raise refusal


def hub_groups(paths: Iterable[str]) -> set[str]:
    """Hub group names for the paths of the settings."""
    return {hub_group_name(path) for path in paths}
