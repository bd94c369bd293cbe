"""Where the engine starts the pack: the limits, then the rules."""

import sys

from mlhub_policies.limits import LimitsError, load
from mlhub_policies.pack import run

try:
    limits = load()
except LimitsError as error:
    print(error, file=sys.stderr)
    sys.exit(1)
run(limits)
