"""`python -m mlhub.verify SETTINGS`: exits with 0 where the stack works, 1 where it does not.

SETTINGS is a JSON file with the fields of `mlhub.verify.settings.Settings`; the client's secret
comes from MLHUB_VERIFY_CLIENT_SECRET. Ended by SIGTERM, it removes the person before it goes.
"""

import argparse
import json
import os
import signal
import sys
from pathlib import Path

from mlhub.verify.checks import verify
from mlhub.verify.report import Report
from mlhub.verify.settings import Settings


def main() -> int:
    parser = argparse.ArgumentParser(prog="mlhub.verify", description=__doc__)
    parser.add_argument("settings", type=Path)
    given = parser.parse_args()
    settings = Settings(
        **json.loads(given.settings.read_text(encoding="utf-8")),
        client_secret=os.environ.get("MLHUB_VERIFY_CLIENT_SECRET"),
    )
    # A Job is ended so: by its deadline, by the next `up`, with its node.
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    report = Report(lambda line: print(line, flush=True))
    verify(settings, report)
    print(report.sentence())
    return 0 if report.works() else 1


if __name__ == "__main__":
    sys.exit(main())
