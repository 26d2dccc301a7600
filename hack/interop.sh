#!/usr/bin/env bash
# Programs of others, unmodified, against ours: see hack/interop/__main__.py. Not in CI: it installs some gigabytes once.
set -euo pipefail
cd "$(dirname "$0")/.."
. hack/own_environment.sh
lmms="$(bash hack/lmms.sh | tail -1)"
agents="$(own_environment openai-agents openai-agents==0.24.0)"
exec .venv/bin/python hack/interop --lmms "$lmms" --agents "$agents" "$@"
