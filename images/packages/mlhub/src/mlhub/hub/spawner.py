"""KubeSpawner, answering in sentences: to a wrong choice at once, to a failed start in seconds."""

import asyncio
import copy
import json
import sys
import time
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from kubernetes_asyncio.client.rest import ApiException
from kubespawner import KubeSpawner  # type: ignore[import-untyped]
from traitlets import Unicode

from mlhub import homes
from mlhub.admission import Ask, Holding, Size
from mlhub.admission.holdings import metadata
from mlhub.admission.sizes import GPU
from mlhub.hub import audit, begin, metrics, probes, stops, trouble
from mlhub.hub.groups import workspace_roles
from mlhub.hub.nodes import placed
from mlhub.hub.refusal import Refusal
from mlhub.hub.tokens import EXPERIMENT, NO_MLFLOW, experiment
from mlhub.hub.workspaces import mount_in
from mlhub.workspaces import mounts

_UNLISTED = "--unlisted-choice"
"""KubeSpawner's suffix of an option whose value is free text."""

WORKSPACE = "workspace"
"""User option: the slug of the workspace that the server mounts and counts against, too."""

OWN_OPTIONS = (WORKSPACE, EXPERIMENT, *begin.OPTIONS)
"""User options beside the profile's, none of which a link may set."""

NOTHING_OFFERED = (
    "No profile of this hub is for a group of yours. Ask your administrator which group you need."
)

CUT_SHORT = "It took too long, or was stopped before it ran."

FORGET_SECONDS = 30
"""How long a refused server's name stays: its page still has to show the reason."""


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
        if name in OWN_OPTIONS:
            continue
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

    node = Unicode(help="the node that the server has to be on; empty for any")
    gpu_type = Unicode(help="the product that its GPU has to be, by NVIDIA's label; empty for any")

    node_affinity_required: list[dict[str, Any]]
    pod_affinity_required: list[dict[str, Any]]

    _begin: Mapping[str, str] = {}
    """Variables for what this start begins with."""
    _held: Holding | None = None
    """What this start was admitted with."""
    _role = ""
    """The owner's in the workspace that this start mounts; empty where it mounts none."""
    ran = False
    """Whether it has ever started."""
    _serving = False
    stopped_by = stopped_why = ""
    """Who stops it, and why, where that is known."""
    ended = ""
    """Why it stopped last, for its owner; empty once it starts again."""
    _last_pod: Mapping[str, Any] | None = None
    """Its pod as it was before it was deleted."""
    gpu_used: datetime | None = None
    """When a GPU of its own last computed, as it reports; UTC without a zone."""

    async def load_user_options(self) -> None:
        # Not KubeSpawner's own method, which lists and copies all profiles once more.
        profiles = await self.authenticator.office.offered(self)
        self.node = self.gpu_type = ""
        try:
            if self.profile_list and not profiles:
                raise Refusal(NOTHING_OFFERED, reason="choice", status=403)
            self.user_options = checked_choice(self.user_options, profiles)
            if experiment(self.user_options) and not self.authenticator.office.tokens.wanted:
                raise Refusal(NO_MLFLOW, reason="choice", status=400)
            hosts = self.authenticator.mlhub.git_hosts
            self._begin = begin.environment(self.user_options, hosts)
            try:
                self._validate_user_options(profiles)
            except ValueError as error:
                raise Refusal(str(error), reason="choice", status=400) from error
            if profiles:
                slug = self.user_options["profile"]
                (chosen,) = (profile for profile in profiles if profile["slug"] == slug)
                # Its values become the spawner's own, which change.
                self._load_profile(slug, [copy.deepcopy(chosen)])
        except Refusal as refusal:
            # The Hub has kept the choice already, and would take it again where none is made.
            self.orm_spawner.user_options = None
            self.note_refusal(refusal, metrics.CHOICE)
            raise
        await self._be_admitted()

    def note_refusal(self, refusal: Refusal, reason: str) -> None:
        """One that was not the desk's, which notes its own."""
        self._note("server.ask", "refused", why=refusal.jupyterhub_message, reason=reason)
        metrics.ADMISSIONS.labels("server", "refused", reason).inc()

    def _note(self, event: str, outcome: str, **details: Any) -> None:
        audit.note(event, self.user.name, outcome, what=self.holder, **details)

    @property
    def holder(self) -> str:
        """The server's name among everything that is held, `alice/` for the one without a name."""
        return f"{self.user.name}/{self.name}"

    async def _be_admitted(self) -> None:
        """Ask for the share that the chosen profile takes; raises Refusal.

        Here, for a pre-spawn hook comes before the profile is applied, and a hook on the pod after
        the volume is made. Every way to start a server leads through here.
        """
        desk, groups = self.authenticator.office.desk, [group.name for group in self.user.groups]
        workspace = self.user_options.get(WORKSPACE, "")
        self._role = workspace_roles(groups).get(workspace, "")
        if workspace and not self._role:
            sentence = f"You are no member of a workspace named {workspace!r}."
            raise self._never(sentence, metrics.MEMBER)
        gpus = self.extra_resource_limits.get(GPU) or 0
        ask = Ask(
            self.holder,
            self.user.name,
            Size(self.cpu_limit or 0.0, self.mem_limit or 0, int(gpus)),
            desk.charges(self.user.name, groups, workspace),
            self.user_options.get("profile", ""),
        )
        for dimension in desk.quotas.server.amounts():
            if dimension != "gpu" and not ask.amounts()[dimension]:
                sentence = (
                    f"The profile {ask.profile or 'of this hub'} states no limit of {dimension}, "
                    "so its servers could take more than one may. Tell your administrator."
                )
                raise self._never(sentence, metrics.UNLIMITED)
        answer = await desk.admit(ask, kind="server")
        if not answer.admitted:
            asyncio.get_running_loop().call_later(FORGET_SECONDS, self._leave_no_record)
            raise Refusal(answer.sentence, reason="quota", status=answer.status)
        self._held = ask.held(answer.reservation)

    def _never(self, sentence: str, reason: str) -> Refusal:
        refusal = Refusal(sentence, reason="quota", status=403)
        self.note_refusal(refusal, reason)
        return refusal

    def _leave_no_record(self) -> None:
        """Remove a named server that was refused and never ran: it would look like one."""
        now = self.user.spawners.get(self.name)
        if self.name and now and not now.active and not now.ran:
            self.user.spawners.pop(self.name)
            self.user.db.delete(now.orm_spawner)
            self.user.db.commit()

    def get_state(self) -> dict[str, Any]:
        return {**super().get_state(), "ran": self.ran, "ended": self.ended}

    def load_state(self, state: dict[str, Any]) -> None:
        super().load_state(state)
        self.ran = state.get("ran", False)
        self.ended = state.get("ended", "")
        # The hub starts anew beside a server that runs.
        self._serving = self.ran and self.orm_spawner.server is not None

    def _options_from_form(self, formdata: Mapping[str, list[str]]) -> dict[str, Any]:
        others = {key: given for key, given in formdata.items() if key != WORKSPACE}
        options: dict[str, Any] = super()._options_from_form(others)
        if workspace := formdata.get(WORKSPACE, [""])[0]:
            options[WORKSPACE] = workspace
        return options

    async def _render_options_form_dynamically(self, current_spawner: Any) -> str:
        page: str = await self.authenticator.office.form(current_spawner)
        return page

    def options_from_query(self, query_data: dict[str, list[str]]) -> dict[str, str]:
        """Of a link, which anybody can send: profile and sizes, and nothing else.

        KubeSpawner takes any name after `profile-option-<profile>--`. Raises Refusal (400).
        """
        options: dict[str, str] = self._options_from_form(query_data)
        for name in OWN_OPTIONS:
            if name in options or name in query_data:
                sentence = f"A link cannot set {name}; use the form or the command line."
                refusal = Refusal(sentence, reason="choice", status=400)
                self.note_refusal(refusal, metrics.CHOICE)
                raise refusal
        return options

    def get_env(self) -> dict[str, str]:
        environment: dict[str, str] = super().get_env()
        environment |= self._begin
        environment |= self.authenticator.office.tokens.environment(self)
        if self._role:
            environment |= mounts.environment(self.user_options[WORKSPACE])
        return environment

    async def get_pod_manifest(self) -> Any:
        stated, others = self.node_affinity_required, self.pod_affinity_required
        self.node_affinity_required = placed(stated, self.node, self.gpu_type)
        if self.storage_access_modes == homes.ONE_NODE:
            beside = homes.beside(self._build_pod_labels({}))
            self.pod_affinity_required = [*self._sorted_dict_values(others), beside]
        try:
            pod = await super().get_pod_manifest()
        finally:
            self.node_affinity_required, self.pod_affinity_required = stated, others
        if self._role:
            mount_in(pod, self.user_options[WORKSPACE], self._role)
        probes.expect_in(pod)
        if self._held:
            for key, added in metadata(self._held, "server").items():
                setattr(pod.metadata, key, {**getattr(pod.metadata, key), **added})
        return pod

    async def stop(self, now: bool = False) -> None:
        self._last_pod = self._pod() or self._last_pod
        await super().stop(now)
        self.authenticator.office.desk.forget(self.holder)

    def run_post_stop_hook(self) -> Any:
        """Whatever ended the server comes by here, the pod's own end included."""
        if self._serving:
            self._serving = False
            self._note_stop()
        self.authenticator.office.tokens.revoke_server(self)
        return super().run_post_stop_hook()

    def _note_stop(self) -> None:
        by, why = self.stopped_by, self.stopped_why
        self.stopped_by = self.stopped_why = ""
        self.ended = stops.said(self.user.name, by, why, self._last_pod or self._pod())
        outcome = "stopped" if by else "ended"
        if by in stops.CULLERS:
            outcome = "culled"
        self._note("server.stop", outcome, by=by, why=why)
        metrics.STOPS.labels(outcome).inc()

    def start(self) -> asyncio.Future[str]:
        self._start_future = asyncio.ensure_future(self._start_or_say_why())
        return self._start_future

    async def _start_or_say_why(self) -> str:
        start = asyncio.ensure_future(self._start())
        watch = asyncio.ensure_future(self._watch_for_trouble())
        started = False
        self._held = self.gpu_used = self._last_pod = None
        self.ended = ""
        try:
            await asyncio.wait({start, watch}, return_when=asyncio.FIRST_COMPLETED)
            if not start.done():
                raise _failed(watch.result())
            url: str = start.result()
            started = self.ran = self._serving = True
            self._note("server.start", "started", profile=self.user_options.get("profile"))
            return url
        except ApiException as error:
            if found := trouble.refused(error.status, _api_message(error)):
                raise _failed(found) from error
            raise
        finally:
            start.cancel()
            watch.cancel()
            if self._held and not started:
                why = getattr(sys.exception(), "jupyterhub_message", CUT_SHORT)
                self._note("server.start", "failed", why=why)
                self.authenticator.office.desk.ledger.release(self._held.reservation)

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
            pod = self._pod()
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

    def _pod(self) -> Mapping[str, Any] | None:
        """As it was seen last; None where there is none."""
        # The reflectors exist once `_start` has begun to watch.
        pods: Mapping[str, Any] = self.pod_reflector.pods if self.pod_reflector else {}
        return pods.get(f"{self.namespace}/{self.pod_name}")

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
