#!/usr/bin/env bash
# Installs a pinned requirements file into .venv, or into the folder that is given, making it first.
# uv does in seconds what pip does in minutes; pip installs uv itself, by hash, into .venv.
set -euo pipefail
cd "$(dirname "$0")/.."
python=$(command -v python3 || true)
if ! "$python" -c 'import sys; raise SystemExit(sys.version_info < (3, 11))' 2>/dev/null; then
  echo "mlhub needs Python 3.11 or newer as python3; found: ${python:-none}. On Debian 12: apt-get install python3 python3-venv" >&2
  exit 1
fi
if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
  if [ "$(id -u)" != 0 ]; then
    echo "python3 lacks its venv module. As root: apt-get install python3-venv" >&2
    exit 1
  fi
  apt-get update -qq && apt-get install -y -qq --no-install-recommends python3-venv
fi
[ -x .venv/bin/python ] || "$python" -m venv .venv
[ "$(.venv/bin/uv --version 2>/dev/null)" ] || .venv/bin/pip install -q --require-hashes -r tools/uv.txt
into=${2:-.venv}
[ -x "$into/bin/python" ] || "$python" -m venv --without-pip "$into"
.venv/bin/uv pip install -q --python "$into/bin/python" --require-hashes -r "$1"
# Compiles what the program imports: 1 s at each start instead of 3, where Python may not write.
[ "$into" != .venv ] || env -u PYTHONDONTWRITEBYTECODE .venv/bin/python -m tools.compile
