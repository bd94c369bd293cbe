"""What a person's own tools ask the hub beside its API: what is offered, and to end their log-in.

`GET /hub/api/mlhub/profiles` is the spawn form for programs; `?user=` names somebody for whom the
caller may start servers. `DELETE /hub/api/mlhub/login` revokes the very token that it bears: a
token need not be able to see or make others to be given up.
"""

import json
from collections.abc import Mapping
from typing import Any

from jupyterhub.apihandlers.base import APIHandler  # type: ignore[import-untyped]
from tornado import web

from mlhub.admission import Ask, Size
from mlhub.hub import audit
from mlhub.hub.offers import Profile, amounts
from mlhub.hub.office import Office
from mlhub.hub.refusal import Refusal


class ProfilesHandler(APIHandler):  # type: ignore[misc]
    def initialize(self, office: Office) -> None:
        self.office = office

    async def get(self) -> None:
        """Sizes are cores, bytes and GPUs; `fits` is the most that one more server may take now."""
        caller = self.current_user
        if caller is None:
            raise web.HTTPError(403)  # as the Hub does
        if not hasattr(caller, "groups"):
            raise web.HTTPError(403, "A person's token or session is required.")
        name = self.get_argument("user", caller.name)
        user = self.find_user(name) if self.has_scope(f"start:servers!user={name}") else None
        if user is None:
            raise web.HTTPError(*_nobody(name, own=name == caller.name))
        groups = [group.name for group in user.groups]
        nothing = Ask("", user.name, Size(), self.office.desk.charges(user.name, groups))
        try:
            state = await self.office.desk.ask(nothing)
        except Refusal as refusal:
            raise web.HTTPError(refusal.status_code, str(refusal)) from None
        offered = await self.office.offered_to(groups)
        self.write(
            json.dumps(
                {
                    "user": user.name,
                    "email": await self._email(user) if name == caller.name else "",
                    "profiles": [
                        plain(profile, self.office.offers.defaults) for profile in offered
                    ],
                    "sentence": state.sentence,
                    "fits": state.plain()["fits"],
                }
            )
        )

    async def _email(self, user: Any) -> str:
        """As Keycloak gave it, or nothing. The token's answer, which lies beside it, has none."""
        state = await user.get_auth_state() or {}
        claims = state.get(self.authenticator.user_auth_state_key) or {}
        return str(claims.get("email") or "")


def _nobody(name: str, *, own: bool) -> tuple[int, str]:
    """Status and sentence where the caller may start no servers, or there is no such person."""
    if own:
        return 403, "The scope start:servers is required."
    return 404, (
        f"Nobody named {name!r} for whom you may start servers has ever logged in; only "
        "administrators start servers for others."
    )


def plain(profile: Profile, defaults: Mapping[str, float]) -> dict[str, Any]:
    """A profile for JSON: its size, and what each choice changes of it."""
    return {
        "slug": profile["slug"],
        "name": profile["display_name"],
        "description": profile.get("description", ""),
        "default": bool(profile.get("default")),
        "size": {**defaults, **amounts(profile.get("kubespawner_override", {}))},
        "options": {
            key: {
                "name": option["display_name"],
                "choices": {
                    slug: {
                        "name": choice["display_name"],
                        "default": bool(choice.get("default")),
                        "size": amounts(choice["kubespawner_override"]),
                    }
                    for slug, choice in option["choices"].items()
                },
            }
            for key, option in profile.get("profile_options", {}).items()
        },
    }


class LoginHandler(APIHandler):  # type: ignore[misc]
    async def delete(self) -> None:
        """Revoke the token that the request bears."""
        token = self.get_token()
        if token is None or token.user is None or self.current_user is None:
            raise web.HTTPError(403)
        name = token.user.name
        self.db.delete(token)
        self.db.commit()
        audit.note("logout", name, "done", what="token")
        self.set_status(204)


def handlers(office: Office) -> list[Any]:
    return [
        (r"/api/mlhub/profiles", ProfilesHandler, {"office": office}),
        (r"/api/mlhub/login", LoginHandler),
    ]
