"""A server of the platform: how it is started, and how one knows that it answers."""

import shutil
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from bootstrap import processes
from bootstrap.errors import BootstrapError
from bootstrap.files import write_if_changed
from bootstrap.paths import Layout


@dataclass(frozen=True)
class Service:
    """One process of the host.

    argv: the command; nothing secret may be in it.
    files: configuration that it reads, by path; they are written before it starts.
    url: answers 200 once it serves; `http+unix` is not needed, so sockets are given by `socket`.
    """

    name: str
    argv: tuple[str, ...]
    url: str = ""
    socket: Path | None = None
    files: Mapping[Path, str] = field(default_factory=dict)
    env: Mapping[str, str] = field(default_factory=dict)
    seconds: float = 60.0

    def log(self, layout: Layout) -> Path:
        return layout.log / f"{self.name}.log"


def answers(service: Service, layout: Layout, timeout: float = 2.0) -> bool:
    """Whether the server does its work now."""
    if service.socket and not service.socket.is_socket():
        return False
    if not service.url:
        return True
    context = None
    if service.url.startswith("https"):
        authority = "etcd-ca" if service.name == "etcd" else "ca"
        client = "apiserver-etcd-client" if service.name == "etcd" else "admin"
        context = ssl.create_default_context(cafile=layout.pki / f"{authority}.crt")
        context.load_cert_chain(layout.pki / f"{client}.crt", layout.pki / f"{client}.key")
    opener = urllib.request.build_opener(
        urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context)
    )
    try:
        with opener.open(service.url, timeout=timeout) as answer:
            return bool(answer.status == 200)
    except (OSError, urllib.error.URLError):
        return False


def tail(path: Path, lines: int = 5) -> str:
    """The end of a log, for an error a person reads."""
    try:
        return "\n".join(path.read_text(errors="replace").splitlines()[-lines:])
    except OSError:
        return ""


def ensure(service: Service, layout: Layout) -> str:
    """Runs the server as described; a running one that is the same is left alone.

    Returns what was done: `running`, `started` or `restarted`.
    """
    for path, content in service.files.items():
        write_if_changed(path, content)
    print_of = processes.fingerprint(service.argv, service.files, service.env)
    path = layout.run / f"{service.name}.json"
    record = processes.read_record(path)
    mine = [
        identity
        for identity, (checkout, part) in processes.marked().items()
        if checkout == str(layout.checkout) and part == service.name and _leads(identity)
    ]
    if record and processes.alive(record.identity) and record.fingerprint == print_of:
        if wait(service, layout, record.identity):
            return "running"
        mine.append(record.identity)
    processes.stop(mine)
    if shutil.which(service.argv[0]) is None:
        raise BootstrapError(f"{service.name}: {service.argv[0]} is not there. Run `make doctor`.")
    identity = processes.start(
        service.name,
        service.argv,
        checkout=layout.checkout,
        run=layout.run,
        log=service.log(layout),
        env=service.env,
        print_of=print_of,
    )
    if not wait(service, layout, identity):
        ended = "" if processes.alive(identity) else " It has ended."
        raise BootstrapError(
            f"{service.name} did not answer within {service.seconds:.0f} s.{ended} The end of "
            f"{service.log(layout)}:\n{tail(service.log(layout))}"
        )
    return "restarted" if mine else "started"


def _leads(identity: processes.Identity) -> bool:
    """Whether it is what we started, not a child that inherited the mark: we start sessions."""
    stat = Path(f"/proc/{identity.pid}/stat")
    try:
        fields = stat.read_text().rpartition(")")[2].split()
    except OSError:
        return False
    return int(fields[3]) == identity.pid


def wait(service: Service, layout: Layout, identity: processes.Identity) -> bool:
    """Waits until it answers; gives up when it ends or its time is over."""
    deadline = time.monotonic() + service.seconds
    while time.monotonic() < deadline:
        if not processes.alive(identity):
            return False
        if answers(service, layout):
            return True
        time.sleep(0.2)
    return False
