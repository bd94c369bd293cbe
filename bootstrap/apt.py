"""What the machine's own Debian provides: the container runtime and the tools around it."""

import os
import shutil
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

from bootstrap.commands import run, tail
from bootstrap.errors import BootstrapError
from bootstrap.files import write_private
from bootstrap.paths import Layout
from bootstrap.schedule import Task

NEEDED: Mapping[str, str] = {
    "/usr/bin/containerd": "containerd",
    "runc": "runc",
    "/usr/lib/cni/ptp": "containernetworking-plugins",
    "iptables": "iptables",
    "ip": "iproute2",
    "/usr/bin/docker-registry": "docker-registry",
    "mmdebstrap": "mmdebstrap",
    "mount": "mount",
    "nsenter": "util-linux",
}
"""Debian packages by the program that shows they are there."""

POLICY = Path("/usr/sbin/policy-rc.d")
POLICY_TEXT = (
    "#!/bin/sh\n# mlhub: packages are installed without starting their services\nexit 101\n"
)
SEARCH = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
ONE_AT_A_TIME = threading.Lock()
WAIT_FOR_LOCK = "DPkg::Lock::Timeout=120"


def missing(needed: Mapping[str, str] = NEEDED) -> list[str]:
    """Packages whose program is not there."""
    return sorted(
        package for program, package in needed.items() if shutil.which(program, path=SEARCH) is None
    )


def _apt(layout: Layout, task: Task, *arguments: str) -> None:
    log = layout.log / "apt.log"
    argv = ["apt-get", "-q", "-y", "-o", WAIT_FOR_LOCK, *arguments]
    env = {"DEBIAN_FRONTEND": "noninteractive"}
    if run(layout, task, argv, log=log, env=env):
        raise BootstrapError(
            f"`apt-get {' '.join(arguments)}` failed. The machine needs a Debian package source "
            f"that has them. The end of {log}:\n{tail(log)}"
        )


def _is_ours() -> bool:
    return POLICY.exists() and POLICY.read_text() == POLICY_TEXT


def ensure(layout: Layout, task: Task) -> str:
    """Installs what is missing of the node's own."""
    packages = missing()
    if not packages:
        return "there"
    install(layout, task, packages)
    if still := missing():
        raise BootstrapError(f"apt-get installed {', '.join(packages)}, yet {still} are not there.")
    return f"installed {', '.join(packages)}"


def install(layout: Layout, task: Task, packages: Sequence[str]) -> None:
    """Installs packages, and starts none of them: the node's services are its own."""
    if shutil.which("apt-get") is None or os.geteuid() != 0:
        raise BootstrapError(
            f"{', '.join(packages)} are missing (their Debian names), and this run cannot install "
            "them: that takes apt-get and root. Install them, or use a cluster of your own: set "
            "mlhub:cluster.context in the stack file."
        )
    with ONE_AT_A_TIME:
        if not POLICY.exists():
            write_private(POLICY, POLICY_TEXT, mode=0o755)
        try:
            task.say("apt-get update")
            _apt(layout, task, "update")
            task.say(f"installing {', '.join(packages)}")
            _apt(layout, task, "install", "--no-install-recommends", *packages)
        finally:
            if _is_ours():
                POLICY.unlink()
