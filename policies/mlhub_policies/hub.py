"""What the hub's Release must say, and what would take it out of the rules' sight.

Only its values are seen. Code in them, files beside them and charts that read others could undo
every other rule, so they are refused.
"""

import re
from collections.abc import Iterator

from mlhub_policies.limits import Chart, StackLimits
from mlhub_policies.rule import RELEASE, Finding, Resource, breach, later
from mlhub_policies.servers import OVERRIDE, choices, profiles
from mlhub_policies.tree import Node

AUTHENTICATORS = ("mlhub.hub.KeycloakAuthenticator",)
CODE = ("from mlhub.hub import configure\nconfigure(c)\n",)
"""All that `hub.extraConfig` may say; the hub's behaviour is in its image, where it is tested."""

OTHER_CODE = (
    "command", "args", "extraFiles", "lifecycle", "initContainers", "extraContainers",
)  # fmt: skip
"""Keys of `hub` that have its pod run what its image does not."""

IN_THE_POD = "what runs in the hub's pod is decided by its image"
SETTINGS = "MLHUB_"
"""How variables begin that `mlhub.hub` reads: one moves the folder of its settings."""

OTHER_WAYS_IN = re.compile(r"^(allow_all|allow_.*|any_.*|allowed_users|.*password.*)$")
"""What would let in somebody who is in no group (OAuthenticator and JupyterHub's own)."""

TRAITS = frozenset(
    {
        "image", "cpu_limit", "cpu_guarantee", "mem_limit", "mem_guarantee",
        "extra_resource_limits", "extra_resource_guarantees", "environment", "default_url",
        "node_selector", "node_affinity_required", "tolerations", "extra_labels", "privileged",
        "allow_privilege_escalation", "container_security_context", "pod_security_context", "uid",
        "gid", "fs_gid", "service_account", "automount_service_account_token", "volumes",
        "volume_mounts", "init_containers", "extra_containers", "extra_pod_config",
        "extra_container_config",
    }
)  # fmt: skip
"""What a profile may override: what the rules read, or what can do no harm. KubeSpawner sets any
attribute by its name, old names such as `image_spec` and `singleuser_privileged` among them, and
`namespace`, where no quota would hold (kubespawner, `_apply_overrides`)."""

PINNED = re.compile(r"^[0-9]+\.[0-9]+\.[0-9]+([-+.][0-9A-Za-z.+-]+)?$")


def chart_is_pinned(resource: Resource, limits: StackLimits) -> Iterator[Finding]:
    if resource.type != RELEASE:
        return
    chart, version = resource.inputs["chart"], resource.inputs["version"]
    repository = resource.inputs.at("repositoryOpts", "repo")
    unknown = [node for node in (chart, version, repository) if node.unknown]
    yield from (later(node) for node in unknown)
    if unknown:
        return
    known = [allowed for allowed in limits.charts if allowed.chart == chart.value]
    if not known:
        names = " or ".join(allowed.chart for allowed in limits.charts)
        yield breach(chart, f"{names} is required: no rule can read another chart's values")
        return
    if not PINNED.match(str(version.value)):
        yield breach(version, "a whole version such as 4.4.0 is required")
    if not any(_from(allowed, repository) and _of(allowed, version) for allowed in known):
        wanted = " or ".join(f"{c.version or 'any'} from {c.repository or c.chart}" for c in known)
        given = f"{version.shown()} from {repository.value or chart.value}"
        yield Finding("version", f"is {given}; {wanted} is required")


def _from(allowed: Chart, repository: Node) -> bool:
    given = str(repository.value or "").rstrip("/")
    return given == (allowed.repository or "").rstrip("/")


def _of(allowed: Chart, version: Node) -> bool:
    return allowed.version is None or f"{version.value}.".startswith(f"{allowed.version}.")


def everything_is_in_sight(resource: Resource, _limits: StackLimits) -> Iterator[Finding]:
    if resource.type != RELEASE:
        return
    files = resource.inputs["valueYamlFiles"]
    if files.unknown:
        yield later(files)
    elif any(files.parts()):
        yield breach(files, "values are required in the program, where the rules see them")
    renderer = resource.inputs["postrender"]
    if renderer.unknown:
        yield later(renderer)
    elif renderer.value:
        yield breach(renderer, "none is allowed: it rewrites what was seen")
    yield from _code(resource.values["hub"])
    yield from _files_and_variables(resource.values["hub"])
    yield from _overrides(resource.values)
    for node in resource.values.at("hub", "config").parts():
        if node.unknown:
            yield later(node)
        elif node.key.endswith("Spawner"):
            yield breach(node, "say it under singleuser, where the rules look")
    spawner = resource.values.at("hub", "config", "JupyterHub", "spawner_class")
    if spawner.unknown:
        yield later(spawner)
    elif not spawner.absent:
        yield breach(spawner, "none is required: mlhub.hub sets the one that checks quotas")


def _code(hub: Node) -> Iterator[Finding]:
    codes = hub["extraConfig"]
    parts = list(codes.parts()) or [codes]
    for code in parts:
        if code.unknown:
            yield later(code)
        elif code.value not in CODE:
            yield breach(code, f"{CODE[0]!r} is required, and nothing else: the rest is in images/")
    for name in OTHER_CODE:
        node = hub[name]
        if node.unknown:
            yield later(node)
        elif node.value:
            yield breach(node, "what the hub runs is decided by its image")
    # The charts take services in both places, and `config` last.
    for node in (*hub["services"].walk(), *hub["config"].walk()):
        if node.unknown:
            yield later(node)
        elif node.key == "command" and not node.absent and not node.path.endswith("]"):
            yield breach(node, IN_THE_POD)


def _files_and_variables(hub: Node) -> Iterator[Finding]:
    """What could have the hub read other files than those of its image and of its values."""
    for volume in hub["extraVolumes"].parts():
        if volume.unknown or volume["emptyDir"].unknown:
            yield later(volume)
        elif volume["emptyDir"].absent:
            yield breach(volume, "emptyDir is required: files could take the place of the image's")
    variables = hub["extraEnv"]
    for variable in variables.parts():
        listed = isinstance(variables.value, list) and not variable.unknown
        if variable.unknown or (listed and variable["name"].unknown):
            yield later(variable)
        elif str(variable["name"].value if listed else variable.key).startswith(SETTINGS):
            yield breach(variable, "none is required: the hub's settings are in custom.mlhub")


def _overrides(values: Node) -> Iterator[Finding]:
    for profile in profiles(values):
        for part in (profile, *choices(profile)):
            for node in part[OVERRIDE].parts():
                if node.unknown and node.key == OVERRIDE:
                    yield later(node)
                elif node.key not in TRAITS:
                    yield breach(
                        node, "no rule reads it; its name in KubeSpawner today is required"
                    )


def people_come_by_group(resource: Resource, _limits: StackLimits) -> Iterator[Finding]:
    if resource.type != RELEASE:
        return
    values = resource.values
    chosen = values.at("hub", "config", "JupyterHub", "authenticator_class")
    if chosen.unknown:
        yield later(chosen)
    elif chosen.value not in AUTHENTICATORS:
        yield breach(chosen, f"{' or '.join(AUTHENTICATORS)} is required, and no fallback")
    groups = values.at("custom", "mlhub", "identity", "access_groups")
    if groups.unknown:
        yield later(groups)
    elif not isinstance(groups.value, list) or not groups.value:
        yield breach(groups, "a list of at least one Keycloak group is required")
    for group in () if groups.unknown else groups.parts():
        if group.unknown:
            yield later(group)
        elif not re.fullmatch(r"(/[^/]+)+", str(group.value)):
            yield breach(group, "a group's whole path such as /mlhub/users is required")
    yield from _other_ways_in(values.at("hub", "config"))


def _other_ways_in(config: Node) -> Iterator[Finding]:
    for part in config.parts():
        if part.unknown:
            yield later(part)
            continue
        for node in part.parts():
            if not OTHER_WAYS_IN.match(node.key):
                continue
            if node.unknown:
                yield later(node)
            elif node.value:
                yield breach(node, "groups alone decide who comes in")


def idle_servers_stop(resource: Resource, limits: StackLimits) -> Iterator[Finding]:
    if resource.type != RELEASE:
        return
    cull = resource.values["cull"]
    enabled, timeout = cull["enabled"], cull["timeout"]
    if enabled.unknown:
        yield later(enabled)
    elif enabled.value is not True:
        yield breach(enabled, "true is required")
    most = limits.idle_timeout
    own = [p["idle_timeout"] for p in resource.values.at("custom", "mlhub", "profiles").parts()]
    for node in (timeout, *(node for node in own if not node.absent)):
        if node.unknown:
            yield later(node)
        elif not isinstance(node.value, int | float) or not 0 < node.value <= most:
            yield breach(node, f"a number of seconds from 1 to {most} is required")


def demo_users_stay_in_demonstrations(resource: Resource, limits: StackLimits) -> Iterator[Finding]:
    if resource.type != "keycloak:index/user:User" or limits.demo_users:
        return
    password = resource.inputs["initialPassword"]
    if not password.absent:
        yield Finding(
            "initialPassword",
            "makes up a person, which is for demonstrations; people of this stack come from the "
            "organization's own directory",
        )
