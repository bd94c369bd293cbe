"""The table of what has to be on the machine, and where each thing comes from.

Every version here is pinned: a release by its checksum, a build by its module's go.sum. Where a
release's checksum could not be learned from its publisher, the release is not a source.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from bootstrap import kubeprov
from bootstrap.gobuild import Target

KUBERNETES = "1.34.4"
PULUMI = "3.259.0"
BUILDKIT = "0.31.0"
DOCKER_BUILD = "0.0.22"
PULUMI_KUBERNETES = "4.25.0"
COREDNS = "1.14.0"
SEAWEEDFS = "3.39"


@dataclass(frozen=True)
class Check:
    """How a binary tells its version, so that one found on PATH can be trusted to be the one."""

    argv: tuple[str, ...]
    says: str


@dataclass(frozen=True)
class Release:
    """An official archive. members: binaries by the path in the archive.

    also: what the archive lacks and has to be built beside it.
    """

    url: str
    sha512: str
    members: Mapping[str, str]
    also: tuple[Target, ...] = ()


@dataclass(frozen=True)
class Part:
    """Binaries that come together.

    targets: how they are built; the binaries are the targets' own.
    links: further names that one of the binaries goes by.
    check: the version of one found on PATH, or of one just obtained; by binary.
    on_path: whether the machine's own may serve.
    cpu_seconds: processor time of the build, measured (docs/bootstrap.md).
    """

    name: str
    targets: tuple[Target, ...]
    cpu_seconds: float
    links: Mapping[str, str] = field(default_factory=dict)
    check: Mapping[str, Check] = field(default_factory=dict)
    on_path: bool = False
    release: Release | None = None

    @property
    def binaries(self) -> tuple[str, ...]:
        return tuple(name for target in self.targets for name in target.packages)


CONTROL_PLANE = ("kube-apiserver", "kube-controller-manager", "kube-scheduler")
NODE = ("kubelet", "kube-proxy", "kubectl")

VERSION_PACKAGES = ("k8s.io/component-base/version", "k8s.io/client-go/pkg/version")
KUBE = Part(
    name="kube",
    targets=(
        Target(
            "kube",
            {"kube": "."},
            variables={
                f"{package}.{name}": value
                for package in VERSION_PACKAGES
                for name, value in (
                    ("gitVersion", f"v{KUBERNETES}"),
                    ("gitMajor", KUBERNETES.split(".", maxsplit=1)[0]),
                    ("gitMinor", KUBERNETES.split(".")[1]),
                    ("gitTreeState", "clean"),
                )
            },
        ),
    ),
    cpu_seconds=520,
    links=dict.fromkeys(("etcd", *CONTROL_PLANE, *NODE), "kube"),
    check={"kubectl": Check(("version", "--client"), f"v{KUBERNETES}")},
    # SHA-512 as published in kubernetes/CHANGELOG/CHANGELOG-1.34.md, "Server Binaries".
    release=Release(
        url=f"https://dl.k8s.io/v{KUBERNETES}/kubernetes-server-linux-amd64.tar.gz",
        sha512=(
            "65c75e81e3ea488f6d42b493cad64d7577ddfa1e5372037a1c841ac069039997"
            "d359b5b2f2d44e7665bf04c48ed0065cf9d4c9801b1e63bb6a1b099ef00d4863"
        ),
        members={f"kubernetes/server/bin/{name}": name for name in (*CONTROL_PLANE, *NODE)},
        also=(Target("kube", {"etcd": "./etcd"}),),
    ),
)
ADDONS = Part(
    name="add-ons",
    # Two builds: local-path-provisioner imports logrus by its old name, which collides.
    targets=(
        Target(
            "addons",
            {
                "pause": "./pause",
                "coredns": "./coredns",
                "netpol": "./netpol",
                "seaweedfs-csi": "./csi",
            },
        ),
        Target(
            "addons",
            {"local-path-provisioner": "github.com/rancher/local-path-provisioner"},
        ),
    ),
    cpu_seconds=180,
    check={"coredns": Check(("-version",), f"CoreDNS-{COREDNS}")},
)
BUILDKITD = Part(
    name="buildkit",
    targets=(
        Target(
            "buildkit",
            {
                "buildkitd": "github.com/moby/buildkit/cmd/buildkitd",
                "buildctl": "github.com/moby/buildkit/cmd/buildctl",
            },
            variables={"github.com/moby/buildkit/version.Version": f"v{BUILDKIT}"},
            tags="osusergo,netgo",
        ),
    ),
    cpu_seconds=160,
    check={
        "buildkitd": Check(("--version",), f" v{BUILDKIT} "),
        "buildctl": Check(("--version",), f" v{BUILDKIT} "),
    },
    on_path=True,
)
ENGINE = Part(
    name="pulumi",
    targets=(
        Target(
            "pulumi",
            {"pulumi": "github.com/pulumi/pulumi/pkg/v3/cmd/pulumi"},
            variables={"github.com/pulumi/pulumi/sdk/v3/go/common/version.Version": f"v{PULUMI}"},
        ),
    ),
    cpu_seconds=420,
    check={"pulumi": Check(("version",), f"v{PULUMI}")},
    on_path=True,
)
KUBERNETES_PROVIDER = Part(
    name="pulumi-kubernetes",
    targets=(
        Target(
            "kubeprov",
            {"pulumi-resource-kubernetes": "."},
            variables={
                "github.com/pulumi/pulumi-kubernetes/provider/v4/pkg/version.Version": (
                    f"v{PULUMI_KUBERNETES}"
                )
            },
            prepare=kubeprov.prepare,
        ),
    ),
    cpu_seconds=390,
)
DOCKER_PROVIDER = Part(
    name="pulumi-docker-build",
    targets=(
        Target(
            "dockerbuild",
            {
                "pulumi-resource-docker-build": (
                    "github.com/pulumi/pulumi-docker-build/provider/cmd/pulumi-resource-docker-build"
                )
            },
            variables={"github.com/pulumi/pulumi-docker-build/provider.Version": DOCKER_BUILD},
        ),
    ),
    cpu_seconds=175,
)

WEED = Part(
    name="seaweedfs",
    targets=(
        Target("weed", {"weed": "github.com/seaweedfs/seaweedfs/weed", "weed-mount": "./mount"}),
    ),
    cpu_seconds=175,
    check={"weed": Check(("version",), f" {SEAWEEDFS} ")},
)

NODE_PARTS = (ADDONS, KUBE, BUILDKITD, WEED)
ENGINE_PARTS = (ENGINE, KUBERNETES_PROVIDER, DOCKER_PROVIDER)
