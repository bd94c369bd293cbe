"""Volumes that many pods share, as plain data: where their files lie and who sees them.

A shared volume is a claim in the hub's namespace and, where pipelines of another namespace need the
same files, a twin: a second static volume over the one path, with a claim there.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pulumi_kubernetes as k8s

from components import names
from components.config import SharedVolume, Storage, in_bytes

SCRATCH = "scratch"
TMP = "tmp"

VOLUMES_ROOT = "/volumes"
"""Where the job that makes folders sees the volumes."""

MAKE_FOLDERS = """\
import os, sys
for path in sys.argv[1:]:
    os.makedirs(path, exist_ok=True)
    made = os.stat(path)
    if (made.st_uid, made.st_gid) != (os.getuid(), os.getgid()):
        sys.exit(
            f"{path} belongs to {made.st_uid}:{made.st_gid}, so that nobody can write there; "
            f"as an administrator, chown it to {os.getuid()}:{os.getgid()} and run `up` again"
        )
    print(path)
"""


@dataclass(frozen=True)
class Place:
    """A claim in a namespace, with the volume that it gets."""

    claim: str
    namespace: str

    @property
    def volume(self) -> str:
        """The name of the static volume. Volumes have no namespace, so it is in the name, and the
        dot, which no namespace has, keeps two names apart."""
        return f"{self.namespace}.{self.claim}"


def access_mode(provisioner: str) -> str:
    """`ReadWriteMany`, but for local-path, which is of one node, where one write mode serves all.

    (local-path-provisioner v0.0.30 refuses a claim of any other mode.)
    """
    return "ReadWriteOnce" if provisioner == names.LOCAL_PATH else "ReadWriteMany"


def home_access_mode(storage: Storage) -> str:
    """`ReadWriteMany` on SeaweedFS, `ReadWriteOnce` elsewhere, for what makes homes may make disks.

    A volume that its driver attaches is kept to one node where it is ReadWriteOnce, and the chart
    of SeaweedFS' driver has it attach them (`csiAttacher.enabled`).
    """
    homes = storage.home_provisioner or storage.provisioner
    return "ReadWriteMany" if homes == names.SEAWEEDFS_CSI else "ReadWriteOnce"


def is_static(provisioner: str) -> bool:
    """Whether the program knows how two volumes are laid over one path."""
    return provisioner == names.SEAWEEDFS_CSI


def expandable(provisioner: str) -> bool:
    """Whether Kubernetes may ask for a larger volume; one of local-path is a folder of any size.

    A driver that makes none larger says so at the claim, and the volume stays.
    """
    return provisioner != names.LOCAL_PATH


def filer_path(place: Place, parameters: Mapping[str, str]) -> str:
    """The folder of a shared volume, below `/buckets` as those that the driver makes itself."""
    return f"{parameters.get('parentDir', '/buckets')}/{place.volume}"


def seaweedfs_source(
    place: Place, *, files_of: Place, size: str, parameters: Mapping[str, str]
) -> k8s.core.v1.CSIPersistentVolumeSourceArgsDict:
    """`spec.csi` of a static volume at `place` with the files of the volume at `files_of`.

    The handle differs between the two, since a node knows a mount by it; path and collection are
    the same. `volumeCapacity`, in bytes, becomes the collection's quota (seaweedfs-csi-driver,
    "Static and dynamic provisioning" and `mounter`): every volume has a collection of its own, so
    that the quota is of it alone.
    """
    others = {k: v for k, v in parameters.items() if k not in ("parentDir", "path", "collection")}
    return {
        "driver": names.SEAWEEDFS_CSI,
        "volume_handle": place.volume,
        "volume_attributes": others
        | {
            "path": filer_path(files_of, parameters),
            "collection": files_of.volume,
            "volumeCapacity": str(in_bytes(size)),
        },
    }


def folder_paths(volumes: Sequence[SharedVolume]) -> list[str]:
    """Every folder to make, as the job sees it."""
    return [f"{VOLUMES_ROOT}/{v.name}/{folder}" for v in volumes for folder in v.folders]


def folders_job_name(volumes: Sequence[SharedVolume]) -> str:
    """Another name, and so another job, whenever the list of folders is another."""
    digest = hashlib.sha256(json.dumps(folder_paths(volumes)).encode()).hexdigest()
    return f"shared-folders-{digest[:10]}"


def fuse_mounts(storage: Storage) -> list[str]:
    """Where a server's mounts are SeaweedFS's: one that is missing would be an empty folder of the
    node, and is told from it by its kind alone. One that ends in `/` means all beneath."""
    if storage.provisioner != names.SEAWEEDFS_CSI:
        return []
    homes = storage.home_provisioner or storage.provisioner
    return [
        *([names.HOME] if homes == names.SEAWEEDFS_CSI else []),
        *storage.mounts,
        f"{names.HOME}/workspaces/",
    ]


def user_volumes(volumes: Sequence[SharedVolume], scratch: str | None, tmp: str) -> dict[str, Any]:
    """`extraVolumes` and `extraVolumeMounts` for `singleuser.storage` of either chart.

    Claims, and no folders of a node: what is there on one node is there on every other, and all of
    them are made before the hub (row T9). `scratch` and `tmp` are sizes: a server's image is
    read-only (`mlhub.hub`), so that these two are all it can take of a node's disk, but for logs.
    """
    extra_volumes: list[dict[str, Any]] = []
    mounts: list[dict[str, Any]] = []
    for volume in volumes:
        name = f"shared-{volume.name}"[:63].rstrip("-")
        read_only = {"readOnly": True} if volume.read_only else {}
        claim = {"claimName": volume.name, **read_only}
        extra_volumes.append({"name": name, "persistentVolumeClaim": claim})
        mounts.append({"name": name, "mountPath": volume.mount, **read_only})
        if volume.read_only_mount is not None:
            mounts.append({"name": name, "mountPath": volume.read_only_mount, "readOnly": True})
    if scratch is not None:
        extra_volumes.append({"name": SCRATCH, "emptyDir": {"sizeLimit": scratch}})
        mounts.append({"name": SCRATCH, "mountPath": names.SCRATCH_MOUNT})
    extra_volumes.append({"name": TMP, "emptyDir": {"sizeLimit": tmp}})
    mounts += [{"name": TMP, "mountPath": path} for path in names.TMP_MOUNTS]
    return {"extraVolumes": extra_volumes, "extraVolumeMounts": mounts}
