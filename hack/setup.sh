#!/usr/bin/env bash
# Make .venv from uv.lock. Called by `make setup`; leaves the seconds it took in .venv/setup.seconds.
set -euo pipefail
cd "$(dirname "$0")/.."
python="${PYTHON:-python3}"
. hack/find_uv.sh

# Without PYTHON, uv takes the first interpreter that fits.
"$uv" sync --frozen --extra all --compile-bytecode ${PYTHON:+--python "$PYTHON"}
echo "$SECONDS" >.venv/setup.seconds
