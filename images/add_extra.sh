#!/bin/sh
# Called in builds: adds the packages of extras to the runtime's environment, as the lock has them.
#   add_extra.sh "EXTRA..." [TORCH_BACKEND]
set -eu
extras="$(printf -- '--extra %s ' $1)"
backend=${2:-}
cd /src
export HOME=/root UV_LINK_MODE=copy UV_COMPILE_BYTECODE=1 UV_PYTHON_DOWNLOADS=never UV_PROJECT_ENVIRONMENT=/opt/thinkimg
if [ -z "$backend" ]; then
    exec /uv/bin/uv sync --frozen --no-dev --inexact --no-install-workspace $extras
fi
# Another build of torch than the lock's: the same versions, without CUDA's own packages.
/uv/bin/uv export --frozen --no-dev --no-hashes --no-emit-workspace $extras |
    grep -Ev '^(nvidia-|cuda-|triton)' >/tmp/requirements.txt
/uv/bin/uv pip install --python /opt/thinkimg/bin/python --no-deps --torch-backend "$backend" -r /tmp/requirements.txt
rm /tmp/requirements.txt
