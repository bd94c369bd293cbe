import hashlib
import http.server
import json
import lzma
import socket
import tarfile
import threading
import time

import pytest

from bootstrap import downloads, gobuild, sources
from bootstrap.downloads import Hosts, UnavailableError
from bootstrap.errors import BootstrapError
from bootstrap.gobuild import Target
from bootstrap.parts import Check, Part, Release
from bootstrap.paths import Layout
from bootstrap.schedule import Task

SCRIPT = b"#!/bin/sh\necho tool v1.2.3\n"


def part(**changes):
    given = {
        "name": "tool",
        "targets": (Target("tool", {"tool": "."}),),
        "cpu_seconds": 60.0,
        "check": {"tool": Check(("version",), "v1.2.3")},
    }
    return Part(**{**given, **changes})


@pytest.fixture
def layout(tmp_path, monkeypatch):
    made = Layout(tmp_path / "checkout")
    made.make()
    (made.toolchain / "tool").mkdir(parents=True)
    (made.toolchain / "tool" / "go.mod").write_text("module tool\n")
    monkeypatch.delenv(sources.CACHE_VARIABLE, raising=False)
    return made


@pytest.fixture
def build(monkeypatch):
    """Stands in for Go: counts, and writes what the test says a build gives."""
    calls = []

    def fake(layout, task, target, out, seconds):
        calls.append(target.folder)
        for name in target.packages:
            (out / name).write_bytes(SCRIPT)

    monkeypatch.setattr(gobuild, "build", fake)
    return calls


@pytest.fixture
def cache(tmp_path, monkeypatch):
    folder = tmp_path / "cache"
    folder.mkdir()
    (folder / "tool.xz").write_bytes(lzma.compress(SCRIPT))
    (folder / "SHA256SUMS").write_text(f"{hashlib.sha256(SCRIPT).hexdigest()}  tool\n")
    monkeypatch.setenv(sources.CACHE_VARIABLE, str(folder))
    return folder


@pytest.fixture
def served(tmp_path):
    """An archive at a release page on loopback: its address and SHA-512."""
    folder = tmp_path / "www"
    folder.mkdir()
    (folder / "tool").write_bytes(SCRIPT)
    with tarfile.open(folder / "tool.tar.gz", "w:gz") as archive:
        archive.add(folder / "tool", "release/bin/tool")

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args):
            super().__init__(*args, directory=str(folder))

        def log_message(self, *args):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Quiet) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        content = (folder / "tool.tar.gz").read_bytes()
        url = f"http://127.0.0.1:{server.server_port}/tool.tar.gz"
        yield url, hashlib.sha512(content).hexdigest()
        server.shutdown()


def task():
    return Task("tool", threading.Event())


def ensure(layout, one, hosts=None):
    return sources.ensure(layout, task(), one, hosts or Hosts())


def release(url, digest):
    return Release(url, digest, {"release/bin/tool": "tool"})


def test_the_machines_own_comes_first_if_it_is_the_right_version(
    layout, tmp_path, monkeypatch, build, cache
):
    own = tmp_path / "own"
    own.mkdir()
    (own / "tool").write_bytes(SCRIPT)
    (own / "tool").chmod(0o755)
    monkeypatch.setenv("PATH", f"{own}:/usr/bin:/bin")
    assert ensure(layout, part(on_path=True)) == "from PATH"
    assert (layout.bin / "tool").resolve() == own / "tool"
    (own / "tool").write_bytes(SCRIPT.replace(b"1.2.3", b"1.2.4"))
    (layout.bin / "tool").unlink()
    assert ensure(layout, part(on_path=True)) == "from the cache"


def test_what_up_itself_has_laid_is_not_taken_for_the_machines_own(layout, monkeypatch, build):
    (layout.bin / "tool").write_bytes(SCRIPT)
    (layout.bin / "tool").chmod(0o755)
    monkeypatch.setenv("PATH", f"{layout.bin}:/usr/bin:/bin")
    assert ensure(layout, part(on_path=True)) == "built from source"


def test_a_release_comes_before_the_cache(layout, served, build, cache):
    assert ensure(layout, part(release=release(*served))) == "official release"
    assert (layout.bin / "tool").read_bytes() == SCRIPT
    assert not build


def test_a_release_with_another_sum_is_refused_and_nothing_of_it_stays(layout, served, build):
    with pytest.raises(BootstrapError, match="is pinned"):
        ensure(layout, part(release=release(served[0], "0" * 128)))
    assert not (layout.bin / "tool").exists()
    assert not list(layout.cache.glob("*.download"))


def test_an_unreachable_release_gives_way_to_the_cache(layout, build, cache):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/tool.tar.gz"
    assert ensure(layout, part(release=release(url, "0" * 128))) == "from the cache"


def test_a_silent_host_is_waited_for_once_in_a_run(layout, build, monkeypatch):
    asked = []
    monkeypatch.setattr(downloads, "_resolves", asked.append)
    hosts = Hosts()
    one = part(release=release("https://releases.example/tool.tar.gz", "0" * 128))
    began = time.monotonic()
    ensure(layout, one, hosts)
    ensure(layout, part(name="other", release=one.release), hosts)
    assert asked == ["releases.example"]
    assert time.monotonic() - began < 5


def test_with_neither_release_nor_cache_it_is_built(layout, build):
    assert ensure(layout, part()) == "built from source"
    assert build == ["tool"]


def test_a_cached_binary_with_another_sum_is_not_used(layout, build, cache):
    (cache / "SHA256SUMS").write_text(f"{'0' * 64}  tool\n")
    assert ensure(layout, part()) == "built from source"


def test_a_cached_binary_cut_short_is_not_used(layout, build, cache):
    whole = (cache / "tool.xz").read_bytes()
    (cache / "tool.xz").write_bytes(whole[: len(whole) // 2])
    assert ensure(layout, part()) == "built from source"


def test_a_cache_without_sums_is_not_used(layout, build, cache):
    (cache / "SHA256SUMS").unlink()
    assert ensure(layout, part()) == "built from source"


def test_nothing_is_fetched_twice(layout, build):
    ensure(layout, part())
    assert ensure(layout, part()) == "there (built from source)"
    assert build == ["tool"]


def test_other_pins_are_another_part(layout, build):
    ensure(layout, part())
    (layout.toolchain / "tool" / "go.mod").write_text("module tool\n\nrequire x v2\n")
    assert ensure(layout, part()) == "built from source"
    assert build == ["tool", "tool"]


def test_a_binary_that_was_cut_short_or_removed_is_got_again(layout, build):
    ensure(layout, part())
    (layout.bin / "tool").write_bytes(SCRIPT[:5])
    assert ensure(layout, part()) == "built from source"
    (layout.bin / "tool").unlink()
    assert ensure(layout, part()) == "built from source"


def test_what_a_killed_run_has_left_in_staging_is_not_installed(layout, build):
    staging = layout.cache / "staging" / "tool"
    staging.mkdir(parents=True)
    (staging / "half").write_bytes(b"half")
    ensure(layout, part())
    assert not (layout.bin / "half").exists()


def test_a_binary_of_another_version_is_an_error_and_replaces_nothing(layout, build):
    (layout.bin / "tool").write_bytes(b"before")
    wrong = part(check={"tool": Check(("version",), "v9")})
    with pytest.raises(BootstrapError, match="another version than v9"):
        ensure(layout, wrong)
    assert (layout.bin / "tool").read_bytes() == b"before"


def test_links_go_to_the_binary_they_are_names_of(layout, build):
    ensure(layout, part(links={"kubelet": "tool"}))
    assert (layout.bin / "kubelet").readlink().name == "tool"


def test_the_error_names_everything_that_was_tried(layout, monkeypatch):
    def no_go(*_):
        raise UnavailableError("Go is not there")

    monkeypatch.setattr(sources, "from_build", no_go)
    order = (sources.from_path, sources.from_release, sources.from_cache, no_go)
    with pytest.raises(BootstrapError) as caught:
        sources.ensure(layout, task(), part(), Hosts(), order)
    for tried in ("PATH", "release", sources.CACHE_VARIABLE, "Go"):
        assert tried in str(caught.value)


def test_sums_are_read_as_sha256sum_writes_them():
    assert sources.sums("aa  one\nbb *two\n\n") == {"one": "aa", "two": "bb"}


def fetching(monkeypatch, layout, answer):
    """A machine whose Go is Debian's, and whose module proxy answers so."""
    monkeypatch.setattr(gobuild, "own_go", lambda: "/usr/bin/go")
    monkeypatch.setattr(gobuild, "_asks", lambda go: (1, 19, 8))

    def run(layout, task, argv, *, log, env, cwd):
        log.write_text(json.dumps(answer))
        return 0

    monkeypatch.setattr(gobuild, "run", run)
    return gobuild.find_go(layout, task())


def test_an_old_go_fetches_the_pinned_one(layout, tmp_path, monkeypatch):
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "go").touch()
    answer = {"Dir": str(tmp_path), "Sum": gobuild.FETCHED_SUM}
    assert fetching(monkeypatch, layout, answer) == str(tmp_path / "bin" / "go")
    assert (tmp_path / "bin" / "go").stat().st_mode & 0o111


def test_a_fetched_go_with_another_sum_is_refused(layout, tmp_path, monkeypatch):
    with pytest.raises(BootstrapError, match="is pinned"):
        fetching(monkeypatch, layout, {"Dir": str(tmp_path), "Sum": "h1:other"})


def test_an_unreachable_module_proxy_is_told(layout, monkeypatch):
    with pytest.raises(BootstrapError, match="dial tcp: lookup proxy"):
        fetching(monkeypatch, layout, {"Error": "dial tcp: lookup proxy"})
