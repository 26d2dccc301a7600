#!/usr/bin/env bash
# Package every chart at a version and push it: hack/release_charts.sh VERSION oci://REGISTRY/charts   (HELM: the program)
set -euo pipefail
cd "$(dirname "$0")/.."
version="${1:?which version?}" registry="${2:?which registry? e.g. oci://ghcr.io/thinkimg/charts}"
helm="${HELM:-helm}"
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
for chart in thinkimg-crds thinkimg-operator thinkimg-tools thinkimg; do
    "$helm" package "charts/$chart" --version "$version" --app-version "$version" --destination "$folder"
    "$helm" push "$folder/$chart-$version.tgz" "$registry" ${PLAIN_HTTP:+--plain-http}
done
