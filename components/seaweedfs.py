"""SeaweedFS for a stack that has none of its own to use: files for volumes, and an S3 gateway.

Its four parts are containers of one pod, as they share one volume: one that dies is started again
while the others go on. Whoever reaches the filer or the volume server reads everything, so policies
let nobody there but the driver that mounts volumes; the gateway asks for keys.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pulumi
import pulumi_kubernetes as k8s

from components import names
from components.config import StateBucket
from components.pods import container_security, plain, pod
from components.secrets import fingerprint, password, secret

MASTER_PORT = 9333
VOLUME_PORT = 8080
FILER_PORT = 8888
GRPC = 10_000
"""What SeaweedFS adds to a port for gRPC."""

IDENTITIES = "identities.json"
RIGHTS = ("Read", "Write", "List", "Tagging")

PORTS = {
    "master": MASTER_PORT,
    "volume": VOLUME_PORT,
    "filer": FILER_PORT,
    "s3": names.SEAWEEDFS_S3_PORT,
}
MEMORY = {"master": "256Mi", "volume": "512Mi", "filer": "512Mi", "s3": "512Mi"}


def mount_ports() -> list[int]:
    """What a mount uses: files' names at the filer, their content at the volume server, and at the
    master how full a collection is."""
    ports = (MASTER_PORT, VOLUME_PORT, FILER_PORT)
    return [port for one in ports for port in (one, one + GRPC)]


def identities(keys: Mapping[str, Sequence[str]]) -> str:
    """The gateway's `-config`: for each bucket an identity of it alone (SeaweedFS, "Amazon S3
    API"), with the access key and the secret key that are given."""
    known = [
        {
            "name": bucket,
            "credentials": [{"accessKey": access_key, "secretKey": secret_key}],
            "actions": [f"{right}:{bucket}" for right in RIGHTS],
        }
        for bucket, (access_key, secret_key) in keys.items()
    ]
    return json.dumps({"identities": known})


def container(
    part: str, image: pulumi.Input[str], address: str, buckets: Sequence[str]
) -> k8s.core.v1.ContainerArgsDict:
    """One of the four: `mlhub-seaweedfs <part>` (images/seaweedfs)."""
    own = {"SEAWEEDFS_ADDRESS": address} if part == "volume" else {}
    mounts: list[k8s.core.v1.VolumeMountArgsDict] = [{"name": "data", "mount_path": "/data"}]
    if part == "s3":
        own = {"SEAWEEDFS_BUCKETS": ",".join(buckets)}
        mounts = [{"name": "identities", "mount_path": "/run/secrets/seaweedfs"}]
    return {
        "name": part,
        "image": image,
        "args": [part],
        # Go gives memory back before the limit is met.
        "env": plain(own | {"GOMEMLIMIT": f"{int(MEMORY[part].removesuffix('Mi')) * 3 // 4}MiB"}),
        "ports": [{"name": part, "container_port": PORTS[part]}],
        "readiness_probe": {"tcp_socket": {"port": PORTS[part]}, "period_seconds": 5},
        "resources": {
            "requests": {"cpu": "20m", "memory": "64Mi"},
            "limits": {"cpu": "2", "memory": MEMORY[part]},
        },
        "security_context": container_security(),
        "volume_mounts": [*mounts, {"name": "tmp", "mount_path": "/tmp"}],  # noqa: S108
    }


def seaweedfs_pod(
    image: pulumi.Input[str], address: str, buckets: Sequence[str], pull_secrets: Sequence[str]
) -> k8s.core.v1.PodSpecArgsDict:
    parts = [container(part, image, address, buckets) for part in PORTS]
    volumes: list[k8s.core.v1.VolumeArgsDict] = [
        {"name": "data", "persistent_volume_claim": {"claim_name": names.SEAWEEDFS_CLAIM}},
        {
            "name": "identities",
            "secret": {"secret_name": names.SEAWEEDFS_SECRET, "default_mode": 0o440},
        },
        {"name": "tmp", "empty_dir": {}},
    ]
    return pod(parts[0], volumes, pull_secrets) | {"containers": parts}


@dataclass(frozen=True)
class SeaweedFSArgs:
    namespace: pulumi.Input[str]
    namespace_name: str
    """The same as a text, for the name by which the volume server is known."""
    size: str
    storage_class: pulumi.Input[str]
    image: pulumi.Input[str]
    pull_secrets: Sequence[str]
    state: StateBucket | None = None


class SeaweedFS(pulumi.ComponentResource):
    """Master, volume server, filer and S3 gateway on one volume, with a bucket for MLflow and,
    where it is asked for, one for Pulumi's state."""

    access_key: pulumi.Output[str]
    secret_key: pulumi.Output[str]

    def __init__(self, name: str, args: SeaweedFSArgs, opts: pulumi.ResourceOptions | None = None):
        super().__init__("mlhub:seaweedfs:SeaweedFS", name, {}, opts)
        self._args = args
        child = pulumi.ResourceOptions(parent=self)
        self.access_key = password("seaweedfs-mlflow-id", child)
        self.secret_key = password("seaweedfs-mlflow-key", child)
        self._keys = {names.MLFLOW_BUCKET: (self.access_key, self.secret_key)}
        if args.state is not None:
            self._keys[args.state.bucket] = self._state(args.state, child)
        known = secret(
            names.SEAWEEDFS_SECRET,
            namespace=args.namespace,
            data={IDENTITIES: pulumi.Output.all(**self._keys).apply(identities)},
            opts=child,
        )
        data = k8s.core.v1.PersistentVolumeClaim(
            names.SEAWEEDFS_CLAIM,
            metadata={
                **self._metadata(names.SEAWEEDFS_CLAIM),
                "annotations": names.CLAIM_ANNOTATIONS,
            },
            spec={
                "access_modes": ["ReadWriteOnce"],
                "storage_class_name": args.storage_class,
                "resources": {"requests": {"storage": args.size}},
            },
            opts=pulumi.ResourceOptions(parent=self, protect=True, retain_on_delete=True),
        )
        self._services(child)
        self._workload([known, data])
        self.register_outputs({"access_key": self.access_key, "secret_key": self.secret_key})

    def _metadata(self, name: str) -> k8s.meta.v1.ObjectMetaArgsDict:
        return {
            "name": name,
            "namespace": self._args.namespace,
            "labels": names.labels(names.SEAWEEDFS),
        }

    def _state(
        self, state: StateBucket, child: pulumi.ResourceOptions
    ) -> tuple[pulumi.Output[str], pulumi.Output[str]]:
        """The keys of the bucket; who runs Pulumi is outside the cluster, and so is its address."""
        keys = password("seaweedfs-state-id", child), password("seaweedfs-state-key", child)
        secret(
            names.SEAWEEDFS_STATE,
            namespace=self._args.namespace,
            data=dict(zip(("access_key_id", "secret_access_key"), keys, strict=True)),
            opts=child,
        )
        k8s.core.v1.Service(
            names.SEAWEEDFS_STATE,
            metadata=self._metadata(names.SEAWEEDFS_STATE),
            spec={
                "type": "NodePort",
                "selector": names.selector(names.SEAWEEDFS),
                "ports": [{"name": "s3", "port": PORTS["s3"], "node_port": state.node_port}],
            },
            opts=child,
        )
        return keys

    def _services(self, child: pulumi.ResourceOptions) -> None:
        selector = names.selector(names.SEAWEEDFS)
        k8s.core.v1.Service(
            names.SEAWEEDFS_S3,
            metadata=self._metadata(names.SEAWEEDFS_S3),
            spec={"selector": selector, "ports": [{"name": "s3", "port": PORTS["s3"]}]},
            opts=child,
        )
        k8s.core.v1.Service(
            names.SEAWEEDFS,
            metadata=self._metadata(names.SEAWEEDFS),
            spec={
                "cluster_ip": "None",
                # Its parts reach each other by this name before they are ready.
                "publish_not_ready_addresses": True,
                "selector": selector,
                "ports": [
                    {"name": part, "port": port} for part, port in PORTS.items() if part != "s3"
                ],
            },
            opts=child,
        )

    def _workload(self, needed: Sequence[pulumi.Resource]) -> None:
        args = self._args
        address = names.in_cluster(names.SEAWEEDFS, args.namespace_name)
        k8s.apps.v1.StatefulSet(
            names.SEAWEEDFS,
            metadata=self._metadata(names.SEAWEEDFS),
            spec={
                "replicas": 1,
                "service_name": names.SEAWEEDFS,
                "selector": {"match_labels": names.selector(names.SEAWEEDFS)},
                "template": {
                    "metadata": {
                        "labels": names.labels(names.SEAWEEDFS),
                        "annotations": {
                            names.FINGERPRINT: fingerprint(
                                *(key for keys in self._keys.values() for key in keys)
                            )
                        },
                    },
                    "spec": seaweedfs_pod(args.image, address, [*self._keys], args.pull_secrets),
                },
            },
            opts=pulumi.ResourceOptions(parent=self, depends_on=list(needed)),
        )
