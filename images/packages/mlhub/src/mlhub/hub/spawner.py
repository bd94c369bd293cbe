"""KubeSpawner, answering in sentences: to a wrong choice at once, to a failed start in seconds."""

import asyncio
import json
import time
from collections.abc import Iterable, Mapping
from typing import Any

from jupyterhub.spawner import SpawnException  # type: ignore[import-untyped]
from kubernetes_asyncio.client.rest import ApiException
from kubespawner import KubeSpawner  # type: ignore[import-untyped]

from mlhub.hub import trouble

_UNLISTED = "--unlisted-choice"
"""KubeSpawner's suffix of an option whose value is free text."""


def check_choice(user_options: Mapping[str, Any], profiles: Iterable[Mapping[str, Any]]) -> None:
    """Raise SpawnException (400) unless `user_options` chooses among `profiles`.

    KubeSpawner lets an unknown option pass and answers an unknown choice with a KeyError, a 500.
    `profiles` is its initialized profile list; an empty one offers nothing to choose.
    """
    by_slug = {profile["slug"]: profile for profile in profiles}
    if not by_slug or not user_options:
        return
    default = next(slug for slug, profile in by_slug.items() if profile.get("default"))
    slug = user_options.get("profile") or default
    if slug not in by_slug:
        raise _unknown("profile", slug, by_slug)
    options: Mapping[str, Any] = by_slug[slug].get("profile_options", {})
    for name, given in user_options.items():
        if name == "profile":
            continue
        option = name.removesuffix(_UNLISTED)
        if option not in options:
            raise _unknown(f"option of the profile {slug!r}", name, options)
        choices = options[option].get("choices", {})
        if given and option == name and given not in choices:
            raise _unknown(f"choice for {name!r}", given, choices)


def _unknown(what: str, given: object, offered: Iterable[str]) -> SpawnException:
    there = ", ".join(map(repr, offered)) or "none"
    return SpawnException(
        f"There is no {what} named {given!r}. There are: {there}.", reason="choice"
    )


class MlhubSpawner(KubeSpawner):  # type: ignore[misc]
    """A user's server as a pod of its own."""

    async def load_user_options(self) -> None:
        offered = self._sorted_dict_values(self.profile_list)
        if callable(offered):
            offered = await offered(self)
        check_choice(self.user_options, self._get_initialized_profile_list(offered))
        try:
            await super().load_user_options()
        except ValueError as error:
            raise SpawnException(f"{error}", reason="choice") from error

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
            if found := trouble.find(pod, self._events(), time.monotonic() - asked):
                return found

    def _events(self) -> list[Mapping[str, Any]]:
        """Events about the pod and its claim, oldest first."""
        ours = (self.pod_name, self.pvc_name)
        return [
            event
            for event in (self.event_reflector.events if self.event_reflector else [])
            if event["involvedObject"]["name"] in ours
        ]


def _failed(found: trouble.Trouble) -> SpawnException:
    return SpawnException(found.sentence, reason=found.reason, status_code=503)


def _api_message(error: ApiException) -> str:
    """The API's own words, without the headers that the exception prints."""
    try:
        return str(json.loads(error.body or "")["message"])
    except (TypeError, ValueError, KeyError):
        return str(error.reason)
