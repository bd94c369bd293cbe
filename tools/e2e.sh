#!/usr/bin/env bash
# The tests on the running stack, of which most of the time is waiting: those that need nobody's server
# beside those by a browser, then, alone, those that take parts of the platform away.
# Those marked long, which repeat on more what others hold, run where LONG is yes.
# usage: [LONG=yes] tools/e2e.sh RESULTS-FOLDER
set -uo pipefail
results=$1
mkdir -p "$results"
short=" and not long"
[ "${LONG:-}" = yes ] && short="" || echo "left out: tests that are marked long; make e2e LONG=yes runs them too"
tests=(.venv/bin/python -m pytest --timeout=600)
beside=(tests/engine tests/e2e/test_{browser,image_builds,cluster,lab_ending,hub_narrow}.py)
# A group of its own, so that an interruption ends all of it.
setsid "${tests[@]}" --junitxml="$results/engine.xml" "${beside[@]}" -m "not alone$short" \
  >"$results/engine.log" 2>&1 &
engine=$!
trap 'kill -- "-$engine" 2>/dev/null' EXIT
trap 'exit 130' INT TERM
failed=0
"${tests[@]}" --junitxml="$results/e2e.xml" tests/e2e "${beside[@]/#/--ignore=}" -m "not alone$short" || failed=1
echo "waiting for those beside them"
wait "$engine" || failed=1
cat "$results/engine.log"
"${tests[@]}" --junitxml="$results/alone.xml" tests/services tests/engine tests/e2e -m "alone$short" || failed=1
exit $failed
