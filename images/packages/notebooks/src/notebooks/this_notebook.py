"""Which notebook file a kernel belongs to, and what it is called elsewhere.

A kernel is not told. Jupyter Server sets `JPY_SESSION_NAME` when it starts one for a notebook
(jupyter_server, `SessionManager.get_kernel_env`); a run's Job sets `IPYNB_FILE`. A notebook that
was renamed since has another name than its kernel knows.
"""

import json
import os
from pathlib import Path

from notebooks.errors import NotebooksError


def notebook_file() -> Path:
    """The saved file of the notebook whose kernel this is.

    Raises NotebooksError where that is not known or no file.
    """
    named = os.environ.get("IPYNB_FILE") or os.environ.get("JPY_SESSION_NAME", "")
    if not named.endswith(".ipynb"):
        raise NotebooksError(
            "This kernel was not started for a notebook, so its file is not known; name it: "
            "%mlflow_log_notebook PATH.ipynb"
        )
    file = Path(named)
    if not file.is_file():
        raise NotebooksError(
            f"{named} is not there; the notebook was renamed or moved after its kernel started. "
            "Restart the kernel, or name the file: %mlflow_log_notebook PATH.ipynb"
        )
    return file


def known_notebook() -> Path | None:
    try:
        return notebook_file()
    except NotebooksError:
        return None


def name_of(file: Path | str) -> str:
    """What links a notebook and its runs: the path in the home, as the execution API has it.

    Anything outside the home is called by its absolute path.
    """
    path = Path(file).expanduser().resolve()
    home = Path.home().resolve()
    return (path.relative_to(home) if path.is_relative_to(home) else path).as_posix()


def saved_sources(file: Path) -> dict[str, str] | None:
    """Source by cell id of a notebook as it is saved.

    None where no person edits it: a run's Job executes a copy with its own parameters.
    """
    if os.environ.get("IPYNB_FILE"):
        return None
    cells = json.loads(file.read_bytes())["cells"]
    return {
        cell.get("id", str(number)): "".join(cell["source"]) for number, cell in enumerate(cells)
    }
