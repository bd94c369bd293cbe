"""A process that has imported what the plug-ins need, and becomes one when asked.

It is forked by the language host before gRPC has threads, belongs to one engine and ends with it.
Its children are asked for by `bootstrap.plugins.start`, which passes on the streams, arguments,
folder and environment that the engine gave it, and are ended when that process goes.
"""

import importlib
import json
import os
import select
import signal
import socket
import sys
import threading
from typing import Any

from bootstrap.plugins import PROVIDERS
from bootstrap.plugins.start import PARENT_FLAG, address, same_user

LARGEST = 1 << 20  # bytes of a request; an environment is bounded far below that


def keep(engine: int) -> None:
    """Forks a nursery for the engine with that process id, unless it has one."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        listener.bind(address(engine))
    except OSError:
        listener.close()
        return
    listener.listen(len(PROVIDERS) * 2)
    if os.fork():
        listener.close()
        return
    try:
        nothing = os.open(os.devnull, os.O_RDWR)
        for stream in (0, 1, 2):
            os.dup2(nothing, stream)
        tend(engine, listener)
    finally:
        os._exit(0)


def tend(engine: int, listener: socket.socket) -> None:
    """Answers requests until the engine is gone."""
    alive = os.pidfd_open(engine)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    waited: list[Any] = [listener, alive]
    while alive not in select.select(waited, [], [])[0]:
        connection, _ = listener.accept()
        if same_user(connection):
            message, streams, _, _ = socket.recv_fds(connection, LARGEST, 3)
            if message and not os.fork():
                listener.close()
                os.close(alive)
                become(json.loads(message), streams, connection)
            for stream in streams:
                os.close(stream)
        connection.close()
        # Where one is wanted the others will be: what they import, while the engine is busy.
        for name in PROVIDERS:
            importlib.import_module(f"bootstrap.plugins.{name}")


def become(asked: dict[str, Any], streams: list[int], connection: socket.socket) -> None:
    """The plug-in that was asked for, in this process."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    for target, stream in enumerate(streams):
        os.dup2(stream, target)
        os.close(stream)
    os.environ.clear()
    os.environ.update(asked["environment"])
    os.chdir(asked["folder"])
    arguments = [a for a in asked["arguments"] if not a.startswith(PARENT_FLAG)]
    sys.argv = [asked["name"], *arguments, f"{PARENT_FLAG}{os.getppid()}"]

    def leave_with_it() -> None:
        connection.recv(1)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=leave_with_it, daemon=True).start()
    importlib.import_module(f"bootstrap.plugins.{asked['name']}").run()
