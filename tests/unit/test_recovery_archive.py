"""The archive: whole or not there, read by its key alone, and no change in it goes unseen."""

import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pyrage
import pytest

from tools.recovery.archive import CHUNK, Manifest, Reader, Writer, identities, make_identity
from tools.recovery.archive import recipient as recipient_of
from tools.recovery.backup import keep
from tools.recovery.errors import RecoveryError

BIG = os.urandom(2 * CHUNK + 17)


@pytest.fixture
def key() -> pyrage.x25519.Identity:
    return pyrage.x25519.Identity.generate()


def manifest(parts, **changes) -> Manifest:
    told = {"stack": "team", "began": "b", "ended": "e", "revision": "r", "images": {}}
    return Manifest(**{**told, "claims": [], "parts": parts, **changes})


def write(path: Path, key, content: dict[str, bytes], **changes) -> Path:
    with Writer(path, [key.to_public()]) as writer:
        parts = [writer.add(name, [data[:7], data[7:]]) for name, data in content.items()]
        writer.finish(manifest(parts, **changes))
    return path


CONTENT = {"state.json": b"{}", "databases/hub": BIG, "volumes/jupyterhub/claim-a": b""}


def test_an_archive_gives_back_what_was_put_in(tmp_path, key):
    path = write(tmp_path / "a.age", key, CONTENT)
    reader = Reader(path, [key])
    assert [part.name for part in reader.verify().parts] == list(CONTENT)
    found = {name: b"".join(chunks) for name, chunks in reader.parts()}
    found.pop("manifest.json")
    assert found == CONTENT
    assert reader.first("state.json") == b"{}"
    assert reader.first("nothing") is None


def test_a_program_that_reads_the_beginning_alone_ends_well(tmp_path):
    """It was aborted as it ended: `make restore` began with that."""
    make_identity(tmp_path / "key")
    (key,) = identities(tmp_path / "key")
    path = write(tmp_path / "a.age", key, {"passphrase": b"p", "databases/hub": BIG * 4})
    code = (
        "import sys; from pathlib import Path; from tools.recovery.archive import Reader, "
        "identities; path, key = map(Path, sys.argv[1:]); "
        "print(Reader(path, identities(key)).first('passphrase'))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, path, tmp_path / "key"],
        check=False,
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout) == (0, "b'p'\n"), done.stderr


def test_nothing_of_it_is_readable_in_the_file(tmp_path, key):
    secret = b"a secret of 28 letters, once" * 100
    path = write(tmp_path / "a.age", key, {"secrets.json": secret})
    assert b"a secret of" not in path.read_bytes()
    assert b"secrets.json" not in path.read_bytes()
    assert path.stat().st_mode & 0o077 == 0


def test_any_age_and_tar_read_it_as_well(tmp_path, key):
    path = write(tmp_path / "a.age", key, CONTENT)
    plain = tmp_path / "plain.tar"
    plain.write_bytes(pyrage.decrypt(path.read_bytes(), [key]))
    with tarfile.open(plain) as tar:
        tar.extractall(tmp_path / "out", filter="data")
    chunks = sorted((tmp_path / "out" / "databases" / "hub").iterdir())
    assert b"".join(chunk.read_bytes() for chunk in chunks) == BIG


@pytest.mark.parametrize("where", [0.02, 0.5, 0.999])
def test_one_changed_byte_is_refused_before_anything_is_restored(tmp_path, key, where):
    path = write(tmp_path / "a.age", key, CONTENT)
    data = bytearray(path.read_bytes())
    data[int(len(data) * where)] ^= 1
    path.write_bytes(data)
    with pytest.raises(RecoveryError, match="not whole"):
        Reader(path, [key]).verify()


@pytest.mark.parametrize("left", [0.3, 0.9, 0.99999])
def test_a_cut_archive_is_refused(tmp_path, key, left):
    path = write(tmp_path / "a.age", key, CONTENT)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * left)])
    with pytest.raises(RecoveryError, match="not whole"):
        Reader(path, [key]).verify()


def test_a_part_that_differs_from_the_manifest_is_named(tmp_path, key):
    path = tmp_path / "a.age"
    with Writer(path, [key.to_public()]) as writer:
        part = writer.add("databases/hub", [b"one"])
        writer.add("databases/other", [b"two"])
        writer.finish(manifest([part]))
    with pytest.raises(RecoveryError, match="databases/other differ"):
        Reader(path, [key]).verify()


def test_another_key_opens_nothing_and_says_so(tmp_path, key):
    path = write(tmp_path / "a.age", key, CONTENT)
    with pytest.raises(RecoveryError, match="not written for this key"):
        Reader(path, [pyrage.x25519.Identity.generate()]).verify()


def test_another_age_file_is_no_archive(tmp_path, key):
    (tmp_path / "a.age").write_bytes(pyrage.encrypt(b"a letter", [key.to_public()]))
    with pytest.raises(RecoveryError, match="no archive"):
        Reader(tmp_path / "a.age", [key]).verify()


def test_an_archive_of_another_format_names_the_commit_that_reads_it(tmp_path, key):
    path = write(tmp_path / "a.age", key, CONTENT, format=2, revision="abc")
    with pytest.raises(RecoveryError, match="commit abc"):
        Reader(path, [key]).verify()


def test_a_backup_that_fails_leaves_no_archive(tmp_path, key):
    def broken():
        yield b"x" * CHUNK * 3
        raise RecoveryError("the pod is gone")

    with pytest.raises(RecoveryError), Writer(tmp_path / "a.age", [key.to_public()]) as writer:
        writer.add("databases/hub", broken())
    assert not list(tmp_path.iterdir())


def test_a_killed_backup_leaves_no_archive_under_the_final_name(tmp_path, key):
    script = f"""
import os, signal
from pathlib import Path
from tools.recovery.archive import Writer, recipient
writer = Writer(Path({str(tmp_path / "a.age")!r}), [recipient({str(key.to_public())!r})])
with writer:
    writer.add("databases/hub", [b"x" * 20_000_000])
    os.kill(os.getpid(), signal.SIGKILL)
"""
    done = subprocess.run([sys.executable, "-c", script], check=False)
    assert done.returncode == -9
    assert not (tmp_path / "a.age").exists()
    write(tmp_path / "a.age", key, CONTENT)
    assert [path.name for path in tmp_path.iterdir()] == ["a.age"]


def test_a_full_disk_is_said_and_leaves_nothing(tmp_path, key, monkeypatch):
    def full(source, sink, recipients):
        source.read(10)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pyrage, "encrypt_io", full)
    with pytest.raises(OSError, match="No space left"), Writer(tmp_path / "a.age", []) as writer:
        writer.add("databases/hub", [BIG])
    assert not list(tmp_path.iterdir())


def test_the_private_key_is_its_owners_alone_and_never_written_over(tmp_path):
    path = tmp_path / "mlhub.key"
    public = make_identity(path)
    assert path.stat().st_mode & 0o077 == 0
    assert str(identities(path)[0].to_public()) == public
    assert str(recipient_of(public)) == public
    with pytest.raises(RecoveryError, match="never written over"):
        make_identity(path)


@pytest.mark.parametrize("text", ["", "age1", "AGE-SECRET-KEY-1", "-----BEGIN"])
def test_a_wrong_key_gets_a_sentence_and_is_not_repeated_when_it_is_secret(tmp_path, text):
    with pytest.raises(RecoveryError, match="backup-key"):
        recipient_of(text)
    (tmp_path / "key").write_text(text)
    with pytest.raises(RecoveryError, match="AGE-SECRET-KEY-…"):
        identities(tmp_path / "key")


def test_keep_removes_the_oldest_archives_of_its_stack_and_nothing_else(tmp_path):
    mine = [f"mlhub-team-2026010{day}T000000Z.age" for day in (1, 2, 3)]
    others = ["mlhub-other-20260101T000000Z.age", "mlhub-team-b-20260101T000000Z.age", "notes.age"]
    for name in [*mine, *others]:
        (tmp_path / name).touch()
    keep(tmp_path, "team", 2, lambda text: None)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([*mine[1:], *others])
    with pytest.raises(RecoveryError, match="1 or more"):
        keep(tmp_path, "team", 0, lambda text: None)


def test_what_make_was_not_given_is_named_and_not_the_folder_that_nothing_stands_for(key):
    """`make backup-verify IDENTITY=…` hands over an empty text, and `Path("")` is `.`."""
    with pytest.raises(RecoveryError, match=r"^FROM is not given; an archive is required"):
        Reader(Path(), [key])
    with pytest.raises(RecoveryError, match=r"^TO is not given; a file that is not there yet"):
        make_identity(Path())
