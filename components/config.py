"""The typed stack file: what `stacks/Pulumi.<stack>.yaml` may say.

Checked whole before any resource exists; nothing here reaches a file, a cluster or the engine. A
field's description says what is right, as the end of a sentence: errors and `stacks/schema.json`
are both made of it.
"""

import difflib
import ipaddress
import json
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Annotated, Any, Literal, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    model_validator,
)
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

PREFIX = "mlhub:"
"""What Pulumi puts before a key of this project in the stack file."""

MAX_SHOWN = 80
"""How much of a wrong value an error repeats."""

Location = tuple[int | str, ...]
"""A place in the stack file as pydantic names it, e.g. `("profiles", 0, "cpu")`."""

UNITS = {"M": 2**20, "G": 2**30, "T": 2**40}
"""KubeSpawner's `5G` and Kubernetes' `5Gi` are the same number of bytes (kubespawner,
`ByteSpecification`: units are powers of 1024)."""


def in_bytes(size: str) -> int:
    """`5G`, `2.5G` or `10Gi` in bytes."""
    size = size.removesuffix("i")
    return int(float(size[:-1]) * UNITS[size[-1]])


def cidr(text: str) -> str:
    ipaddress.ip_network(text)
    return text


def not_latest(tag: str) -> str:
    if tag == "latest":
        raise ValueError("latest names nothing in particular")
    return tag


Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$")]
"""An RFC 1123 label, as Kubernetes wants it."""

Quantity = Annotated[str, StringConstraints(pattern=r"^[1-9][0-9]*(Mi|Gi|Ti)$")]
"""A Kubernetes quantity of bytes in binary units, e.g. `64Gi`."""

Memory = Annotated[
    str, StringConstraints(pattern=r"^([1-9][0-9]*(\.[0-9]+)?|0\.[0-9]*[1-9][0-9]*)[MGT]$")
]
"""Bytes as KubeSpawner reads them, e.g. `2.5G`."""

GroupPath = Annotated[
    str, StringConstraints(pattern=r"^(/[A-Za-z0-9._]+(-[A-Za-z0-9._]+)*)+$", max_length=200)
]
"""A Keycloak group's full path. No `--`, which stands for `/` in the hub's name of the group."""

Tag = Annotated[
    str,
    StringConstraints(pattern=r"^[A-Za-z0-9_][A-Za-z0-9._-]{0,127}$"),
    AfterValidator(not_latest),
]
NodePort = Annotated[int, Field(ge=30000, le=32767)]
Cidr = Annotated[str, AfterValidator(cidr)]


class Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Cluster(Section):
    """Which Kubernetes."""

    context: str | None = Field(
        default=None,
        min_length=1,
        description="a context of your kubeconfig (leave it out for the embedded node)",
    )


class DemoUser(Section):
    """A person made up for a demonstration, with a generated password."""

    name: Name = Field(description="a user name of small letters, digits and `-`")
    groups: tuple[GroupPath, ...] = Field(
        description="a list of group paths (an empty one makes a person who is turned away)"
    )


class Identity(Section):
    """Who may use the hub, by Keycloak group."""

    realm: Name = Field(description="a realm name of small letters, digits and `-`")
    access_groups: tuple[GroupPath, ...] = Field(
        min_length=1,
        description="a list of the groups whose members may log in, as paths such as /mlhub/users",
    )
    admin_groups: tuple[GroupPath, ...] = Field(
        min_length=1,
        description="a list of groups out of access_groups, whose members administer the hub",
    )
    demo_users: tuple[DemoUser, ...] = Field(
        default=(),
        description="a list of people to make up (leave it out wherever real people work)",
    )
    existing_secret: Name | None = Field(
        default=None,
        description=(
            "the name of a Secret in the hub's namespace with client_id and client_secret of a "
            "client that others manage (leave it out to have the client made here)"
        ),
    )


class Registry(Section):
    """Where images are pushed and pulled."""

    repository: Annotated[
        str, StringConstraints(pattern=r"^[a-z0-9.-]+(:[0-9]+)?(/[a-z0-9._-]+)+$")
    ] = Field(description="host[:port]/project such as localhost:5000/mlhub")


class Images(Section):
    """How images are built."""

    builder: Name = Field(description="the name of a buildx builder")
    debian: str = Field(
        pattern=r"^[a-z0-9.-]+(:[0-9]+)?(/[a-z0-9._-]+)*(:[A-Za-z0-9._-]+|@sha256:[0-9a-f]{64})$",
        description="a pinned image of Debian bookworm, with a tag or a digest",
    )
    tag: Tag = Field(
        description="a tag other than latest (it is for people: images are deployed by digest)",
    )
    platforms: tuple[Literal["linux/amd64", "linux/arm64"], ...] = Field(
        default=(),
        description="a list of linux/amd64 and linux/arm64 (without it: the builder's own)",
    )


class Storage(Section):
    """Volumes."""

    provisioner: str = Field(
        pattern=r"^[a-z0-9.-]+(/[a-z0-9.-]+)?$",
        description="the name of the CSI driver or provisioner that makes volumes",
    )
    home: Quantity = Field(description="the size of a person's home, such as 10Gi")


class Chart(Section):
    """The chart of the hub's Release."""

    path: str = Field(min_length=1, description="a chart's folder, such as charts/jupyterhub-lite")


class Hub(Section):
    """The hub itself."""

    namespace: Name = Field(default="jupyterhub", description="a namespace name")
    node_port: NodePort = Field(description="a free NodePort, 30000 to 32767, for the hub")
    chart: Chart
    idle_timeout: int = Field(
        default=3600,
        ge=60,
        description="a whole number of seconds of idleness, 60 or more, after which a server stops",
    )
    idle_check: int = Field(
        default=600,
        ge=10,
        description="a whole number of seconds between looks for idle servers, 10 or more",
    )
    start_timeout: int = Field(
        default=300,
        ge=30,
        description="a whole number of seconds that a server may take to start, 30 or more",
    )


class Cpu(Section):
    limit: float = Field(gt=0, description="a number of cores above 0")
    guarantee: float = Field(gt=0, description="a number of cores above 0 and within the limit")

    @model_validator(mode="after")
    def _within(self) -> "Cpu":
        if self.guarantee > self.limit:
            raise ValueError(
                f"guarantees {self.guarantee:g} cores and limits to {self.limit:g}; "
                "a guarantee within the limit is required"
            )
        return self


class MemoryRange(Section):
    limit: Memory = Field(description="an amount such as 5G (1G is 2^30 bytes)")
    guarantee: Memory = Field(description="an amount such as 2.5G, within the limit")

    @model_validator(mode="after")
    def _within(self) -> "MemoryRange":
        if in_bytes(self.guarantee) > in_bytes(self.limit):
            raise ValueError(
                f"guarantees {self.guarantee} and limits to {self.limit}; "
                "a guarantee within the limit is required"
            )
        return self


class Profile(Section):
    """One choice of the spawn form."""

    slug: Name = Field(
        description="an id of small letters, digits and `-` that stays, for links hold it"
    )
    name: str = Field(min_length=1, max_length=60, description="the name that the spawn form shows")
    description: str = Field(min_length=1, description="one sentence for the spawn form")
    default: bool = Field(default=False, description="true on exactly one profile")
    image: Name = Field(description="the name of a folder in images/, such as ml-cpu")
    cpu: Cpu
    memory: MemoryRange
    gpu: int = Field(ge=0, le=16, description="a whole number of GPUs, 0 where there are none")


class NamespaceQuota(Section):
    """What one namespace may hold altogether."""

    cpu: int = Field(gt=0, description="a whole number of cores")
    memory: Quantity = Field(description="an amount of memory such as 64Gi")
    gpu: int = Field(ge=0, description="a whole number of GPUs, 0 where there are none")
    storage: Quantity = Field(description="an amount of storage such as 1Ti")
    pods: int = Field(gt=0, le=10_000, description="a whole number of pods, 1 to 10000")

    def container_max(self) -> dict[str, str]:
        """No single container may take more than the namespace has."""
        return {"cpu": str(self.cpu), "memory": self.memory}


class Network(Section):
    """What is not the same in every cluster's network."""

    kubernetes_api: tuple[Cidr, ...] = Field(
        min_length=1,
        description=(
            "a list of the address ranges of the API server behind its Service, such as 10.0.0.1/32"
        ),
    )


class Foundation(Section):
    """Keycloak and Postgres for a stack that has none."""

    namespace: Name = Field(default="foundation", description="a namespace name")
    keycloak_node_port: NodePort = Field(
        description="a free NodePort, 30000 to 32767, for Keycloak"
    )
    postgres_volume: Quantity = Field(description="the size of the databases' volume, such as 5Gi")


class StackFile(Section):
    """A stack, whole."""

    cluster: Cluster = Cluster()
    domain: str = Field(
        pattern=r"^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$",
        description="the host name that people's browsers reach the stack by",
    )
    identity: Identity
    registry: Registry
    images: Images
    storage: Storage
    hub: Hub
    profiles: tuple[Profile, ...] = Field(
        min_length=1, description="a list of at least one profile"
    )
    quotas: NamespaceQuota
    network: Network
    foundation: Foundation

    @property
    def default_profile(self) -> Profile:
        return next(profile for profile in self.profiles if profile.default)

    @property
    def user_images(self) -> list[str]:
        """The images that profiles run, each once."""
        return sorted({profile.image for profile in self.profiles})


class StackFileError(Exception):
    """Everything that is wrong with a stack file, a sentence each."""

    def __init__(self, sentences: list[str]):
        super().__init__("\n".join(sentences))
        self.sentences = sentences


def path_of(stack: str) -> str:
    return f"stacks/Pulumi.{stack}.yaml"


def load(stack: str, raw: Mapping[str, str], secret_keys: Collection[str] = ()) -> StackFile:
    """The stack file from Pulumi's configuration, or a StackFileError with all that is wrong.

    `raw` maps `mlhub:<key>` to what Pulumi hands over: JSON for a section, the text itself for a
    scalar. Keys of other namespaces and secret keys that are no section are left to their readers.
    """
    file = path_of(stack)
    sentences = []
    sections: dict[str, Any] = {}
    for key, value in raw.items():
        if not key.startswith(PREFIX):
            continue
        name = key.removeprefix(PREFIX)
        if key not in secret_keys:
            sections[name] = json.loads(value) if value[:1] in ("{", "[") else value
        elif name in StackFile.model_fields:
            sentences.append(
                f"{file}: {name} is encrypted; sections are plain, secrets have keys of their own"
            )
    try:
        found = StackFile.model_validate_json(json.dumps(sections))
    except ValidationError as error:
        sentences += [f"{file}: {sentence}" for sentence in _sentences(error)]
    else:
        sentences += [f"{file}: {sentence}" for sentence in contradictions(found)]
    if sentences:
        raise StackFileError(sentences)
    return found


def contradictions(stack: StackFile) -> Iterator[str]:
    """What is right in each section and wrong between them."""
    yield from _about_profiles(stack)
    yield from _about_people(stack.identity)
    if in_bytes(stack.storage.home) > in_bytes(stack.quotas.storage):
        yield (
            f"storage.home is {stack.storage.home} and quotas.storage is {stack.quotas.storage}; "
            "a home within the quota is required, or no server could start"
        )
    if stack.hub.node_port == stack.foundation.keycloak_node_port:
        yield (
            f"hub.node_port and foundation.keycloak_node_port are both {stack.hub.node_port}; "
            "two different ports are required"
        )
    if stack.hub.namespace == stack.foundation.namespace:
        yield (
            f"hub.namespace and foundation.namespace are both {stack.hub.namespace}; two different "
            "namespaces are required, so that user pods and databases stay apart"
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
    quota = stack.quotas
    for number, profile in enumerate(stack.profiles):
        cpu, memory = profile.cpu.limit, profile.memory.limit
        beyond = {
            f"cpu.limit is {cpu:g} and quotas.cpu is {quota.cpu}": cpu > quota.cpu,
            f"memory.limit is {memory} and quotas.memory is {quota.memory}": (
                in_bytes(memory) > in_bytes(quota.memory)
            ),
            f"gpu is {profile.gpu} and quotas.gpu is {quota.gpu}": profile.gpu > quota.gpu,
        }
        for both, wrong in beyond.items():
            if wrong:
                yield (
                    f"profiles[{number}].{both}; a profile within the quota is required, "
                    "or its servers could never start"
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


def _doubles(key: str, values: Iterable[str]) -> Iterator[str]:
    for value, count in Counter(values).items():
        if count > 1:
            yield f'{key} is "{value}" {count} times; each must differ'


def _sentences(error: ValidationError) -> Iterator[str]:
    details = error.errors(include_url=False)
    places = [d["loc"] for d in details]
    for d in details:
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
    given = json.dumps(details["input"], ensure_ascii=False)
    if len(given) > MAX_SHOWN:
        given = given[:MAX_SHOWN] + "…"
    what = _key(location[:-1]) if isinstance(location[-1], int) else "it"
    return f"{key} is {given}; {what} must be {_right(location)}"


def _right(location: Location) -> str:
    """What is right at a place: the field's description, or the keys that a section needs."""
    field = _field(location)
    if field.description:
        return field.description
    section = _section_in(field.annotation)
    needed = [name for name, part in section.model_fields.items() if part.is_required()]
    return f"a section with {', '.join(needed)}"


def _key(location: Location) -> str:
    """`("profiles", 0, "cpu")` as `profiles[0].cpu`."""
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in location)
    return text.removeprefix(".")


def _field(location: Location) -> FieldInfo:
    """The field at a place of the stack file; for an item of a list, the list."""
    *parents, last = [part for part in location if isinstance(part, str)]
    return _section(tuple(parents)).model_fields[last]


def _section(location: Location) -> type[Section]:
    """The section at a place of the stack file."""
    section: type[Section] = StackFile
    for part in location:
        if isinstance(part, str):
            section = _section_in(section.model_fields[part].annotation)
    return section


def _section_in(annotation: Any) -> type[Section]:
    """The section that a field's type holds, itself or as the item of a list."""
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return annotation
    return next(_section_in(part) for part in get_args(annotation) if part is not Ellipsis)


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
