"""Who is behind a token: asked of the Hub, remembered for a while, and known to MLflow by then.

MLflow wants every person in its own database. They are made there at first sight, with a password
that nobody knows and a workspace of their own, and get nothing in the default one: whoever may make
something in a workspace sees all of its experiments and runs in searches (MLflow 3.17,
`_role_based_read_predicate`). What they are in their teams' workspaces comes with the answer.
"""

import hashlib
import logging
import secrets
import threading
import time

from cachetools import TTLCache
from mlflow.entities import Workspace
from mlflow.server.auth import store
from mlflow.server.auth.permissions import MANAGE
from mlflow.server.workspace_helpers import _get_workspace_store

from mlhub.mlflow import roles
from mlhub.mlflow.hub import Hub, HubSilentError, Person
from mlhub.mlflow.made import unless_there
from mlhub.slugs import personal_workspace

REMEMBERED_SECONDS = 10
"""How long an answer of the Hub counts, and so how long a revoked token or role still works."""

KEPT_SECONDS = 300
"""How long an answer counts while the Hub is silent, as while it restarts: a training that logs
would end. Nobody but the Hub revokes a token, and it is asked again before anything else."""

SILENT_SECONDS = 3
"""How long nobody asks a Hub that did not answer."""

log = logging.getLogger(__name__)


class People:
    def __init__(self, hub: Hub):
        self._hub = hub
        self._remembered: TTLCache[bytes, Person | None] = TTLCache(10_000, REMEMBERED_SECONDS)
        self._kept: TTLCache[bytes, Person] = TTLCache(10_000, KEPT_SECONDS)
        self._lock = threading.Lock()
        self._enrolling = threading.Lock()
        self._silent_until = 0.0

    def bearer(self, token: str) -> Person | None:
        """None for a token that is no person's. Raises HubSilentError where the Hub does not answer
        and has not told of the token of late.
        """
        key = hashlib.sha256(token.encode()).digest()
        with self._lock:
            if key in self._remembered:
                return self._remembered[key]
        try:
            person = self._ask(token)
        except HubSilentError:
            with self._lock:
                if (kept := self._kept.get(key)) is None:
                    raise
            return kept
        if person is not None:
            with self._enrolling:
                enrol(person)
        with self._lock:
            self._remembered[key] = person
            if person is None:
                self._kept.pop(key, None)
            else:
                self._kept[key] = person
        return person

    def _ask(self, token: str) -> Person | None:
        if time.monotonic() < self._silent_until:
            raise HubSilentError("it did not answer a moment ago")
        try:
            return self._hub.bearer(token)
        except HubSilentError as error:
            self._silent_until = time.monotonic() + SILENT_SECONDS
            log.error("The Hub does not answer: %s", error)
            raise


def enrol(person: Person) -> None:
    """Bring MLflow's record of a person in line with the Hub's."""
    if not store.has_user(person.name):
        with unless_there():
            store.create_user(person.name, secrets.token_urlsafe(32), is_admin=person.admin)
    user = store.get_user(person.name)
    if user.is_admin != person.admin:
        store.update_user(person.name, is_admin=person.admin)
    own = personal_workspace(person.name)
    if store.get_workspace_permission(own, person.name) is None:
        with unless_there():
            _get_workspace_store().create_workspace(Workspace(name=own, description=person.name))
        store.set_workspace_permission(own, person.name, MANAGE.name)
    roles.assign(user.id, own, person.workspaces)
