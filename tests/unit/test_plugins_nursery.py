"""Plug-ins that the language host has prepared: quick to start, and gone with whoever asked."""

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest
from google.protobuf import empty_pb2
from pulumi.runtime.proto import provider_pb2_grpc

from bootstrap.plugins import starter, wrapper

ENGINE = """
import subprocess, sys
for command in sys.argv[1:]:
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    print(process.pid, process.stdout.readline().strip(), flush=True)
sys.stdin.read()
"""
"""Starts its arguments one after the other, prints process ids and ports, and stays."""

GRPC = "cygrpc"
"""The library that a plug-in needs, and that what stands before a prepared one does not load."""


@dataclass(frozen=True)
class Started:
    engine: subprocess.Popen[str]
    plug_in: int
    port: int

    def prepared(self) -> bool:
        return GRPC not in Path(f"/proc/{self.plug_in}/maps").read_text()

    def version(self) -> str:
        with grpc.insecure_channel(f"127.0.0.1:{self.port}") as channel:
            stub = provider_pb2_grpc.ResourceProviderStub(channel)
            return str(stub.GetPluginInfo(empty_pb2.Empty(), timeout=60).version)

    def answers(self) -> bool:
        try:
            return bool(self.version())
        except grpc.RpcError:
            return False


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[[bool], Started]]:
    """`start(with_host)`: an engine that has started our language host, or none, and a plug-in."""
    engines = []

    def script(name: str, text: str) -> str:
        path = tmp_path / name
        path.write_text(text)
        path.chmod(0o755)
        return str(path)

    def started(with_host: bool) -> Started:
        python = Path(sys.executable)
        host = script("host", wrapper(python, "language_host import run; run('none')"))
        plug_in = script("plug-in", starter(python, "random"))
        # The host forks before it says its port.
        commands = [host, plug_in] if with_host else [plug_in]
        engine = subprocess.Popen(
            [sys.executable, "-c", ENGINE, *commands],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        engines.append(engine)
        assert engine.stdout is not None
        said = [engine.stdout.readline().split() for _ in commands]
        return Started(engine, *map(int, said[-1]))

    yield started
    for engine in engines:
        engine.kill()
        engine.communicate()


def wait_until(claim: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + 60
    while not claim():
        assert time.monotonic() < deadline, what
        time.sleep(0.1)


def test_a_plug_in_beside_our_language_host_has_its_imports_behind_it(
    start: Callable[[bool], Started],
) -> None:
    plug_in = start(True)
    assert plug_in.prepared()
    assert plug_in.version() == "4.21.4"


def test_without_a_language_host_of_ours_it_starts_by_itself(
    start: Callable[[bool], Started],
) -> None:
    plug_in = start(False)
    assert not plug_in.prepared()
    assert plug_in.version() == "4.21.4"


@pytest.mark.parametrize("signal", ["TERM", "KILL"])
def test_it_leaves_with_the_process_that_the_engine_ends(
    start: Callable[[bool], Started], signal: str
) -> None:
    plug_in = start(True)
    assert plug_in.answers()
    subprocess.run(["kill", f"-{signal}", str(plug_in.plug_in)], check=True)
    wait_until(lambda: not plug_in.answers(), "the plug-in outlived what the engine ended")


def test_it_leaves_with_an_engine_that_was_killed(start: Callable[[bool], Started]) -> None:
    plug_in = start(True)
    assert plug_in.answers()
    plug_in.engine.kill()
    plug_in.engine.wait()
    wait_until(lambda: not plug_in.answers(), "the plug-in outlived its engine")
    wait_until(lambda: not runs(plug_in.plug_in), "what stood before it stayed")


def runs(process: int) -> bool:
    """Whether it is there, and has not ended while nobody has asked how."""
    try:
        return bool(Path(f"/proc/{process}/maps").read_text())
    except OSError:
        return False
