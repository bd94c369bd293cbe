"""A web server at an address beyond the node, in a network of its own; needs root."""

import ipaddress
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.e2e.platform import wait_until


@contextmanager
def server_beyond(address: str, name: str, folder: Path) -> Iterator[str]:
    """Port 80 of `address` serves a folder, over the interface `<name>0` of this machine."""
    link = ipaddress.ip_network(f"{address}/30", strict=False)
    (own,) = (str(host) for host in link.hosts() if str(host) != address)
    serve = f"while ! ip address show to {address} | grep -q .; do sleep 0.1; done; "
    serve += f"exec {sys.executable} -m http.server 80 --bind {address}"
    server = subprocess.Popen(
        ["unshare", "--net", "sh", "-c", serve], cwd=folder, stderr=subprocess.DEVNULL
    )
    inside = f"nsenter --target {server.pid} --net ip"
    try:
        ours, theirs = os.readlink("/proc/self/ns/net"), f"/proc/{server.pid}/ns/net"
        wait_until("the server has a network of its own", lambda: os.readlink(theirs) != ours)
        for command in (
            f"ip link add {name}0 type veth peer name {name}1 netns {server.pid}",
            f"ip address add {own}/30 dev {name}0",
            f"ip link set {name}0 up",
            f"{inside} link set {name}1 up",
            f"{inside} address add {address}/30 dev {name}1",
            f"{inside} route add default via {own}",
        ):
            subprocess.run(command.split(), check=True)
        wait_until("the server beyond the node listens", lambda: connects(address, 80))
        yield f"http://{address}"
    finally:
        server.kill()
        server.wait()
        subprocess.run(["ip", "link", "delete", f"{name}0"], capture_output=True, check=False)


def connects(address: str, port: int) -> bool:
    """Whether this machine reaches a port within a second."""
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex((address, port)) == 0
