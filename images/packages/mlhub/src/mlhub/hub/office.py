"""Everything of one hub that outlives a request: made when the hub starts, stopped with it."""

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from kubespawner import KubeSpawner  # type: ignore[import-untyped]
from kubespawner.clients import load_config, shared_client  # type: ignore[import-untyped]

from mlhub import metrics
from mlhub.admission import Ask, Size
from mlhub.hub import form
from mlhub.hub.desk import Desk
from mlhub.hub.groups import workspace_roles
from mlhub.hub.keeper import Keeper
from mlhub.hub.nodes import PRESENT, GpuNode, free_gpus, gpu_node
from mlhub.hub.offers import Offers, Profile, amounts, with_default
from mlhub.hub.settings import Settings
from mlhub.hub.tokens import Tokens
from mlhub.hub.watch import Watch


class Office:
    """`app` is a JupyterHub whose database and configuration are there."""

    def __init__(self, app: Any, settings: Settings):
        load_config()
        # The Hub's own list is of services with a `url`, for which it waits whenever it starts.
        app.template_vars["services"] = lambda user: pages(app) if user else []
        self._metrics_port = settings.metrics_port
        self._end_metrics: Callable[[], None] = lambda: None
        self.desk = Desk(settings.quotas, app.db.get_bind(), app.log)
        self.tokens = Tokens(app)
        self.keeper = Keeper(app, settings, self.desk, self.tokens)
        given = app.config.KubeSpawner
        self.offers = Offers(initialized(given.get("profile_list")), settings, amounts(given))
        self.nodes: Watch[GpuNode] = Watch(
            "GPU nodes, so no profile with a GPU is offered",
            shared_client("CoreV1Api").list_node,
            gpu_node,
            app.log,
            label_selector=PRESENT,
        )

    def start(self) -> None:
        if self._metrics_port:
            self._end_metrics = metrics.serve(self._metrics_port)
        self.desk.start()
        self.keeper.start()
        if self.offers.with_gpus:
            self.nodes.start()
        # What KubeSpawner watches ends with the hub; so does this.
        KubeSpawner.reflectors["office"] = self

    async def stop(self) -> None:
        self._end_metrics()
        await self.desk.stop()
        await self.keeper.stop()
        await self.nodes.stop()

    async def offered(self, spawner: Any) -> list[Profile]:
        """The profiles that the spawner's user may start now."""
        return await self.offered_to([group.name for group in spawner.user.groups])

    async def offered_to(self, groups: Sequence[str]) -> list[Profile]:
        """The profiles that members of `groups` (Hub names) may start now."""
        if self.offers.with_gpus:
            await self.nodes.tried.wait()
        nodes = self.nodes.items.values()
        free = free_gpus(nodes, self.desk.pods.items.values())
        return self.offers.to(groups, nodes, free)

    async def form(self, spawner: Any) -> str:
        """HTML of the form on which the spawner's user chooses."""
        owner, groups = spawner.user.name, [group.name for group in spawner.user.groups]
        nothing = Ask(spawner.holder, owner, Size(), self.desk.charges(owner, groups))
        state = await self.desk.ask(nothing)
        profiles = await self.offered(spawner)
        roles = workspace_roles(groups)
        return form.render(
            profiles,
            self.offers,
            state,
            self.desk.quotas,
            spawner.user_options or {},
            roles=roles,
            names=await spawner.authenticator.workspace_names(roles),
        )


def pages(app: Any) -> list[Any]:
    """The services that people can open: those with a log-in of the Hub's."""
    return [s for s in app._service_map.values() if s.display and s.oauth_available]


def initialized(stated: Sequence[Any] | Mapping[str, Any] | None) -> list[Profile]:
    """The stack's `profile_list`, with the keys that KubeSpawner would add to it for each form."""
    listed = [stated[key] for key in sorted(stated)] if isinstance(stated, Mapping) else stated
    profiles: list[Profile] = KubeSpawner(_mock=True)._get_initialized_profile_list(
        copy.deepcopy(list(listed or []))
    )
    for profile in profiles:
        for option in profile.get("profile_options", {}).values():
            for choice in option.setdefault("choices", {}).values():
                choice.setdefault("kubespawner_override", {})
            option["choices"] = with_default(option["choices"])
    return profiles
