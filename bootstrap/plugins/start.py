"""Becomes a provider plug-in, quickly where the language host has prepared one.

A preview waits for its plug-ins one after the other, and most of a Python plug-in's start is
importing gRPC. The language host of the same engine has that behind it and keeps a nursery
(`bootstrap.plugins.nursery`); this asks it for a process, and stays in front of it for the engine
to see and to end. With no nursery it starts the plug-in in the ordinary way.

Run without the site packages (`python -IS`), so only the standard library is here.
"""

import json
import os
import signal
import socket
import struct
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PARENT_FLAG = "--parent="
"""The engine's process id: told by the wrapper, which asks before Python has started. By the time
Python could ask, a killed engine may have been replaced as parent by `init`."""

PEER = struct.Struct("3i")  # pid, uid, gid (unix(7), SO_PEERCRED)


def address(engine: int) -> bytes:
    """Where the nursery of an engine listens: an abstract socket, which leaves no file behind."""
    return f"\0mlhub-plugins:{os.getuid()}:{engine}:{ROOT}".encode()[:107]


def same_user(connection: socket.socket) -> bool:
    """Whether the other end is ours: anybody may take an abstract name."""
    given = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, PEER.size)
    return bool(PEER.unpack(given)[1] == os.getuid())


def prepared(name: str, arguments: list[str]) -> socket.socket | None:
    """The connection to a plug-in from the nursery, which ends with it; None without one."""
    engine = next((a.removeprefix(PARENT_FLAG) for a in arguments if a.startswith(PARENT_FLAG)), "")
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    asked = {"name": name, "arguments": arguments, "environment": dict(os.environ)}
    message = json.dumps(asked | {"folder": os.getcwd()}).encode()
    try:
        connection.connect(address(int(engine)))
        if not same_user(connection):
            return None
        socket.send_fds(connection, [message], [0, 1, 2])
    except (OSError, ValueError):
        connection.close()
        return None
    return connection


def main() -> None:
    name, *arguments = sys.argv[1:]
    connection = prepared(name, arguments)
    if connection is None:
        code = f"import sys; sys.path.insert(0, {str(ROOT)!r}); "
        code += f"from bootstrap.plugins.{name} import run; run()"
        command = [sys.executable, "-P", "-c", code, *arguments]
        os.execv(sys.executable, command)  # noqa: S606 - the process id stays the engine's to end
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda *_: connection.shutdown(socket.SHUT_WR))
    # Nothing is ever sent: the plug-in's end closes it.
    connection.recv(1)


if __name__ == "__main__":
    main()
