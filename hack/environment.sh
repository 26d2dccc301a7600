#!/usr/bin/env bash
# Make the environment of a backend that excludes the others (groundingdino, paddleocr) below .cache/environments, from
# uv.lock, again only when that changes. The last line is the path of its Python.
set -euo pipefail
cd "$(dirname "$0")/.."
extra="$1"
python="${PYTHON:-python3}"
. hack/find_uv.sh

folder=".cache/environments/$extra"
stamp="$(cat uv.lock pyproject.toml | sha256sum | cut -c1-64)"
if [ "$(cat "$folder/stamp" 2>/dev/null)" != "$stamp" ]; then
    UV_PROJECT_ENVIRONMENT="$folder" "$uv" sync --frozen --no-default-groups --extra tools --extra "$extra" \
        ${PYTHON:+--python "$PYTHON"} >&2
    echo "$stamp" >"$folder/stamp"
fi
echo "$PWD/$folder/bin/python"
