"""The way to a person's hub: from inside one of their servers, or from a laptop that is logged in.

In a server everything goes by the proxy's Service, which both charts name `proxy-public` and which
network policies let servers reach: `hub_url` may be an address that only browsers reach.
"""

import json
import os
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.client import responses
from pathlib import Path
from typing import Any, Self

import requests

from notebooks.errors import NotLoggedIn, Refused, Unreachable

OWN = "JUPYTERHUB_API_TOKEN"
"""A server's own token, in its environment and nowhere else."""

PUBLIC_URL = "MLHUB_URL"
"""In a server's environment: the hub as browsers reach it, without a slash at its end."""

INSIDE = "http://proxy-public"

NOBODY = ("", "Missing or invalid credentials.")
"""The Hub's words, with 403, for a token that it does not know, or no longer."""


def login_file(environ: Mapping[str, str] = os.environ) -> Path:
    """Where the log-in of a laptop is kept."""
    base = environ.get("XDG_CONFIG_HOME") or Path.home() / ".config"
    return Path(base) / "mlhub" / "login.json"


def in_a_server(environ: Mapping[str, str] = os.environ) -> bool:
    """Whether this is a notebook server of a hub's, whose home is its person's."""
    return bool(environ.get(OWN))


class _Bearer(requests.auth.AuthBase):
    """As `auth`, for a header alone would give way to an entry of ~/.netrc."""

    def __init__(self, token: str):
        self._token = token

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        request.headers["Authorization"] = f"Bearer {self._token}"
        return request


@dataclass(frozen=True)
class Connection:
    """A hub and who asks it; `reached_at` is `hub_url` where that is not given."""

    hub_url: str
    user: str
    token: str = field(repr=False)
    reached_at: str = ""

    @classmethod
    def find(cls, environ: Mapping[str, str] = os.environ) -> Self:
        """The server's own hub, else the one that the laptop is logged in to.

        Raises NotLoggedIn.
        """
        if token := environ.get(OWN):
            base = environ.get("JUPYTERHUB_BASE_URL", "/").rstrip("/")
            inside = INSIDE + base
            public = environ.get(PUBLIC_URL, inside)
            return cls(public, environ.get("JUPYTERHUB_USER", ""), token, inside)
        return cls.of_file(login_file(environ))

    @classmethod
    def of_file(cls, file: Path) -> Self:
        """The log-in that is kept in `file`; raises NotLoggedIn."""
        how = "Run `python -m notebooks.cli login --hub URL` with your hub's address."
        try:
            kept = json.loads(file.read_text(encoding="utf-8"))
            return cls(kept["hub_url"], kept["user"], kept["token"])
        except FileNotFoundError:
            raise NotLoggedIn(f"You are not logged in to a hub. {how}") from None
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise NotLoggedIn(f"{file} is no log-in ({type(error).__name__}). {how}") from None

    def request(
        self,
        method: str,
        path: str,
        json: Any = None,
        params: Mapping[str, Any] | None = None,
        timeout: float = 10,
        *,
        headers: Mapping[str, str] | None = None,
    ) -> Any:
        """The answer's JSON, or None where it has no body; `path` is under `hub_url`.

        Raises Refused or Unreachable; `timeout` is in seconds, for each silence of the other side.
        """
        with self._send(method, path, timeout, json=json, params=params, headers=headers) as answer:
            if not answer.content:
                return None
            try:
                return answer.json()
            except ValueError:
                raise self._no_hub() from None

    def lines(self, path: str, params: Mapping[str, Any] | None = None) -> Iterator[str]:
        """The lines of a text, as they come, however long one takes.

        Raises Refused or Unreachable.
        """
        with self._send("GET", path, (30, None), params=params, stream=True) as answer:
            try:
                for line in answer.iter_lines(chunk_size=None):
                    yield line.decode(errors="replace")
            except requests.RequestException as error:
                raise self._unreachable(error) from None

    def events(self, path: str, seconds: float) -> Iterator[dict[str, Any]]:
        """The events of an event stream, as JSON, for so long or until the other side ends it.

        The Hub speaks every eight seconds at least. Raises Refused or Unreachable.
        """
        deadline = time.monotonic() + seconds
        with self._send("GET", path, min(30, seconds), stream=True) as answer:
            try:
                for line in answer.iter_lines(chunk_size=1):
                    if time.monotonic() > deadline:
                        return
                    if line.startswith(b"data:"):
                        yield json.loads(line.removeprefix(b"data:"))
            except requests.RequestException as error:
                if time.monotonic() <= deadline:
                    raise self._unreachable(error) from None

    @contextmanager
    def _send(
        self, method: str, path: str, timeout: float | tuple[float, float | None], **how: Any
    ) -> Iterator[requests.Response]:
        if not path.startswith("/"):
            raise ValueError(f"{path!r} does not begin with a slash")
        url = f"{self.reached_at or self.hub_url}{path}"
        try:
            # A token goes nowhere but to the address that was given with it.
            answer = requests.request(
                method,
                url,
                auth=_Bearer(self.token),
                allow_redirects=False,
                timeout=timeout,
                **how,
            )
        except requests.exceptions.InvalidJSONError as error:  # nothing was sent
            raise ValueError(str(error)) from None
        except (requests.exceptions.InvalidHeader, UnicodeEncodeError):
            # Theirs would show a token.
            raise ValueError(
                "A token or key has signs that no HTTP header can have; letters, digits and "
                "hyphens are required."
            ) from None
        except requests.RequestException as error:
            raise self._unreachable(error) from None
        with answer:
            if answer.status_code >= 300:
                raise self._refused(answer)
            yield answer

    def _unreachable(self, error: Exception) -> Unreachable:
        if found := re.search(r"certificate verify failed: (.+?) \(_ssl", str(error)):
            return Unreachable(
                f"The certificate of the hub at {self.hub_url} is not trusted ({found[1]}). For "
                "an authority of your company's own, set REQUESTS_CA_BUNDLE to the file with its "
                "certificate (PEM)."
            )
        what = "took too long" if isinstance(error, requests.Timeout) else "does not answer"
        return Unreachable(
            f"The hub at {self.hub_url} {what} ({type(error).__name__}). "
            "Is the address right, and are you on the network that reaches it?"
        )

    def _no_hub(self) -> Unreachable:
        return Unreachable(f"What answers at {self.hub_url} is no hub of mlhub; check the address.")

    def _refused(self, answer: requests.Response) -> Refused | Unreachable:
        try:
            body = answer.json()
        except ValueError:
            body = None
        if not isinstance(body, dict):
            if answer.status_code == 404 or answer.is_redirect:
                return self._no_hub()
            if answer.status_code in (502, 503, 504):  # the proxy's, while the hub restarts
                return Unreachable(
                    f"The hub at {self.hub_url} is not there for the moment "
                    f"({answer.status_code}). Try again in a minute."
                )
            body = {}
        said = next((body[key] for key in ("sentence", "detail", "message") if body.get(key)), "")
        # The Hub says its word for programs where HTTP has the phrase of the status.
        phrase = answer.reason if answer.reason != responses.get(answer.status_code) else ""
        kind = str(body.get("type") or phrase or "refused")
        if answer.status_code == 403 and "message" in body and said in NOBODY:
            kind = "login"
            said = (
                f"The hub at {self.hub_url} does not know your log-in, or no longer. Log in to "
                "it in your browser and try again; from a laptop, where that does not help: "
                f"python -m notebooks.cli login --hub {self.hub_url}"
            )
        if not said:
            said = f"The hub at {self.hub_url} answers {answer.status_code} {answer.reason}."
        after = answer.headers.get("Retry-After", "")
        seconds = float(after) if after.isdecimal() else 0  # else it is a date, or nothing
        return Refused(answer.status_code, kind, str(said), seconds)
