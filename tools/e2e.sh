#!/usr/bin/env bash
# The tests on the running stack, of which most of the time is waiting: the real engine's beside
# those by a browser, then, alone, those that take parts of the platform away.
# usage: tools/e2e.sh RESULTS-FOLDER
set -uo pipefail
results=$1
mkdir -p "$results"
suite() { tools/suite.sh "$results" "$1" --timeout=600 "${@:2}"; }
suite engine tests/engine -m "not alone" >"$results/engine.log" 2>&1 &
engine=$!
trap 'kill "$engine" 2>/dev/null' EXIT
failed=0
suite e2e tests/e2e -m "not alone" || failed=1
echo "waiting for the engine's tests"
wait "$engine" || failed=1
cat "$results/engine.log"
suite alone tests/engine tests/e2e -m alone || failed=1
exit $failed
