"""Kubernetes objects compared: what a new one allows that the old one did not.

The same for what the program registers and for what a chart renders.
"""

import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tools.report.properties import shown
from tools.report.quantities import amount

Found = Iterator[tuple[str, str]]
"""Kind of danger, and what the object does."""

STRICTNESS = {"restricted": 2, "baseline": 1, "privileged": 0}
HOST = ("hostNetwork", "hostPID", "hostIPC")
LIMITS = ("max", "maxLimitRequestRatio")


def dangers(kind: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> Found:
    """What is dangerous about `new` in place of `old`; an empty mapping is no object."""
    rule = {
        "ResourceQuota": quota,
        "LimitRange": limit_range,
        "NetworkPolicy": network_policy,
        "Role": rights,
        "ClusterRole": rights,
        "RoleBinding": subjects,
        "ClusterRoleBinding": subjects,
        "Namespace": pod_security,
        "Service": reached,
        "Ingress": hosts,
    }.get(kind)
    if rule:
        yield from rule(old, new)
    yield from pods(old, new)


def item(value: Any) -> str:
    return f"`{shown(value)}`"


def raised(old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[str]:
    """Which amounts of `old` are larger in `new`, or bounded no more."""
    for key, before in old.items():
        if key not in new:
            yield f"no longer bounds {item(key)} (was {item(before)})"
            continue
        was, now = amount(before), amount(new[key])
        if was is not None and now is not None and now > was:
            yield f"raises {item(key)} {item(before)} → {item(new[key])}"


def quota(old: Mapping[str, Any], new: Mapping[str, Any]) -> Found:
    if old and not new:
        yield "quota", "is deleted: the namespace has no bound"
        return
    for text in raised(spec(old).get("hard") or {}, spec(new).get("hard") or {}):
        yield "quota", text


def limit_range(old: Mapping[str, Any], new: Mapping[str, Any]) -> Found:
    if old and not new:
        yield "quota", "is deleted: containers have no bound"
        return
    news = {each.get("type"): each for each in spec(new).get("limits") or []}
    for before in spec(old).get("limits") or []:
        after = news.get(before.get("type"), {})
        for bound in LIMITS:
            for text in raised(before.get(bound) or {}, after.get(bound) or {}):
                yield "quota", f"{text} ({before.get('type')} {bound})"


def network_policy(old: Mapping[str, Any], new: Mapping[str, Any]) -> Found:
    """A policy allows what its rules name and closes what it selects."""
    if not old:
        return
    if not new:
        yield "network", "is deleted: what it closed is open"
        return
    before, after = spec(old), spec(new)
    if before.get("podSelector") != after.get("podSelector"):
        change = f"{item(before.get('podSelector'))} → {item(after.get('podSelector'))}"
        yield "network", f"selects other pods: {change}"
    for direction in set(before.get("policyTypes") or []) - set(after.get("policyTypes") or []):
        yield "network", f"no longer closes {direction}"
    for direction in ("ingress", "egress"):
        had = [canonical(rule) for rule in before.get(direction) or []]
        for rule in after.get(direction) or []:
            if canonical(rule) not in had:
                yield "network", f"lets more through ({direction}): {item(rule)}"


def rights(old: Mapping[str, Any], new: Mapping[str, Any]) -> Found:
    """Each verb on each resource on its own, so that reordered rules are none."""
    if not new:
        return
    added = sorted(expanded(new) - expanded(old))
    by_resource = itertools.groupby(added, key=lambda right: right[1:])
    for (group, resource, names), found in by_resource:
        where = f"{resource}.{group}" if group else resource
        only = f" named {names}" if names else ""
        yield "access", f"may {item(', '.join(verb for verb, *_ in found))} {item(where)}{only}"
    if not old and new.get("aggregationRule"):
        yield "access", f"gathers rights from others: {item(new['aggregationRule'])}"


def expanded(role: Mapping[str, Any]) -> set[tuple[str, str, str, str]]:
    """(verb, API group, resource or URL, names) of each single right."""
    found = set()
    for rule in role.get("rules") or []:
        names = ", ".join(rule.get("resourceNames") or [])
        things = itertools.product(rule.get("apiGroups") or [""], rule.get("resources") or [])
        urls = (("", url) for url in rule.get("nonResourceURLs") or [])
        for (group, thing), verb in itertools.product([*things, *urls], rule.get("verbs") or []):
            found.add((verb, group, thing, names))
    return found


def subjects(old: Mapping[str, Any], new: Mapping[str, Any]) -> Found:
    if not new:
        return
    had = [canonical(each) for each in old.get("subjects") or []]
    for each in new.get("subjects") or []:
        if canonical(each) not in had:
            yield "access", f"gives {item(each)} the rights of {item(new.get('roleRef'))}"
    if old and old.get("roleRef") != new.get("roleRef"):
        yield "access", f"gives other rights: {item(old.get('roleRef'))} → {item(new['roleRef'])}"


def pod_security(old: Mapping[str, Any], new: Mapping[str, Any]) -> Found:
    key = "pod-security.kubernetes.io/enforce"
    before, after = (
        str(((side.get("metadata") or {}).get("labels") or {}).get(key, "privileged"))
        for side in (old, new)
    )
    if old and new and STRICTNESS.get(after, 0) < STRICTNESS.get(before, 0):
        yield "access", f"lets pods be {item(after)}, which were {item(before)}"


def reached(old: Mapping[str, Any], new: Mapping[str, Any]) -> Found:
    before, after = spec(old).get("type", "ClusterIP"), spec(new).get("type", "ClusterIP")
    if after in ("NodePort", "LoadBalancer") and after != before:
        yield "network", f"is reached from outside the cluster: {item(after)}"
    for address in spec(new).get("externalIPs") or []:
        if address not in (spec(old).get("externalIPs") or []):
            yield "network", f"is reached at {item(address)}"


def hosts(old: Mapping[str, Any], new: Mapping[str, Any]) -> Found:
    before, after = ({r.get("host", "*") for r in spec(o).get("rules") or []} for o in (old, new))
    for host in sorted(after - before):
        yield "network", f"is reached as {item(host)}"
    if spec(old).get("tls") and new and not spec(new).get("tls"):
        yield "access", "is served without TLS"


def pods(old: Mapping[str, Any], new: Mapping[str, Any]) -> Found:
    """What a workload's pods may do that they could not."""
    before, after = pod_spec(old), pod_spec(new)
    if after is None:
        return
    for key in HOST:
        if after.get(key) is True and (before or {}).get(key) is not True:
            yield "access", f"shares the host's {item(key)}"
    paths = host_paths(after) - host_paths(before or {})
    for path in sorted(paths):
        yield "access", f"mounts {item(path)} of the host"
    weak = loose(after) - loose(before or {})
    for name, what in sorted(weak):
        yield "access", f"container {item(name)} {what}"


def pod_spec(thing: Mapping[str, Any]) -> Mapping[str, Any] | None:
    if thing.get("kind") == "Pod":
        return spec(thing)
    template = spec(thing).get("template")
    if thing.get("kind") == "CronJob":
        template = spec(spec(thing).get("jobTemplate") or {}).get("template")
    return spec(template) if isinstance(template, Mapping) else None


def host_paths(pod: Mapping[str, Any]) -> set[str]:
    volumes = pod.get("volumes") or []
    return {str(volume["hostPath"].get("path")) for volume in volumes if volume.get("hostPath")}


def loose(pod: Mapping[str, Any]) -> set[tuple[str, str]]:
    found = set()
    for container in [*(pod.get("containers") or []), *(pod.get("initContainers") or [])]:
        security = {
            **(pod.get("securityContext") or {}),
            **(container.get("securityContext") or {}),
        }
        for key in ("privileged", "allowPrivilegeEscalation"):
            if security.get(key) is True:
                found.add((container["name"], f"has {item(key)}"))
        if security.get("runAsUser") == 0 or security.get("runAsNonRoot") is False:
            found.add((container["name"], "may run as root"))
        for capability in (security.get("capabilities") or {}).get("add") or []:
            found.add((container["name"], f"gains the capability {item(capability)}"))
    return found


def profiles(values: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """A Release's profiles by slug: `cpu_limit`, `mem_limit` and `gpu`."""
    listed = (values.get("singleuser") or {}).get("profileList") or []
    found = {}
    for profile in listed:
        override = profile.get("kubespawner_override") or {}
        gpu = (override.get("extra_resource_limits") or {}).get("nvidia.com/gpu")
        name = str(profile.get("slug") or profile.get("display_name"))
        found[name] = {**{k: override.get(k) for k in ("cpu_limit", "mem_limit")}, "gpu": gpu}
    return found


def spec(thing: Mapping[str, Any]) -> Mapping[str, Any]:
    found = thing.get("spec")
    return found if isinstance(found, Mapping) else {}


def canonical(thing: Any) -> str:
    """The same text for the same rule, in whatever order its lists are."""
    if isinstance(thing, Mapping):
        return json.dumps({key: canonical(thing[key]) for key in sorted(thing)})
    if isinstance(thing, Sequence) and not isinstance(thing, str):
        return json.dumps(sorted(canonical(part) for part in thing))
    return json.dumps(thing)
