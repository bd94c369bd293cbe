"""Start, see, stop and restore notebook sessions: named servers of the Hub, by its REST API.

Every start is the spawner's own, so what the form refuses is refused here, in the same words. A
session's URL is a place in the browser, which logs in; it holds no token, for URLs are kept in
histories and written to logs.
"""

import re
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any
from urllib.parse import quote

from notebooks.connection import Connection
from notebooks.errors import NotebooksError, Refused, Unreachable
from notebooks.models import NotebookSession, NotebookStatus, ResourceConfig
from notebooks.sizes import smallest

Tell = Callable[[int, str], None]
"""Is told how far a start is, in percent, and what happens."""

START_SECONDS = 600
STOP_SECONDS = 120
AGAIN_SECONDS = 2
"""After a hub did not answer while a start is waited for."""


class NotStarted(NotebooksError):  # noqa: N818 -- named for what it is, as in `notebooks.errors`
    """A session that did not start, or not in time."""

    type = "not-started"


def _nobody(percent: int, message: str) -> None:
    """Tell nobody."""


class NotebookLauncher:
    """Sessions of one hub; without a connection, of the hub that `Connection.find()` finds."""

    def __init__(self, connection: Connection | None = None):
        self._connection = connection or Connection.find()

    def launch(
        self,
        *,
        user_email: str | None = None,
        workspace: str | None = None,
        resources: ResourceConfig | None = None,
        mlflow_experiment: str | None = None,
        git_repo: str | None = None,
        template: str | None = None,
        profile: str | None = None,
        wait: bool = True,
        timeout: float = START_SECONDS,
        tell: Tell = _nobody,
    ) -> NotebookSession:
        """A new session, running; with `wait=False` it may be starting yet.

        `user_email` is the caller's name or e-mail address, or for an admin anybody's name.
        `resources` is held by the smallest size that the hub offers; `timeout` is in seconds.
        Raises Refused with the hub's sentence, NoSize, NotStarted, Unreachable.
        """
        offers = self._offers(user_email)
        asked = {
            "workspace": workspace,
            "mlflow_experiment": mlflow_experiment,
            "git_repo": git_repo,
            "template": template,
        }
        options = smallest(offers["profiles"], resources or ResourceConfig(), profile)
        options |= {key: given for key, given in asked.items() if given}
        name = session_name(workspace or template or _repository(git_repo or "") or "notebook")
        user = str(offers["user"])
        try:
            self._start(user, name, options)
        except Refused:
            self._forget(user, name)
            raise
        return self._wait(f"{user}/{name}", timeout if wait else 0, tell)

    def list(self, user_email: str | None = None) -> tuple[NotebookSession, ...]:
        """Every session of a person's, running and stopped, by name."""
        user = self._offers(user_email)["user"] if user_email else self._connection.user
        path = f"{_user_path(user)}?include_stopped_servers=1"
        found = self._connection.request("GET", path).get("servers") or {}
        return tuple(
            self._session(user, found[name])
            for name in sorted(found)
            # A person who only logged in has a record of a server without a name.
            if found[name]["user_options"] or found[name]["last_activity"]
        )

    def get(self, session_id: str) -> NotebookSession:
        """Raises Refused (404) where there is none."""
        user, name = self._split(session_id)
        try:
            return self._session(user, self._connection.request("GET", _path(user, name)))
        except Refused as refusal:
            if refusal.status != 404:
                raise
            sentence = f"There is no session {user}/{name}; `sessions list` shows those there are."
            raise Refused(404, "no-session", sentence) from None

    def stop(
        self, session_id: str, *, forget: bool = False, timeout: float = STOP_SECONDS
    ) -> NotebookSession:
        """The session, stopped: its home stays, and it can be restored until it is forgotten.

        Raises NotStarted where it has not ended after `timeout` seconds.
        """
        session = self.get(session_id)
        user, name = session.user, session.name
        body = {"remove": True} if forget and name else None
        deadline = time.monotonic() + timeout
        self._connection.request("DELETE", _path(user, name), json=body, timeout=30)
        while True:
            try:
                session = self.get(session.session_id)
            except Refused as refusal:
                if refusal.status != 404:
                    raise
                return replace(
                    session, status=NotebookStatus.STOPPED
                )  # forgotten, or a default server, which has no record
            if session.status is NotebookStatus.STOPPED and not body:
                return session
            if time.monotonic() > deadline:
                raise NotStarted(
                    f"{session.session_id} is {session.status} after {timeout:g} s; it goes on "
                    "stopping."
                )
            time.sleep(1)

    def restore(
        self,
        session_id: str,
        *,
        wait: bool = True,
        timeout: float = START_SECONDS,
        tell: Tell = _nobody,
    ) -> NotebookSession:
        """A stopped session again, with the options that it was launched with.

        A session that runs is given as it is. Raises as `launch` does.
        """
        session = self.get(session_id)
        if session.status is NotebookStatus.STOPPED:
            self._start(session.user, session.name, session.options)
        elif session.status is NotebookStatus.RUNNING:
            return session
        return self._wait(session.session_id, timeout if wait else 0, tell)

    def _offers(self, user_email: str | None) -> Mapping[str, Any]:
        """What the hub offers to the caller, or to the person whom the caller names."""
        mine: dict[str, Any] = self._connection.request("GET", "/hub/api/mlhub/profiles")
        wanted = (user_email or "").casefold()
        if not wanted or wanted in (mine["user"].casefold(), mine["email"].casefold()):
            return mine
        theirs: dict[str, Any] = self._connection.request(
            "GET", "/hub/api/mlhub/profiles", params={"user": user_email}
        )
        return theirs

    def _start(self, user: str, name: str, options: Mapping[str, str]) -> None:
        self._connection.request(
            "POST", _path(user, name), json={"user_options": dict(options)}, timeout=60
        )

    def _forget(self, user: str, name: str) -> None:
        """Leave no record of a session that was refused; the hub forgets it soon itself."""
        try:
            self._connection.request("DELETE", _path(user, name), json={"remove": True})
        except NotebooksError:
            return

    def _wait(self, session_id: str, seconds: float, tell: Tell) -> NotebookSession:
        """The session once it runs; a hub that restarts meanwhile is waited for, too."""
        deadline = time.monotonic() + seconds
        while True:
            try:
                session = self.get(session_id)
                if not seconds or session.status is NotebookStatus.RUNNING:
                    return session
                self._follow(session, deadline - time.monotonic(), tell)
            except Unreachable:
                if time.monotonic() > deadline:
                    raise
                time.sleep(AGAIN_SECONDS)
                continue
            if time.monotonic() > deadline:
                raise NotStarted(
                    f"{session_id} is {session.status} after {seconds:g} s. `sessions list` shows "
                    "when it is ready, `sessions stop` gives it up."
                )

    def _follow(self, session: NotebookSession, seconds: float, tell: Tell) -> None:
        """Tell of a start until it has ended or the time is over; raises NotStarted."""
        path = f"{_path(session.user, session.name)}/progress"
        try:
            for event in self._connection.events(path, max(seconds, 1)):
                tell(int(event.get("progress") or 0), str(event.get("message") or ""))
                if event.get("failed"):
                    why = str(event["message"]).removeprefix("Spawn failed: ")
                    raise NotStarted(f"{session.session_id} did not start: {why}")
                if event.get("ready"):
                    return
        except Refused as refusal:  # nothing starts there any more
            why = refusal.sentence
            raise NotStarted(f"{session.session_id} did not start: {why}") from None

    def _split(self, session_id: str) -> tuple[str, str]:
        """User and name; a name alone is a session of the caller's, their own name the default."""
        user, slash, name = session_id.partition("/")
        if slash:
            return user, name
        return self._connection.user, "" if user == self._connection.user else user

    def _session(self, user: str, model: Mapping[str, Any]) -> NotebookSession:
        pending = {"spawn": NotebookStatus.STARTING, "stop": NotebookStatus.STOPPING}
        status = pending.get(model["pending"] or "")
        if status is None:
            status = NotebookStatus.RUNNING if model["ready"] else NotebookStatus.STOPPED
        return NotebookSession(
            session_id=f"{user}/{model['name']}",
            user=user,
            name=model["name"],
            status=status,
            notebook_url=f"{self._connection.hub_url}{model['url']}lab",
            options={key: str(value) for key, value in (model["user_options"] or {}).items()},
            started=_time(model["started"]),
            last_activity=_time(model["last_activity"]),
        )


def session_name(about: str) -> str:
    """A new name, readable, that the hub takes whatever `about` is.

    At most 30 characters, a letter first, no two hyphens together (JupyterHub 6.1, `slugs`).
    """
    readable = re.sub(r"[^a-z0-9]+", "-", about.lower()).strip("-") or "notebook"
    if not readable[0].isalpha():
        readable = f"notebook-{readable}"
    return f"{readable[:23].rstrip('-')}-{secrets.token_hex(3)}"


def _repository(url: str) -> str:
    """The last part of a repository's address."""
    return url.rstrip("/").rpartition("/")[2].removesuffix(".git")


def _user_path(user: str) -> str:
    return f"/hub/api/users/{quote(user, safe='')}"


def _path(user: str, name: str) -> str:
    return f"{_user_path(user)}/servers/{quote(name, safe='')}"


def _time(given: str | None) -> datetime | None:
    return datetime.fromisoformat(given) if given else None
