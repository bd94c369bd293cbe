"""Notebooks to begin with: those of this package, and those that a person made of their own.

A person's are in `~/.local/share/mlhub/templates`: hidden from the file browser, where a copy is
what one edits, and kept when the server stops, as all of `~/.local` is.
"""

import importlib.util
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from notebooks.errors import NotebooksError
from notebooks.models import NotebookTemplate
from notebooks.seed import write_whole

BUILT_IN = Path(__file__).parent
PERSONAL = Path(".local/share/mlhub/templates")
NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")

PROFILES = {
    "ml-cpu": "Standard (CPU)",
    "ml-gpu": "GPU (any node)",
    "tensorflow-ray": "TensorFlow and Ray",
}
"""The profile that the stack files have for an image."""


class MissingLibraryError(NotebooksError):
    """The image has not what a template needs."""

    type = "library"


class NotATemplateError(NotebooksError):
    """A file among the person's templates that is no notebook; `name` is the template's."""

    type = "template"

    def __init__(self, file: Path):
        super().__init__(f"{file} is no notebook; mend it, or delete it.")
        self.name = file.stem


class SecretsFoundError(NotebooksError):
    """A notebook that is to be a template holds what looks like secrets."""

    type = "secrets"


def personal_folder() -> Path:
    return Path.home() / PERSONAL


def templates() -> list[NotebookTemplate]:
    """The package's own by name, then the person's by name; `broken` has what is left out."""
    return [each for each in _read() if isinstance(each, NotebookTemplate)]


def broken() -> list[NotATemplateError]:
    """What is wrong with those files of the person's that are no notebooks."""
    return [each for each in _read() if isinstance(each, NotATemplateError)]


def find(name: str) -> NotebookTemplate:
    """Raises NotebooksError for a name that is no template's."""
    known = templates()
    for template in known:
        if template.name == name:
            return template
    for error in broken():
        if error.name == name:
            raise error
    raise NotebooksError(
        f"There is no template {name!r}; there are: {', '.join(each.name for each in known)}."
    )


def copy(name: str, target: str | Path) -> Path:
    """Copy a template to a new file, or into a folder under its own name; the file's path.

    Never overwrites: raises NotebooksError where something is there already.
    """
    template = find(name)
    file = Path(target).expanduser()
    if file.is_dir():
        file = file / f"{name}.ipynb"
    if file.suffix != ".ipynb":
        raise NotebooksError(f"{file} does not end in .ipynb, so JupyterLab would not open it.")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise NotebooksError(f"{file.parent} is no folder; name another file.") from None
    try:
        write_whole(file, Path(template.path).read_bytes())
    except FileExistsError:
        raise NotebooksError(f"{file} exists and is left as it is; name another file.") from None
    return file


def create(name: str, notebook: str | Path, *, redacted: bool = False) -> NotebookTemplate:
    """Make a template of the person's own from a notebook, which stays as it is.

    Outputs, execution counts and all metadata but kernel and cell tags stay behind. What looks like
    a secret (`notebooks.redaction`) raises SecretsFoundError, which says where, unless `redacted`:
    then it is replaced. Raises NotebooksError for a bad or taken name and for what is no notebook.
    """
    if not NAME.fullmatch(name):
        raise NotebooksError(
            f"{name!r} is no name of a template; small letters, digits and hyphens are, at most 63."
        )
    if any(each.name == name for each in templates()):
        raise NotebooksError(f"There is a template {name!r} already; choose another name.")
    # nbconvert takes half a second, which a copy need not wait for.
    from notebooks.templates.making import stripped  # noqa: PLC0415

    content, found = stripped(Path(notebook).expanduser())
    if found and not redacted:
        raise SecretsFoundError(
            f"{notebook} holds what looks like secrets; take them out, or replace them with --yes. "
            + "; ".join(dict.fromkeys(map(str, found)))
        )
    folder = personal_folder()
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{name}.ipynb"
    try:
        write_whole(file, content)
    except FileExistsError:
        raise NotebooksError(f"There is a template {name!r} already.") from None
    return _describe(file)


def parameters(template: NotebookTemplate) -> str:
    """The cell tagged `parameters`, with its comments; empty where there is none."""
    cells = json.loads(Path(template.path).read_bytes())["cells"]
    tagged = (c for c in cells if "parameters" in c.get("metadata", {}).get("tags", ()))
    return next(("".join(cell["source"]) for cell in tagged), "")


def needs(module: str, *, image: str) -> None:
    """For a template's first cell: a sentence where the image lacks what it is about."""
    if importlib.util.find_spec(module) is None:
        raise MissingLibraryError(
            f"{module} is not in this server's image. Stop the server (File → Hub Control Panel) "
            f"and start it with the profile “{PROFILES[image]}”, whose image {image} has it."
        )


def _read() -> Iterator[NotebookTemplate | NotATemplateError]:
    for file in sorted(BUILT_IN.glob("*.ipynb")):
        yield _describe(file)
    for file in sorted(personal_folder().glob("*.ipynb")):
        try:
            yield _describe(file)
        except (OSError, ValueError, LookupError, TypeError, AttributeError):
            yield NotATemplateError(file)


def _describe(file: Path) -> NotebookTemplate:
    """Title and description are the notebook's first heading and the paragraph below it."""
    notebook: dict[str, Any] = json.loads(file.read_bytes())
    words = ["".join(c["source"]) for c in notebook["cells"] if c["cell_type"] == "markdown"]
    heading = re.match(r"#+ *(.+)\n*([^\n]*)", words[0]) if words else None
    described = notebook.get("metadata", {}).get("mlhub", {})
    return NotebookTemplate(
        name=file.stem,
        title=heading[1].strip() if heading else file.stem,
        description=heading[2].strip() if heading else "",
        path=str(file),
        tags=tuple(described.get("tags", ())),
    )
