"""The typed stack file: what `stacks/Pulumi.<stack>.yaml` may say.

Checked whole before any resource exists (`components.stackfile`); nothing here reaches a file, a
cluster or the engine. A field's description says what is right, as the end of a sentence: errors
and `stacks/schema.json` are both made of it.

A stack that uses what is there already (a Keycloak, a Harbor, a SeaweedFS) says where; one that
has none of its own has it made, as its `foundation`. A section that a stack leaves out is a part
that it does not have.
"""

import ipaddress
from typing import Annotated, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    model_validator,
)

from components import names

HUB_HOST = "jupyter"
"""The hub's host below the domain (row T1)."""

UNITS = {"M": 2**20, "G": 2**30, "T": 2**40}
"""KubeSpawner's `5G` and Kubernetes' `5Gi` are the same number of bytes (kubespawner,
`ByteSpecification`: units are powers of 1024)."""


def in_bytes(size: str) -> int:
    """`5G`, `2.5G` or `10Gi` in bytes."""
    size = size.removesuffix("i")
    return int(float(size[:-1]) * UNITS[size[-1]])


GUARANTEED = 0.25
"""What is set aside of a limit where the stack file does not say."""


def guaranteed(memory: str) -> str:
    """A quarter of an amount of memory, e.g. `1.25G` of `5G`."""
    return f"{float(memory[:-1]) * GUARANTEED:g}{memory[-1]}"


def cidr(text: str) -> str:
    ipaddress.ip_network(text)
    return text


def mirror_cidr(text: str) -> str:
    """A few addresses, none of which tells a cloud's machine its credentials."""
    network = ipaddress.ip_network(text)
    if network.num_addresses > 256 or network.is_link_local:
        raise ValueError("more than 256 addresses, or link-local ones")
    return text


def http_url(text: str) -> str:
    scheme, _, host = text.partition("://")
    if scheme not in ("http", "https") or not host:
        raise ValueError("it begins with http:// or https://")
    if "@" in text:
        raise ValueError("without a password")
    if text.endswith("/"):
        raise ValueError("without a slash at the end")
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
Repository = Annotated[str, StringConstraints(pattern=r"^[a-z0-9.-]+(:[0-9]+)?(/[a-z0-9._-]+)+$")]
Folder = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._-]+(/[A-Za-z0-9._-]+)*$")]
GitHost = Annotated[
    str,
    StringConstraints(
        pattern=r"^([a-z0-9]([-a-z0-9]*[a-z0-9])?\.)+[a-z]([-a-z0-9]*[a-z0-9])?(:[0-9]{2,5})?$",
    ),
]
"""A host's full name, e.g. `git.example.com:8443`; never an address, which could be anybody's."""

Url = Annotated[str, AfterValidator(http_url)]
PROVISIONER = r"^[a-z0-9.-]+(/[a-z0-9.-]+)?$"
NodePort = Annotated[int, Field(ge=30000, le=32767)]
Cidr = Annotated[str, AfterValidator(cidr)]
MirrorCidr = Annotated[str, AfterValidator(mirror_cidr)]
Port = Annotated[int, Field(ge=1, le=65535)]


SECRET_KEYS = ("keycloak_client_secret", "harbor_password", "s3_secret_key")
"""What is asked of a person: `pulumi config set --secret mlhub:<key>`."""


class Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Cluster(Section):
    """Which Kubernetes."""

    context: str | None = Field(
        default=None,
        min_length=1,
        description=(
            "a context of your kubeconfig; after the first `up` rename that one, never this, since "
            "another name is another cluster (leave it out for the embedded node)"
        ),
    )

    @property
    def kubectl(self) -> list[str]:
        """The command that reaches this cluster, and no other, from the checkout's folder."""
        if self.context is None:
            file, context = names.EMBEDDED_KUBECONFIG, names.EMBEDDED_CONTEXT
            return ["kubectl", "--kubeconfig", file, "--context", context]
        return ["kubectl", "--context", self.context]


class DemoUser(Section):
    """A person made up for a demonstration, with a generated password."""

    name: Name = Field(description="a user name of small letters, digits and `-`")
    groups: tuple[GroupPath, ...] = Field(
        description="a list of group paths (an empty one makes a person who is turned away)"
    )


class KeycloakServer(Section):
    """A Keycloak that is there already, with the realm."""

    url: Url = Field(description="its address for browsers, such as https://keycloak.example.com")
    internal_url: Url | None = Field(
        default=None, description="its address for pods (leave it out where that is the same)"
    )
    client_id: str = Field(
        min_length=1,
        description=(
            "a confidential client of the realm whose service account may manage the realm's "
            "clients, groups and users (its secret: mlhub:keycloak_client_secret)"
        ),
    )


class Identity(Section):
    """Who may use the hub, by Keycloak group."""

    keycloak: KeycloakServer | None = Field(
        default=None, description="where Keycloak is (leave it out for foundation.keycloak)"
    )
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


class Harbor(Section):
    """The Harbor behind the registry's address."""

    url: Url = Field(description="its address, such as https://harbor.example.com")
    username: str = Field(
        min_length=1,
        description=(
            "an account that may make projects, or administer this one (its password: "
            "mlhub:harbor_password)"
        ),
    )
    keep_tags: int = Field(
        ge=1, description="a whole number of tags to keep of each image, 1 or more"
    )
    storage: Quantity = Field(description="how much the project may hold, such as 500Gi")


class Registry(Section):
    """Where images are pushed and pulled."""

    repository: Repository = Field(description="host[:port]/project such as localhost:5000/mlhub")
    harbor: Harbor | None = Field(
        default=None,
        description="the Harbor that has the project (leave it out for a plain registry)",
    )


class Project(Section):
    """An image for one project: a user image, and what the project's lock adds to it."""

    name: Name = Field(description="the name that profiles call it by, such as financial-predictor")
    base: Name = Field(description="the user image below it, a folder of images/ such as ml-cpu")
    requirements: str = Field(
        pattern=r"^([A-Za-z0-9_-][A-Za-z0-9._-]*/)+requirements\.txt$",
        description="a lock beside its requirements.in, such as images/mine/requirements.txt",
    )


class Build(Section):
    """Images built by this stack."""

    tag: Tag = Field(
        description="a tag other than latest (it is for people: images are deployed by digest)",
    )
    builder: Name = Field(description="the name of a buildx builder")
    debian: str = Field(
        pattern=r"^[a-z0-9.-]+(:[0-9]+)?(/[a-z0-9._-]+)*(:[A-Za-z0-9._-]+|@sha256:[0-9a-f]{64})$",
        description="a pinned image of Debian bookworm, with a tag or a digest",
    )
    platforms: tuple[Literal["linux/amd64", "linux/arm64"], ...] = Field(
        default=(),
        description="a list of linux/amd64 and linux/arm64 (without it: the builder's own)",
    )
    projects: tuple[Project, ...] = Field(
        default=(), description="a list of images for projects (leave it out for none)"
    )


class Promote(Section):
    """Images that another stack has built, taken as they are."""

    repository: Repository = Field(
        description="where that stack pushes them, such as harbor.example.com/mlhub-dev"
    )
    tag: Tag = Field(description="the tag that it gave them, other than latest")
    after: Name | None = Field(
        default=None,
        description="the stack that has to have promoted and run them first, such as staging "
        "(leave it out for none)",
    )


class Images(Section):
    """Where images come from: built here, or promoted from the environment before."""

    build: Build | None = Field(default=None, description="how to build them")
    promote: Promote | None = Field(default=None, description="whose to take")

    @model_validator(mode="after")
    def _one(self) -> "Images":
        if (self.build is None) == (self.promote is None):
            raise ValueError("needs exactly one of build and promote")
        return self


class Twin(Section):
    """Another namespace that sees the same files."""

    namespace: Name = Field(description="the name of a namespace that is there, for pipelines")


class SharedVolume(Section):
    """A volume that every server mounts."""

    name: Name = Field(description="the name of its claim, such as shared-data-pvc")
    size: Quantity = Field(description="its size, such as 500Gi")
    mount: str = Field(
        pattern=r"^/(home/jovyan|mnt|srv|datasets)(/[A-Za-z0-9._-]+)*$",
        description="where servers see it, such as /mnt/shared-data or /home/jovyan/datasets",
    )
    read_only: bool = Field(default=False, description="true where servers may only read")
    read_only_mount: str | None = Field(
        default=None,
        pattern=r"^/(mnt|srv|datasets)(/[A-Za-z0-9._-]+)*$",
        description="where servers see the same files again and may only read, such as /datasets "
        "(leave it out for none)",
    )
    folders: tuple[Folder, ...] = Field(
        default=(), description="a list of folders to make in it, such as raw or processed"
    )
    twin: Twin | None = Field(
        default=None, description="a namespace for the same files (leave it out for none)"
    )


class Storage(Section):
    """Volumes."""

    provisioner: str = Field(
        pattern=PROVISIONER,
        description="the name of the CSI driver or provisioner that makes volumes",
    )
    parameters: dict[str, str] = Field(
        default={}, description="the provisioner's own parameters, texts by name"
    )
    home: Quantity = Field(description="the size of a person's home, such as 10Gi")
    home_provisioner: str | None = Field(
        default=None,
        pattern=PROVISIONER,
        description="what makes homes, such as rancher.io/local-path (without it: provisioner)",
    )
    home_parameters: dict[str, str] = Field(
        default={}, description="parameters of home_provisioner, texts by name"
    )
    scratch: Quantity | None = Field(
        default=None,
        description="the size of a server's scratch folder, which ends with it, such as 50Gi",
    )
    tmp: Quantity = Field(
        default="20Gi",
        description=(
            "the size of a server's or a run's /tmp, which ends with it, such as 20Gi; one that "
            "writes more is ended"
        ),
    )
    volumes: tuple[SharedVolume, ...] = Field(
        default=(), description="a list of volumes that every server mounts"
    )

    @property
    def mounts(self) -> list[str]:
        """Every place where servers see a shared volume."""
        places = [place for v in self.volumes for place in (v.mount, v.read_only_mount)]
        return [place for place in places if place is not None]


class Chart(Section):
    """The chart of the hub's Release: a folder, or a version in a repository."""

    path: str | None = Field(
        default=None, min_length=1, description="a chart's folder, such as charts/jupyterhub-lite"
    )
    repository: Url | None = Field(
        default=None, description="a chart repository, such as https://hub.jupyter.org/helm-chart"
    )
    name: Name | None = Field(default=None, description="the chart's name, such as jupyterhub")
    version: str | None = Field(
        default=None,
        pattern=r"^[0-9]+\.[0-9]+\.[0-9]+$",
        description=("a released version such as 4.4.0, since an unpinned chart changes under you"),
    )

    @model_validator(mode="after")
    def _one(self) -> "Chart":
        by_name = [self.repository, self.name, self.version]
        if not (all(by_name) if self.path is None else not any(by_name)):
            raise ValueError("needs either path, or all of repository, name and version")
        return self


class Ingress(Section):
    """How browsers reach the hub from outside: https://jupyter.<domain>."""

    class_name: Name = Field(description="the name of an IngressClass, such as nginx")
    tls_secret: Name = Field(
        description="the name of a Secret of type kubernetes.io/tls in the hub's namespace"
    )
    annotations: dict[str, str] = Field(
        default={}, description="annotations for the controller, texts by name"
    )


class Hub(Section):
    """The hub itself."""

    namespace: Name = Field(default=names.HUB_NAMESPACE, description="a namespace name")
    node_port: NodePort | None = Field(
        default=None, description="a free NodePort, 30000 to 32767, for the hub"
    )
    ingress: Ingress | None = Field(
        default=None, description="an ingress (leave it out where node_port is given)"
    )
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
    git_hosts: tuple[GitHost, ...] = Field(
        default=("bitbucket.org", "codeberg.org", "github.com", "gitlab.com"),
        description="hosts whose repositories a new session may clone by https",
    )

    @model_validator(mode="after")
    def _one(self) -> "Hub":
        if (self.node_port is None) == (self.ingress is None):
            raise ValueError("needs exactly one of node_port and ingress")
        return self


class Cpu(Section):
    limit: float = Field(gt=0, description="a number of cores above 0")
    guarantee: float = Field(
        default_factory=lambda given: given["limit"] * GUARANTEED,
        gt=0,
        description="a number of cores above 0 and within the limit (without it: a quarter of it)",
    )

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
    guarantee: Memory = Field(
        default_factory=lambda given: guaranteed(given["limit"]),
        description="an amount such as 2.5G, within the limit (without it: a quarter of it)",
    )

    @model_validator(mode="after")
    def _within(self) -> "MemoryRange":
        if in_bytes(self.guarantee) > in_bytes(self.limit):
            raise ValueError(
                f"guarantees {self.guarantee} and limits to {self.limit}; "
                "a guarantee within the limit is required"
            )
        return self


class Options(Section):
    """Sizes among which a person chooses for themselves; each list begins with its default."""

    cpu: tuple[Annotated[float, Field(gt=0)], ...] = Field(
        default=(), description="a list of numbers of cores"
    )
    memory: tuple[Memory, ...] = Field(default=(), description="a list of amounts such as 8G")
    gpu: tuple[Annotated[int, Field(ge=0, le=16)], ...] = Field(
        default=(), description="a list of whole numbers of GPUs, 0 for none"
    )


class Toleration(Section):
    """A taint of nodes that servers may go to all the same, in Kubernetes' own form.

    Of one key: without any, servers would go to control planes and to nodes that are broken.
    """

    key: str = Field(
        pattern=r"^([a-z0-9.-]+/)?[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?$",
        description="a taint's key, such as sku",
    )
    operator: Literal["Equal", "Exists"] = Field(
        default="Equal", description="Equal to the value, or Exists for any"
    )
    value: str | None = Field(default=None, description="the taint's value")
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = Field(
        default=None,
        description="NoSchedule, PreferNoSchedule or NoExecute (leave it out for all of them)",
    )

    @model_validator(mode="after")
    def _any_or_one(self) -> "Toleration":
        if self.operator == "Exists" and self.value is not None:
            raise ValueError("needs no value with the operator Exists")
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
    options: Options | None = Field(
        default=None, description="sizes to choose from (without it: the profile's own alone)"
    )
    groups: tuple[GroupPath, ...] = Field(
        default=(),
        description="a list of groups out of identity.access_groups (without it: everybody)",
    )
    each_node: bool = Field(
        default=False, description="true for a profile that is offered once for each GPU node"
    )
    tolerations: tuple[Toleration, ...] = Field(
        default=(),
        description="a list of tolerations of nodes' taints (without it: of nvidia.com/gpu alone, "
        "which every server with a GPU tolerates)",
    )
    idle_timeout: int | None = Field(
        default=None,
        ge=60,
        description="a whole number of seconds of idleness, 60 to hub.idle_timeout",
    )
    max_age: int | None = Field(
        default=None,
        ge=60,
        description="a whole number of seconds after which its servers stop, busy or not",
    )

    @property
    def most(self) -> tuple[float, str, int]:
        """The largest server of the profile: cores, memory, GPUs."""
        options = self.options or Options()
        return (
            max((self.cpu.limit, *options.cpu)),
            max((self.memory.limit, *options.memory), key=in_bytes),
            max((self.gpu, *options.gpu)),
        )


class Gpu(Section):
    """What holds for every server with a GPU."""

    max_age: int | None = Field(
        default=None,
        ge=60,
        description="a whole number of seconds after which they stop, busy or not",
    )
    idle_timeout: int | None = Field(
        default=None,
        ge=60,
        description="a whole number of seconds without use of their GPU after which they stop",
    )


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


class UserQuota(Section):
    """What one person may hold, on every way to a pod: how many servers, and how large each."""

    servers: int = Field(gt=0, le=100, description="a whole number of servers at once, 1 to 100")
    cpu: int = Field(gt=0, description="a whole number of cores")
    memory: Quantity = Field(description="an amount of memory such as 64Gi")
    gpu: int = Field(ge=0, description="a whole number of GPUs, 0 where there are none")
    gpu_hours: float | None = Field(
        default=None, ge=0, description="a number of GPU-hours a week, from Monday 00:00 UTC"
    )


class SharedQuota(Section):
    """What several people may hold at once together; what is left out has no limit."""

    servers: int | None = Field(default=None, ge=0, description="a whole number of servers")
    cpu: int | None = Field(default=None, ge=0, description="a whole number of cores")
    memory: Quantity | None = Field(default=None, description="an amount of memory such as 64Gi")
    gpu: int | None = Field(default=None, ge=0, description="a whole number of GPUs")
    gpu_hours: float | None = Field(
        default=None, ge=0, description="a number of GPU-hours a week, from Monday 00:00 UTC"
    )


class GroupQuota(SharedQuota):
    """What the members of a Keycloak group may hold at once together."""

    group: GroupPath = Field(description="a group out of identity.access_groups")


class Quotas(Section):
    """Who may take how much."""

    namespace: NamespaceQuota
    user: UserQuota
    groups: tuple[GroupQuota, ...] = Field(default=(), description="a list of groups' limits")
    workspace: SharedQuota | None = Field(
        default=None, description="what the servers of one workspace may hold together"
    )


class Artifacts(Section):
    """The S3 bucket of MLflow's artifacts. Only the server reaches it."""

    endpoint: Url = Field(
        description="an S3 address, such as http://seaweedfs-s3.seaweedfs.svc.cluster.local:8333"
    )
    bucket: Name = Field(description="the name of a bucket that is there")
    access_key: str = Field(
        min_length=1, description="the id of its key (the key itself: mlhub:s3_secret_key)"
    )


class Mlflow(Section):
    """The tracking server and model registry."""

    namespace: Name = Field(default="mlflow", description="a namespace name")
    artifacts: Artifacts | None = Field(
        default=None,
        description="where artifacts go (leave it out where foundation.seaweedfs is)",
    )


class Workspace(Section):
    """A team's shared folder, groups and experiments."""

    slug: Annotated[Name, StringConstraints(max_length=50)] = Field(
        description="an id of at most 50 small letters, digits and `-` that stays"
    )
    name: str = Field(min_length=1, max_length=60, description="the name that people read")
    size: Quantity = Field(description="the size of its volume, at most 100Gi")


OUR_CLIENTS = {
    "jupyterhub", "mlhub-hub", "mlhub-execution", "mlhub-workspaces", "mlhub-verify",
    "realm-management",
}  # fmt: skip
"""Of the realm's clients, those that are no service's."""


class ServiceClient(Section):
    """A pipeline that runs notebooks for people, with a client of its own in the realm."""

    name: Name = Field(description="the id of its client, such as nightly-reports")
    for_users: tuple[Annotated[str, StringConstraints(min_length=1)], ...] = Field(
        min_length=1, description="a list of the people for whom it may run notebooks"
    )


class WorkspaceService(Section):
    """The API by which people make workspaces and manage their members."""

    size: Quantity = Field(description="the size of a new workspace's volume, such as 10Gi")
    largest: Quantity = Field(
        default="100Gi", description="the largest size that a person may ask for, at most 100Gi"
    )
    per_person: int = Field(
        ge=1, description="a whole number of workspaces that one person may make, 1 or more"
    )
    grace_days: int = Field(
        default=7,
        ge=1,
        description="a whole number of days in which a deleted one can be restored, 1 or more",
    )


class Execution(Section):
    """The API that runs notebooks unattended."""

    run_seconds: int = Field(
        ge=60, description="a whole number of seconds that a run may take, 60 or more"
    )
    keep_days: int = Field(ge=1, description="a whole number of days that finished runs are kept")
    clients: tuple[ServiceClient, ...] = Field(
        default=(), description="a list of services that run notebooks for people"
    )

    @model_validator(mode="after")
    def _each_once(self) -> "Execution":
        seen = [client.name for client in self.clients]
        if taken := sorted({name for name in seen if seen.count(name) > 1 or name in OUR_CLIENTS}):
            raise ValueError(
                f"clients has {', '.join(taken)} twice or takes a client of the platform's own; "
                "a name for each of them alone is required"
            )
        return self


class Verify(Section):
    """A temporary person who tries the applied stack, by Jobs in it."""

    schedule: str = Field(
        default="17 4 * * *",
        pattern=r"^[0-9*,/-]+ [0-9*,/-]+ \* \* [0-9*,/-]+$",
        description=(
            "minute, hour, `*`, `*` and days of the week as cron has them, in UTC, such as "
            "17 4 * * 1-5"
        ),
    )
    suspended: bool = Field(default=False, description="true where nothing begins by the schedule")
    after_up: bool = Field(
        default=True, description="false where an `up` that changed something starts none"
    )
    profiles: tuple[Name, ...] = Field(
        default=(), description="a list of the only profiles to start, by slug (without it: each)"
    )


class Mirror(Section):
    """Private addresses that people's code may reach."""

    addresses: tuple[MirrorCidr, ...] = Field(
        min_length=1,
        description="a list of the mirror's own address ranges, at most 256 addresses in those of "
        "all mirrors, such as 10.0.7.5/32",
    )
    ports: tuple[Port, ...] = Field(
        default=(443,), min_length=1, description="a list of the ports it listens on, such as 443"
    )


class Network(Section):
    """What is not the same in every cluster's network."""

    kubernetes_api: tuple[Cidr, ...] = Field(
        min_length=1,
        description=(
            "a list of the address ranges of the API server behind its Service, such as 10.0.0.1/32"
        ),
    )
    kubernetes_api_ports: tuple[Port, ...] = Field(
        default=(443, 6443),
        min_length=1,
        description="a list of the ports of the API server itself, such as 16443 with MicroK8s",
    )
    keycloak: tuple[Cidr, ...] = Field(
        default=(),
        description="a list of the address ranges of identity.keycloak, such as 10.0.8.10/32",
    )
    keycloak_ports: tuple[Port, ...] = Field(
        default=(),
        description="a list of the ports of Keycloak's pods, such as 8080, where its Service has "
        "another",
    )
    s3: tuple[Cidr, ...] = Field(
        default=(),
        description="a list of the address ranges of the S3 endpoint, such as 10.0.9.0/24",
    )
    s3_ports: tuple[Port, ...] = Field(
        default=(),
        description="a list of the ports of the S3 service's pods, such as 9000, where its Service "
        "has another",
    )
    mirrors: tuple[Mirror, ...] = Field(
        default=(),
        description="a list of package mirrors, Git servers and the like at private addresses, "
        "for servers and runs (leave it out for none)",
    )
    pip_index: Url | None = Field(
        default=None,
        description="where pip in servers and runs finds packages, such as "
        "https://pypi.example.com/simple (leave it out for PyPI)",
    )


class Monitoring(Section):
    """A Prometheus of the operator's kind, and a Grafana, that are there already."""

    namespace: Name = Field(
        default="monitoring", description="the namespace from which alone metrics are read"
    )
    labels: dict[str, str] = Field(
        default={},
        description="labels by which Prometheus finds monitors and rules, texts by name",
    )
    docs: Url = Field(
        description="where docs/ is read, such as https://git.example.com/mlhub/docs, for alerts"
    )


class FoundationKeycloak(Section):
    node_port: NodePort = Field(description="a free NodePort, 30000 to 32767, for Keycloak")


class FoundationPostgres(Section):
    volume: Quantity = Field(description="the size of the databases' volume, such as 5Gi")


class StateBucket(Section):
    """A bucket for the state of Pulumi stacks, those of others."""

    bucket: Name = Field(default="pulumi-state", description="the name of the bucket")
    node_port: NodePort = Field(description="a free NodePort, 30000 to 32767, for the S3 gateway")


class FoundationSeaweedFS(Section):
    volume: Quantity = Field(
        description="the size of the one volume that all files and artifacts are on, such as 20Gi"
    )
    state: StateBucket | None = Field(
        default=None,
        description="a bucket where other stacks keep Pulumi's state (leave it out for none)",
    )


class Foundation(Section):
    """What the stack brings along, since nobody else has it."""

    namespace: Name = Field(default=names.FOUNDATION_NAMESPACE, description="a namespace name")
    keycloak: FoundationKeycloak | None = Field(
        default=None, description="a Keycloak (leave it out where identity.keycloak is)"
    )
    postgres: FoundationPostgres
    seaweedfs: FoundationSeaweedFS | None = Field(
        default=None, description="a SeaweedFS with its S3 gateway (leave it out where one is)"
    )
    provisioner: str | None = Field(
        default=None,
        pattern=PROVISIONER,
        description=(
            "what makes the foundation's own volumes, a driver of block volumes such as "
            "ebs.csi.aws.com (without it: what makes homes, which may not be SeaweedFS)"
        ),
    )
    parameters: dict[str, str] = Field(
        default={}, description="parameters of foundation.provisioner, texts by name"
    )


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
    gpu: Gpu = Gpu()
    quotas: Quotas
    mlflow: Mlflow | None = Field(default=None, description="an MLflow")
    workspaces: tuple[Workspace, ...] = Field(default=(), description="a list of workspaces")
    workspace_service: WorkspaceService | None = Field(
        default=None, description="an API for people's own workspaces"
    )
    execution: Execution | None = Field(default=None, description="an execution API")
    network: Network
    verify: Verify | None = Field(default=None, description="a verification by Jobs")
    monitoring: Monitoring | None = Field(
        default=None, description="a Prometheus operator (leave it out where none is)"
    )
    foundation: Foundation

    @property
    def hub_url(self) -> str:
        """The hub as browsers reach it."""
        if self.hub.ingress is not None:
            return f"https://{HUB_HOST}.{self.domain}"
        return f"http://{self.domain}:{self.hub.node_port}"

    @property
    def keycloak_url(self) -> str:
        """Keycloak as browsers reach it."""
        if self.identity.keycloak is not None:
            return self.identity.keycloak.url
        if self.foundation.keycloak is not None:
            return f"http://{self.domain}:{self.foundation.keycloak.node_port}"
        raise ValueError("identity.keycloak and foundation.keycloak are both missing")

    @property
    def data_provisioner(self) -> str:
        """What makes the volumes of databases: what makes homes, where nothing else is named."""
        return self.foundation.provisioner or self.home_provisioner

    @property
    def home_provisioner(self) -> str:
        """What makes homes."""
        return self.storage.home_provisioner or self.storage.provisioner

    @property
    def default_profile(self) -> Profile:
        return next(profile for profile in self.profiles if profile.default)

    @property
    def with_gpus(self) -> bool:
        """Whether any profile has a use for a GPU node."""
        return any(profile.most[2] for profile in self.profiles)

    @property
    def user_images(self) -> list[str]:
        """The images that profiles run, each once."""
        return sorted({profile.image for profile in self.profiles})

    @property
    def secret_keys(self) -> dict[str, str]:
        """The secrets that the stack needs of whoever runs it: the key, and what it opens."""
        needed = {}
        if self.identity.keycloak is not None:
            client = self.identity.keycloak.client_id
            needed["keycloak_client_secret"] = f"the secret of Keycloak's client {client}"
        if self.registry.harbor is not None:
            needed["harbor_password"] = f"the password of Harbor's {self.registry.harbor.username}"
        if self.mlflow is not None and self.mlflow.artifacts is not None:
            access_key = self.mlflow.artifacts.access_key
            needed["s3_secret_key"] = f"the secret of the S3 key {access_key}"
        return needed
