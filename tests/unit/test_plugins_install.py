import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from bootstrap import plugins
from bootstrap.plugins import InstallError, install

ALL = {
    "pulumi-language-python",
    "pulumi-language-python-exec",
    "pulumi-resource-pulumi-python",
    "pulumi-resource-random",
    "pulumi-resource-keycloak",
    "pulumi-resource-harbor",
    "pulumi-resource-docker",
}


@pytest.fixture
def bin_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder, and a machine on which nothing of Pulumi is installed."""
    folder = tmp_path / "bin"
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.setenv("PULUMI_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(plugins, "module_file", lambda path, digest, go: b"#!/bin/sh\n")
    monkeypatch.setattr(
        plugins,
        "SCRIPTS",
        {name: (path, plugins.hashlib.sha256(b"#!/bin/sh\n").hexdigest())
         for name, (path, _) in plugins.SCRIPTS.items()},
    )  # fmt: skip
    return folder


def executable(path: Path, text: str = "#!/bin/sh\n") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)
    return path


def test_everything_is_laid_once(bin_dir: Path) -> None:
    assert set(install(bin_dir, Path(sys.executable))) == ALL
    assert {path.name for path in bin_dir.iterdir()} == ALL
    assert install(bin_dir, Path(sys.executable)) == []


def test_another_python_lays_the_wrappers_again(bin_dir: Path) -> None:
    install(bin_dir, Path(sys.executable))
    assert "pulumi-resource-random" in install(bin_dir, Path("/usr/bin/python3"))


@pytest.mark.parametrize("name", ["random", "keycloak", "harbor", "docker"])
def test_an_official_plug_in_on_path_wins_and_ours_goes(
    bin_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    install(bin_dir, Path(sys.executable))
    executable(tmp_path / "official" / f"pulumi-resource-{name}")
    monkeypatch.setenv("PATH", f"{bin_dir}:{tmp_path / 'official'}")
    install(bin_dir, Path(sys.executable))
    assert not (bin_dir / f"pulumi-resource-{name}").exists()
    assert (bin_dir / "pulumi-language-python").exists()


def test_a_downloaded_official_plug_in_wins(bin_dir: Path, tmp_path: Path) -> None:
    executable(tmp_path / "home/plugins/resource-random-v4.21.4/pulumi-resource-random")
    assert "pulumi-resource-random" not in install(bin_dir, Path(sys.executable))


def test_an_official_plug_in_in_our_own_folder_is_not_overwritten(bin_dir: Path) -> None:
    official = executable(bin_dir / "pulumi-resource-keycloak", "#!/bin/sh\n# official\n")
    install(bin_dir, Path(sys.executable))
    assert "official" in official.read_text()


def test_a_wrapper_runs_whatever_the_folder_and_the_paths_contain(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A module of the user's in the working directory does not shadow the plug-in's."""
    monkeypatch.setattr(plugins, "ROOT", plugins.ROOT)
    odd = tmp_path / "it's a bin"
    text = plugins.wrapper(Path(sys.executable), f"language_host import run; run({str(odd)!r})")
    wrapper = executable(odd / "pulumi-language-python", text)
    (tmp_path / "random.py").write_text("raise SystemExit('shadowed')")
    (tmp_path / "bootstrap.py").write_text("raise SystemExit('shadowed')")
    done = subprocess.run(
        [wrapper, "--version"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count(".") == 2


def test_without_go_the_missing_script_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert shutil.which("go") is None
    with pytest.raises(InstallError, match="pulumi-language-python-exec"):
        install(tmp_path / "bin", Path(sys.executable))
