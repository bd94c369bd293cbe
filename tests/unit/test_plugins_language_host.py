import sys
from pathlib import Path

import pytest
from google.protobuf import struct_pb2
from pulumi.runtime.proto import language_pb2

from bootstrap.plugins.language_host import (
    HostError,
    Toolchain,
    plugin_version,
    required_package,
    run_arguments,
)


def info(root: Path, **options: str) -> language_pb2.ProgramInfo:
    struct = struct_pb2.Struct()
    struct.update(options)
    return language_pb2.ProgramInfo(
        root_directory=str(root), program_directory=str(root), entry_point=".", options=struct
    )


@pytest.mark.parametrize(
    ("python", "plugin"),
    [
        ("4.21.4", "v4.21.4"),
        ("1.2", "v1.2.0"),
        ("1.2.3a4", "v1.2.3-alpha.4"),
        ("1.2.3b4", "v1.2.3-beta.4"),
        ("1.2.3rc4", "v1.2.3-rc.4"),
        ("1.2.3.post4", "v1.2.3+post4"),
        ("1.2.3.post4.dev5", "v1.2.3+post4dev5"),
        ("1!2.3", None),
        ("1.2.3+local", None),
    ],
)
def test_a_python_version_becomes_a_plug_ins_as_with_the_official_host(
    python: str, plugin: str | None
) -> None:
    assert plugin_version(python) == plugin


@pytest.mark.parametrize(
    ("name", "plugin", "expected"),
    [
        ("pulumi-keycloak", {"resource": True, "name": "keycloak", "version": "6.14.1"},
         ("keycloak", "v6.14.1")),
        ("pulumiverse-harbor", {"resource": True, "name": "harbor", "server": "github://x"},
         ("harbor", "v1.0.0")),
        ("acme-cloud", {"resource": True}, ("acme-cloud", "v1.0.0")),
        ("pulumi-old", None, ("old", "v1.0.0")),
        ("pulumi-policy", None, None),
        ("pulumi-none", {"resource": False}, None),
        ("requests", None, None),
    ],
)  # fmt: skip
def test_which_plug_in_a_package_needs(
    name: str, plugin: dict[str, object] | None, expected: tuple[str, str] | None
) -> None:
    found = required_package({"name": name, "version": "1.0.0", "plugin": plugin, "needs": []})
    assert (found and (found.name, found.version)) == expected


def test_the_programs_own_packages_are_listed_with_their_plug_ins() -> None:
    toolchain = Toolchain(Path(sys.prefix).parent, Path(sys.prefix).name)
    packages = {package["name"]: package for package in toolchain.packages()}
    assert packages["pulumi-keycloak"]["plugin"] == {
        "resource": True, "name": "keycloak", "version": packages["pulumi-keycloak"]["version"],
    }  # fmt: skip
    assert packages["pulumi"]["plugin"] is None
    assert "pulumi" in packages["pulumi-random"]["needs"]


def test_a_program_runs_in_the_virtual_environment_that_pulumi_yaml_names(tmp_path: Path) -> None:
    python = tmp_path / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.touch()
    toolchain = Toolchain.of(info(tmp_path, virtualenv=".venv"))
    assert toolchain.python == str(python)
    assert toolchain.environment["PATH"].startswith(str(python.parent))
    assert toolchain.environment["VIRTUAL_ENV"] == str(tmp_path / ".venv")


def test_a_missing_virtual_environment_says_how_to_make_it(tmp_path: Path) -> None:
    with pytest.raises(HostError, match="pulumi install"):
        _ = Toolchain.of(info(tmp_path, virtualenv=".venv")).python


def test_a_plug_in_never_runs_in_whatever_python_is_on_path(tmp_path: Path) -> None:
    assert Toolchain.of(info(tmp_path), plugin=True).virtualenv == "venv"
    assert Toolchain.of(info(tmp_path)).virtualenv == ""


@pytest.mark.parametrize("options", [{"toolchain": "uv"}, {"typechecker": "mypy"}])
def test_an_option_that_this_host_lacks_is_refused_by_name(
    tmp_path: Path, options: dict[str, str]
) -> None:
    with pytest.raises(HostError, match=r"Pulumi\.yaml: the option"):
        Toolchain.of(info(tmp_path, **options))


def test_the_executor_gets_what_is_set_and_nothing_empty(tmp_path: Path) -> None:
    request = language_pb2.RunRequest(
        project="mlhub", stack="local", pwd="/p", dryRun=True, parallel=16,
        monitor_address="127.0.0.1:1", info=info(tmp_path), args=["x"],
    )  # fmt: skip
    assert run_arguments(request, "127.0.0.1:2") == [
        "--monitor", "127.0.0.1:1", "--engine", "127.0.0.1:2", "--project", "mlhub",
        "--root_directory", str(tmp_path), "--stack", "local", "--pwd", "/p",
        "--dry_run", "true", "--parallel", "16", ".", "x",
    ]  # fmt: skip
