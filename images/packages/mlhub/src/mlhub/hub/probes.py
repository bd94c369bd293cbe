"""What a server has to find mounted: told to it, so that it looks before its owner works.

Read from the pod as it is about to be made, so that nothing which mounts a volume has to think of
it. `notebooks.mounts` looks, and its sentence comes back as the container's last word.
"""

import json
from typing import Any

from kubernetes_asyncio.client import V1EnvVar

VARIABLE = "MLHUB_MOUNTS"


def mounted(volumes: list[Any], container: Any) -> dict[str, str]:
    """By path, whether the container reads or writes there; claims alone, no scratch."""
    claims = {
        volume.name: _read_only(volume.persistent_volume_claim)
        for volume in volumes
        if volume.persistent_volume_claim
    }
    return {
        mount.mount_path: "read" if mount.read_only or claims[mount.name] else "write"
        for mount in container.volume_mounts or []
        if mount.name in claims
    }


def _read_only(claim: Any) -> bool:
    """KubeSpawner leaves what is within a volume as it was given: a dictionary."""
    given = claim.get("readOnly") if isinstance(claim, dict) else claim.read_only
    return bool(given)


def expect_in(pod: Any) -> None:
    """Tells the server of `pod` what it has to find."""
    container = pod.spec.containers[0]
    found = mounted(pod.spec.volumes or [], container)
    container.env = [*(container.env or []), V1EnvVar(name=VARIABLE, value=json.dumps(found))]
