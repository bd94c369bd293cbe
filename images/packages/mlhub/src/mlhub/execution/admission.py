"""The one admission decision, asked before a Job is made.

It is made in the hub (`mlhub.admission`), which alone sees servers and runs together; here it is
asked over the Hub's API. A yes is a reservation, which the run's pod takes over by its labels.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import httpx

RESERVED_SECONDS = 120
"""From the decision to the pod; the Job controller makes it within seconds."""


NO_MEMBER, NOBODY = "is no member of", "has ever logged in at this hub"
"""The Hub's words (`mlhub.hub.api`)."""


class AdmissionSilentError(Exception):
    """Nobody decides for the moment."""


@dataclass(frozen=True)
class AdmissionRequest:
    """What a run would take: cores, bytes of memory, whole GPUs."""

    user: str
    run_id: str
    profile: str
    cpu: float
    memory: int
    gpu: int
    workspace: str | None = None


@dataclass(frozen=True)
class Decision:
    """`reason` is a sentence for the person, with what remains in `details`."""

    allowed: bool
    reason: str = ""
    status: int = 429
    """403 for what is never allowed, 429 for what has no room now."""
    kind: str = "quota"
    """A word for programs; `profile` where the profile is not for this person."""
    details: Mapping[str, Any] = field(default_factory=dict)
    reservation: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)
    """What the pod bears, so that it is counted for whom it is."""
    role: str = ""
    """The person's in the workspace that the run is for."""


class Admission(Protocol):
    """Asked under a lease for the person, so never twice at once for one."""

    async def decide(self, request: AdmissionRequest) -> Decision:
        """Raises AdmissionSilentError."""

    async def release(self, reservation: str) -> None:
        """The run's pod does not come; raises nothing, for the reservation ends by itself."""

    async def token(self, user: str, run_id: str, seconds: int) -> str | None:
        """A token by which the run says to MLflow whose it is; None where there is no MLflow.

        Raises AdmissionSilentError.
        """

    async def revoke(self, run_id: str) -> None:
        """End a run's token now; raises nothing, for it ends by itself."""

    async def why_ended(self, run_id: str) -> str:
        """Why who admitted the run has ended it, or nothing; raises nothing."""

    async def close(self) -> None: ...


class HubAdmission:
    """`/hub/api/mlhub/admission` and `…/tokens`, with the service's own Hub token."""

    def __init__(self, api_url: str, token: str):
        self._url = f"{api_url}/mlhub/admission"
        self._tokens = f"{api_url}/mlhub/tokens"
        self._runs = f"{api_url}/mlhub/runs"
        self._client = httpx.AsyncClient(
            headers={"Authorization": f"token {token}"},
            timeout=10,
            trust_env=False,
        )

    async def close(self) -> None:
        await self._client.aclose()

    async def decide(self, request: AdmissionRequest) -> Decision:
        asked = {
            "user": request.user,
            "run": request.run_id,
            "profile": request.profile,
            "cpu": request.cpu,
            "memory": str(request.memory),
            "gpu": request.gpu,
            "seconds": RESERVED_SECONDS,
        } | ({"workspace": request.workspace} if request.workspace else {})
        try:
            answer = await self._client.post(self._url, json=asked)
            body = answer.json()
            if answer.status_code in (403, 429) and body.get("admitted") is False:
                kind = "profile" if "profiles" in body else "quota"
                return Decision(False, body["sentence"], answer.status_code, kind, body)
            said = (answer.status_code, str(body.get("message")))
            if (said[0] == 403 and NO_MEMBER in said[1]) or (said[0] == 404 and NOBODY in said[1]):
                return Decision(False, body["message"], 403)
            answer.raise_for_status()
            pod = body["pod"]
            return Decision(
                True,
                reservation=body["reservation"],
                labels=pod["labels"],
                annotations=pod["annotations"],
                role=body.get("role") or "",
            )
        except (httpx.HTTPError, ValueError, KeyError, TypeError) as error:
            raise AdmissionSilentError(type(error).__name__) from error

    async def release(self, reservation: str) -> None:
        try:
            await self._client.delete(f"{self._url}/{reservation}")
        except httpx.HTTPError:
            return

    async def token(self, user: str, run_id: str, seconds: int) -> str | None:
        asked = {"user": user, "run": run_id, "seconds": seconds}
        try:
            answer = await self._client.post(self._tokens, json=asked)
            if answer.status_code == 404:
                return None
            answer.raise_for_status()
            return str(answer.json()["token"])
        except (httpx.HTTPError, ValueError, KeyError, TypeError) as error:
            raise AdmissionSilentError(type(error).__name__) from error

    async def revoke(self, run_id: str) -> None:
        try:
            await self._client.delete(f"{self._tokens}/{run_id}")
        except httpx.HTTPError:
            return

    async def why_ended(self, run_id: str) -> str:
        try:
            answer = await self._client.get(f"{self._runs}/{run_id}")
            answer.raise_for_status()
            return str(answer.json()["why"])
        except (httpx.HTTPError, ValueError, KeyError, TypeError):
            return ""
