"""Reads a stack file into the model of `components.config`, or says all that is wrong with it.

What pydantic finds within a section and what contradicts between sections come together, a sentence
each, with the key, what was given and what would be right.
"""

import difflib
import itertools
import json
import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from components import names
from components.config import (
    SECRET_KEYS,
    Chart,
    Identity,
    Profile,
    Quotas,
    Section,
    StackFile,
    Storage,
    in_bytes,
)

PREFIX = "mlhub:"
"""What Pulumi puts before a key of this project in the stack file."""

MAX_SHOWN = 80
"""How much of a wrong value an error repeats."""

RESERVED = ("claim-", "workspace-")
LARGEST_WORKSPACE = "100Gi"
TAKEN = frozenset({"ajax-api", "api", "default", "static-files", "workspaces"})
"""No names of workspaces, since MLflow uses them."""

PASSWORD = re.compile(r"//[^/@\s]+@")
"""What stands before a host in an address, and is in no error."""

Location = tuple[int | str, ...]
"""A place in the stack file as pydantic names it, e.g. `("profiles", 0, "cpu")`."""


class StackFileError(Exception):
    """Everything that is wrong with a stack file, a sentence each."""

    def __init__(self, sentences: list[str]):
        super().__init__("\n".join(sentences))
        self.sentences = sentences


def path_of(stack: str) -> str:
    return f"stacks/Pulumi.{stack}.yaml"


def written(file: Path) -> dict[str, Any]:
    """What a stack file has by key, right or not, secrets encrypted."""
    content = yaml.safe_load(file.read_text(encoding="utf-8")) or {}
    return content.get("config") or {}


def read(stack: str, checkout: Path = Path()) -> StackFile:
    """The stack file of a checkout. Raises StackFileError, also where there is none."""
    file = checkout / path_of(stack)
    if not file.is_file():
        raise StackFileError(
            [f"STACK is {stack}, and there is no {path_of(stack)}; name one that there is"]
        )
    config = written(file)
    secret = {key for key, value in config.items() if isinstance(value, dict) and "secure" in value}
    raw = {
        key: value if isinstance(value, str) else json.dumps(value) for key, value in config.items()
    }
    return load(stack, raw, secret)


def load(stack: str, raw: Mapping[str, str], secret_keys: Collection[str] = ()) -> StackFile:
    """The stack file from Pulumi's configuration, or a StackFileError with all that is wrong.

    `raw` maps `mlhub:<key>` to what Pulumi hands over: JSON for a section, the text itself for a
    scalar. `secret_keys` are those that are encrypted. Keys of other namespaces and secret keys
    that are no section are left to their readers; no value of a secret is in an error.
    """
    file = path_of(stack)
    sentences = [*unprefixed(raw)]
    sections: dict[str, Any] = {}
    for key, value in raw.items():
        if not key.startswith(PREFIX):
            continue
        name = key.removeprefix(PREFIX)
        if key in secret_keys:
            if name in StackFile.model_fields:
                sentences.append(
                    f"{name} is encrypted; sections are plain, secrets have keys of their own"
                )
        elif name in SECRET_KEYS:
            sentences.append(
                f"{name} is in plain text; change it where it came from, since it has been "
                f"readable, then `pulumi config set --secret {key} --stack {stack}`"
            )
        else:
            sections[name] = json.loads(value) if value[:1] in ("{", "[") else value
    try:
        found = StackFile.model_validate_json(json.dumps(sections))
    except ValidationError as error:
        sentences += _sentences(error)
    else:
        sentences += contradictions(found)
        sentences += [
            f"{PREFIX}{key} is missing, {what}; "
            f"`pulumi config set --secret {PREFIX}{key} --stack {stack}` asks for it"
            for key, what in found.secret_keys.items()
            if PREFIX + key not in raw
        ]
    if sentences:
        raise StackFileError([f"{file}: {sentence}" for sentence in sentences])
    return found


def unprefixed(keys: Iterable[str]) -> Iterator[str]:
    """Keys that Pulumi would take for the project's own, and no other reader of the file would.

    Editors, `make verify`, backups and restores read the file as it stands.
    """
    for key in keys:
        if ":" not in key:
            yield f"{key} is a key without its prefix; write {PREFIX}{key}"


def with_chart(stack: StackFile, folder: str) -> StackFile:
    """The stack with its hub's chart from a folder."""
    hub = stack.hub.model_copy(update={"chart": Chart(path=folder)})
    return stack.model_copy(update={"hub": hub})


def contradictions(stack: StackFile) -> Iterator[str]:
    """What is right in each section and wrong between them."""
    yield from _about_profiles(stack)
    yield from _about_images(stack)
    yield from _about_people(stack.identity)
    yield from _about_volumes(stack)
    yield from _about_places(stack)
    yield from _about_verify(stack)


def _about_volumes(stack: StackFile) -> Iterator[str]:
    storage = stack.storage
    if in_bytes(storage.home) > in_bytes(stack.quotas.namespace.storage):
        yield (
            f"storage.home is {storage.home} and quotas.namespace.storage is "
            f"{stack.quotas.namespace.storage}; a home within the quota is required, or no server "
            "could start"
        )
    yield from _doubles("storage.volumes[].name", [volume.name for volume in storage.volumes])
    yield from _doubles("storage.volumes[].mount", storage.mounts)
    for number, volume in enumerate(storage.volumes):
        if volume.mount == names.HOME:
            yield (
                f"storage.volumes[{number}].mount is {names.HOME}, where everyone's own home is; "
                "a folder in it or elsewhere is required"
            )
        if volume.mount.startswith(f"{names.HOME}/."):
            yield (
                f"storage.volumes[{number}].mount is {volume.mount}, which would hide what people "
                "have installed and set there; a folder without a dot is required"
            )
        if volume.twin is not None and storage.provisioner != names.SEAWEEDFS_CSI:
            yield (
                f"storage.volumes[{number}].twin needs the path of the volume, which "
                f"storage.provisioner {storage.provisioner} chooses by itself; "
                f"{names.SEAWEEDFS_CSI} is required, or no twin"
            )
        if volume.name.startswith(RESERVED):
            yield (
                f"storage.volumes[{number}].name is {volume.name}; claim- begins the names of "
                "homes and workspace- those of workspaces, so another is required"
            )
    yield from _about_mounts(storage)
    yield from _about_drivers(stack)
    yield from _about_workspaces(stack)
    yield from _about_the_workspace_service(stack)


def _about_mounts(storage: Storage) -> Iterator[str]:
    mounts = [*storage.mounts]
    if storage.scratch is not None:
        if names.SCRATCH_MOUNT in mounts:
            yield (
                f"storage.volumes[].mount is {names.SCRATCH_MOUNT}, where storage.scratch is; "
                "another folder is required"
            )
        mounts.append(names.SCRATCH_MOUNT)
    for outer, inner in itertools.permutations(mounts, 2):
        if inner.startswith(f"{outer}/"):
            yield (
                f"storage.volumes[].mount is {outer}, in which {inner} is mounted as well and "
                "would hide what is there; two folders apart are required"
            )


def _about_drivers(stack: StackFile) -> Iterator[str]:
    storage = stack.storage
    shared = {
        "storage.volumes": storage.volumes,
        "workspaces": stack.workspaces,
        "workspace_service": stack.workspace_service,
    }
    given = [key for key, value in shared.items() if value]
    if given and storage.provisioner.endswith(names.BLOCK_CSI):
        yield (
            f"storage.provisioner is {storage.provisioner}, whose volumes one node mounts at a "
            f"time, and {', '.join(given)} are for many; a driver of shared files is required, "
            f"such as efs.csi.aws.com or {names.SEAWEEDFS_CSI}, and for homes "
            f"storage.home_provisioner may be {storage.provisioner}"
        )
    own = {
        ("storage", "home_"): (storage.home_parameters, storage.home_provisioner),
        ("foundation", ""): (stack.foundation.parameters, stack.foundation.provisioner),
    }
    for (section, kind), (parameters, provisioner) in own.items():
        if parameters and provisioner is None:
            yield (
                f"{section}.{kind}parameters is given and {section}.{kind}provisioner is missing; "
                "name the driver whose parameters these are"
            )


def _about_workspaces(stack: StackFile) -> Iterator[str]:
    yield from _doubles("workspaces[].slug", [workspace.slug for workspace in stack.workspaces])
    yield from _doubles("workspaces[].name", [workspace.name for workspace in stack.workspaces])
    for number, workspace in enumerate(stack.workspaces):
        if len(workspace.slug) < 2 or "--" in workspace.slug or workspace.slug in TAKEN:
            yield (
                f"workspaces[{number}].slug is {workspace.slug}; 2 to 50 small letters, digits and "
                f"single `-` are required, other than MLflow's own {', '.join(sorted(TAKEN))}"
            )
        if in_bytes(workspace.size) > in_bytes(LARGEST_WORKSPACE):
            yield (
                f"workspaces[{number}].size is {workspace.size}; "
                f"at most {LARGEST_WORKSPACE} is required"
            )


def _about_the_workspace_service(stack: StackFile) -> Iterator[str]:
    if (service := stack.workspace_service) is None:
        return
    for key, size, most in (
        ("largest", service.largest, LARGEST_WORKSPACE),
        ("size", service.size, service.largest),
    ):
        if in_bytes(size) > in_bytes(most) or in_bytes(size) % in_bytes("1Gi"):
            yield (
                f"workspace_service.{key} is {size}; a whole number of Gi, at most {most}, is "
                "required"
            )


def _about_verify(stack: StackFile) -> Iterator[str]:
    slugs = [profile.slug for profile in stack.profiles]
    for number, slug in enumerate(stack.verify.profiles if stack.verify else ()):
        if slug not in slugs:
            yield (
                f"verify.profiles[{number}] is {slug}; one of profiles[].slug "
                f"({', '.join(slugs)}) is required"
            )


def _about_ports_and_state(stack: StackFile) -> Iterator[str]:
    files, own = stack.foundation.seaweedfs, stack.foundation.keycloak
    state = files.state if files else None
    ports = {
        "foundation.seaweedfs.state.node_port": state.node_port if state else None,
        "hub.node_port": stack.hub.node_port,
        "foundation.keycloak.node_port": own.node_port if own else None,
    }
    for (one, port), (other, same) in itertools.combinations(ports.items(), 2):
        if port is not None and port == same:
            yield f"{one} and {other} are both {port}; two different ports are required"
    if state is not None and state.bucket == names.MLFLOW_BUCKET:
        yield (
            f"foundation.seaweedfs.state.bucket is {names.MLFLOW_BUCKET}, where MLflow's artifacts "
            "are; another is required"
        )


def _about_places(stack: StackFile) -> Iterator[str]:
    own = stack.foundation.keycloak
    if (own is None) == (stack.identity.keycloak is None):
        both = "both given" if own else "both missing"
        yield (
            f"identity.keycloak and foundation.keycloak are {both}; exactly one is required, the "
            "first for a Keycloak that is there, the second to have one made"
        )
    theirs = stack.identity.keycloak
    by_pods = (theirs.internal_url or theirs.url) if theirs else ""
    if theirs and not stack.network.keycloak and names.namespace_of(by_pods) is None:
        yield (
            f"network.keycloak is empty and identity.keycloak.url is {theirs.url}; a list of its "
            "address ranges is required, or hub and services could reach every address"
        )
    if stack.identity.demo_users and stack.identity.keycloak is not None:
        yield (
            "identity.demo_users makes people up in identity.keycloak, where real ones are; "
            "remove it, or use foundation.keycloak"
        )
    yield from _about_ports_and_state(stack)
    harbor = stack.registry.harbor
    host, _, project = stack.registry.repository.partition("/")
    if harbor is not None and (hostname(host) != hostname(harbor.url) or "/" in project):
        yield (
            f"registry.repository is {stack.registry.repository} and registry.harbor.url is "
            f"{harbor.url}; the same host and one project are required"
        )
    promote = stack.images.promote
    if promote is not None and promote.repository.partition("/")[0] != host:
        yield (
            f"images.promote.repository is {promote.repository} and registry.repository is "
            f"{stack.registry.repository}; the same registry is required"
        )
    yield from _about_artifacts(stack)
    yield from _about_databases(stack)
    places = {
        "hub.namespace": stack.hub.namespace,
        "foundation.namespace": stack.foundation.namespace,
    }
    if stack.mlflow is not None:
        places["mlflow.namespace"] = stack.mlflow.namespace
    for one, other in itertools.combinations(places, 2):
        if places[one] == places[other]:
            yield (
                f"{one} and {other} are both {places[one]}; two different namespaces are required, "
                "so that user pods and databases stay apart"
            )


def _about_databases(stack: StackFile) -> Iterator[str]:
    if stack.data_provisioner != names.SEAWEEDFS_CSI:
        return
    given = stack.foundation.provisioner
    said = given or f"missing, for which that of homes stands in, {stack.data_provisioner}"
    yield (
        f"foundation.provisioner is {said}, and on SeaweedFS's mounts a database is not safe; a "
        f"driver of block volumes is required, such as ebs.csi.aws.com, or {names.LOCAL_PATH} on a "
        'single node (a claim that is there keeps its class: docs/recovery.md, "Another Postgres", '
        "tells how to move what is on it)"
    )


def _about_artifacts(stack: StackFile) -> Iterator[str]:
    if stack.mlflow is None:
        return
    artifacts = stack.mlflow.artifacts
    if artifacts is None and stack.foundation.seaweedfs is None:
        yield (
            "mlflow.artifacts and foundation.seaweedfs are both missing; one is required, the "
            "first for an S3 service that is there, the second to have one made"
        )
    if artifacts and not stack.network.s3 and names.namespace_of(artifacts.endpoint) is None:
        yield (
            f"network.s3 is empty and mlflow.artifacts.endpoint is {artifacts.endpoint}, outside "
            "the cluster; a list of its address ranges is required, or MLflow could not reach it"
        )


def _about_profiles(stack: StackFile) -> Iterator[str]:
    defaults = [p.slug for p in stack.profiles if p.default]
    if len(defaults) != 1:
        yield (
            f"profiles has {len(defaults)} with default: true"
            f"{' (' + ', '.join(defaults) + ')' if defaults else ''}; exactly one is required"
        )
    yield from _doubles("profiles[].slug", [p.slug for p in stack.profiles])
    yield from _doubles("profiles[].name", [p.name for p in stack.profiles])
    for number, profile in enumerate(stack.profiles):
        for both in _beyond(profile, stack.quotas):
            yield (
                f"profiles[{number}].{both}; a profile within the quota is required, "
                "or its servers could never start"
            )
        for group in profile.groups:
            if group not in stack.identity.access_groups:
                yield (
                    f"profiles[{number}].groups names {group}; one of identity.access_groups "
                    f"({', '.join(stack.identity.access_groups)}) is required"
                )
        if profile.each_node and not profile.gpu:
            yield (
                f"profiles[{number}].each_node is true and gpu is 0; "
                "a profile for each GPU node takes a GPU"
            )
        if profile.default and (profile.each_node or profile.groups or profile.gpu):
            yield (
                f"profiles[{number}] is the default and not for everybody on every node; "
                "the default has no groups, no each_node and no GPU"
            )
        if profile.idle_timeout and profile.idle_timeout > stack.hub.idle_timeout:
            yield (
                f"profiles[{number}].idle_timeout is {profile.idle_timeout} and hub.idle_timeout "
                f"is {stack.hub.idle_timeout}; at most that is required, since it holds for all"
            )
    for number, limits in enumerate(stack.quotas.groups):
        if limits.group not in stack.identity.access_groups:
            yield (
                f"quotas.groups[{number}].group is {limits.group}; one of identity.access_groups "
                f"({', '.join(stack.identity.access_groups)}) is required"
            )
    yield from _doubles("quotas.groups[].group", [limits.group for limits in stack.quotas.groups])


def _beyond(profile: Profile, quotas: Quotas) -> Iterator[str]:
    """Each limit that the largest server of a profile is beyond."""
    cpu, memory, gpu = profile.most
    for name, quota in (("namespace", quotas.namespace), ("user", quotas.user)):
        if cpu > quota.cpu:
            yield f"cpu.limit is {cpu:g} and quotas.{name}.cpu is {quota.cpu}"
        if in_bytes(memory) > in_bytes(quota.memory):
            yield f"memory.limit is {memory} and quotas.{name}.memory is {quota.memory}"
        if gpu > quota.gpu:
            yield f"gpu is {gpu} and quotas.{name}.gpu is {quota.gpu}"


def _about_images(stack: StackFile) -> Iterator[str]:
    if stack.images.build is not None:
        # The images are known by name, so that the last would be taken for both.
        projects = [project.name for project in stack.images.build.projects]
        yield from _doubles("images.build.projects[].name", projects)
    for number, profile in enumerate(stack.profiles):
        if profile.image in names.PLATFORM_IMAGES:
            yield (
                f"profiles[{number}].image is {profile.image}, which is of the platform's own; "
                "an image for people's servers is required, such as ml-cpu"
            )


def _about_people(identity: Identity) -> Iterator[str]:
    access = ", ".join(identity.access_groups)
    for number, group in enumerate(identity.admin_groups):
        if group not in identity.access_groups:
            yield (
                f"identity.admin_groups[{number}] is {group}, which identity.access_groups "
                f"({access}) lacks; add it there, or its members could not log in"
            )
    yield from _doubles("identity.demo_users[].name", [u.name for u in identity.demo_users])
    for number, user in enumerate(identity.demo_users):
        for group in user.groups:
            if group not in identity.access_groups:
                yield (
                    f"identity.demo_users[{number}].groups names {group}; "
                    f"one of identity.access_groups ({access}) is required"
                )


def hostname(address: str) -> str:
    """The host of an address, without scheme and port."""
    return address.rpartition("://")[2].partition(":")[0]


def _doubles(key: str, values: Iterable[str]) -> Iterator[str]:
    for value, count in Counter(values).items():
        if count > 1:
            yield f'{key} is "{value}" {count} times; each must differ'


def _sentences(error: ValidationError) -> Iterator[str]:
    details = error.errors(include_url=False)
    places = [d["loc"] for d in details]
    for d in details:
        if d["type"] == "default_factory_not_called":
            continue  # what it would be made of is wrong, and named for itself
        # pydantic counts only the right items of a list, so one wrong item is a short list, too.
        inner = any(p[: len(d["loc"])] == d["loc"] and p != d["loc"] for p in places)
        if not (d["type"] == "too_short" and inner):
            yield _sentence(d)


def _sentence(details: ErrorDetails) -> str:
    """One of pydantic's errors as a sentence: the key, what was given, what is right."""
    location = details["loc"]
    key = _key(location)
    if details["type"] == "extra_forbidden":
        known = list(_section(location[:-1]).model_fields)
        close = difflib.get_close_matches(str(location[-1]), known, n=1)
        return (
            f"{key} is not an option; "
            + (f"did you mean {close[0]}? " if close else "")
            + f"{_key(location[:-1]) or 'the stack file'} knows {', '.join(known)}"
        )
    if details["type"] == "missing":
        return f"{key} is missing; give {_right(location)}"
    if details["type"] == "value_error" and isinstance(details["input"], dict):
        return f"{key} {details['ctx']['error']}"
    given = _shown(json.dumps(details["input"], ensure_ascii=False))
    if isinstance(location[-1], int):
        return f"{key} is {given}; {_key(location[:-1])} must be {_right(location)}{_why(details)}"
    right = _keys_of(location) if details["type"] == "model_type" else _right(location)
    return f"{key} is {given}; it must be {right}{_why(details)}"


def _shown(text: str) -> str:
    """What a person wrote, as far as an error repeats it."""
    text = PASSWORD.sub("//…@", text)
    return text if len(text) <= MAX_SHOWN else text[:MAX_SHOWN] + "…"


def _why(details: ErrorDetails) -> str:
    """What is wrong with a value that looks right."""
    if details["type"] == "value_error":
        return f" ({_shown(str(details['ctx']['error']))})"
    if details["type"] == "string_type" and isinstance(details["input"], bool | float | int):
        kind = "true or false" if isinstance(details["input"], bool) else "a number"
        return f"; put it in quotes, or YAML reads {kind}"
    return ""


def _right(location: Location) -> str:
    """What is right at a place: the field's description, or the keys that a section needs."""
    *_, field = _fields(location)
    return field.description or _keys_of(location)


def _keys_of(location: Location) -> str:
    """What a section has to have."""
    fields = _section(location).model_fields
    needed = [name for name, part in fields.items() if part.is_required()]
    return f"a section with {', '.join(needed)}" if needed else "a section; {} takes every default"


def _key(location: Location) -> str:
    """`("profiles", 0, "cpu")` as `profiles[0].cpu`."""
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in location)
    return text.removeprefix(".")


def _fields(location: Location) -> Iterator[FieldInfo]:
    """The fields on the way to a place of the stack file, the outermost first."""
    section: type[Section] | None = StackFile
    for part in location:
        if isinstance(part, str) and section is not None:
            field = section.model_fields[part]
            yield field
            section = _section_in(field.annotation)


def _section(location: Location) -> type[Section]:
    """The section at a place of the stack file."""
    *_, last = [StackFile, *(_section_in(field.annotation) for field in _fields(location))]
    return last or StackFile


def _section_in(annotation: Any) -> type[Section] | None:
    """The section that a field's type holds, itself or as the item of a list, if it does."""
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return annotation
    found = (_section_in(part) for part in get_args(annotation))
    return next((section for section in found if section is not None), None)


def schema() -> dict[str, Any]:
    """JSON Schema of a whole `Pulumi.<stack>.yaml`, for editors."""
    body = StackFile.model_json_schema()
    secret = {
        "type": "object",
        "properties": {"secure": {"type": "string"}},
        "required": ["secure"],
        "additionalProperties": False,
        "description": "a secret, set with `pulumi config set --secret`",
    }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "A stack of mlhub",
        "type": "object",
        "properties": {
            "config": {
                "type": "object",
                "properties": {PREFIX + name: part for name, part in body["properties"].items()},
                "required": [PREFIX + name for name in body["required"]],
                "patternProperties": {"^pulumi:": {}},
                "additionalProperties": secret,
            },
            "encryptionsalt": {"type": "string", "description": "written by Pulumi"},
            "encryptedkey": {"type": "string", "description": "written by Pulumi"},
            "secretsprovider": {"type": "string", "description": "written by Pulumi"},
        },
        "required": ["config"],
        "additionalProperties": False,
        "$defs": body["$defs"],
    }
