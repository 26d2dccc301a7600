#!/usr/bin/env bash
# Programs of others that draw the charts of bench/pictures: into ~/.cache/thinkimg, what the registries have. R and
# LibreOffice are the system's; families whose program is missing are left out by name.
set -euo pipefail
cd "$(dirname "$0")/.."
. hack/own_environment.sh
own_environment pictures-python python-pptx==1.0.2 pypdfium2==5.15.2 >/dev/null
node="$HOME/.cache/thinkimg/pictures-node"
stamp="chart.js@4.5.0 d3@7.9.0 @bokeh/bokehjs@3.7.3"
if [ "$(cat "$node/stamp" 2>/dev/null)" != "$stamp" ]; then
    mkdir -p "$node"
    # shellcheck disable=SC2086
    npm install --silent --no-audit --no-fund --prefix "$node" $stamp
    echo "$stamp" >"$node/stamp"
fi
