"""The real CLI with the plug-ins of this checkout, against a real Keycloak.

These tests start neither: `make up` has laid the one and started the other. Elsewhere say where
they are: MLHUB_BIN, and MLHUB_KEYCLOAK_URL, MLHUB_KEYCLOAK_USERNAME, MLHUB_KEYCLOAK_PASSWORD.
What is missing is an error, never a skip.
"""

import base64
import json
import os
import subprocess
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import requests
from keycloak import KeycloakAdmin, KeycloakOpenID

from tests.engine.stack import Stack

CHECKOUT = Path(__file__).resolve().parents[2]
PROGRAM = (Path(__file__).parent / "program" / "__main__.py").read_text()


@dataclass(frozen=True)
class Server:
    url: str
    username: str
    password: str

    def admin(self, realm: str = "master") -> Any:
        return KeycloakAdmin(
            server_url=self.url, username=self.username, password=self.password,
            realm_name=realm, user_realm_name="master", client_id="admin-cli",
        )  # fmt: skip

    def login(self, realm: str, username: str, password: str) -> dict[str, Any]:
        """A token for a user, by the one client of a new realm that takes a password."""
        openid = KeycloakOpenID(server_url=self.url, realm_name=realm, client_id="admin-cli")
        return dict(openid.token(username, password))


@pytest.fixture(scope="session")
def bin_dir() -> Path:
    folder = Path(os.environ.get("MLHUB_BIN", CHECKOUT / ".mlhub" / "bin"))
    if not (folder / "pulumi").is_file():
        pytest.exit(f"no pulumi in {folder}; run `make up`, or set MLHUB_BIN", 3)
    return folder


@pytest.fixture(scope="session")
def server() -> Server:
    if url := os.environ.get("MLHUB_KEYCLOAK_URL"):
        username = os.environ.get("MLHUB_KEYCLOAK_USERNAME", "admin")
        found = Server(url, username, os.environ["MLHUB_KEYCLOAK_PASSWORD"])
    else:
        command = ["kubectl", "-n", "foundation", "get", "secret", "keycloak-admin", "-o", "json"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            why = done.stderr.strip().splitlines()[-1]
            pytest.exit(f"no Keycloak of the platform ({why}); run `make up`", 3)
        data = {k: base64.b64decode(v).decode() for k, v in json.loads(done.stdout)["data"].items()}
        found = Server("http://localhost:30880", data["username"], data["password"])
    try:
        requests.get(f"{found.url}/realms/master", timeout=30).raise_for_status()
    except requests.RequestException as error:
        pytest.exit(f"Keycloak at {found.url} does not answer ({error}); run `make up`", 3)
    return found


@contextmanager
def own_realm(server: Server) -> Iterator[str]:
    """The name of a realm that nobody else uses; whatever is left of it goes at the end."""
    name = f"engine-{uuid.uuid4().hex[:8]}"
    yield name
    admin = server.admin()
    if name in {realm["realm"] for realm in admin.get_realms()}:
        admin.delete_realm(name)


@contextmanager
def own_stacks(folder: Path, bin_dir: Path) -> Iterator[Callable[[str], Stack]]:
    """Makes stacks in `folder`; no process of theirs may be left at the end."""
    made: list[Stack] = []

    def new(program: str) -> Stack:
        made.append(Stack(folder / f"stack-{len(made)}", bin_dir, program))
        return made[-1]

    yield new
    for each in made:
        each.wait_for_no_process()


def configured(stack: Stack, server: Server, realm: str) -> Stack:
    stack.configure(url=server.url, username=server.username, password=server.password, realm=realm)
    return stack


@pytest.fixture
def realm(server: Server) -> Iterator[str]:
    with own_realm(server) as name:
        yield name


@pytest.fixture
def stack(tmp_path: Path, bin_dir: Path) -> Iterator[Callable[[str], Stack]]:
    """`stack(program)`: a new stack of that program."""
    with own_stacks(tmp_path, bin_dir) as new:
        yield new


@pytest.fixture
def platform(stack: Callable[[str], Stack], server: Server, realm: str) -> Stack:
    """The program beside this file, configured for the server and a realm of its own."""
    return configured(stack(PROGRAM), server, realm)


@dataclass(frozen=True)
class Applied:
    stack: Stack
    realm: str
    printed: str
    """What the first `pulumi up --diff` said."""


@pytest.fixture(scope="module")
def applied(
    tmp_path_factory: pytest.TempPathFactory, bin_dir: Path, server: Server
) -> Iterator[Applied]:
    """The same, applied once for all tests that only look."""
    with own_realm(server) as realm, own_stacks(tmp_path_factory.mktemp("a"), bin_dir) as new:
        stack = configured(new(PROGRAM), server, realm)
        yield Applied(stack, realm, stack.up("--diff"))
