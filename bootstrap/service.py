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
from bootstrap.commands import tail
from bootstrap.errors import BootstrapError
from bootstrap.files import write_if_changed
from bootstrap.paths import Layout
from bootstrap.schedule import Task


@dataclass(frozen=True)
class Service:
    """One process of the host.

    argv: the command; nothing secret may be in it.
    files: configuration that it reads, by path; they are written before it starts.
    url: answers 200 once it serves; `http+unix` is not needed, so sockets are given by `socket`.
    authority, client: who signed its certificate, and which one to show it (bootstrap/pki.py).
    """

    name: str
    argv: tuple[str, ...]
    url: str = ""
    socket: Path | None = None
    files: Mapping[Path, str] = field(default_factory=dict)
    env: Mapping[str, str] = field(default_factory=dict)
    seconds: float = 60.0
    authority: str = "ca"
    client: str = "admin"

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
        context = ssl.create_default_context(cafile=layout.pki / f"{service.authority}.crt")
        client = layout.pki / f"{service.client}.crt"
        context.load_cert_chain(client, client.with_suffix(".key"))
    opener = urllib.request.build_opener(
        urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context)
    )
    try:
        with opener.open(service.url, timeout=timeout) as answer:
            return bool(answer.status == 200)
    except (OSError, urllib.error.URLError):
        return False


def ensure(service: Service, layout: Layout, task: Task) -> str:
    """Runs the server as described; a running one that is the same is left alone.

    Returns what was done: `running`, `started` or `restarted`.
    """
    for path, content in service.files.items():
        write_if_changed(path, content)
    print_of = processes.fingerprint(service.argv, service.files, service.env)
    record = processes.read_record(layout.run / f"{service.name}.json")
    mine = running(service.name, layout)
    if (
        record
        and record.fingerprint == print_of
        and mine == [record.identity]
        and wait(service, layout, record.identity, task)
    ):
        return "running"
    processes.stop(mine)
    if shutil.which(service.argv[0]) is None:
        raise BootstrapError(f"{service.argv[0]} is not there. Run `make doctor`.")
    identity = processes.start(layout, service.name, service.argv, service.env, print_of)
    if not wait(service, layout, identity, task):
        ended = "" if processes.alive(identity) else " It has ended."
        raise BootstrapError(
            f"{service.name} did not answer within {service.seconds:.0f} s.{ended} The end of "
            f"{service.log(layout)}:\n{tail(service.log(layout))}"
        )
    return "restarted" if mine else "started"


def running(name: str, layout: Layout) -> list[processes.Identity]:
    """The processes that serve as this part now, whether or not they were recorded."""
    here = (str(layout.checkout), processes.instance(layout), name)
    return [
        identity
        for identity, mark in processes.marked().items()
        if (mark.checkout, mark.instance, mark.part) == here and processes.leads(identity)
    ]


def wait(service: Service, layout: Layout, identity: processes.Identity, task: Task) -> bool:
    """Waits until it answers; gives up when it ends or its time is over."""
    deadline = time.monotonic() + service.seconds
    while time.monotonic() < deadline:
        task.say(f"waiting for {service.name}")
        if not processes.alive(identity):
            return False
        if answers(service, layout):
            return True
        time.sleep(0.2)
    return False
