#!/usr/bin/env bash
# The Python packages of an image as CycloneDX JSON, from the lock: hack/docker/sbom.sh NAME
# NAME: runtime, tool, tool-BACKEND, trainer, trainer-vllm, operator
set -euo pipefail
cd "$(dirname "$0")/../.."
uv="${UV:-uv}"
case "${1:?which image?}" in
runtime) what=(--extra serving --extra gateway) ;;
tool) what=(--extra serving --extra gateway --extra tools) ;;
tool-*) what=(--extra serving --extra gateway --extra tools --extra "${1#tool-}") ;;
trainer) what=(--extra serving --extra gateway --extra train --extra deepspeed --extra tracking) ;;
trainer-vllm) what=(--extra serving --extra gateway --extra vllm --extra deepspeed --extra tracking) ;;
operator) what=(--package thinkimg-operator) ;;
*) echo "sbom.sh: there is no image $1" >&2; exit 2 ;;
esac
exec "$uv" export --quiet --frozen --no-dev --format cyclonedx1.5 "${what[@]}"
