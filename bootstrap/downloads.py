"""Official archives: fetched whole and with the right sum, or not at all.

A host that does not answer within seconds is not asked again in the same run: on a machine that
reaches package mirrors only, every release is out of reach, and says so at once.
"""

import hashlib
import socket
import threading
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlparse

import requests

from bootstrap.errors import BootstrapError
from bootstrap.schedule import Task

CONNECT_SECONDS = 3.0
READ_SECONDS = 30.0
CHUNK = 1024 * 1024


class UnavailableError(Exception):
    """This source does not have the part; says why, in a few words."""


@dataclass
class Hosts:
    """Hosts that did not answer in this run: nobody waits for one twice."""

    silent: set[str] = field(default_factory=set)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def reach(self, host: str) -> None:
        with self.lock:
            if host not in self.silent and not _resolves(host):
                self.silent.add(host)
            if host in self.silent:
                raise UnavailableError(f"{host} is not reached")

    def give_up(self, host: str) -> None:
        with self.lock:
            self.silent.add(host)


def _resolves(host: str) -> bool:
    """Whether the name is known, asked for no longer than a connection may take."""
    known = threading.Event()

    def ask() -> None:
        try:
            socket.getaddrinfo(host, 443)
        except OSError:
            return
        known.set()

    proxies = requests.utils.get_environ_proxies(f"https://{host}")
    if proxies:
        return True
    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(CONNECT_SECONDS)
    return known.is_set()


def download(hosts: Hosts, task: Task, url: str, sha512: str, target: Path) -> Path:
    """Fetches an archive to `target`; raises UnavailableError when its host is out of reach."""
    host = urlparse(url).hostname or url
    hosts.reach(host)
    digest = hashlib.sha512()
    try:
        with requests.get(url, stream=True, timeout=(CONNECT_SECONDS, READ_SECONDS)) as answer:
            if answer.status_code != 200:
                raise UnavailableError(f"{host} answered {answer.status_code}")
            size = int(answer.headers.get("Content-Length", 0))
            with target.open("wb") as file:
                for chunk in answer.iter_content(CHUNK):
                    task.say(f"downloading from {host}")
                    digest.update(chunk)
                    file.write(chunk)
                    task.fraction = file.tell() / size if size else None
    except requests.RequestException as error:
        target.unlink(missing_ok=True)
        hosts.give_up(host)
        raise UnavailableError(f"{host} is not reached ({type(error).__name__})") from error
    if digest.hexdigest() != sha512:
        target.unlink()
        raise BootstrapError(
            f"{url} has the SHA-512 {digest.hexdigest()}; {sha512} is pinned. Either the download "
            "was tampered with on its way, or the pin in bootstrap/parts.py is wrong."
        )
    return target
