"""The bill of materials that each image carries; the images' smoke tests look at the real ones."""

import importlib.util
import json
import subprocess
import zipfile
from pathlib import Path

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

IMAGES = Path(__file__).parents[2] / "images"
spec = importlib.util.spec_from_file_location("sbom", IMAGES / "base/sbom.py")
sbom = importlib.util.module_from_spec(spec)
spec.loader.exec_module(sbom)


def purls(components):
    return [found["purl"] for found in components]


@pytest.fixture
def added(tmp_path):
    """What a Dockerfile might have put into /opt."""
    for path, package in {
        "proxy": {"name": "ours", "version": "1.0.0"},
        "proxy/node_modules/ws": {"name": "ws", "version": "8.18.0"},
        "proxy/node_modules/@scope/part": {"name": "@scope/part", "version": "2.0.0"},
        "proxy/node_modules/ws/test": {"type": "module"},
    }.items():
        (tmp_path / path).mkdir(parents=True, exist_ok=True)
        (tmp_path / path / "package.json").write_text(json.dumps(package))
    with zipfile.ZipFile(tmp_path / "org.acme.core-1.2.3.Final.jar", "w") as jar:
        pom = "#made\ngroupId=org.acme\nartifactId=core\nversion=1.2.3.Final\n"
        jar.writestr("META-INF/maven/org.acme/core/pom.properties", pom)
    with zipfile.ZipFile(tmp_path / "plain-one-4.5-jre.jar", "w") as jar:
        jar.writestr("A.class", "")
    return tmp_path


def test_node_packages_are_found_where_npm_puts_them(added):
    assert purls(sbom.node(added)) == ["pkg:npm/%40scope/part@2.0.0", "pkg:npm/ws@8.18.0"]


def test_java_archives_are_named_by_their_coordinates_or_else_by_their_file(added):
    assert purls(sbom.java(added)) == [
        "pkg:maven/org.acme/core@1.2.3.Final",
        "pkg:generic/plain-one@4.5-jre",
    ]


def test_python_distributions_are_found_with_their_licences(tmp_path):
    folder = tmp_path / "Some_Thing-1.0+cpu.dist-info"
    folder.mkdir()
    licence = "License-Expression: MIT OR Apache-2.0\n"
    (folder / "METADATA").write_text(f"Name: Some_Thing\nVersion: 1.0+cpu\n{licence}\n")
    (found,) = sbom.python([str(tmp_path)])
    assert found["purl"] == "pkg:pypi/some-thing@1.0%2Bcpu"
    assert found["licenses"] == [{"expression": "MIT OR Apache-2.0"}]


def test_debian_packages_are_those_installed(monkeypatch):
    said = "tini\t0.19.0-1\tamd64\tinstalled\ngone\t1:2\tall\tconfig-files\n"

    def run(command, **_):
        return subprocess.CompletedProcess(command, 0, said, "")

    monkeypatch.setattr(sbom.subprocess, "run", run)
    assert purls(sbom.debian()) == ["pkg:deb/debian/tini@0.19.0-1?arch=amd64&distro=debian-12"]


def test_T10_the_bill_is_valid_cyclonedx_and_the_same_each_time(added):
    def bill():
        return json.dumps(sbom.bill("ml-cpu", [*sbom.node(added), *sbom.java(added)] * 2))

    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(bill()) is None
    assert bill() == bill()
    references = [found["bom-ref"] for found in json.loads(bill())["components"]]
    assert len(references) == 4
    assert references == sorted(set(references))


def test_the_validator_refuses_what_is_no_bill():
    broken = json.dumps({**sbom.bill("x", []), "components": [{"name": "no type"}]})
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(broken) is not None
