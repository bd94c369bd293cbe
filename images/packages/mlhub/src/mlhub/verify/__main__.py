"""`python -m mlhub.verify SETTINGS`: exits with 0 where the stack works, 1 where it does not.

SETTINGS is a JSON file with the fields of `mlhub.verify.settings.Settings`; the secrets among them
come from MLHUB_VERIFY_CLIENT_SECRET and MLHUB_VERIFY_PASSWORD.
"""

import argparse
import json
import os
import sys
from pathlib import Path

from mlhub.verify.checks import verify
from mlhub.verify.report import Report
from mlhub.verify.settings import Settings


def main() -> int:
    parser = argparse.ArgumentParser(prog="mlhub.verify", description=__doc__)
    parser.add_argument("settings", type=Path)
    parser.add_argument("--json", type=Path, help="also write the report there")
    given = parser.parse_args()
    settings = Settings(
        **json.loads(given.settings.read_text(encoding="utf-8")),
        client_secret=os.environ.get("MLHUB_VERIFY_CLIENT_SECRET"),
        password=os.environ.get("MLHUB_VERIFY_PASSWORD"),
    )
    report = Report(lambda line: print(line, flush=True))
    verify(settings, report)
    print(report.sentence())
    if given.json is not None:
        given.json.write_text(report.as_json(), encoding="utf-8")
    return 0 if report.works() else 1


if __name__ == "__main__":
    sys.exit(main())
