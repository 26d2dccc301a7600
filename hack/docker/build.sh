#!/usr/bin/env bash
# Build images: hack/docker/build.sh [runtime|tool|operator|trainer|tool-EXTRA ...]   (default: runtime tool operator)
# With buildx this is `docker buildx bake`; without, the same Dockerfiles one after another.
# Variables: REGISTRY, VERSION, BASE_IMAGE, TORCH_BACKEND, DOCKER (the client).
set -euo pipefail
cd "$(dirname "$0")/../.."
docker="${DOCKER:-docker}"
export REGISTRY="${REGISTRY:-ghcr.io/thinkimg}" VERSION="${VERSION:-0.1.0}" TORCH_BACKEND="${TORCH_BACKEND:-}"
export REVISION="${REVISION:-$(git rev-parse HEAD 2>/dev/null || echo unknown)}"
[ $# -gt 0 ] || set -- runtime tool operator

if "$docker" buildx version >/dev/null 2>&1; then
    exec "$docker" buildx bake --load "$@"
fi

build() { # build IMAGE DOCKERFILE [ARGUMENT...]
    local image="$REGISTRY/$1:$VERSION" file="$2"
    shift 2
    echo "building $image" >&2
    # The network of the host: where packages come through a proxy, it is the host that knows it.
    DOCKER_BUILDKIT=1 "$docker" build --quiet --network host --file "$file" --tag "$image" \
        --build-arg VERSION="$VERSION" --build-arg REVISION="$REVISION" --build-arg TORCH_BACKEND="$TORCH_BACKEND" \
        ${BASE_IMAGE:+--build-arg BASE_IMAGE="$BASE_IMAGE"} "$@" .
}

on_runtime="RUNTIME_IMAGE=$REGISTRY/runtime:$VERSION"
for image in "$@"; do
    case "$image" in
    runtime) build runtime Dockerfile.runtime ;;
    operator) build operator Dockerfile.operator ;;
    trainer) build trainer Dockerfile.trainer --build-arg "$on_runtime" ;;
    trainer-vllm) build "$image" Dockerfile.trainer --build-arg "$on_runtime" --build-arg EXTRA="vllm deepspeed tracking" ;;
    tool) build tool Dockerfile.tool --build-arg "$on_runtime" --build-arg EXTRA=tools ;;
    tool-*) build "$image" Dockerfile.tool --build-arg "$on_runtime" --build-arg EXTRA="tools ${image#tool-}" ;;
    *) echo "build.sh: there is no image $image; images: runtime tool operator trainer tool-EXTRA" >&2; exit 2 ;;
    esac
done
