import errno
import hashlib
import http.server
import json
import threading
import types

import pytest

from bootstrap import cli, oci
from bootstrap.errors import BootstrapError
from bootstrap.oci import Repository
from tests.doubles.tls import certificate


class Registry(http.server.BaseHTTPRequestHandler):
    """As much of the distribution API as a push uses; checks digests as the real one does."""

    blobs: dict[str, bytes]
    tags: dict[str, bytes]
    puts: list[str]

    def log_message(self, *args):
        pass

    def answer(self, status, **headers):
        self.send_response(status)
        for name, value in {"Content-Length": "0", **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()

    def do_HEAD(self):
        kind, name = self.path.split("/")[-2:]
        if kind == "blobs":
            return self.answer(200 if name in self.blobs else 404)
        if name not in self.tags:
            return self.answer(404)
        return self.answer(200, Docker_Content_Digest=digest(self.tags[name]))

    def do_POST(self):
        here = f"https://{self.headers['Host']}/v2/mlhub/x/blobs/uploads/1?state=s"
        self.answer(202, Location=here)

    def do_PUT(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.puts.append(self.path)
        if "/manifests/" in self.path:
            manifest = json.loads(body)
            named = [manifest["config"], *manifest["layers"]]
            if any(one["digest"] not in self.blobs for one in named):
                return self.answer(400)
            self.tags[self.path.rpartition("/")[2]] = body
            return self.answer(201, Docker_Content_Digest=digest(body))
        wanted = self.path.rpartition("digest=")[2]
        if digest(body) != wanted:
            return self.answer(400)
        self.blobs[wanted] = body
        return self.answer(201)


def digest(content):
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


@pytest.fixture(scope="module")
def signed(tmp_path_factory):
    return certificate(tmp_path_factory.mktemp("tls"))


@pytest.fixture
def registry(monkeypatch, signed):
    handler = types.new_class(
        "Handler", (Registry,), exec_body=lambda space: space.update(blobs={}, tags={}, puts=[])
    )
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.socket = signed.context().wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setattr(oci, "REGISTRY", f"127.0.0.1:{server.server_port}")
        yield handler
        server.shutdown()


@pytest.fixture
def repository(signed):
    return Repository("mlhub/x", signed.authority)


@pytest.fixture
def program(tmp_path):
    path = tmp_path / "program"
    path.write_bytes(b"\x7fELF")
    return path


def test_a_pushed_image_names_what_was_pushed(registry, repository, program):
    layer = oci.layer_of({"program": program})
    pushed = repository.push("1", layer, entrypoint=["/program"], labels={"a": "b"})
    assert pushed == digest(registry.tags["1"])
    manifest = json.loads(registry.tags["1"])
    config = json.loads(registry.blobs[manifest["config"]["digest"]])
    assert config["config"]["Entrypoint"] == ["/program"]
    assert config["rootfs"]["diff_ids"] == [digest(layer)]
    assert manifest["layers"][0]["size"] == len(layer)


def test_a_large_layer_is_pushed_from_its_file(registry, repository, program):
    repository.push("1", program)
    assert digest(b"\x7fELF") in registry.blobs


def test_the_same_image_is_pushed_once(registry, repository, program):
    layer = oci.layer_of({"program": program})
    first = repository.push("1", layer)
    count = len(registry.puts)
    assert repository.push("1", layer) == first
    assert len(registry.puts) == count


def test_a_push_that_was_cut_short_is_finished_by_the_next(registry, repository, program):
    layer = oci.layer_of({"program": program})
    repository.push_blob(layer, digest(layer))
    assert repository.push("1", layer) == digest(registry.tags["1"])


def test_the_same_files_make_the_same_layer(program):
    first = oci.layer_of({"program": program})
    program.touch()
    assert oci.layer_of({"program": program}) == first


def test_a_registry_that_does_not_answer_is_one_sentence(repository):
    repository.base = "https://127.0.0.1:1/v2/mlhub/x"
    with pytest.raises(BootstrapError, match="does not answer"):
        repository.digest("1")


def test_a_registry_of_another_authority_gets_nothing(registry, program, tmp_path):
    stranger = Repository("mlhub/x", certificate(tmp_path).authority)
    with pytest.raises(BootstrapError, match=r"does not answer \(SSLError\)"):
        stranger.push("1", program)
    assert registry.blobs == {}


@pytest.mark.parametrize(
    ("number", "said"),
    [(errno.ENOSPC, "The disk is full: /x"), (errno.EACCES, "/x is not open to user")],
)
def test_a_full_disk_and_a_closed_file_are_one_sentence(monkeypatch, capsys, number, said):
    def act(layout, given):
        raise OSError(number, "no", "/x")

    monkeypatch.setattr(cli, "act", act)
    assert cli.main(["status"]) == 1
    assert said in capsys.readouterr().err


def test_a_fault_of_ours_is_not_made_to_look_like_the_machines(monkeypatch):
    def act(layout, given):
        raise FileNotFoundError(errno.ENOENT, "no", "/x")

    monkeypatch.setattr(cli, "act", act)
    with pytest.raises(FileNotFoundError):
        cli.main(["status"])
