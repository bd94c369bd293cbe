"""A server on the loopback with a certificate of an authority made for it."""

import ssl
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from bootstrap.pki import LIFETIME, Leaf, make_authority, make_leaf


@dataclass(frozen=True)
class Certificate:
    """The files of a server at 127.0.0.1 or localhost."""

    authority: Path
    certificate: Path
    key: Path

    def context(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.certificate, self.key)
        return context


def certificate(
    folder: Path, *, left: timedelta = LIFETIME, name: str = "localhost", address: str = "127.0.0.1"
) -> Certificate:
    """`left`: until it ends, at most its whole life of ten years."""
    now = datetime.now(UTC)
    make_authority(folder, "authority", now)
    make_leaf(
        folder,
        Leaf("server", "server", "authority", dns=(name,), addresses=(address,)),
        now - LIFETIME + left,
    )
    return Certificate(folder / "authority.crt", folder / "server.crt", folder / "server.key")
