"""Harbor's retention policy: which artifacts of a project stay.

A rule says what stays; what no rule keeps is deleted when the policy runs.
"""

import contextlib
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from bootstrap.plugins.harbor_api import NotFoundError
from bootstrap.plugins.harbor_objects import HarborObject, id_from
from bootstrap.plugins.schema import Call, Failure, Made, PluginError, Property
from bootstrap.plugins.values import has_unknown

TEMPLATES = {  # property, Harbor's template, its parameter
    "mostRecentlyPushed": ("latestPushedK", "latestPushedK"),
    "mostRecentlyPulled": ("latestPulledN", "latestPulledN"),
    "nDaysSinceLastPush": ("nDaysSinceLastPush", "nDaysSinceLastPush"),
    "nDaysSinceLastPull": ("nDaysSinceLastPull", "nDaysSinceLastPull"),
    "alwaysRetain": ("always", ""),
}
REPOSITORIES = {"repoMatching": "repoMatches", "repoExcluding": "repoExcludes"}
TAGS = {"tagMatching": "matches", "tagExcluding": "excludes"}
SCHEDULES = {"hourly": "0 0 * * * *", "daily": "0 0 0 * * *", "weekly": "0 0 0 * * 0"}


def rule_body(rule: Mapping[str, Any]) -> dict[str, Any]:
    kept = next(name for name in TEMPLATES if rule.get(name))
    template, parameter = TEMPLATES[kept]
    repositories = next(name for name in REPOSITORIES if rule.get(name))
    tags = next(name for name in TAGS if rule.get(name))
    return {
        "disabled": bool(rule.get("disabled")),
        "action": "retain",
        "template": template,
        "params": {parameter: rule[kept]} if parameter else {},
        "scope_selectors": {
            "repository": [
                {"kind": "doublestar", "decoration": REPOSITORIES[repositories],
                 "pattern": rule[repositories]}
            ]
        },
        "tag_selectors": [
            {"kind": "doublestar", "decoration": TAGS[tags], "pattern": rule[tags],
             "extras": extras(rule.get("untaggedArtifacts", True))}
        ],
    }  # fmt: skip


def extras(untagged: bool) -> str:
    return json.dumps({"untagged": untagged}, separators=(",", ":"))


def untagged(selector: Mapping[str, Any]) -> bool:
    return bool(json.loads(selector.get("extras") or "{}").get("untagged"))


def rule_of(body: Mapping[str, Any]) -> dict[str, Any]:
    """A rule of Harbor's in the words of the resource; what is the default stays unsaid."""
    kept = next((n for n, (t, _) in TEMPLATES.items() if t == body["template"]), body["template"])
    parameter = TEMPLATES.get(kept, ("", ""))[1]
    (repositories,) = body["scope_selectors"]["repository"]
    (tags,) = body["tag_selectors"]
    rule: dict[str, Any] = {kept: body["params"].get(parameter) if parameter else True}
    rule |= {n: repositories["pattern"] for n, d in REPOSITORIES.items()
             if d == repositories["decoration"]}  # fmt: skip
    rule |= {n: tags["pattern"] for n, d in TAGS.items() if d == tags["decoration"]}
    rule |= {"disabled": True} if body.get("disabled") else {}
    return rule | ({} if untagged(tags) else {"untaggedArtifacts": False})


def same_rules(old: Sequence[Mapping[str, Any]], new: Sequence[Mapping[str, Any]]) -> bool:
    def whole(rules: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        defaults = {"disabled": False, "untaggedArtifacts": True}
        return [{**defaults, **{k: v for k, v in rule.items() if v}} | {
            k: False for k, v in rule.items() if k == "untaggedArtifacts" and v is False
        } for rule in rules]  # fmt: skip

    return whole(old) == whole(new)


def cron(schedule: str) -> str:
    return SCHEDULES.get(schedule.lower(), schedule)


class RetentionPolicy(HarborObject):
    type = "harbor:index/retentionPolicy:RetentionPolicy"
    properties = (
        Property("scope", required=True, replace=True),
        Property("rules", "list", required=True, same=same_rules),
        Property("schedule", same=lambda old, new: cron(old) == cron(new)),
    )

    def validate(self, inputs: Mapping[str, Any]) -> Iterable[Failure]:
        rules = inputs["rules"]
        if has_unknown(rules):
            return
        for number, rule in enumerate(rules):
            for choice in (TEMPLATES, REPOSITORIES, TAGS):
                given = [name for name in choice if rule.get(name)]
                if len(given) != 1:
                    yield Failure(
                        "rules",
                        f"{self.type}: rules[{number}] has {', '.join(given) or 'none'} of "
                        f"{', '.join(choice)}; exactly one is required",
                    )

    def project(self, inputs: Mapping[str, Any]) -> int:
        """Its number: `scope` is a project's id, `/projects/1` or `1`."""
        return int(str(inputs["scope"]).rsplit("/", 1)[-1])

    def body(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        return {
            "algorithm": "or",
            "scope": {"level": "project", "ref": self.project(inputs)},
            "trigger": {
                "kind": "Schedule",
                "references": {},
                "settings": {"cron": cron(inputs.get("schedule", ""))},
            },
            "rules": [rule_body(rule) for rule in inputs["rules"]],
        }

    def create(self, inputs: dict[str, Any], call: Call) -> Made:
        number = self.project(inputs)
        try:
            project = self.harbor.get(f"/projects/{number}")
        except NotFoundError:
            raise PluginError(
                f"{self.type}: there is no project {inputs['scope']} in Harbor at "
                f"{self.harbor.account.url}; run `pulumi refresh`, then `pulumi up`"
            ) from None
        # A project has one policy at most; as with the official plug-in it is taken over.
        if existing := project.get("metadata", {}).get("retention_id"):
            id = f"/retentions/{existing}"
            return Made(id, self.update(id, {}, inputs, call))
        id = id_from(self.harbor.post("/retentions", self.body(inputs)).headers["Location"])
        return Made(id, self.state(self.harbor.get(id), inputs))

    def state(self, found: Mapping[str, Any], known: Mapping[str, Any]) -> dict[str, Any]:
        rules = [rule_of(body) for body in found.get("rules") or ()]
        schedule = (found["trigger"].get("settings") or {}).get("cron", "")
        named = next((n.capitalize() for n, c in SCHEDULES.items() if c == schedule), schedule)
        state = {
            "scope": f"/projects/{found['scope']['ref']}",
            "rules": rules,
            "schedule": named,
        }
        if "scope" in known and self.project(known) == found["scope"]["ref"]:
            state["scope"] = known["scope"]
        if same_rules(rules, known.get("rules", ())):
            state["rules"] = known["rules"]
        return state

    def update(
        self, id: str, state: dict[str, Any], inputs: dict[str, Any], call: Call
    ) -> dict[str, Any]:
        try:
            self.harbor.put(id, self.body(inputs) | {"id": int(id.rsplit("/", 1)[-1])})
            return self.state(self.harbor.get(id), inputs)
        except NotFoundError:
            raise self.gone(id) from None

    def delete(self, id: str, state: dict[str, Any]) -> None:
        """A policy without rules keeps everything."""
        empty = self.body({**state, "rules": [], "schedule": ""})
        with contextlib.suppress(NotFoundError):
            self.harbor.put(id, empty | {"id": int(id.rsplit("/", 1)[-1])})
