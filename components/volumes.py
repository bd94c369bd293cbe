"""The volumes that every server mounts: claims with the names that people and pipelines know."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pulumi
import pulumi_kubernetes as k8s

from components import names
from components.config import SharedVolume
from components.pods import container_security, pod
from components.volume_specs import (
    MAKE_FOLDERS,
    VOLUMES_ROOT,
    Place,
    access_mode,
    folder_paths,
    folders_job_name,
    is_static,
    seaweedfs_source,
)


@dataclass(frozen=True)
class VolumesArgs:
    namespace: str
    """The hub's, as a text, since the volumes' names hold it; `after` waits for it."""
    volumes: Sequence[SharedVolume]
    provisioner: str
    parameters: Mapping[str, str]
    class_name: pulumi.Input[str]
    image: pulumi.Input[str]
    """Of the job that makes folders: any of ours, for all have Python."""
    pull_secrets: Sequence[str] = ()
    after: Sequence[pulumi.Resource] = ()


class Volumes(pulumi.ComponentResource):
    """The claims that every server mounts, their twins in other namespaces, their folders."""

    claims: list[pulumi.Output[str]]

    def __init__(self, name: str, args: VolumesArgs, opts: pulumi.ResourceOptions | None = None):
        super().__init__("mlhub:volumes:Volumes", name, {}, opts)
        self._args = args
        self._labels = names.labels("storage")
        claims = {volume.name: self._claim(volume) for volume in args.volumes}
        if any(volume.folders for volume in args.volumes):
            self._folders(list(claims.values()))
        self.claims = [claim.metadata.name for claim in claims.values()]
        self.register_outputs({"claims": self.claims})

    def _kept(self, *needed: pulumi.Resource) -> pulumi.ResourceOptions:
        return pulumi.ResourceOptions(
            parent=self,
            protect=True,
            retain_on_delete=True,
            depends_on=[*self._args.after, *needed],
        )

    def _claim(self, volume: SharedVolume) -> k8s.core.v1.PersistentVolumeClaim:
        here = Place(volume.name, self._args.namespace)
        if not is_static(self._args.provisioner):
            return k8s.core.v1.PersistentVolumeClaim(
                here.volume,
                metadata=self._metadata(here),
                spec=self._claim_spec(volume) | {"storage_class_name": self._args.class_name},
                opts=self._kept(),
            )
        claim = self._static(volume, here, here)
        if volume.twin is not None:
            self._static(volume, Place(volume.name, volume.twin.namespace), here)
        return claim

    def _metadata(self, place: Place) -> k8s.meta.v1.ObjectMetaArgsDict:
        return {
            "name": place.claim,
            "namespace": place.namespace,
            "labels": self._labels,
            "annotations": names.CLAIM_ANNOTATIONS,
        }

    def _claim_spec(self, volume: SharedVolume) -> k8s.core.v1.PersistentVolumeClaimSpecArgsDict:
        return {
            "access_modes": [access_mode(self._args.provisioner)],
            "resources": {"requests": {"storage": volume.size}},
        }

    def _static(
        self, volume: SharedVolume, place: Place, files_of: Place
    ) -> k8s.core.v1.PersistentVolumeClaim:
        """A volume over a path that we chose, and the claim that alone may have it."""
        made = k8s.core.v1.PersistentVolume(
            place.volume,
            metadata={"name": place.volume, "labels": self._labels},
            spec={
                "capacity": {"storage": volume.size},
                "access_modes": [access_mode(self._args.provisioner)],
                "persistent_volume_reclaim_policy": "Retain",
                "storage_class_name": "",
                "claim_ref": {
                    "api_version": "v1",
                    "kind": "PersistentVolumeClaim",
                    "name": place.claim,
                    "namespace": place.namespace,
                },
                "csi": seaweedfs_source(
                    place,
                    files_of=files_of,
                    size=volume.size,
                    parameters=self._args.parameters,
                ),
            },
            opts=self._kept(),
        )
        return k8s.core.v1.PersistentVolumeClaim(
            place.volume,
            metadata=self._metadata(place),
            spec=self._claim_spec(volume) | {"storage_class_name": "", "volume_name": place.volume},
            opts=self._kept(made),
        )

    def _folders(self, claims: Sequence[pulumi.Resource]) -> None:
        """A job as the user that servers run as, so that what it makes is theirs."""
        args = self._args
        with_folders = [volume for volume in args.volumes if volume.folders]
        name = folders_job_name(args.volumes)
        k8s.batch.v1.Job(
            # Its logical name as well: what is ignored below would otherwise stay as it was.
            name,
            metadata={
                "name": name,
                "namespace": args.namespace,
                "labels": self._labels,
            },
            spec={
                "backoff_limit": 3,
                "active_deadline_seconds": 600,
                "template": {
                    "metadata": {"labels": self._labels},
                    "spec": pod(
                        {
                            "name": "folders",
                            "image": args.image,
                            "command": [
                                "python3",
                                "-I",
                                "-c",
                                MAKE_FOLDERS,
                                *folder_paths(with_folders),
                            ],
                            "resources": {
                                "requests": {"cpu": "10m", "memory": "32Mi"},
                                "limits": {"cpu": "500m", "memory": "128Mi"},
                            },
                            "security_context": container_security(),
                            "volume_mounts": [
                                {"name": f"v{number}", "mount_path": f"{VOLUMES_ROOT}/{v.name}"}
                                for number, v in enumerate(with_folders)
                            ],
                        },
                        [
                            {
                                "name": f"v{number}",
                                "persistent_volume_claim": {"claim_name": v.name},
                            }
                            for number, v in enumerate(with_folders)
                        ],
                        args.pull_secrets,
                    )
                    | {"restart_policy": "Never"},
                },
            },
            opts=pulumi.ResourceOptions(
                parent=self,
                depends_on=[*args.after, *claims],
                # A job's template cannot change, and what it made stays, whatever image made it.
                ignore_changes=["spec.template"],
            ),
        )
