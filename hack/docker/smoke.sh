#!/usr/bin/env bash
# Test images: hack/docker/smoke.sh [runtime|tool|tool-BACKEND|operator|trainer ...]   (default: runtime tool operator)
# Each one's images/NAME/smoke.py (for tool-BACKEND, images/tool/smoke_backend.py) runs inside it: no root, no
# network, nothing writable but /tmp. Then what must not be in it.
set -euo pipefail
cd "$(dirname "$0")/../.."
docker="${DOCKER:-docker}"
registry="${REGISTRY:-ghcr.io/thinkimg}" version="${VERSION:-0.1.0}"
[ $# -gt 0 ] || set -- runtime tool operator

in_image() {
    "$docker" run --rm --interactive --read-only --user 65532:65532 --tmpfs /tmp --network none --cap-drop ALL \
        --security-opt no-new-privileges "$@"
}

for name in "$@"; do
    image="$registry/$name:$version"
    printf '%-10s ' "$name"
    case "$name" in
    tool-*) in_image "$image" python - "${name#tool-}" <images/tool/smoke_backend.py ;;
    *) in_image "$image" python - <"images/$name/smoke.py" ;;
    esac
    forbidden="$(in_image --entrypoint sh "$image" -c \
        'for p in uv gcc cc g++ make; do command -v $p || true; done; find / -xdev \( -path /proc -o -path /sys \) -prune -o \( -name .cache -o -path "*/root/.cache/*" \) -print 2>/dev/null; true')"
    [ -z "$forbidden" ] || { echo "smoke.sh: $image holds what no image should: $forbidden" >&2; exit 1; }
    user="$("$docker" image inspect --format '{{.Config.User}}' "$image")"
    [ "$user" = 65532:65532 ] || { echo "smoke.sh: $image runs as $user, not 65532:65532" >&2; exit 1; }
done

# Layers: a tool or trainer begins with all of the runtime's.
layers() { "$docker" image inspect --format '{{json .RootFS.Layers}}' "$registry/$1:$version" | tr -d '[]'; }
for name in "$@"; do
    case "$name" in runtime | operator) continue ;; esac
    case "$(layers "$name")" in "$(layers runtime)"*) ;; *) echo "smoke.sh: $name is not on the runtime's layers" >&2; exit 1 ;; esac
done

# Size above the base, in MB.
base="${BASE_IMAGE:-$(sed -n 's/^ARG BASE_IMAGE=//p' Dockerfile.runtime)}"
size() { "$docker" image inspect --format '{{.Size}}' "$1"; }
if "$docker" image inspect "$base" >/dev/null 2>&1; then
    for name in "$@"; do
        above=$((($(size "$registry/$name:$version") - $(size "$base")) / 1000000))
        case "$name" in operator) limit=200 ;; runtime | tool) limit=700 ;; *) limit=0 ;; esac
        echo "$name: $above MB above the base$([ "$limit" = 0 ] || echo ", at most $limit")"
        [ "$limit" = 0 ] || [ "$above" -le "$limit" ] || { echo "smoke.sh: $name is too large" >&2; exit 1; }
    done
fi
