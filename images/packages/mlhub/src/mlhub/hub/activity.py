"""What a server reports each minute, and what it is told in return.

Its activity, as JupyterHub's own servers report it; beside it, from our images, when a GPU of its
own last computed. The answer says how long the server may go on, which the lab shows its owner.
"""

import json
from datetime import UTC, datetime
from typing import Any

from jupyterhub.apihandlers.users import ActivityAPIHandler  # type: ignore[import-untyped]
from jupyterhub.user import User  # type: ignore[import-untyped]
from tornado import web

from mlhub.hub.endings import WARN_SECONDS
from mlhub.hub.keeper import Keeper

GPU_USED = "gpu_used"
"""Of a server in the report: when a GPU of its own last computed, in ISO 8601 with a zone."""


class ActivityHandler(ActivityAPIHandler):  # type: ignore[misc]
    """A server's report that a kernel is busy counts when its owner's session is over.

    Otherwise a night's training would be culled once the owner's Keycloak session had timed out.
    The report gives access to nothing. It refreshes the owner all the same, so that a removed
    member is noticed while no browser is open.
    """

    def initialize(self, keeper: Keeper) -> None:
        self._keeper = keeper

    async def refresh_auth(self, user: User, force: bool = False) -> User:
        await super().refresh_auth(user, force)
        return user

    def find_user(self, name: str) -> Any:  # as JupyterHub types it: a user, or None
        """Mostly whoever reports, who is known: a look-up of its own is a third of a report."""
        caller = self.current_user
        return (
            caller if isinstance(caller, User) and caller.name == name else super().find_user(name)
        )

    def post(self, user_name: str) -> None:
        super().post(user_name)
        user = self.find_user(user_name)
        ends = {}
        for name, report in (self.get_json_body().get("servers") or {}).items():
            if name not in user.spawners:
                continue
            if GPU_USED in report:
                user.spawners[name].gpu_used = _moment(report[GPU_USED])
            ending = self._keeper.ending(user, name)
            if ending and ending.seconds <= WARN_SECONDS:
                ends[name] = ending.plain()
        self.write(json.dumps({"ends": ends}))


def _moment(given: Any) -> datetime:
    """UTC without a zone, as the Hub's times, and not after now; raises a 400."""
    try:
        moment = datetime.fromisoformat(given).astimezone(UTC)
    except (TypeError, ValueError):
        said = f"{GPU_USED} is {given!r}; a time in ISO 8601 is required."
        raise web.HTTPError(400, said) from None
    return min(moment, datetime.now(UTC)).replace(tzinfo=None)
