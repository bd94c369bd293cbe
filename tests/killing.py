"""SIGKILL for what runs in a pod of the embedded cluster, from the machine beneath it.

From inside, the first process of a container cannot be killed, and names are not enough: each
stack has its own `postgres-0`.
"""

import os
import signal
from pathlib import Path

PAUSE = "/pause"
"""Holds the pod's network; it is the kubelet's and no part of what is tried."""


def kill_pod(uid: str) -> None:
    """Every process of the pod with that uid, as a machine would that has run out of memory."""
    killed = 0
    for process in Path("/proc").glob("[0-9]*"):
        try:
            group = (process / "cgroup").read_text().replace("_", "-")
            command = (process / "cmdline").read_bytes().split(b"\0")[0].decode()
            if f"pod{uid}" in group and command != PAUSE:
                os.kill(int(process.name), signal.SIGKILL)
                killed += 1
        except OSError:
            continue
    assert killed, f"nothing of the pod {uid} runs on this machine"
