"""The software bill of materials of an image, CycloneDX 1.6: `sbom.py NAME` writes it.

Read from what lies in the image, not from the locks, so that it names what a Dockerfile builds or
copies as well: Debian's packages, Python distributions, Node and its packages, Java archives. There
is no date and no serial number in it: the same content gives the same bill, and the same layer.
"""

import json
import re
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from importlib.metadata import distributions
from pathlib import Path
from typing import Any
from urllib.parse import quote

TARGET = Path("/usr/local/share/sbom/mlhub.cdx.json")
ADDED = Path("/opt")
"""Where Dockerfiles put what no package manager installs."""

Component = dict[str, Any]


def component(kind: str, name: str, version: str, group: str = "", **more: Any) -> Component:
    """A library by its package URL; `kind` is a purl type (github.com/package-url/purl-spec)."""
    path = "/".join(quote(part, safe="") for part in (*group.split("/"), name) if part)
    purl = f"pkg:{kind}/{path}@{quote(version, safe='')}"
    grouped = {"group": group} if group else {}
    named = {"type": "library", "bom-ref": purl, **grouped, "name": name, "version": version}
    return {**named, "purl": purl, **more}


def debian() -> Iterator[Component]:
    form = "${Package}\t${Version}\t${Architecture}\t${db:Status-Status}\n"
    command = ["dpkg-query", "--show", f"--showformat={form}"]
    said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    for line in said.splitlines():
        name, version, architecture, status = line.split("\t")
        if status == "installed":
            found = component("deb", name, version, "debian")
            found["purl"] += f"?arch={architecture}&distro=debian-12"
            yield {**found, "bom-ref": found["purl"]}


def python(path: list[str]) -> Iterator[Component]:
    for distribution in distributions(path=path):
        licence = distribution.metadata.get("License-Expression")
        more = {"licenses": [{"expression": licence}]} if licence else {}
        name = re.sub(r"[-_.]+", "-", distribution.metadata["Name"]).lower()
        yield component("pypi", name, distribution.version, **more)


def node(root: Path) -> Iterator[Component]:
    for file in sorted(root.rglob("package.json")):
        if "node_modules" not in (file.parents[1].name, file.parents[2].name):
            continue
        package = json.loads(file.read_text(encoding="utf-8"))
        if "name" in package and "version" in package:
            group, _, name = package["name"].rpartition("/")
            yield component("npm", name, package["version"], group)


def java(root: Path) -> Iterator[Component]:
    """Archives by the Maven coordinates within them; one without any by its file name."""
    for file in sorted(root.rglob("*.jar")):
        with zipfile.ZipFile(file) as archive:
            inside = [n for n in archive.namelist() if n.endswith("/pom.properties")]
            text = archive.read(inside[0]).decode() if len(inside) == 1 else ""
        pom = dict(re.findall(r"^(groupId|artifactId|version)=(\S+)", text, re.MULTILINE))
        if len(pom) == 3:
            yield component("maven", pom["artifactId"], pom["version"], pom["groupId"])
        else:
            name, version = re.fullmatch(r"(.+?)(?:-(\d[^-]*(?:-\w+)?))?", file.stem).groups()
            yield component("generic", name, version or "unknown")


def programs() -> Iterator[Component]:
    """What is one file, so that no package manager knows of it."""
    if Path("/usr/local/bin/node").exists():
        said = subprocess.run(["node", "--version"], check=True, capture_output=True, text=True)
        yield component("generic", "node", said.stdout.strip().removeprefix("v"))


def bill(name: str, components: list[Component]) -> dict[str, Any]:
    """Each component once, sorted."""
    once = {found["bom-ref"]: found for found in components}
    image = {"type": "container", "bom-ref": f"mlhub-{name}", "name": f"mlhub {name}"}
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {"component": image},
        "components": [once[reference] for reference in sorted(once)],
    }


def main() -> None:
    found = [*debian(), *python(sys.path), *node(ADDED), *java(ADDED), *programs()]
    TARGET.parent.mkdir(exist_ok=True)
    TARGET.write_text(json.dumps(bill(sys.argv[1], found), indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
