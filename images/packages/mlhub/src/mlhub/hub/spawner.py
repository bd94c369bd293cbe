"""KubeSpawner, answering in sentences: to a wrong choice at once, to a failed start in seconds."""

import asyncio
import json
import time
from collections.abc import Iterable, Mapping
from typing import Any

from kubernetes_asyncio.client.rest import ApiException
from kubespawner import KubeSpawner  # type: ignore[import-untyped]

from mlhub.hub import trouble
from mlhub.hub.refusal import Refusal

_UNLISTED = "--unlisted-choice"
"""KubeSpawner's suffix of an option whose value is free text."""


def checked_choice(
    user_options: Mapping[str, Any], profiles: Iterable[Mapping[str, Any]]
) -> dict[str, Any]:
    """`user_options` with the profile named; Refusal (400) unless it is on offer.

    KubeSpawner lets an unknown option pass, answers an unknown choice with a KeyError, a 500, and
    validates nothing at all when the profile is left out. `profiles` is its initialized profile
    list; an empty one offers nothing to choose.
    """
    chosen = dict(user_options)
    by_slug = {profile["slug"]: profile for profile in profiles}
    if not by_slug:
        return chosen
    for name, given in chosen.items():
        if not isinstance(given, str):
            sentence = f"The option {name!r} takes text, not {type(given).__name__}."
            raise Refusal(sentence, reason="choice", status=400)
    default = next(slug for slug, profile in by_slug.items() if profile.get("default"))
    chosen["profile"] = slug = chosen.get("profile") or default
    if slug not in by_slug:
        raise _unknown("profile", slug, by_slug)
    options: Mapping[str, Any] = by_slug[slug].get("profile_options", {})
    for name, given in chosen.items():
        option = name.removesuffix(_UNLISTED)
        if name != "profile" and option not in options:
            raise _unknown(f"option of the profile {slug!r}", name, options)
        if option == name != "profile" and given:
            choices = options[option].get("choices", {})
            if given not in choices:
                raise _unknown(f"choice for {name!r}", given, choices)
    return chosen


def _unknown(what: str, given: object, offered: Iterable[str]) -> Refusal:
    there = ", ".join(map(repr, offered)) or "none"
    sentence = f"There is no {what} named {given!r}. There are: {there}."
    return Refusal(sentence, reason="choice", status=400)


class MlhubSpawner(KubeSpawner):  # type: ignore[misc]
    """A user's server as a pod of its own."""

    user_options: dict[str, Any]

    async def load_user_options(self) -> None:
        offered = self._sorted_dict_values(self.profile_list)
        if callable(offered):
            offered = await offered(self)
        profiles = self._get_initialized_profile_list(offered)
        self.user_options = checked_choice(self.user_options, profiles)
        try:
            await super().load_user_options()
        except ValueError as error:
            raise Refusal(str(error), reason="choice", status=400) from error

    def start(self) -> asyncio.Future[str]:
        self._start_future = asyncio.ensure_future(self._start_or_say_why())
        return self._start_future

    async def _start_or_say_why(self) -> str:
        start = asyncio.ensure_future(self._start())
        watch = asyncio.ensure_future(self._watch_for_trouble())
        try:
            await asyncio.wait({start, watch}, return_when=asyncio.FIRST_COMPLETED)
            if not start.done():
                raise _failed(watch.result())
            url: str = start.result()
            return url
        except ApiException as error:
            if found := trouble.refused(error.status, _api_message(error)):
                raise _failed(found) from error
            raise
        finally:
            start.cancel()
            watch.cancel()

    async def _make_create_pod_request(self, pod: Any, request_timeout: float) -> bool:
        # KubeSpawner logs a refused pod whole, the server's API token in its environment included.
        pod.to_str = lambda: pod.metadata.name
        created: bool = await super()._make_create_pod_request(pod, request_timeout)
        return created

    async def _watch_for_trouble(self) -> trouble.Trouble:
        """Return once the pod cannot start any more."""
        asked: float | None = None
        while True:
            await asyncio.sleep(1)
            # The reflectors exist once `_start` has begun to watch.
            reflector = self.pod_reflector
            pod = reflector and reflector.pods.get(f"{self.namespace}/{self.pod_name}")
            if not pod or "deletionTimestamp" in pod["metadata"]:
                asked = None
                continue
            asked = asked or time.monotonic()
            waited = time.monotonic() - asked
            events = self.events
            if waited >= trouble.GRACE_SECONDS and not trouble.scheduled(pod):
                events = [*events, *await self._claim_events()]
            if found := trouble.find(pod, events, waited):
                return found

    async def _claim_events(self) -> list[Mapping[str, Any]]:
        """Events about the claim, which no reflector of KubeSpawner's watches."""
        answer = await self.api.list_namespaced_event(
            self.namespace,
            field_selector=f"involvedObject.name={self.pvc_name}",
            _preload_content=False,
        )
        events: list[Mapping[str, Any]] = json.loads(await answer.read())["items"]
        return sorted(events, key=trouble.event_time)


def _failed(found: trouble.Trouble) -> Refusal:
    return Refusal(found.sentence, reason=found.reason, status=503)


def _api_message(error: ApiException) -> str:
    """The API's own words, without the headers that the exception prints."""
    try:
        return str(json.loads(error.body or "")["message"])
    except (TypeError, ValueError, KeyError):
        return str(error.reason)
