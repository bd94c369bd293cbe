"""What every Harbor object has in common, and the project.

Ids are the official plug-in's: the path of the object under the API. What a killed `up` left behind
is taken up by the next one: a robot account is known by a mark in its description, a project by
being empty, and a project has one retention policy at most.
"""

from abc import abstractmethod
from collections.abc import Callable, Mapping
from typing import Any

from bootstrap.plugins.harbor_api import API, ConflictError, Harbor, NotFoundError
from bootstrap.plugins.schema import Call, Made, PluginError, Property, ResourceType

GIB = 2**30
PAGE = 100
SEVERITIES = ("none", "low", "medium", "high", "critical")


def quoted(value: bool) -> str:
    return str(value).lower()


def is_true(value: Any) -> bool:
    return str(value).lower() == "true"


class HarborObject(ResourceType):
    """An object with a path of its own under the API."""

    def __init__(self, server: Callable[[], Harbor]):
        self._server = server

    @property
    def harbor(self) -> Harbor:
        return self._server()

    @abstractmethod
    def state(self, found: Mapping[str, Any], known: Mapping[str, Any]) -> dict[str, Any]:
        """The object as found, with what the server does not tell from `known`."""

    def read(self, id: str, state: dict[str, Any]) -> Made | None:
        try:
            return Made(id, self.state(self.harbor.get(id), state))
        except NotFoundError:
            return None

    def gone(self, id: str) -> PluginError:
        return PluginError(
            f"{self.type}: {id} is gone from Harbor at {self.harbor.account.url}; run "
            "`pulumi refresh`, then `pulumi up`"
        )


def id_from(location: str) -> str:
    """`/api/v2.0/projects/1` is `/projects/1`."""
    return location[location.index(API) + len(API) :] if API in location else location


class Project(HarborObject):
    type = "harbor:index/project:Project"
    properties = (
        Property("name", named=True, replace=True),
        Property("public", "boolean", default=False),
        Property("vulnerabilityScanning", "boolean", default=True),
        Property("deploymentSecurity", one_of=SEVERITIES),
        Property("storageQuota", "integer", default=-1),
        Property("forceDestroy", "boolean", default=False),
        Property("projectId", "integer", output=True),
        Property("registryId", "integer", output=True),
    )

    def create(self, inputs: dict[str, Any], call: Call) -> Made:
        quota = inputs["storageQuota"]
        body = self.body(inputs) | {"storage_limit": quota * GIB if quota > 0 else quota}
        try:
            id = id_from(self.harbor.post("/projects", body).headers["Location"])
        except ConflictError:
            found = self.find(inputs["name"])
            # Nothing in Harbor tells who made it: a robot's project belongs to the first admin.
            id = f"/projects/{found['project_id']}"
            if found.get("repo_count"):
                raise PluginError(
                    f'Harbor Project "{inputs["name"]}" is there already, with images, and was not '
                    "made by this stack; delete it and run again, or take it over first with "
                    f"`{call.import_command(id)}`"
                ) from None
            call.tell(
                f'Harbor Project "{inputs["name"]}" is there already and empty; taking it over'
            )
            return Made(id, self.update(id, {}, inputs, call))
        return Made(id, self.state(self.harbor.get(id), inputs))

    def find(self, name: str) -> dict[str, Any]:
        # By name and not by search: the name is unique, and the list is paged.
        found: dict[str, Any] = self.harbor.get(f"/projects/{name}")
        return found

    @staticmethod
    def body(inputs: Mapping[str, Any]) -> dict[str, Any]:
        severity = inputs.get("deploymentSecurity") or ""
        return {
            "project_name": inputs["name"],
            "metadata": {
                "public": quoted(inputs["public"]),
                "auto_scan": quoted(inputs["vulnerabilityScanning"]),
                "severity": severity or "low",
                "prevent_vul": quoted(bool(severity)),
            },
        }

    def state(self, found: Mapping[str, Any], known: Mapping[str, Any]) -> dict[str, Any]:
        metadata = found.get("metadata", {})
        prevented = is_true(metadata.get("prevent_vul"))
        limit = self.quota(found["project_id"])[1]
        return {
            "name": found["name"],
            "public": is_true(metadata.get("public")),
            "vulnerabilityScanning": is_true(metadata.get("auto_scan")),
            "deploymentSecurity": metadata.get("severity", "") if prevented else "",
            "storageQuota": known.get("storageQuota", -1) if limit is None else limit,
            "forceDestroy": known.get("forceDestroy", False),
            "projectId": found["project_id"],
            "registryId": found.get("registry_id") or 0,
        }

    def quota(self, project: int) -> tuple[int | None, int | None]:
        """The id of the project's quota and its limit in GiB, -1 for none.

        Both None where Harbor's quotas are switched off.
        """
        found = self.harbor.get("/quotas", reference="project", reference_id=project)
        if not found:
            return None, None
        limit = found[0]["hard"]["storage"]
        return found[0]["id"], limit // GIB if limit > 0 else -1

    def update(
        self, id: str, state: dict[str, Any], inputs: dict[str, Any], call: Call
    ) -> dict[str, Any]:
        try:
            self.harbor.put(id, self.body(inputs))
            found = self.harbor.get(id)
            wanted = inputs["storageQuota"]
            quota, limit = self.quota(found["project_id"])
            if quota is not None and limit != wanted:
                hard = {"storage": wanted * GIB if wanted > 0 else -1}
                self.harbor.put(f"/quotas/{quota}", {"hard": hard})
            return self.state(found, inputs)
        except NotFoundError:
            raise self.gone(id) from None

    def delete(self, id: str, state: dict[str, Any]) -> None:
        try:
            found = self.harbor.get(id)
        except NotFoundError:
            return
        if found.get("repo_count"):
            if not state.get("forceDestroy"):
                raise PluginError(
                    f'Harbor Project "{found["name"]}" has {found["repo_count"]} repositories, '
                    "and forceDestroy is not set; delete them first, or keep the project"
                )
            self.empty(found["name"])
        self.harbor.delete(id)

    def empty(self, name: str) -> None:
        while repositories := self.harbor.get(f"/projects/{name}/repositories", page_size=PAGE):
            for repository in repositories:
                inner = repository["name"].removeprefix(f"{name}/").replace("/", "%252F")
                self.harbor.delete(f"/projects/{name}/repositories/{inner}")
