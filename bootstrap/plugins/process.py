"""What every plug-in process has to do, whichever protocol it speaks.

The engine starts a plug-in as `plugin [flags] [engine address]`, reads one line with a port from
its standard output and speaks gRPC to that port. It ends the process with a signal. If the engine
itself is killed nobody ends the plug-in, so each one watches its parent and leaves with it.
"""

import os
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import grpc
from pulumi.runtime.proto import engine_pb2, engine_pb2_grpc

from bootstrap.plugins.start import PARENT_FLAG

UNLIMITED = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
WORKERS = 64  # a Run call holds one worker for the whole program
PARENT_POLL_SECONDS = 0.5


def parent_of(argv: Sequence[str]) -> int:
    """The process with which to leave: the engine, or the nursery that leaves with the engine."""
    told = [arg.removeprefix(PARENT_FLAG) for arg in argv if arg.startswith(PARENT_FLAG)]
    return int(told[0]) if told else os.getppid()


def engine_address(argv: Sequence[str]) -> str:
    """The engine's address: the last argument that is no flag, empty where there is none."""
    return next((arg for arg in reversed(argv) if not arg.startswith("-")), "")


class EngineLog:
    """The engine's own log, so that messages appear beside the resource that they are about."""

    def __init__(self, address: str):
        self._address = address
        self._stub: engine_pb2_grpc.EngineStub | None = None
        self._lock = threading.Lock()

    def info(self, message: str, urn: str = "") -> None:
        self._send(engine_pb2.INFO, message, urn)

    def debug(self, message: str, urn: str = "") -> None:
        self._send(engine_pb2.DEBUG, message, urn)

    def progress(self, message: str, urn: str = "") -> None:
        """Shown while it is current and not kept."""
        self._send(engine_pb2.INFO, message, urn, ephemeral=True)

    def _send(
        self,
        severity: engine_pb2.LogSeverity.ValueType,
        message: str,
        urn: str,
        ephemeral: bool = False,
    ) -> None:
        if not self._address:
            print(message, file=sys.stderr)
            return
        with self._lock:
            if self._stub is None:
                channel = grpc.insecure_channel(self._address, options=UNLIMITED)
                self._stub = engine_pb2_grpc.EngineStub(channel)
        request = engine_pb2.LogRequest(
            severity=severity,
            message=message,
            urn=urn,
            ephemeral=ephemeral,
        )
        try:
            self._stub.Log(request, timeout=10)
        except grpc.RpcError:
            print(message, file=sys.stderr)


def serve(add_services: Callable[[grpc.Server], None], on_stop: Callable[[], None]) -> None:
    """Serves until a signal or until the parent process is gone, then calls `on_stop`.

    `on_stop` must end whatever the plug-in has started; it is called once.
    """
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda *_: stop.set())
    parent = parent_of(sys.argv[1:])

    server = grpc.server(ThreadPoolExecutor(WORKERS), options=UNLIMITED)
    add_services(server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    print(port, flush=True)

    while not stop.wait(PARENT_POLL_SECONDS):
        if os.getppid() != parent:
            break
    on_stop()
    server.stop(grace=1).wait(2)
    # Workers may still wait on a server that does not answer; nothing of theirs is worth keeping.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)
