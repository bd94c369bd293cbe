"""Harbor's robot accounts: what pulls and pushes without a person."""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from bootstrap.plugins.harbor_api import ConflictError, NotFoundError
from bootstrap.plugins.harbor_objects import PAGE, HarborObject, id_from
from bootstrap.plugins.schema import Call, Failure, Made, PluginError, Property
from bootstrap.plugins.values import has_unknown

SECRET = re.compile(r"(?=.*[a-z])(?=.*[A-Z])(?=.*[0-9]).{8,128}", re.DOTALL)
"""What Harbor takes as a robot account's secret (goharbor, `robot.IsValidSec`)."""

MARK = re.compile(r" ?\[(urn:pulumi:[^\]]+)\]$")
"""The end of a robot account's description: the resource that the account belongs to."""


def plain(item: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in item.items() if value is not None}


def accesses(permissions: Sequence[Mapping[str, Any]]) -> set[tuple[str, ...]]:
    """What the permissions allow, so that two ways to write them compare as one."""
    return {
        (p["kind"], p["namespace"], a["resource"], a["action"], a.get("effect") or "allow")
        for p in permissions
        for a in p["accesses"]
    }


class RobotAccount(HarborObject):
    type = "harbor:index/robotAccount:RobotAccount"
    properties = (
        Property("name", named=True, replace=True),
        Property("level", required=True, replace=True, one_of=("system", "project")),
        Property("permissions", "list", required=True,
                 same=lambda old, new: accesses(old) == accesses(new)),
        Property("description"),
        Property("disable", "boolean", default=False),
        Property("duration", "integer", default=-1),
        Property("secret", secret=True, computed=True),
        Property("fullName", output=True),
        Property("robotId", output=True),
    )  # fmt: skip

    def validate(self, inputs: Mapping[str, Any]) -> Iterable[Failure]:
        secret = inputs.get("secret", "")
        if secret and not has_unknown(secret) and not SECRET.fullmatch(secret):
            yield Failure(
                "secret",
                f"{self.type}: secret is not one that Harbor takes; 8 to 128 characters with a "
                "small letter, a capital and a digit are required",
            )
        if has_unknown(inputs["permissions"]) or has_unknown(inputs["level"]):
            return
        kinds = [p.get("kind") for p in inputs["permissions"]]
        if inputs["level"] == "project" and kinds != ["project"]:
            yield Failure(
                "permissions",
                f"{self.type}: an account of level project has permissions for one project; "
                f"{len(kinds)} are given",
            )

    def create(self, inputs: dict[str, Any], call: Call) -> Made:
        body = self.body(inputs, call.urn)
        try:
            answer = self.harbor.post("/robots", body)
        except NotFoundError:
            raise PluginError(
                f'Harbor robot account "{inputs["name"]}" cannot be made: its project is not '
                "there; run `pulumi refresh`, then `pulumi up`"
            ) from None
        except ConflictError as conflict:
            return self.from_earlier(inputs, conflict, call)
        id = id_from(answer.headers["Location"])
        secret = inputs.get("secret")
        if secret:
            self.harbor.patch(id, {"secret": secret})
        known = {**inputs, "secret": secret or answer.json()["secret"]}
        return Made(id, self.state(self.harbor.get(id), known))

    def from_earlier(self, inputs: dict[str, Any], conflict: ConflictError, call: Call) -> Made:
        found = self.find(inputs)
        if found is None:
            raise PluginError(f'Harbor robot account "{inputs["name"]}" cannot be made: {conflict}')
        id = f"/robots/{found['id']}"
        mark = MARK.search(found.get("description", ""))
        if mark is None or mark[1] != call.urn:
            raise PluginError(
                f'Harbor robot account "{found["name"]}" is there already and was not made by this '
                "stack; delete it and run again, or take it over first with "
                f"`{call.import_command(id)}`"
            )
        call.tell(f'Harbor robot account "{found["name"]}" is there from an earlier run; going on')
        if not inputs.get("secret"):
            # Harbor tells a secret once, and the run that heard it is gone: make another account.
            self.harbor.delete(id)
            return self.create(inputs, call)
        return Made(id, self.update(id, {}, inputs, call))

    def find(self, inputs: Mapping[str, Any]) -> dict[str, Any] | None:
        query = "Level=system"
        if inputs["level"] == "project":
            name = inputs["permissions"][0]["namespace"]
            query = f"Level=project,ProjectID={self.harbor.get(f'/projects/{name}')['project_id']}"
        page = 1
        while robots := self.harbor.get("/robots", q=query, page=page, page_size=PAGE):
            for robot in robots:
                if self.short(robot) == inputs["name"]:
                    return dict(robot)
            page += 1
        return None

    def short(self, found: Mapping[str, Any]) -> str:
        """The name without Harbor's prefix: `robot$project+pull` is `pull`."""
        name: str = found["name"]
        if found["level"] == "project":
            return name.rsplit("+", 1)[-1]
        return name.removeprefix(self.prefix())

    def prefix(self) -> str:
        settings = self.harbor.get("/configurations")
        return str(settings.get("robot_name_prefix", {}).get("value", "robot$"))

    @staticmethod
    def body(inputs: Mapping[str, Any], urn: str) -> dict[str, Any]:
        return {
            "name": inputs["name"],
            "level": inputs["level"],
            "description": f"{inputs.get('description', '')} [{urn}]".strip(),
            "disable": inputs["disable"],
            "duration": inputs["duration"],
            "permissions": [
                {"kind": p["kind"], "namespace": p["namespace"],
                 "access": [plain(a) for a in p["accesses"]]}
                for p in inputs["permissions"]
            ],
        }  # fmt: skip

    def state(self, found: Mapping[str, Any], known: Mapping[str, Any]) -> dict[str, Any]:
        permissions = [
            {"kind": p["kind"], "namespace": p["namespace"],
             "accesses": [{"resource": a["resource"], "action": a["action"]}
                          | ({"effect": a["effect"]} if a.get("effect", "allow") != "allow" else {})
                          for a in p["access"]]}
            for p in found["permissions"]
        ]  # fmt: skip
        if "permissions" in known and accesses(permissions) == accesses(known["permissions"]):
            permissions = known["permissions"]
        return {
            "name": self.short(found),
            "level": found["level"],
            "permissions": permissions,
            "description": MARK.sub("", found.get("description", "")),
            "disable": bool(found.get("disable")),
            "duration": found.get("duration", -1),
            # Harbor never tells it again: a secret that somebody changed there is not seen here.
            "secret": known.get("secret", ""),
            "fullName": found["name"],
            "robotId": str(found["id"]),
        }

    def update(
        self, id: str, state: dict[str, Any], inputs: dict[str, Any], call: Call
    ) -> dict[str, Any]:
        try:
            found = self.harbor.get(id)
            # The name with Harbor's prefix: without it Harbor takes it for another name.
            self.harbor.put(id, self.body(inputs, call.urn) | {"name": found["name"]})
            secret = inputs.get("secret")
            if secret and secret != state.get("secret"):
                self.harbor.patch(id, {"secret": secret})
            known = {**inputs, "secret": secret or state.get("secret", "")}
            return self.state(self.harbor.get(id), known)
        except NotFoundError:
            raise self.gone(id) from None

    def delete(self, id: str, state: dict[str, Any]) -> None:
        self.harbor.delete(id)
