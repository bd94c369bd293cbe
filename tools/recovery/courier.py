"""Runs in a pod, with the Python that is there: a command whose data crosses `kubectl exec` whole.

    courier.py out COMMAND…    what COMMAND writes goes to standard output
    courier.py in COMMAND…     standard input goes to COMMAND

The last line on standard error is a JSON object: `status` (COMMAND's exit status), `bytes` and
`sha256` of the data as they were here, `files` (names that a `tar --verbose` said) and `said` (the
other lines of COMMAND's standard error). A connection that broke has no such line.
"""

import contextlib
import hashlib
import json
import subprocess
import sys
import threading
from typing import IO

BLOCK = 1 << 20


def copy(source: IO[bytes], sink: IO[bytes]) -> tuple[int, str]:
    digest, size, broken = hashlib.sha256(), 0, False
    while block := source.read(BLOCK):
        digest.update(block)
        size += len(block)
        try:
            if not broken:
                sink.write(block)
        except BrokenPipeError:  # the command has ended, and its status says why
            broken = True
    return size, digest.hexdigest()


def main() -> None:
    direction, command = sys.argv[1], sys.argv[2:]
    out = direction == "out"
    child = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL if out else subprocess.PIPE,
        stdout=subprocess.PIPE if out else subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    files, said = 0, []

    def listen() -> None:
        nonlocal files
        for line in child.stderr or ():
            if line.startswith(b"./"):
                files += 1
            else:
                said.append(line.decode(errors="replace").rstrip())

    listener = threading.Thread(target=listen)
    listener.start()
    if out:
        size, digest = copy(child.stdout, sys.stdout.buffer)  # type: ignore[arg-type]
        sys.stdout.buffer.flush()
    else:
        size, digest = copy(sys.stdin.buffer, child.stdin)  # type: ignore[arg-type]
        with contextlib.suppress(BrokenPipeError):
            child.stdin.close()  # type: ignore[union-attr]
    status = child.wait()
    listener.join()
    report = {"status": status, "bytes": size, "sha256": digest, "files": files, "said": said[-50:]}
    print(json.dumps(report), file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
