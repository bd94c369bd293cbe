"""Ports on loopback for servers that have to be told theirs."""

import itertools
import os
import socket
from collections import deque

FIRST, LAST = 20_000, 29_999
"""Below those that the system gives to whoever asks for any (ip_local_port_range), of which another
test's connection would have one before the server listens; and below Kubernetes' NodePorts."""

_next = itertools.count(os.getpid() * 97)
_claims: deque[socket.socket] = deque(maxlen=100)
"""Until a server listens nobody sees that its port is given away: so long the UDP port of the same
number is held, which no other process can have then. Those of long ago are let go."""


def free_port() -> int:
    """One that nobody listens on, and that no other process of the tests has just been given."""
    while True:
        port = FIRST + next(_next) % (LAST - FIRST + 1)
        claim = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        try:
            claim.bind(("127.0.0.1", port))
        except OSError:
            claim.close()
            continue
        _claims.append(claim)
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)):
                return port
