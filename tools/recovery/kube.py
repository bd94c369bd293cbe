"""kubectl, and data that goes through it to pods and comes from them."""

import json
import subprocess
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from tools.recovery.errors import RecoveryError

COURIER = (Path(__file__).parent / "courier.py").read_text(encoding="utf-8")
BLOCK = 1 << 20


@dataclass(frozen=True)
class Pod:
    namespace: str
    name: str
    container: str | None = None

    @property
    def options(self) -> list[str]:
        container = ["--container", self.container] if self.container else []
        return ["--namespace", self.namespace, self.name, *container]


@dataclass(frozen=True)
class Report:
    """What the courier says at the end (tools/recovery/courier.py)."""

    status: int
    bytes: int
    sha256: str
    files: int
    said: list[str]


class Kubectl:
    """kubectl on one cluster, which the command names, or else the environment."""

    def __init__(self, command: Sequence[str] = ("kubectl",)):
        self._command = [*command]

    def __call__(self, *arguments: str, stdin: str | None = None) -> str:
        done = subprocess.run(
            [*self._command, *arguments], input=stdin, capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise RecoveryError(f"`kubectl {' '.join(arguments)}` failed: {done.stderr.strip()}")
        return done.stdout

    def json(self, *arguments: str) -> Any:
        return json.loads(self(*arguments, "--output", "json"))

    def items(self, kind: str, namespace: str, *arguments: str) -> list[dict[str, Any]]:
        found = self.json("get", kind, "--namespace", namespace, *arguments)["items"]
        return list(found)

    def apply(self, *objects: dict[str, Any]) -> None:
        listed = {"apiVersion": "v1", "kind": "List", "items": list(objects)}
        self(
            "apply",
            "--server-side",
            "--force-conflicts",
            "--filename",
            "-",
            stdin=json.dumps(listed),
        )

    def execute(self, pod: Pod, *command: str, stdin: str | None = None) -> str:
        how = ["--stdin"] if stdin is not None else []
        return self("exec", *how, *pod.options, "--", *command, stdin=stdin)

    def _courier(self, pod: Pod, direction: str, command: Sequence[str]) -> list[str]:
        how = ["--stdin"] if direction == "in" else []
        inside = ["python3", "-I", "-c", COURIER, direction, *command]
        return [*self._command, "exec", *how, *pod.options, "--", *inside]

    def take(
        self, pod: Pod, *command: str, ended: Callable[[Report], None], fine: Sequence[int] = (0,)
    ) -> Iterator[bytes]:
        """What a command in a pod writes. `ended` gets the report once all of it has come whole."""
        with subprocess.Popen(
            self._courier(pod, "out", command), stdout=subprocess.PIPE, stderr=subprocess.PIPE
        ) as child:
            try:
                listener = _Listener(child.stderr)
                size = 0
                while block := child.stdout.read(BLOCK):  # type: ignore[union-attr]
                    size += len(block)
                    yield block
                child.wait()
                report = listener.report(pod, command)
            finally:
                child.kill()
        if report.bytes != size:
            raise RecoveryError(
                f"of {report.bytes} bytes from {pod.name}, {size} came; run this again"
            )
        _check(pod, command, report, fine)
        ended(report)

    def give(self, pod: Pod, chunks: Iterable[bytes], *command: str) -> Report:
        """Feeds a command in a pod, which must have got all of it and end well."""
        with subprocess.Popen(
            self._courier(pod, "in", command),
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        ) as child:
            try:
                listener = _Listener(child.stderr)
                size = 0
                try:
                    for chunk in chunks:
                        child.stdin.write(chunk)  # type: ignore[union-attr]
                        size += len(chunk)
                    child.stdin.close()  # type: ignore[union-attr]
                except BrokenPipeError:
                    pass  # the report, or its absence, says why
                child.wait()
                report = listener.report(pod, command)
            finally:
                child.kill()
        _check(pod, command, report, (0,))
        if report.bytes != size:
            raise RecoveryError(f"{pod.name} got {report.bytes} of {size} bytes; run this again")
        return report


class _Listener(threading.Thread):
    """Reads standard error while the data flow, and keeps its end."""

    def __init__(self, stream: "IO[bytes] | None"):
        super().__init__(daemon=True)
        self._stream = stream
        self._lines: list[str] = []
        self.start()

    def run(self) -> None:
        for line in self._stream or ():
            self._lines = [*self._lines[-4:], line.decode(errors="replace").strip()]

    def report(self, pod: Pod, command: Sequence[str]) -> Report:
        self.join()
        try:
            return Report(**json.loads(self._lines[-1]))
        except (IndexError, ValueError, TypeError):
            said = "; ".join(self._lines) or "nothing was said"
            raise RecoveryError(
                f"{command[0]} in {pod.name} did not end ({said}); run this again"
            ) from None


def _check(pod: Pod, command: Sequence[str], report: Report, fine: Sequence[int]) -> None:
    if report.status not in fine:
        said = "; ".join(report.said[-3:])
        raise RecoveryError(
            f"{command[0]} in {pod.name} failed with status {report.status}: {said}"
        )


def wait_until(claim: str, holds: Callable[[], bool], seconds: float) -> None:
    """Looks every second; RecoveryError with the claim when it does not come true."""
    deadline = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > deadline:
            raise RecoveryError(f"after {seconds:.0f} s it still does not hold that {claim}")
        time.sleep(1)
