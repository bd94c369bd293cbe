"""The hub's own API: one admission for what is started elsewhere, and who stopped a server.

`POST /hub/api/mlhub/admission` reserves a run's share, `DELETE …/admission/<reservation>` gives it
back, `GET …/runs/<run>` tells why the hub ended it, all with the scope `custom:mlhub:admission`;
`GET …/admission` tells people what remains to them.
"""

import asyncio
import json
import time
from typing import Annotated, Any, Literal, TypeVar

from jupyterhub.apihandlers.base import APIHandler  # type: ignore[import-untyped]
from jupyterhub.apihandlers.users import UserServerAPIHandler  # type: ignore[import-untyped]
from jupyterhub.user import User  # type: ignore[import-untyped]
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError
from tornado import web

from mlhub.admission import Ask, Size
from mlhub.admission.holdings import metadata
from mlhub.admission.limits import Memory
from mlhub.admission.sizes import quantity
from mlhub.hub import audit, metrics
from mlhub.hub.desk import Desk
from mlhub.hub.groups import hub_group_name, workspace_roles
from mlhub.hub.offers import Offers
from mlhub.hub.refusal import Refusal
from mlhub.slugs import is_slug
from mlhub.workspaces.mounts import ROLES, group_path

SCOPE = "custom:mlhub:admission"
MEMBERS_SCOPE = "custom:mlhub:members"

RUN = r"[a-z0-9](?:[-a-z0-9]{0,61}[a-z0-9])?"
"""The id of a run."""

Given = TypeVar("Given", bound=BaseModel)


def _slug(text: str) -> str:
    if not is_slug(text):
        raise ValueError("no slug of a workspace")
    return text


class RunAsk(BaseModel):
    """A run that wants to start, or go on."""

    model_config = ConfigDict(extra="forbid", strict=True)

    user: str = Field(min_length=1)
    run: str = Field(pattern=f"^{RUN}$")
    profile: str = Field(min_length=1, max_length=100, description="by its slug")
    cpu: float = Field(ge=0, allow_inf_nan=False)
    memory: Memory
    gpu: int = Field(default=0, ge=0)
    workspace: str | None = None
    seconds: float = Field(default=120, gt=0, le=3600, description="until the run's pod is there")
    reservation: str = Field(default="", pattern=r"^([0-9a-f]{16})?$")


class Member(BaseModel):
    """What somebody's role in a workspace has become; no role is a member no more."""

    model_config = ConfigDict(extra="forbid", strict=True)

    user: str = Field(min_length=1)
    workspace: Annotated[str, AfterValidator(_slug)]
    role: Literal["owner", "editor", "viewer"] | None


class AdmissionHandler(APIHandler):  # type: ignore[misc]
    def initialize(self, desk: Desk) -> None:
        self.desk = desk

    def _require_scope(self) -> None:
        if not self.current_user:
            raise web.HTTPError(403, "Missing or invalid credentials.")
        if not self.has_scope(SCOPE):
            raise web.HTTPError(403, f"The scope {SCOPE} is required.")

    async def _groups_now(self, given: RunAsk) -> list[str]:
        """The Hub groups of a run's owner, who may have neither server nor session: Keycloak is
        asked about them as about those who have. Raises HTTPError (403, 404, 503)."""
        user = self.find_user(given.user)
        if user is None:
            raise web.HTTPError(404, f"Nobody named {given.user!r} has ever logged in at this hub.")
        oldest = time.monotonic() - self.authenticator.auth_refresh_age
        hangs_on_a_group = given.workspace or self._offers.is_a_groups(given.profile)
        untold = hangs_on_a_group and not self.authenticator.has_told(user)
        if untold or self.authenticator.asked(user) < oldest:
            answered = await self.authenticator.ask_about(user)
            if hangs_on_a_group and not answered:
                raise web.HTTPError(503, f"Keycloak does not say what {user.name} may do now.")
        if self.authenticator.office.keeper.has_turned_out(user.name):
            raise web.HTTPError(403, f"{user.name} is no member of this hub any more.")
        return [group.name for group in user.groups]

    @property
    def _offers(self) -> Offers:
        offers: Offers = self.authenticator.office.offers
        return offers

    async def get(self) -> None:
        """What remains to whoever asks."""
        user = self.current_user
        if user is None or not hasattr(user, "groups"):
            raise web.HTTPError(403, "A person's token or session is required.")
        groups = [group.name for group in user.groups]
        charges = self.desk.charges(user.name, groups)
        answer = await self.desk.ask(Ask("", user.name, Size(), charges))
        self.write(json.dumps(answer.plain() | {"server": self.desk.quotas.server.amounts()}))

    async def post(self) -> None:
        """Reserve a run's share: 200, or 403 or 429 with a sentence why not in the body."""
        self._require_scope()
        given = parsed(RunAsk, self.request.body)
        groups = await self._groups_now(given)
        role = workspace_roles(groups).get(given.workspace or "", "")
        ask = Ask(
            f"{given.user}/run/{given.run}",
            given.user,
            Size(given.cpu, int(quantity(given.memory)), given.gpu),
            self.desk.charges(given.user, groups, given.workspace or ""),
            given.profile,
            again=False,
        )
        theirs = self._offers.theirs(groups)
        if given.profile not in theirs:
            self._refuse_profile(ask, theirs)
            return
        if given.workspace and not role:
            sentence = f"{given.user} is no member of workspace {given.workspace}."
            self.desk.note(ask, "run", sentence, metrics.MEMBER)
            raise web.HTTPError(403, sentence)
        try:
            answer = await self.desk.admit(
                ask, kind="run", seconds=given.seconds, reservation=given.reservation
            )
        except Refusal as refusal:
            raise web.HTTPError(refusal.status_code, str(refusal)) from None
        body = answer.plain()
        if answer.admitted:
            held = ask.held(answer.reservation)
            body |= {"pod": metadata(held, "run"), "expires_in": given.seconds, "role": role}
        self.set_status(answer.status)
        self.write(json.dumps(body))

    def _refuse_profile(self, ask: Ask, theirs: list[str]) -> None:
        """As the spawn form does, whoever asks: what counts are the groups of whose run it is."""
        sentence = (
            f"{ask.owner} may not use the profile {ask.profile!r}. "
            f"Theirs are: {', '.join(theirs) or 'none'}."
        )
        self.desk.note(ask, "run", sentence, metrics.CHOICE)
        self.set_status(403)
        body = {"admitted": False, "status": 403, "sentence": sentence, "profiles": theirs}
        self.write(json.dumps({"name": ask.name, **body}))


class ReservationHandler(AdmissionHandler):
    get = post = None  # type: ignore[assignment]

    async def delete(self, reservation: str) -> None:
        """Give a share back before its pod is there; 404 when there is nothing to give back."""
        self._require_scope()
        owner = self.desk.ledger.owner_of(reservation)
        if owner is None or not self.desk.ledger.release(reservation):
            raise web.HTTPError(404, "There is no such reservation; a pod that runs counts itself.")
        audit.note("run.release", owner, "released", what=reservation)
        self.set_status(204)


class RunHandler(AdmissionHandler):
    post = None  # type: ignore[assignment]

    async def get(self, run: str) -> None:  # type: ignore[override]
        """`{"why": …}`: why the hub ended a run, whose pod cannot say; empty where it did not."""
        self._require_scope()
        why = self.authenticator.office.keeper.why_it_ended(run)
        self.write(json.dumps({"why": why}))


class MembersHandler(APIHandler):  # type: ignore[misc]
    """`POST /hub/api/mlhub/members`: a change at Keycloak counts here at once, not in minutes.

    The person is asked about there with their own session. What is posted counts as well, for that
    session may be over while their server runs.
    """

    async def post(self) -> None:
        if not self.current_user or not self.has_scope(MEMBERS_SCOPE):
            raise web.HTTPError(403, f"The scope {MEMBERS_SCOPE} is required.")
        given = parsed(Member, self.request.body)
        user = self.find_user(given.user)
        if user is not None:
            await self.authenticator.ask_about(user)
            of = {role: hub_group_name(group_path(given.workspace, role)) for role in ROLES}
            others = {group.name for group in user.groups} - set(of.values())
            user.sync_groups(others | ({of[given.role]} if given.role else set()))
            self.authenticator.office.keeper.look_now()
        self.set_status(204)


def parsed(model: type[Given], body: bytes) -> Given:
    """The body of a request; raises HTTPError (400) with all that is wrong."""
    try:
        return model.model_validate_json(body)
    except ValidationError as error:
        faults = [
            f"{'.'.join(map(str, fault['loc'])) or 'the body'}: {fault['msg']}"
            for fault in error.errors(include_url=False)
        ]
        raise web.HTTPError(400, "; ".join(faults)) from None


class ServerHandler(UserServerAPIHandler):  # type: ignore[misc]
    """The Hub's own, and who stops a server is known to its spawner."""

    async def stop_single_user(self, user: User, server_name: str = "") -> asyncio.Future[None]:
        """Here the Hub knows that the asker may do it, and that nothing else is stopping it."""
        spawner = user.spawners[server_name]
        spawner.stopped_by = self.current_user.name
        stop: asyncio.Future[None] = await super().stop_single_user(user, server_name)

        def over(_: Any) -> None:
            # One that the proxy kept from stopping may yet end by itself.
            spawner.stopped_by = ""

        stop.add_done_callback(over)
        return stop


def handlers(desk: Desk) -> list[Any]:
    """Routes, before the Hub's own."""
    return [
        (r"/api/mlhub/admission", AdmissionHandler, {"desk": desk}),
        (r"/api/mlhub/admission/([0-9a-f]+)", ReservationHandler, {"desk": desk}),
        (rf"/api/mlhub/runs/({RUN})", RunHandler, {"desk": desk}),
        (r"/api/mlhub/members", MembersHandler),
        (r"/api/users/([^/]+)/server", ServerHandler),
        (r"/api/users/([^/]+)/servers/([^/]*)", ServerHandler),
    ]
