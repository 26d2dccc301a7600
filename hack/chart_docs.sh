#!/usr/bin/env bash
# Write README.md of every chart from its values.yaml: hack/chart_docs.sh [FOLDER OF CHARTS]
set -euo pipefail
here="$(cd "$(dirname "$0")" && pwd)"
program="$("$here/../.venv/bin/python" -c 'import sys; sys.path.insert(0, sys.argv[1])
import binaries; print(binaries.ensure(["helm-docs"])["helm-docs"])' "$here/cluster")"
cd "${1:-$here/../charts}"
"$program" --log-level warning --chart-search-root . --template-files "$PWD/README.gotmpl"
