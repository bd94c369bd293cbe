"""Ports on loopback for servers that have to be told theirs."""

import itertools
import os
import socket

FIRST, LAST = 20_000, 29_999
"""Below those that the system gives to whoever asks for any (ip_local_port_range), of which another
test's connection would have one before the server listens; and below Kubernetes' NodePorts."""

_next = itertools.count(os.getpid() * 97)
"""Each process begins elsewhere, so that two of them which run beside each other do not meet."""


def free_port() -> int:
    """One that nobody listens on, and that this process gives once in ten thousand times."""
    while True:
        port = FIRST + next(_next) % (LAST - FIRST + 1)
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)):
                return port
