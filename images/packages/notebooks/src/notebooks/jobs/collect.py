"""`python -m notebooks.jobs.collect`: what a run left whose pod could not say so.

A killed one's partial notebook is hidden in the home, as it was after the last cell that ended.
Here it gets the output's name, as the runner would have given it; a cancelled one's has it already.
What was found is the last line, as JSON.
"""

import json
import os
from pathlib import Path

from notebooks.jobs.paths import PathRefusedError, inside
from notebooks.jobs.run import (
    TASK,
    Task,
    bring_home,
    described,
    made_by,
    unfinished_at,
)


def main() -> None:
    task = Task(**json.loads(os.environ.pop(TASK)))
    home = Path.home()
    try:
        place = inside(home, task.output)
        found = bring_home(unfinished_at(place, task), place, task, home)
        if not found and made_by(task.id, place):
            # The runner brought it home, and nobody was there to hear it say so.
            found = described(place, home)
    except (PathRefusedError, OSError, ValueError, KeyError, TypeError) as error:
        print(f"{type(error).__name__}: {error}")
        found = {}
    print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
