"""One Pulumi stack in a folder of its own, driven by the real CLI."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import yaml

PROJECT = "engine"
STACK = "test"
FINISH_SECONDS = 480


class Stack:
    """The CLI on one project; what it prints is kept whole, for the assertions read it."""

    def __init__(self, folder: Path, bin_dir: Path, program: str, **env: str):
        self.folder = folder
        self.project = folder / "project"
        self.project.mkdir(parents=True)
        (self.project / "__main__.py").write_text(textwrap.dedent(program))
        runtime = {"name": "python", "options": {"virtualenv": sys.prefix}}
        (self.project / "Pulumi.yaml").write_text(
            yaml.safe_dump({"name": PROJECT, "runtime": runtime})
        )
        (folder / "state").mkdir()
        (folder / "passphrase").write_text("engine test")
        self.env = os.environ | {
            "PATH": f"{bin_dir}{os.pathsep}{os.environ['PATH']}",
            "PULUMI_HOME": str(folder / "home"),
            "PULUMI_BACKEND_URL": f"file://{folder / 'state'}?metadata=skip",
            "PULUMI_CONFIG_PASSPHRASE_FILE": str(folder / "passphrase"),
            "PULUMI_SKIP_UPDATE_CHECK": "true",
            "PULUMI_DISABLE_AUTOMATIC_PLUGIN_ACQUISITION": "true",
            **env,
        }
        for name in ("PULUMI_CONFIG_PASSPHRASE", "PULUMI_OPTION_CONFIG_FILE"):
            self.env.pop(name, None)
        self("stack", "init", STACK)

    def __call__(self, *args: str) -> str:
        """`pulumi args`, which must succeed, and what it printed on both streams."""
        code, printed = self.run(*args)
        assert code == 0, f"pulumi {' '.join(args)} ended with {code}:\n{printed}"
        return printed

    def fails(self, *args: str) -> str:
        """As a call, for a command that must end with an error."""
        code, printed = self.run(*args)
        assert code != 0, f"pulumi {' '.join(args)} was expected to fail:\n{printed}"
        return printed

    def run(self, *args: str) -> tuple[int, str]:
        process = self.start(*args)
        try:
            printed, _ = process.communicate(timeout=FINISH_SECONDS)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"pulumi {' '.join(args)} hangs:\n{self.kill(process)}") from None
        return process.returncode, printed

    def shell(self, command: str) -> str:
        """A command that somebody was told to give, by a shell; whoever gives it says yes."""
        done = subprocess.run(
            ["sh", "-c", command],
            cwd=self.project,
            env=self.env | {"PULUMI_SKIP_CONFIRMATIONS": "true"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=FINISH_SECONDS,
            check=False,
        )
        assert done.returncode == 0, f"{command} ended with {done.returncode}:\n{done.stdout}"
        return done.stdout

    def refuse_default_providers(self) -> None:
        """As Pulumi.yaml of mlhub does."""
        path = self.project / "Pulumi.yaml"
        content = yaml.safe_load(path.read_text())
        content["config"] = {"pulumi:disable-default-providers": ["*"]}
        path.write_text(yaml.safe_dump(content))

    def configure(self, **settings: str) -> None:
        path = self.project / f"Pulumi.{STACK}.yaml"
        content = yaml.safe_load(path.read_text())
        config = content.setdefault("config", {})
        for name, value in settings.items():
            if name != "password":
                config[f"{PROJECT}:{name}"] = value
        path.write_text(yaml.safe_dump(content))
        if "password" in settings:
            # Through standard input: an argument is readable for everyone on the machine.
            subprocess.run(
                ["pulumi", "config", "set", "--secret", "password", "--non-interactive"],
                cwd=self.project,
                env=self.env,
                input=settings["password"],
                text=True,
                check=True,
                capture_output=True,
            )

    def up(self, *args: str) -> str:
        return self("up", "--yes", "--skip-preview", *args)

    def json(self, *args: str) -> Any:
        """What `pulumi args --json` answers, after whatever warnings come first."""
        text = self(*args, "--json")
        return json.loads(text[text.index("{") :])

    def changes(self) -> dict[str, int]:
        """What a preview says would change, by kind; empty where all is the same."""
        summary = self.json("preview")["changeSummary"]
        return {kind: count for kind, count in summary.items() if kind != "same" and count}

    def export(self) -> str:
        """The state, after whatever warnings come first."""
        text = self("stack", "export")
        return text[text.index("{") :]

    def resources(self) -> list[dict[str, Any]]:
        return list(json.loads(self.export())["deployment"].get("resources", []))

    def forget(self, which: Callable[[dict[str, Any]], bool]) -> None:
        """Takes resources out of the state, as if their making had never been written."""
        state = json.loads(self.export())
        deployment = state["deployment"]
        deployment["resources"] = [r for r in deployment["resources"] if not which(r)]
        (self.folder / "edited.json").write_text(json.dumps(state))
        self("stack", "import", "--file", str(self.folder / "edited.json"))

    def secret(self, name: str) -> str:
        return self("stack", "output", name, "--show-secrets").strip()

    def start(self, *args: str) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            ["pulumi", *args, "--non-interactive", "--color", "never"],
            cwd=self.project, env=self.env, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip

    def processes(self) -> list[str]:
        """Command lines of everything that runs with this stack's environment."""
        mine = f"PULUMI_HOME={self.env['PULUMI_HOME']}".encode()
        return [line for env, line in environments() if mine in env.split(b"\0")]

    def end_processes(self) -> None:
        """Ends what a killed CLI left behind, each by its id."""
        mine = f"PULUMI_HOME={self.env['PULUMI_HOME']}".encode()
        for folder in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if mine in (folder / "environ").read_bytes().split(b"\0"):
                    os.kill(int(folder.name), signal.SIGKILL)
        self.wait_for_no_process()

    def wait_for_no_process(self, seconds: float = 45) -> None:
        deadline = time.monotonic() + seconds
        while left := self.processes():
            assert time.monotonic() < deadline, "left behind: " + "; ".join(left)
            time.sleep(0.2)

    def kill(self, process: "subprocess.Popen[str]") -> str:
        process.send_signal(signal.SIGKILL)
        return process.communicate()[0]


def environments() -> Iterable[tuple[bytes, str]]:
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            env, line = (folder / "environ").read_bytes(), (folder / "cmdline").read_bytes()
        except OSError:
            continue
        if line:
            yield env, line.replace(b"\0", b" ").decode(errors="replace")
