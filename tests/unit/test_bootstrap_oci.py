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
        here = f"http://{self.headers['Host']}/v2/mlhub/x/blobs/uploads/1?state=s"
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


@pytest.fixture
def registry(monkeypatch):
    handler = types.new_class(
        "Handler", (Registry,), exec_body=lambda space: space.update(blobs={}, tags={}, puts=[])
    )
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setattr(oci, "REGISTRY", f"127.0.0.1:{server.server_port}")
        yield handler
        server.shutdown()


@pytest.fixture
def program(tmp_path):
    path = tmp_path / "program"
    path.write_bytes(b"\x7fELF")
    return path


def test_a_pushed_image_names_what_was_pushed(registry, program):
    layer = oci.layer_of({"program": program})
    pushed = Repository("mlhub/x").push("1", layer, entrypoint=["/program"], labels={"a": "b"})
    assert pushed == digest(registry.tags["1"])
    manifest = json.loads(registry.tags["1"])
    config = json.loads(registry.blobs[manifest["config"]["digest"]])
    assert config["config"]["Entrypoint"] == ["/program"]
    assert config["rootfs"]["diff_ids"] == [digest(layer)]
    assert manifest["layers"][0]["size"] == len(layer)


def test_a_large_layer_is_pushed_from_its_file(registry, program):
    Repository("mlhub/x").push("1", program)
    assert digest(b"\x7fELF") in registry.blobs


def test_the_same_image_is_pushed_once(registry, program):
    layer = oci.layer_of({"program": program})
    first = Repository("mlhub/x").push("1", layer)
    count = len(registry.puts)
    assert Repository("mlhub/x").push("1", layer) == first
    assert len(registry.puts) == count


def test_a_push_that_was_cut_short_is_finished_by_the_next(registry, program):
    layer = oci.layer_of({"program": program})
    Repository("mlhub/x").push_blob(layer, digest(layer))
    assert Repository("mlhub/x").push("1", layer) == digest(registry.tags["1"])


def test_the_same_files_make_the_same_layer(program):
    first = oci.layer_of({"program": program})
    program.touch()
    assert oci.layer_of({"program": program}) == first


def test_a_registry_that_does_not_answer_is_one_sentence(monkeypatch):
    monkeypatch.setattr(oci, "REGISTRY", "127.0.0.1:1")
    with pytest.raises(BootstrapError, match="does not answer"):
        Repository("mlhub/x").digest("1")


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
