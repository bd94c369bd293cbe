"""Tokens by which a server and a run say to MLflow whose they are, and nothing else.

Each may do one thing: tell its owner's name. It belongs to MLflow's OAuth client, under which
nobody can make one for themselves, and is told from the client's other tokens, those of browsers,
by its note. A server's is revoked when the server has stopped, in whatever way; a run's by the
service that asked for it (`POST` and `DELETE /hub/api/mlhub/tokens`, scope
`custom:mlhub:admission`). What neither did is found within a minute (`Tokens.tend`), and each
expires by itself.
"""

import json
import re
from collections.abc import Mapping
from datetime import timedelta
from functools import cached_property
from typing import Any

import sqlalchemy as sa
from jupyterhub import orm  # type: ignore[import-untyped]
from jupyterhub.apihandlers.base import APIHandler  # type: ignore[import-untyped]
from jupyterhub.user import User  # type: ignore[import-untyped]
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from tornado import web

from mlhub.hub import audit
from mlhub.hub.api import RUN, SCOPE
from mlhub.hub.groups import workspace_roles
from mlhub.hub.refusal import Refusal
from mlhub.slugs import personal_workspace

CLIENT = "service-mlflow"
"""MLflow's OAuth client; the hub has it where the stack has an MLflow."""

OF_PEOPLE = "jupyterhub"
"""The Hub's own client: of tokens that people make, and of a server's for its owner (6.1.1,
`orm.APIToken`)."""

OF_SERVER = "MLflow, server "
OF_RUN = "MLflow, run "
OF_HUB = "Server at "
"""How JupyterHub begins the note of a server's own token, before the server's path, which begins
with the Hub's own and `user/` (6.1.1, `user.py`)."""

SERVER_SECONDS = 7 * 86400
"""How long a server's token lasts that nobody looks after; lengthened while the server runs."""
RENEW_SECONDS = 6 * 86400

LONGEST_RUN_SECONDS = 31 * 86400

EXPERIMENT = "mlflow_experiment"
"""User option: the experiment of runs that name none."""

NO_MLFLOW = "This hub has no MLflow."

_EXPERIMENT = re.compile(r"[^\x00-\x1f\x7f$]{1,200}")


def experiment(user_options: Mapping[str, Any]) -> str:
    """The experiment that was asked for, or nothing; raises Refusal (400).

    Without `$`, for Kubernetes puts other variables, tokens among them, into `$(NAME)`.
    """
    name = user_options.get(EXPERIMENT) or ""
    if name and not (isinstance(name, str) and name.strip() and _EXPERIMENT.fullmatch(name)):
        sentence = (
            f"{EXPERIMENT} is {name!r}, which is no name for an experiment; give 1 to 200 "
            "characters on one line, without $."
        )
        raise Refusal(sentence, reason="choice", status=400)
    return str(name)


class Tokens:
    """Every such token of one hub. `app` is its JupyterHub."""

    def __init__(self, app: Any):
        self._app = app

    @cached_property
    def wanted(self) -> bool:
        """Whether the stack has an MLflow, which does not change while the hub runs."""
        services = self._app._service_map.values()
        return any(s.oauth_available and s.oauth_client_id == CLIENT for s in services)

    def environment(self, spawner: Any) -> dict[str, str]:
        """What a server that starts gets, with a token of its own."""
        if not self.wanted:
            return {}
        given = {
            "MLFLOW_TRACKING_TOKEN": self._mint(
                spawner.user.orm_user, OF_SERVER + spawner.name, SERVER_SECONDS
            ),
            # Otherwise the page would say of every run that the container's user made it.
            "MLFLOW_RUN_CONTEXT": json.dumps({"mlflow.user": spawner.user.name}),
            # For links (notebooks.mlflow_plugin): without it MLflow's page shows workspaces alone.
            "MLHUB_MLFLOW_WORKSPACE": personal_workspace(spawner.user.name),
        }
        if name := experiment(spawner.user_options):
            given["MLFLOW_EXPERIMENT_NAME"] = name
        return given

    def for_run(self, owner: orm.User, run: str, seconds: int) -> str:
        """A run's token; an earlier one of the same run ends."""
        return self._mint(owner, OF_RUN + run, seconds)

    def _mint(self, owner: orm.User, note: str, seconds: int) -> str:
        self._revoke(orm.APIToken.user_id == owner.id, orm.APIToken.note == note)
        token: str = owner.new_api_token(
            client_id=CLIENT,
            scopes=[f"read:users:name!user={owner.name}"],
            note=note,
            expires_in=seconds,
        )
        return token

    def revoke_server(self, spawner: Any) -> None:
        self._revoke(
            orm.APIToken.user_id == spawner.user.orm_user.id,
            orm.APIToken.note == OF_SERVER + spawner.name,
        )

    def revoke_run(self, run: str) -> None:
        self._revoke(orm.APIToken.note == OF_RUN + run)

    def _revoke(self, *which: sa.ColumnElement[bool]) -> None:
        db = self._app.db
        for token in db.query(orm.APIToken).filter(orm.APIToken.client_id == CLIENT, *which):
            db.delete(token)
        db.commit()

    def minted(self, token: orm.APIToken | None) -> bool:
        """Whether it is one of these, which its owner cannot have made."""
        return bool(
            token and token.client_id == CLIENT and token.note.startswith((OF_SERVER, OF_RUN))
        )

    def tend(self) -> None:
        """Drop what has expired or lost its server, and lengthen the others.

        A server's token of the Hub's own, too, which never expires: the Hub revokes it when it
        stops a server, and not when it finds one gone as it starts.

        By the database alone, where a server is on record from before its token is made until it
        has stopped: also what a hub left behind that was killed in between.
        """
        db, now = self._app.db, orm.APIToken.now().replace(tzinfo=None)
        records = db.query(orm.Spawner).filter(orm.Spawner.server_id.is_not(None)).all()
        serving = {(record.user_id, OF_SERVER + record.name) for record in records}
        for token in db.query(orm.APIToken).filter_by(client_id=CLIENT):
            of_server = token.note.startswith(OF_SERVER)
            if (token.expires_at and token.expires_at < now) or (
                of_server and (token.user_id, token.note) not in serving
            ):
                db.delete(token)
            elif of_server and token.expires_at < now + timedelta(seconds=RENEW_SECONDS):
                token.expires_at = now + timedelta(seconds=SERVER_SECONDS)
        known = {(record.user_id, OF_HUB + record.server.base_url) for record in records}
        # A person may call theirs "Server at the office".
        of_hub = orm.APIToken.note.startswith(f"{OF_HUB}{self._app.base_url}user/", autoescape=True)
        for token in db.query(orm.APIToken).filter(of_hub):
            if (token.user_id, token.note) not in known:
                db.delete(token)
        db.commit()


class TokenAsk(BaseModel):
    """A run that wants to say whose it is."""

    model_config = ConfigDict(extra="forbid", strict=True)

    user: str = Field(min_length=1)
    run: str = Field(pattern=f"^{RUN}$")
    seconds: int = Field(gt=0, le=LONGEST_RUN_SECONDS, description="until it expires by itself")


class RunTokenHandler(APIHandler):  # type: ignore[misc]
    def initialize(self, tokens: Tokens) -> None:
        self._tokens = tokens

    def _require_scope(self) -> None:
        if not self.current_user:
            raise web.HTTPError(403, "Missing or invalid credentials.")
        if not self.has_scope(SCOPE):
            raise web.HTTPError(403, f"The scope {SCOPE} is required.")

    async def post(self) -> None:
        """`{"token": …}` for a run of somebody's; 404 without that person, or without MLflow."""
        self._require_scope()
        try:
            ask = TokenAsk.model_validate_json(self.request.body)
        except ValidationError as error:
            faults = [
                f"{'.'.join(map(str, fault['loc'])) or 'the body'}: {fault['msg']}"
                for fault in error.errors(include_url=False, include_input=False)
            ]
            raise web.HTTPError(400, "; ".join(faults)) from None
        owner = orm.User.find(self.db, ask.user)
        if owner is None:
            raise web.HTTPError(404, f"Nobody named {ask.user!r} has ever logged in at this hub.")
        if not self._tokens.wanted:
            raise web.HTTPError(404, NO_MLFLOW)
        token = self._tokens.for_run(owner, ask.run, ask.seconds)
        audit.note("run.token", ask.user, "given", what=ask.run)
        self.write(json.dumps({"token": token}))


class RunTokenRevokeHandler(RunTokenHandler):
    post = None  # type: ignore[assignment]

    async def delete(self, run: str) -> None:
        """204, also when there is none: a token that is not there is revoked."""
        self._require_scope()
        self._tokens.revoke_run(run)
        self.set_status(204)


class PersonHandler(APIHandler):  # type: ignore[misc]
    """Whose a token is, and what they are in workspaces; any token that they hold may ask.

    A token of this module's counts when its owner's Keycloak session is over, as long as nobody
    says that they have left: otherwise a long training could log no more after a day, and a
    nightly run never. Any other ends with the session, as everywhere in the hub.
    """

    def initialize(self, office: Any) -> None:
        self._office = office

    async def refresh_auth(self, user: User, force: bool = False) -> User | None:
        fresh = await super().refresh_auth(user, force)
        if fresh is None and self._office.tokens.minted(self.get_token()):
            return None if self._office.keeper.has_turned_out(user.name) else user
        return fresh

    async def get(self) -> None:
        user = self.current_user
        if user is None or isinstance(user, orm.Service):
            raise web.HTTPError(403, "A person's token is required.")
        token = self.get_token()
        # The Hub gives one of a visitor's to each server that they open, and so to its owner.
        if token is not None and token.client_id not in (CLIENT, OF_PEOPLE):
            raise web.HTTPError(403, "That token is for the use of another's server alone.")
        roles = workspace_roles(group.name for group in user.groups)
        self.write(json.dumps({"name": user.name, "admin": user.admin, "workspaces": roles}))


def handlers(office: Any) -> list[Any]:
    """Routes; `office` is the hub's `mlhub.hub.office.Office`."""
    return [
        (r"/api/mlhub/tokens", RunTokenHandler, {"tokens": office.tokens}),
        (rf"/api/mlhub/tokens/({RUN})", RunTokenRevokeHandler, {"tokens": office.tokens}),
        (r"/api/mlhub/person", PersonHandler, {"office": office}),
    ]
