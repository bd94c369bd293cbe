"""A notebook's cells as its person counts them: without the one in which Papermill sets parameters.

Else the cell of which a run tells would be another than the one that its person looks at.
"""

from collections.abc import Iterable
from typing import Any

SET_BY_PAPERMILL = "injected-parameters"


def own(cells: Iterable[Any]) -> list[Any]:
    return [cell for cell in cells if SET_BY_PAPERMILL not in cell["metadata"].get("tags", ())]
