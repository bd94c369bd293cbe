"""A kernel as the image has it, spoken to as JupyterLab does."""

import os
import re
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jupyter_client.manager import KernelManager

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "images/packages/notebooks/src"
TMP = "/tmp/"  # noqa: S108
STRANGE = (
    *("MLFLOW_", "JUPYTERHUB_", "JPY_", "IPYNB_"),
    *("MPLBACKEND", "PYTHONDONTWRITEBYTECODE"),
)
COLOURS = re.compile(r"\x1b\[[0-9;]*m")


def entry_points() -> str:
    """Of the package, as the image that installs it has them."""
    project = tomllib.loads((SOURCE.parent / "pyproject.toml").read_text())["project"]
    return "".join(
        f"[{group}]\n" + "".join(f"{name} = {value}\n" for name, value in given.items())
        for group, given in project["entry-points"].items()
    )


def clean_environment(home: Path, extra: Mapping[str, str]) -> dict[str, str]:
    """Of a person's server: their home, the image's IPython settings, nothing of the tests'.

    Python may keep what it compiles, as an image has it compiled: Ray waits 15 s for its agents.
    """
    plugins = home / ".plugins"
    (plugins / "notebooks-0.dist-info").mkdir(parents=True, exist_ok=True)
    (plugins / "notebooks-0.dist-info/entry_points.txt").write_text(entry_points())
    profile = home / ".ipython/profile_default"
    profile.mkdir(parents=True, exist_ok=True)
    settings = (ROOT / "images/jupyter/ipython_config.py").read_text()
    (profile / "ipython_config.py").write_text(settings.replace(TMP, f"{home}/."))
    kept = {name: value for name, value in os.environ.items() if not name.startswith(STRANGE)}
    return {
        **kept,
        "HOME": str(home),
        "IPYTHONDIR": str(home / ".ipython"),
        "PYTHONPATH": f"{SOURCE}:{plugins}",
        **extra,
    }


@dataclass(frozen=True)
class Said:
    """What a cell printed, and the error that it ended with, as the notebook shows it."""

    text: str
    error: str


class Kernel:
    def __init__(self, client: Any):
        self._client = client

    def run(self, source: str, cell_id: str = "") -> Said:
        session = self._client.session
        content = {"code": source, "silent": False, "store_history": True}
        message = session.msg(
            "execute_request", content | {"user_expressions": {}, "stop_on_error": True}
        )
        message["metadata"] = {"cellId": cell_id} if cell_id else {}
        self._client.shell_channel.send(message)
        text, error = "", ""
        while True:
            said = self._client.get_iopub_msg(timeout=150)
            if said["parent_header"].get("msg_id") != message["header"]["msg_id"]:
                continue
            kind, what = said["msg_type"], said["content"]
            if kind == "stream":
                text += what["text"]
            elif kind == "error":
                error = COLOURS.sub("", "\n".join(what["traceback"]))
            elif kind == "status" and what["execution_state"] == "idle":
                return Said(text, error)


@contextmanager
def kernel(notebook: Path | None, home: Path, extra: Mapping[str, str]) -> Iterator[Kernel]:
    """A kernel for the notebook's file, started as Jupyter Server starts it."""
    manager = KernelManager(kernel_name="python3")
    # Of an end that is asked for: it tells MLflow, which takes longer than the five seconds after
    # which a kernel is killed, where the machine is busy.
    manager.shutdown_wait_time = 60.0
    named = {"JPY_SESSION_NAME": str(notebook)} if notebook else {}
    manager.start_kernel(
        env=clean_environment(home, {**extra, **named}),
        cwd=str(notebook.parent if notebook else home),
    )
    client = manager.client()
    client.start_channels()
    try:
        client.wait_for_ready(timeout=150)
        yield Kernel(client)
    finally:
        client.stop_channels()
        manager.shutdown_kernel()
        manager.cleanup_resources()
