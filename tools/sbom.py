"""The bill of materials of a release, CycloneDX 1.6: `python -m tools.sbom > mlhub.cdx.json`.

Made of the locks: the program's Python packages and its policies', the proxy's npm packages, the Go
modules that `bootstrap` builds engine and cluster from. What is in an image says the image's own
bill (images/base/sbom.py). No date is in it: the same commit gives the same bill.
"""

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

ROOT = Path(__file__).resolve().parents[1]
PYTHON = ("requirements.txt", "policies/requirements.txt", "tools/uv.txt")
NPM = "images/proxy/package-lock.json"
GO = "bootstrap/toolchain/*/go.mod"


def component(kind: str, path: str, version: str) -> dict[str, Any]:
    """A library by its package URL; `kind` is a purl type, `path` its name with namespaces."""
    # No letter of a scope or a module's path may be lost, but `/` parts them.
    purl = f"pkg:{kind}/{quote(path, safe='/')}@{quote(version, safe='')}"
    return {"type": "library", "bom-ref": purl, "name": path, "version": version, "purl": purl}


def python(text: str) -> Iterator[dict[str, Any]]:
    for name, version in re.findall(r"^([A-Za-z0-9._-]+)(?:\[[^\]]*\])?==([^\s;\\]+)", text, re.M):
        yield component("pypi", re.sub(r"[-_.]+", "-", name).lower(), version)


def npm(text: str) -> Iterator[dict[str, Any]]:
    for path, package in json.loads(text)["packages"].items():
        if path:
            yield component("npm", path.rpartition("node_modules/")[2], package["version"])


def go(text: str) -> Iterator[dict[str, Any]]:
    for module, version in re.findall(
        r"^(?:require )?\t?([\w./~-]+\.[\w./~-]+) (v\S+)", text, re.M
    ):
        yield component("golang", module, version)


def bill(root: Path = ROOT) -> dict[str, Any]:
    """The whole, each component once and in order."""
    found = [part for name in PYTHON for part in python((root / name).read_text(encoding="utf-8"))]
    found += npm((root / NPM).read_text(encoding="utf-8"))
    found += [part for file in root.glob(GO) for part in go(file.read_text(encoding="utf-8"))]
    once = {part["purl"]: part for part in found}
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {"component": {"type": "application", "bom-ref": "mlhub", "name": "mlhub"}},
        "components": [once[purl] for purl in sorted(once)],
    }


if __name__ == "__main__":
    json.dump(bill(), sys.stdout, indent=1)
