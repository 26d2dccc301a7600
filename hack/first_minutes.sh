#!/usr/bin/env bash
# What a newcomer does first, from nothing, with pip alone: install the wheel with its tools, call a tool, serve tools,
# call them through a gateway with curl, open the playground. Prints the seconds and megabytes of each step; ends with 0
# only if all worked.
#
#   hack/first_minutes.sh [FOLDER]      default: a folder that is removed at the end
set -euo pipefail
cd "$(dirname "$0")/.."
python="${PYTHON:-python3}"
. hack/find_uv.sh
uv="$(command -v "$uv" || realpath "$uv")"
root="$PWD"
if [ $# -gt 0 ]; then
    folder="$1"
    mkdir -p "$folder"
else
    folder="$(mktemp -d)"
fi
servers=""
finish() {
    for process in $servers; do kill "$process" 2>/dev/null || true; done
    [ $# -gt 0 ] || rm -rf "$folder"
}
trap 'finish "$@"' EXIT

step() { # NAME COMMAND…: run it, and say how long it took
    local name="$1" began
    shift
    began="$(date +%s.%N)"
    "$@" >>"$folder/log" 2>&1 || {
        tail -30 "$folder/log" >&2
        echo "first minutes: $name failed" >&2
        exit 1
    }
    printf '%-46s %6.1f s\n' "$name" "$(echo "$(date +%s.%N) - $began" | bc -l 2>/dev/null || "$python" -c "import time; print(time.time() - $began)")"
}

megabytes() { du -sm "$1" | cut -f1; }

build() { "$uv" build -q --wheel --out-dir "$folder/dist" "$root"; }
environment() { "$python" -m venv "$folder/venv"; }
install() { "$folder/venv/bin/pip" install --quiet --disable-pip-version-check "$(echo "$folder"/dist/*.whl)[$1]"; }
call_a_tool() {
    "$folder/venv/bin/thinkimg" example chart.png
    "$folder/venv/bin/thinkimg" tools OCR --image chart.png --out read.png
    test -s read.png
}
until_ready() { # URL: at most two minutes
    for _ in $(seq 600); do
        if curl -sf "$1/readyz" >/dev/null; then return; fi
        sleep 0.2
    done
    return 1
}
serve() {
    "$folder/venv/bin/thinkimg" serve OCR Crop --port "$tools_port" &
    servers="$servers $!"
    until_ready "http://127.0.0.1:$tools_port"
}
open_gateway() {
    "$folder/venv/bin/thinkimg" gateway --server "http://127.0.0.1:$tools_port" --port "$gateway_port" &
    servers="$servers $!"
    until_ready "http://127.0.0.1:$gateway_port"
}
call_with_curl() {
    printf '{"arguments": {"image": "img_1"}, "images": {"img_1": "%s"}}' "$(base64 <chart.png | tr -d '\n')" >call.json
    curl -sf "http://127.0.0.1:$gateway_port/v1/tools/OCR" -H 'Content-Type: application/json' -d @call.json | grep -q Revenue
}
play() {
    "$folder/venv/bin/thinkimg" play --no-browser --port "$play_port" &
    servers="$servers $!"
    until_ready "http://127.0.0.1:$play_port"
    curl -sf "http://127.0.0.1:$play_port/play" | grep -q 'pages/play.js'
    curl -sf "http://127.0.0.1:$play_port/pages/play.js" >/dev/null
}
free_port() { "$python" -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }

step "build the wheel" build
cd "$folder"
step "make an environment" environment
step "pip install 'thinkimg[tools]'" install tools
printf '%-46s %6d MB\n' "    the environment is now" "$(megabytes venv)"
if "$folder/venv/bin/python" -c 'import torch' 2>/dev/null; then
    echo "first minutes: thinkimg[tools] brings torch" >&2
    exit 1
fi
step "first tool call: OCR of an example" call_a_tool
tools_port="$(free_port)"
step "serve OCR and Crop until they are ready" serve
step "pip install 'thinkimg[gateway]'" install gateway
printf '%-46s %6d MB\n' "    the environment is now" "$(megabytes venv)"
gateway_port="$(free_port)"
step "open a gateway until it is ready" open_gateway
step "call OCR through it with curl" call_with_curl
play_port="$(free_port)"
step "thinkimg play until its page is there" play
