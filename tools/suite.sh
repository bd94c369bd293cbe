#!/usr/bin/env bash
# One suite of tests by pytest. On a small machine a test may fail for what runs beside it: of up to
# five that failed each is run once more, by itself, and that is said. One that fails again fails.
# usage: tools/suite.sh RESULTS-FOLDER NAME PYTEST-ARGUMENT…
set -uo pipefail
results=$1 name=$2
suite() { .venv/bin/python -m pytest -o cache_dir="$results/cache/$name" "$@"; }
rm -f "$results/$name.xml" "$results/$name-again.xml"
suite --junitxml="$results/$name.xml" "${@:3}"
status=$?
[ $status -eq 1 ] || exit $status
failed=$(.venv/bin/python -c 'import json, sys; print(len(json.load(open(sys.argv[1]))))' \
  "$results/cache/$name/v/cache/lastfailed")
[ "$failed" -le 5 ] || exit 1
echo "::: $name: $failed failed beside others; once more, by themselves"
suite --junitxml="$results/$name-again.xml" "${@:3}" -n 0 --last-failed --last-failed-no-failures none
