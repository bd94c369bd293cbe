"""M10: what a session begins with, from a real git server behind https."""

import os
import shutil
import ssl
import subprocess
import threading
import time
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from notebooks import begin as begins
from notebooks.begin import begin


def certify(folder: Path) -> Path:
    """A certificate of 127.0.0.1 with its key, in one file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False
        )
        .sign(key, hashes.SHA256())
    )
    file = folder / "certificate.pem"
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    file.write_bytes(made.public_bytes(serialization.Encoding.PEM) + private)
    return file


class GitServer(BaseHTTPRequestHandler):
    """`git http-backend`, as a forge serves it."""

    root: Path
    paths: list[str]
    redirect = ""
    delay = 0.0

    def answer(self) -> None:
        path, _, query = self.path.partition("?")
        self.paths.append(path)
        time.sleep(self.delay)
        if self.redirect and not path.startswith(self.redirect):
            self.send_response(301)
            self.send_header("Location", self.redirect + self.path.split("/info/")[-1])
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        environment = {
            "PATH": os.environ["PATH"],
            "GIT_PROJECT_ROOT": str(self.root),
            "GIT_HTTP_EXPORT_ALL": "1",
            "REQUEST_METHOD": self.command,
            "PATH_INFO": path,
            "QUERY_STRING": query,
            "CONTENT_TYPE": self.headers.get("Content-Type", ""),
            "GIT_PROTOCOL": self.headers.get("Git-Protocol", ""),
        }
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        done = subprocess.run(
            ["git", "http-backend"], env=environment, input=body, capture_output=True, check=False
        )
        head, _, content = done.stdout.partition(b"\r\n\r\n")
        lines = [line.partition(": ") for line in head.decode().splitlines()]
        status = next((value for key, _, value in lines if key == "Status"), "200")
        self.send_response(int(status.split()[0]))
        for key, _, value in lines:
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_POST = answer  # noqa: N815

    def log_message(self, *_: Any) -> None:
        pass


def commit(root: Path, name: str, *texts: str) -> None:
    work = root / f"{name}-work"
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@example.com", "-C", str(work)]
    subprocess.run(["git", "init", "--quiet", str(work)], check=True)
    for text in texts:
        (work / "README.md").write_text(text)
        subprocess.run([*git, "add", "."], check=True)
        subprocess.run([*git, "commit", "--quiet", "-m", text], check=True)
    bare = root / "owner" / f"{name}.git"
    subprocess.run(["git", "clone", "--quiet", "--bare", str(work), str(bare)], check=True)


@pytest.fixture
def forge(tmp_path, monkeypatch):
    root = tmp_path / "forge"
    commit(root, "demo", "first", "second")
    handler = type("Forge", (GitServer,), {"root": root, "paths": []})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    certificate = certify(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    monkeypatch.setenv("GIT_SSL_CAINFO", str(certificate))
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
    handler.url = f"https://127.0.0.1:{server.server_port}/owner/demo.git"
    yield handler
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def home(tmp_path) -> Path:
    home = tmp_path / "home"
    home.mkdir()
    return home


def started(home: Path, url: str, server: str = "demo-1") -> list[str]:
    said: list[str] = []
    begin(home, {"MLHUB_GIT_REPO": url, "JUPYTERHUB_SERVER_NAME": server}, said.append)
    return said


def test_M10_the_repository_is_there_with_its_newest_commit_alone(forge, home):
    (said,) = started(home, forge.url)
    clone = home / "repos" / "demo"
    assert said.startswith(f"cloned {forge.url} to {clone} (")
    assert (clone / "README.md").read_text() == "second"
    log = subprocess.run(["git", "-C", clone, "log", "--oneline"], capture_output=True, check=True)
    assert len(log.stdout.splitlines()) == 1
    assert [each.name for each in (home / "repos").iterdir()] == ["demo"]


def test_M10_it_is_cloned_once_and_what_was_deleted_stays_deleted(forge, home):
    started(home, forge.url)
    (home / "repos/demo").rename(home / "elsewhere")
    assert started(home, forge.url) == []
    assert not (home / "repos/demo").exists()
    assert started(home, forge.url, server="another session")[0].startswith("cloned")


def test_M10_work_that_is_there_is_never_touched(forge, home):
    started(home, forge.url)
    work = home / "repos/demo/README.md"
    work.write_text("mine")
    (said,) = started(home, forge.url, server="another session")
    assert said.endswith("already, left as it is")
    assert work.read_text() == "mine"


def test_M10_another_repository_of_that_name_lies_beside_it(forge, home):
    other = home / "repos/demo"
    other.mkdir(parents=True)
    (other / "README.md").write_text("mine")
    started(home, forge.url)
    assert (other / "README.md").read_text() == "mine"
    (beside,) = (home / "repos").glob("demo-??????")
    assert (beside / "README.md").read_text() == "second"


def test_M10_what_cannot_be_cloned_is_said_where_a_person_looks_and_tried_again(forge, home):
    url = forge.url.replace("demo", "nothing")
    (said,) = started(home, url)
    notice = home / "nothing is missing.txt"
    assert said in notice.read_text()
    assert "nothing.git was not cloned: " in said
    assert list((home / "repos").iterdir()) == []
    commit(forge.root, "nothing", "there now")
    assert started(home, url)[0].startswith("cloned")
    assert not notice.exists()


def test_M10_another_host_is_not_followed_to(forge, home):
    forge.redirect = "/elsewhere/demo.git/info/"
    (said,) = started(home, forge.url)
    assert "was not cloned" in said
    assert not any(path.startswith("/elsewhere") for path in forge.paths)


def test_M10_an_address_that_needs_its_git_is_asked_again_with_it(forge, home):
    url = forge.url.removesuffix(".git")
    forge.redirect = "/owner/demo.git"
    assert started(home, url)[0].startswith("cloned")
    assert (home / "repos/demo/README.md").exists()


def test_M10_a_clone_that_takes_too_long_is_ended(forge, home, monkeypatch):
    monkeypatch.setattr(begins, "CLONE_SECONDS", 0.5)
    forge.delay = 120
    start = time.monotonic()
    (said,) = started(home, forge.url)
    assert time.monotonic() - start < 60
    assert "took longer than 0.5 s" in said
    assert list((home / "repos").iterdir()) == []


@pytest.mark.parametrize(
    "url", ["ext::sh -c true", "file:///etc", "--upload-pack=x", "https://h/o/.ssh", "https://h/.."]
)
def test_M10_what_is_no_repository_is_never_given_to_git(home, url, monkeypatch):
    monkeypatch.setattr(begins, "_git", pytest.fail)
    (said,) = started(home, url)
    assert "no repository's https address" in said
    assert not (home / ".ssh").exists()


def test_half_a_clone_of_a_killed_start_goes_and_one_under_way_stays(forge, home):
    for name, age in ((".cloning-old", 7200), (".cloning-new", 0)):
        (home / "repos" / name).mkdir(parents=True)
        os.utime(home / "repos" / name, (time.time() - age,) * 2)
    started(home, forge.url)
    assert sorted(each.name for each in (home / "repos").iterdir()) == [".cloning-new", "demo"]


def test_a_template_that_cannot_be_copied_is_said_and_nothing_else_is_kept_from(forge, home):
    said: list[str] = []
    begin(home, {"MLHUB_TEMPLATE": "no-such", "MLHUB_GIT_REPO": forge.url}, said.append)
    assert said[0].startswith("cloned")
    assert "The template no-such was not copied" in said[1]
    assert (home / "no-such is missing.txt").exists()


def test_M10_a_repos_that_is_no_folder_is_said_where_a_person_looks(forge, home):
    (home / "repos").symlink_to(home / "workspaces/not-mounted/repos")
    said: list[str] = []
    begin(home, {"MLHUB_TEMPLATE": "data-exploration", "MLHUB_GIT_REPO": forge.url}, said.append)
    assert "demo.git was not cloned: " in said[0]
    assert said[0] in (home / "demo is missing.txt").read_text()
    assert (home / "data-exploration.ipynb").is_file(), "nothing else is kept from it"


def test_M10_what_another_server_wrote_down_during_a_clone_is_kept(forge, home, monkeypatch):
    commit(forge.root, "other", "beside")
    clone = begins._git_clone

    def while_another_begins(url: str, into: Path) -> None:
        clone(url, into)
        monkeypatch.setattr(begins, "_git_clone", clone)
        started(home, forge.url.replace("demo", "other"), server="demo-2")

    monkeypatch.setattr(begins, "_git_clone", while_another_begins)
    started(home, forge.url)
    shutil.rmtree(home / "repos/other")
    assert started(home, forge.url.replace("demo", "other"), server="demo-2") == []
    assert not (home / "repos/other").exists(), "deleted is deleted"


def test_a_template_never_replaces_a_notebook(home):
    (home / "data-exploration.ipynb").write_text("mine")
    said: list[str] = []
    begin(home, {"MLHUB_TEMPLATE": "data-exploration"}, said.append)
    assert said[0].endswith("left as it is")
    assert (home / "data-exploration.ipynb").read_text() == "mine"
