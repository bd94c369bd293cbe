"""Pushes an image made of plain files to the registry, by the registry's own HTTP interface.

The first images of a bare machine (its Debian, the pause container, the add-ons) exist before any
builder runs. Layers are uncompressed: they travel within the machine only.
"""

import hashlib
import io
import json
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import requests

from bootstrap.errors import BootstrapError
from bootstrap.paths import REGISTRY

CHUNK = 1024 * 1024
MANIFEST = "application/vnd.oci.image.manifest.v1+json"


def layer_of(files: Mapping[str, Path]) -> bytes:
    """A layer with these executables, by path in the image: the same input, the same bytes."""
    output = io.BytesIO()
    with tarfile.open(fileobj=output, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name in sorted(files):
            entry = tarfile.TarInfo(name.lstrip("/"))
            content = files[name].read_bytes()
            entry.size, entry.mode = len(content), 0o755
            archive.addfile(entry, io.BytesIO(content))
    return output.getvalue()


def image_config(
    diff_id: str, entrypoint: Sequence[str], env: Sequence[str], labels: Mapping[str, str]
) -> bytes:
    """The image's configuration, in its canonical order."""
    config = {
        "architecture": "amd64",
        "os": "linux",
        "config": {"Entrypoint": list(entrypoint), "Env": list(env), "Labels": dict(labels)},
        "rootfs": {"type": "layers", "diff_ids": [diff_id]},
    }
    return json.dumps(config, sort_keys=True).encode()


def manifest_of(config: bytes, layer_digest: str, layer_size: int) -> bytes:
    document = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": {
            "mediaType": "application/vnd.oci.image.config.v1+json",
            "digest": digest_of(config),
            "size": len(config),
        },
        "layers": [
            {
                "mediaType": "application/vnd.oci.image.layer.v1.tar",
                "digest": layer_digest,
                "size": layer_size,
            }
        ],
    }
    return json.dumps(document, sort_keys=True).encode()


def digest_of(content: bytes | Path) -> str:
    digest = hashlib.sha256()
    if isinstance(content, bytes):
        digest.update(content)
    else:
        with content.open("rb") as file:
            while chunk := file.read(CHUNK):
                digest.update(chunk)
    return f"sha256:{digest.hexdigest()}"


class Repository:
    """One repository of the registry, e.g. `mlhub/debian`. authority: who signed for it, as PEM."""

    def __init__(self, name: str, authority: Path):
        self.base = f"https://{REGISTRY}/v2/{name}"
        self.name = name
        self.http = requests.Session()
        self.http.trust_env = False
        self.http.verify = str(authority)

    def _ask(self, method: str, url: str, timeout: float = 10, **given: Any) -> requests.Response:
        try:
            return self.http.request(method, url, timeout=timeout, **given)
        except requests.RequestException as error:
            raise BootstrapError(
                f"The registry at {REGISTRY} does not answer ({type(error).__name__}). See "
                ".mlhub/log/registry.log, then run `make up` again."
            ) from error

    def _must(self, answer: requests.Response, *expected: int) -> requests.Response:
        if answer.status_code not in expected:
            raise BootstrapError(
                f"The registry answered {answer.status_code} to {answer.request.method} "
                f"{answer.request.url}; expected {expected[0]}. See .mlhub/log/registry.log."
            )
        return answer

    def digest(self, tag: str) -> str | None:
        """The digest that the tag names now."""
        url = f"{self.base}/manifests/{tag}"
        answer = self._ask("HEAD", url, headers={"Accept": MANIFEST})
        if answer.status_code == 404:
            return None
        return self._must(answer, 200).headers["Docker-Content-Digest"]

    def push_blob(self, content: bytes | Path, digest: str) -> None:
        known = self._ask("HEAD", f"{self.base}/blobs/{digest}")
        if known.status_code == 200:
            return
        opened = self._must(self._ask("POST", f"{self.base}/blobs/uploads/"), 202)
        location = opened.headers["Location"]
        separator = "&" if "?" in location else "?"
        target = f"{location}{separator}digest={digest}"
        headers = {"Content-Type": "application/octet-stream"}
        if isinstance(content, bytes):
            answer = self._ask("PUT", target, data=content, headers=headers, timeout=300)
        else:
            with content.open("rb") as file:
                answer = self._ask("PUT", target, data=file, headers=headers, timeout=300)
        self._must(answer, 201)

    def push(
        self,
        tag: str,
        layer: bytes | Path,
        entrypoint: Sequence[str] = (),
        env: Sequence[str] = (),
        labels: Mapping[str, str] | None = None,
    ) -> str:
        """Pushes a one-layer image; returns its digest."""
        diff_id = digest_of(layer)
        config = image_config(diff_id, entrypoint, env, labels or {})
        size = len(layer) if isinstance(layer, bytes) else layer.stat().st_size
        manifest = manifest_of(config, diff_id, size)
        if self.digest(tag) == digest_of(manifest):
            return digest_of(manifest)
        self.push_blob(layer, diff_id)
        self.push_blob(config, digest_of(config))
        url = f"{self.base}/manifests/{tag}"
        answer = self._ask("PUT", url, data=manifest, headers={"Content-Type": MANIFEST})
        return self._must(answer, 201).headers["Docker-Content-Digest"]
