"""Versions of a notebook, kept as artifacts of MLflow runs.

A run that keeps a notebook has two things: the .ipynb below `notebook/`, and a tag
`mlhub.snapshot.<version>` with its checksum, message, author and time. The versions of a notebook
are what the runs with its path say together. Deleted runs count when a number is given, so that no
version ever names two contents.

In a team's workspace a colleague's `report.ipynb` is another notebook, in another home. So versions
there are those that one person kept; MLflow itself holds nobody's name that a client did not give.
"""

import hashlib
import json
import os
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from importlib import import_module
from io import StringIO
from pathlib import Path
from typing import Any

import nbformat
from mlflow import MlflowClient
from mlflow.entities import Run, ViewType
from mlflow.utils.mlflow_tags import MLFLOW_USER
from mlflow.utils.workspace_context import get_request_workspace

from notebooks.models import NotebookSnapshot
from notebooks.redaction import Finding, redact
from notebooks.seed import write_whole
from notebooks.tracked import TrackingError

NOTEBOOK_TAG = "mlhub.notebook"
VERSION_TAG = "mlhub.snapshot."
FOLDER = "notebook"
FILE = "notebook.ipynb"
"""Of a version: a notebook's own name may have what MLflow's client does not quote, such as `#`."""
LARGEST = 100 * 2**20
"""Bytes of a notebook, as the execution API has it."""
PAGE = 1000
OWN_WORKSPACE = "--home"
"""At the end of its name, and of no team's (`mlhub.slugs`)."""


class Snapshots:
    """The versions of the notebook of that name (`this_notebook.name_of`) which a person kept, or
    anybody where it is one for all.
    """

    def __init__(self, client: MlflowClient, notebook: str, by: str):
        self.client = client
        self.notebook = notebook
        self.by = by
        self._for_all = is_one_for_all(notebook)

    def all(self, view: int = ViewType.ACTIVE_ONLY) -> list[NotebookSnapshot]:
        """Every version once, the newest last; of equals the run that kept it first."""
        found: dict[int, NotebookSnapshot] = {}
        for snapshot in filter(self._counts, self._everybodys(view)):
            known = found.get(snapshot.version)
            if known is None or snapshot.created < known.created:
                found[snapshot.version] = snapshot
        return [found[version] for version in sorted(found)]

    def _everybodys(self, view: int) -> Iterator[NotebookSnapshot]:
        for run in runs_tagged(self.client, self.notebook, view):
            yield from _of_run(run, self.notebook)

    def _counts(self, snapshot: NotebookSnapshot) -> bool:
        return self._for_all or snapshot.created_by == self.by

    def keep(
        self, run_id: str, file: Path, message: str
    ) -> tuple[NotebookSnapshot, tuple[Finding, ...]]:
        """Upload the file as it is saved to a run; its version, and the secrets left out.

        Raises TrackingError for a file that is no notebook or too large.
        """
        content, found = _readable(file)
        sha256 = hashlib.sha256(content).hexdigest()
        folder = f"{FOLDER}/{sha256[:12]}"
        self.client.set_tag(run_id, NOTEBOOK_TAG, self.notebook)
        with tempfile.TemporaryDirectory(prefix="mlhub-snapshot-") as work:
            copy = Path(work) / FILE
            copy.write_bytes(content)
            self.client.log_artifact(run_id, str(copy), folder)
        before = self.all(ViewType.ALL)
        same = next((each.version for each in before if each.sha256 == sha256), None)
        snapshot = NotebookSnapshot(
            notebook_path=self.notebook,
            version=same or max((each.version for each in before), default=0) + 1,
            sha256=sha256,
            run_id=run_id,
            artifact_path=f"{folder}/{FILE}",
            created=datetime.now(UTC),
            created_by=self.by,
            message=message,
        )
        return self._numbered(snapshot), found

    def _numbered(self, snapshot: NotebookSnapshot) -> NotebookSnapshot:
        """Write the version down; where another kernel took the number meanwhile, or a colleague
        has it in the same run, the next one.
        """
        while True:
            if not self._is_taken(snapshot):
                tag = f"{VERSION_TAG}{snapshot.version}"
                self.client.set_tag(snapshot.run_id, tag, _tag_value(snapshot))
                rivals = [
                    other
                    for other in filter(self._counts, self._everybodys(ViewType.ALL))
                    if other.version == snapshot.version and other.sha256 != snapshot.sha256
                ]
                if all((snapshot.created, snapshot.run_id) < (o.created, o.run_id) for o in rivals):
                    return snapshot
                self.client.delete_tag(snapshot.run_id, tag)
            snapshot = replace(snapshot, version=snapshot.version + 1)

    def _is_taken(self, snapshot: NotebookSnapshot) -> bool:
        """Whether writing it down would be over another version of the run."""
        return any(
            other.version == snapshot.version
            and not (self._counts(other) and other.sha256 == snapshot.sha256)
            for other in _of_run(self.client.get_run(snapshot.run_id), self.notebook)
        )

    def version(self, version: int) -> NotebookSnapshot:
        known = self.all()
        for snapshot in known:
            if snapshot.version == version:
                return snapshot
        there = ", ".join(str(each.version) for each in known) or "none yet"
        raise TrackingError(
            f"{self.notebook} has no version {version}; there are: {there}.{self._others()}"
        )

    def _others(self) -> str:
        """A sentence on what others kept under the path, if anything."""
        numbers: dict[str, set[int]] = {}
        for other in self._everybodys(ViewType.ACTIVE_ONLY):
            if not self._counts(other):
                numbers.setdefault(other.created_by, set()).add(other.version)
        said = "; ".join(
            f"by={name!r} ({', '.join(map(str, sorted(numbers[name])))})"
            for name in sorted(numbers)
        )
        return f" Of others there are: {said}." if said else ""

    def content(self, version: int) -> bytes:
        """Raises TrackingError where the artifact is not what was kept."""
        snapshot = self.version(version)
        with tempfile.TemporaryDirectory(prefix="mlhub-snapshot-") as work:
            copy = self.client.download_artifacts(snapshot.run_id, snapshot.artifact_path, work)
            content = Path(copy).read_bytes()
        if hashlib.sha256(content).hexdigest() != snapshot.sha256:
            raise TrackingError(
                f"Version {version} of {self.notebook} is not what was kept: its checksum differs. "
                f"Look at {snapshot.artifact_path} of run {snapshot.run_id} yourself."
            )
        return content

    def diff(self, old: int, new: int | None, file: Path) -> str:
        """What changed, cell by cell, outputs left out; empty where nothing did."""
        content = self.content(new) if new is not None else _readable(file)[0]
        return difference(
            self.content(old), content, f"version {old}", f"version {new}" if new else "as saved"
        )

    def restore(self, version: int, target: Path) -> Path:
        """Write a version to a file that is not there yet."""
        content = self.content(version)
        try:
            write_whole(target, content)
        except FileExistsError:
            raise TrackingError(f"{target} exists and is left as it is; name another.") from None
        return target

    def restore_over(self, version: int, file: Path) -> Path:
        """Put a version in the place of the file, whose content is kept beside it."""
        content = self.content(version)
        stamp = datetime.now(UTC).strftime("%Y%m%d-%H%M%S-%f")
        if file.exists():
            write_whole(file.with_stem(f"{file.stem}.before-v{version}-{stamp}"), file.read_bytes())
        unfinished = file.with_name(f".{file.name}.{stamp}.restoring")
        write_whole(unfinished, content)
        os.replace(unfinished, file)
        return file


def is_one_for_all(notebook: str) -> bool:
    """Whether a name means one notebook, whoever uses it in MLflow's present workspace: in a
    person's own, and in the team's folder, which all have at one place.
    """
    workspace = get_request_workspace()
    if not workspace or workspace.endswith(OWN_WORKSPACE):
        return True
    return notebook.startswith(f"workspaces/{workspace}/")


def runs_by(client: MlflowClient, notebook: str, person: str) -> list[Run]:
    """The runs of somebody's notebook, and those that do not say whose they are."""
    found = runs_tagged(client, notebook, ViewType.ACTIVE_ONLY)
    if not is_one_for_all(notebook):
        found = [run for run in found if person in (people := _people(run)) or not people]
    return sorted(found, key=lambda run: run.info.start_time)


def made_by(run: Run) -> str | None:
    """None where the run does not say."""
    return next(iter(_people(run)), None)


def _people(run: Run) -> list[str]:
    """Who made a run, and who kept versions with it."""
    said = (run.data.tags.get(MLFLOW_USER), *(each.created_by for each in _of_run(run, "")))
    return [name for name in said if name]


def runs_tagged(client: MlflowClient, notebook: str, view: int) -> list[Run]:
    """The runs of all notebooks of a name in all experiments that the person sees."""
    experiments = [
        each.experiment_id
        for each in _pages(lambda token: client.search_experiments(view, PAGE, page_token=token))
    ]
    if not experiments:
        return []
    # A filter has no way to escape quotes; `_` stands for any one character.
    pattern = notebook.replace("'", "_").replace("\\", "_")
    wanted = f"tags.`{NOTEBOOK_TAG}` LIKE '{pattern}'"
    found = _pages(
        lambda token: client.search_runs(experiments, wanted, view, PAGE, page_token=token)
    )
    return [run for run in found if run.data.tags.get(NOTEBOOK_TAG) == notebook]


def difference(old: bytes, new: bytes, old_name: str, new_name: str) -> str:
    """nbdime's account of two notebooks' cells and metadata, outputs and counters left out."""
    nbdime: Any = import_module("nbdime.diffing.notebooks")  # a second, for who asks for a diff
    pretty: Any = import_module("nbdime.prettyprint")
    before, after = (
        nbformat.reads(each.decode(), as_version=4)  # type: ignore[no-untyped-call]
        for each in (old, new)
    )
    nbdime.set_notebook_diff_targets(outputs=False, details=False)
    said = StringIO()
    plain = pretty.PrettyPrintConfig(out=said, use_git=False, use_diff=False, use_color=False)
    changes = nbdime.diff_notebooks(before, after)
    pretty.pretty_print_notebook_diff(old_name, new_name, before, changes, plain)
    return said.getvalue()


def _pages(page: Any) -> Iterator[Any]:
    token = None
    while True:
        found = page(token)
        yield from found
        if not (token := found.token):
            return


def _of_run(run: Run, notebook: str) -> Iterator[NotebookSnapshot]:
    for tag, value in run.data.tags.items():
        if tag.startswith(VERSION_TAG):
            said = json.loads(value)
            yield NotebookSnapshot(
                notebook_path=notebook,
                version=int(tag.removeprefix(VERSION_TAG)),
                run_id=run.info.run_id,
                created=datetime.fromisoformat(said.pop("created")),
                **said,
            )


def _tag_value(snapshot: NotebookSnapshot) -> str:
    return json.dumps(
        {
            "sha256": snapshot.sha256,
            "artifact_path": snapshot.artifact_path,
            "created": snapshot.created.isoformat(),
            "created_by": snapshot.created_by,
            "message": snapshot.message[:1000],
        },
        ensure_ascii=False,  # a tag's value has 8000 characters at most
    )


def _readable(file: Path) -> tuple[bytes, tuple[Finding, ...]]:
    """A notebook's bytes as they may leave the home, and the secrets that they are without."""
    size = file.stat().st_size if file.is_file() else None
    if size is None:
        raise TrackingError(f"{file} is not there.")
    if size > LARGEST:
        raise TrackingError(
            f"{file} has {size / 2**20:.0f} MiB; at most {LARGEST / 2**20:.0f} are kept. Clear its "
            "outputs and save it."
        )
    saved = file.read_bytes()
    try:
        notebook = json.loads(saved)
        if not isinstance(notebook, dict):
            raise ValueError("it is no JSON object")
        nbformat.validate(nbformat.from_dict(notebook))  # type: ignore[no-untyped-call]
    except (ValueError, nbformat.ValidationError) as error:
        raise TrackingError(
            f"{file} is no notebook: {' '.join(str(error).split())[:200]}"
        ) from None
    clean, found = redact(notebook)
    # Without a secret the bytes stay the person's own, so that the checksum is the file's.
    return (json.dumps(clean, indent=1, ensure_ascii=False).encode() if found else saved), found
