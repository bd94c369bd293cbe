"""What the pods that the program makes have in common: no privilege, no view of the cluster."""

from collections.abc import Mapping, Sequence

import pulumi_kubernetes as k8s

UID, GID = 1000, 100
"""Whom our images run as."""


def pod_security() -> k8s.core.v1.PodSecurityContextArgsDict:
    """The pod's part of Pod Security's `restricted`."""
    return {
        "run_as_non_root": True,
        "run_as_user": UID,
        "run_as_group": GID,
        "fs_group": GID,
        "seccomp_profile": {"type": "RuntimeDefault"},
    }


def container_security() -> k8s.core.v1.SecurityContextArgsDict:
    """The container's part of `restricted`, and a root file system that nothing writes to."""
    return {
        "allow_privilege_escalation": False,
        "read_only_root_filesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }


def plain(environment: Mapping[str, str]) -> list[k8s.core.v1.EnvVarArgsDict]:
    return [{"name": name, "value": value} for name, value in environment.items()]


def from_secret(name: str, secret_name: str, key: str) -> k8s.core.v1.EnvVarArgsDict:
    return {"name": name, "value_from": {"secret_key_ref": {"name": secret_name, "key": key}}}


def pod(
    container: k8s.core.v1.ContainerArgsDict,
    volumes: list[k8s.core.v1.VolumeArgsDict],
    pull_secrets: Sequence[str] = (),
) -> k8s.core.v1.PodSpecArgsDict:
    """A pod of one container that knows nothing of the cluster it is in."""
    return {
        "automount_service_account_token": False,
        "enable_service_links": False,
        "image_pull_secrets": [{"name": name} for name in pull_secrets],
        "security_context": pod_security(),
        "termination_grace_period_seconds": 60,
        "containers": [container],
        "volumes": volumes,
    }
