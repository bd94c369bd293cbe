"""The temporary person, made in Keycloak and removed again."""

import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http import HTTPStatus
from typing import Any
from urllib.parse import quote

import requests

from mlhub.verify.settings import TEMPORARY, Settings
from mlhub.verify.web import ask, session

OTHERS_SECONDS = 30 * 60
"""How young a person of that name is another verification's, and not what a killed one left."""

POLL_SECONDS = 2.0


class NotMade(Exception):  # noqa: N818 - a sentence for a person
    """The temporary person could not be made; says what to do. `status` is Keycloak's."""

    def __init__(self, sentence: str, status: int = 0):
        super().__init__(sentence)
        self.status = status


class Keycloak:
    """The admin REST API, as far as one person needs it."""

    def __init__(self, settings: Settings):
        self._settings = settings
        self._web = session(settings.via)
        self._log_in()

    def _log_in(self) -> None:
        s = self._settings
        url = f"{s.keycloak_url}/realms/{s.login_realm}/protocol/openid-connect/token"
        form = {"client_id": s.client_id, "grant_type": "client_credentials"}
        if s.client_secret:
            form["client_secret"] = s.client_secret
        if s.username is not None:
            form |= {"grant_type": "password", "username": s.username, "password": s.password or ""}
        answer = ask(self._web, "POST", url, data=form)
        if not answer.ok:
            raise NotMade(
                f"Keycloak refused the log-in of {s.username or s.client_id} with HTTP "
                f"{answer.status_code}; it needs an account that may manage the realm's users"
            )
        self._web.headers["Authorization"] = f"Bearer {answer.json()['access_token']}"

    def call(self, method: str, path: str, **given: Any) -> requests.Response:
        url = f"{self._settings.keycloak_url}/admin/realms/{self._settings.realm}{path}"
        answer = ask(self._web, method, url, **given)
        if answer.status_code == HTTPStatus.UNAUTHORIZED:
            # A token of a minute; a verification takes several.
            self._web.headers.pop("Authorization")
            self._log_in()
            answer = ask(self._web, method, url, **given)
        if not answer.ok:
            status = answer.status_code
            raise NotMade(f"Keycloak refused {method} {path} with HTTP {status}", status)
        return answer

    def found(self) -> dict[str, Any] | None:
        people = self.call("GET", "/users", params={"username": TEMPORARY, "exact": "true"}).json()
        return people[0] if people else None

    def await_turn(self, tell: Callable[[str], None]) -> None:
        """Waits until another verification is done; removes the person that a killed one left."""
        told = False
        while (person := self.found()) is not None:
            age = time.time() - person.get("createdTimestamp", 0) / 1000
            if age >= OTHERS_SECONDS:
                self._delete(person)
                return
            if not told:
                tell(
                    f"another verification of this realm began {age:.0f} s ago and is waited for; "
                    f"if it was killed, remove the user {TEMPORARY} in Keycloak"
                )
            told = True
            time.sleep(POLL_SECONDS)

    def make(self, body: dict[str, Any], tell: Callable[[str], None]) -> None:
        """When nobody else's is there; two that begin at once take turns all the same."""
        while True:
            self.await_turn(tell)
            try:
                self.call("POST", "/users", json=body)
            except NotMade as error:
                if error.status == HTTPStatus.CONFLICT and self.found() is not None:
                    continue
                raise
            return

    def remove(self, made: str, mark: str) -> None:
        """The person of the id `made` or the last name `mark`, and nobody else's of that name."""
        person = self.found()
        if person is not None and (person["id"] == made or person.get("lastName") == mark):
            self._delete(person)

    def _delete(self, person: dict[str, Any]) -> None:
        try:
            self.call("DELETE", f"/users/{person['id']}")
        except NotMade as error:
            if error.status != HTTPStatus.NOT_FOUND:
                raise


@contextmanager
def temporary(settings: Settings, tell: Callable[[str], None]) -> Iterator[str]:
    """The person's password, for as long as they exist."""
    keycloak = Keycloak(settings)
    password = secrets.token_urlsafe(24)
    mark = f"verify {secrets.token_hex(8)}"
    body = {
        "username": TEMPORARY,
        "firstName": "mlhub",
        "lastName": mark,
        "email": f"{TEMPORARY}@example.invalid",
        "emailVerified": True,
        "enabled": True,
        "credentials": [{"type": "password", "value": password, "temporary": False}],
    }
    made = ""
    try:
        # Within: whoever is ended here, or gets no answer, may have made the person.
        keycloak.make(body, tell)
        person = keycloak.found()
        if person is None:
            raise NotMade(f"Keycloak made the user {TEMPORARY} and does not find it")
        made = person["id"]
        for group in settings.groups:
            path = quote(group.lstrip("/"))
            found = keycloak.call("GET", f"/group-by-path/{path}").json()
            keycloak.call("PUT", f"/users/{person['id']}/groups/{found['id']}")
        yield password
    finally:
        keycloak.remove(made, mark)
