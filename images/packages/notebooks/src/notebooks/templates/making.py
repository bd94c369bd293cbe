"""What of a person's notebook becomes a template: its cells, and nothing of what happened there."""

# mypy: disable-error-code="no-untyped-call"

import json
from pathlib import Path

import nbformat
from nbconvert.preprocessors import ClearMetadataPreprocessor, ClearOutputPreprocessor

from notebooks.errors import NotebooksError
from notebooks.redaction import Finding, redact


def stripped(file: Path) -> tuple[bytes, tuple[Finding, ...]]:
    """The template's content, and where something was that looks like a secret and is replaced."""
    try:
        notebook = nbformat.read(file, as_version=4)
        nbformat.validate(notebook)
    except FileNotFoundError:
        raise NotebooksError(f"{file} is not there.") from None
    except (OSError, ValueError, AttributeError, nbformat.ValidationError) as error:
        short = " ".join(str(error).split())[:200]
        raise NotebooksError(f"{file} is no notebook: {short}") from None
    steps = (
        ClearOutputPreprocessor(),
        ClearMetadataPreprocessor(
            preserve_nb_metadata_mask={"kernelspec", "language_info"},
            preserve_cell_metadata_mask={"tags"},
        ),
    )
    for step in steps:
        notebook, _ = step.preprocess(notebook, {})
    clean, found = redact(notebook)
    return (json.dumps(clean, indent=1, ensure_ascii=False) + "\n").encode(), found
