"""Promotion by digest with the real CLI, against Debian's real registry."""

import hashlib
import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import bcrypt
import pytest
import requests

from tests.doubles.harbor import serving
from tests.doubles.tls import Certificate, certificate
from tests.engine.stack import Stack
from tests.ports import free_port

pytestmark = [pytest.mark.engine, pytest.mark.timeout(600)]

CHECKOUT = Path(__file__).resolve().parents[2]
USERNAME = "robot$mlhub+pull"
PASSWORD = "correct-horse-9"
INDEX = "application/vnd.oci.image.index.v1+json"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
PROGRAM = f"""
    import sys
    sys.path.insert(0, {str(CHECKOUT)!r})
    import pulumi
    from components.config import Promote
    from components.images import PromotedImages, PromotedImagesArgs, docker_provider
    from components.registry import Login

    config = pulumi.Config()
    promote = Promote(repository=config.require("repository"), tag="2026.11.0")
    login = Login({USERNAME!r}, config.require_secret("password"))
    images = PromotedImages(
        "images",
        PromotedImagesArgs(promote, ["hub", "proxy"]),
        pulumi.ResourceOptions(providers=[docker_provider(promote.repository, login)]),
    )
    for name, built in images.built.items():
        pulumi.export(name, built.reference)
"""


class Registry:
    """A registry of the test's own, on a loopback port, that asks for a password."""

    def __init__(self, folder: Path, tls: Certificate):
        self.tls = tls
        self.host = f"127.0.0.1:{free_port()}"
        hashed = bcrypt.hashpw(PASSWORD.encode(), bcrypt.gensalt(4)).decode()
        (folder / "htpasswd").write_text(f"{USERNAME}:{hashed}\n")
        config = {
            "version": 0.1,
            "log": {"level": "error", "accesslog": {"disabled": True}},
            "storage": {"filesystem": {"rootdirectory": str(folder / "data")}},
            "http": {
                "addr": self.host,
                "secret": "of no worth",
                "tls": {"certificate": str(tls.certificate), "key": str(tls.key)},
            },
            "auth": {"htpasswd": {"realm": "test", "path": str(folder / "htpasswd")}},
        }
        (folder / "config.yml").write_text(json.dumps(config))
        self._command = ["docker-registry", "serve", str(folder / "config.yml")]
        self.http = requests.Session()
        self.http.auth = (USERNAME, PASSWORD)
        self.http.trust_env = False
        self.http.verify = str(tls.authority)
        self.start()

    def start(self) -> None:
        env = {key: value for key, value in os.environ.items() if not key.startswith("REGISTRY_")}
        self._process = subprocess.Popen(self._command, env=env, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 60
        while True:
            try:
                self.http.get(f"https://{self.host}/v2/", timeout=5).raise_for_status()
                return
            except (requests.ConnectionError, requests.Timeout):
                assert time.monotonic() < deadline, "the registry does not start"
                time.sleep(0.1)

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait(60)

    def blob(self, repository: str, content: bytes) -> dict[str, object]:
        digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
        opened = self.http.post(f"https://{self.host}/v2/{repository}/blobs/uploads/")
        location = opened.headers["Location"]
        put = self.http.put(location, params={"digest": digest}, data=content)
        assert put.status_code == 201, put.text
        return {"digest": digest, "size": len(content)}

    def manifest(self, repository: str, reference: str, media: str, document: object) -> str:
        content = json.dumps({"schemaVersion": 2, "mediaType": media, **dict(document)}).encode()  # type: ignore[call-overload]
        reference = reference or f"sha256:{hashlib.sha256(content).hexdigest()}"
        url = f"https://{self.host}/v2/{repository}/manifests/{reference}"
        put = self.http.put(url, data=content, headers={"Content-Type": media})
        assert put.status_code == 201, put.text
        return put.headers["Docker-Content-Digest"]

    def push(self, image: str, tag: str, content: str) -> str:
        """A small image for two architectures; gives the digest of its index."""
        repository = f"mlhub/{image}"
        manifests = []
        for architecture in ("amd64", "arm64"):
            config = json.dumps({"architecture": architecture, "os": "linux", "x": content})
            about = "application/vnd.oci.image.config.v1+json"
            body = {"config": {"mediaType": about, **self.blob(repository, config.encode())},
                    "layers": []}  # fmt: skip
            digest = self.manifest(repository, "", MANIFEST, body)
            url = f"https://{self.host}/v2/{repository}/manifests/{digest}"
            size = int(self.http.head(url, headers={"Accept": MANIFEST}).headers["Content-Length"])
            platform = {"architecture": architecture, "os": "linux"}
            manifests.append(
                {"mediaType": MANIFEST, "digest": digest, "size": size, "platform": platform}
            )
        return self.manifest(repository, tag, INDEX, {"manifests": manifests})


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[Registry]:
    (tmp_path / "registry").mkdir()
    running = Registry(tmp_path / "registry", certificate(tmp_path / "tls"))
    yield running
    running.stop()


@pytest.fixture
def platform(stack: Callable[[str], Stack], registry: Registry) -> Stack:
    made = stack(PROGRAM)
    made.env["SSL_CERT_FILE"] = str(registry.tls.authority)
    made.configure(repository=f"{registry.host}/mlhub", password=PASSWORD)
    return made


def test_a_promotion_takes_the_digest_of_the_index_and_a_preview_says_which(
    platform: Stack, registry: Registry, bin_dir: Path
) -> None:
    digests = {
        image: registry.push(image, "2026.11.0", "first") for image in ("base", "hub", "proxy")
    }
    preview = platform("preview", "--diff")
    for image, digest in digests.items():
        reference = f"{registry.host}/mlhub/{image}:2026.11.0@{digest}"
        assert reference in preview
    printed = platform.up()
    said = "the official pulumi-resource-docker is not installed" in printed
    assert said == (bin_dir / "pulumi-resource-docker").is_file()
    hub = f"{registry.host}/mlhub/hub:2026.11.0@{digests['hub']}"
    assert platform("stack", "output", "hub").strip() == hub
    platform.up("--expect-no-changes")
    for text in (platform.export(), preview, printed):
        assert PASSWORD not in text


def test_a_tag_that_moved_is_a_change(platform: Stack, registry: Registry) -> None:
    for image in ("base", "proxy"):
        registry.push(image, "2026.11.0", "first")
    before = registry.push("hub", "2026.11.0", "first")
    platform.up()
    after = registry.push("hub", "2026.11.0", "second")
    preview = platform("preview", "--diff")
    assert before in preview
    assert after in preview
    platform.up()
    assert platform("stack", "output", "hub").strip().endswith(after)


def test_every_missing_image_is_one_sentence(platform: Stack, registry: Registry) -> None:
    refusal = platform.fails("preview")
    for image in ("hub", "proxy"):
        name = f"{registry.host}/mlhub/{image}:2026.11.0"
        assert (
            f"{name} cannot be promoted: {name} is not in the registry https://{registry.host}; "
            "see that the registry answers and that the stack which builds has been applied, or "
            "correct images.promote" in refusal
        )
    assert "Traceback" not in refusal


def test_a_registry_that_is_away_is_named(platform: Stack, registry: Registry) -> None:
    registry.stop()
    refusal = platform.fails("preview")
    assert f"the registry https://{registry.host} does not answer (Connection refused)" in refusal
    assert "Traceback" not in refusal


def test_a_wrong_password_is_not_repeated(platform: Stack, registry: Registry) -> None:
    registry.push("hub", "2026.11.0", "first")
    platform.configure(password="not-the-password-9")
    refusal = platform.fails("preview")
    assert f"does not let {USERNAME} see" in refusal
    assert "not-the-password-9" not in refusal


def test_images_and_api_of_one_harbor_have_one_address(platform: Stack, registry: Registry) -> None:
    digest = registry.push("hub", "2026.11.0", "first")
    for image in ("base", "proxy"):
        registry.push(image, "2026.11.0", "first")
    with serving("admin", PASSWORD, tls=registry.tls) as harbor:
        harbor.authority = registry.tls.authority
        harbor.registry = f"https://{registry.host}"
        host = harbor.url.removeprefix("https://")
        platform.configure(repository=f"{host}/mlhub")
        platform.up()
        assert platform("stack", "output", "hub").strip() == f"{host}/mlhub/hub:2026.11.0@{digest}"
        registry.host = host
        moved = registry.push("hub", "2026.11.0", "second")
        platform.up()
        assert platform("stack", "output", "hub").strip().endswith(moved)
