#!/usr/bin/env bash
# Package every chart at a version and push it: hack/release_charts.sh VERSION oci://REGISTRY/charts   (HELM: the program)
set -euo pipefail
cd "$(dirname "$0")/.."
version="${1:?which version?}" registry="${2:?which registry? e.g. oci://ghcr.io/thinkimg/charts}"
helm="${HELM:-helm}"
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
# The umbrella holds the other charts as links: they get the version too, in a copy.
cp -R charts "$folder/charts"
sed -i -E "s/^((app)?[vV]ersion:) .*/\1 $version/; s/(name: thinkimg-[a-z]+, version:) [^,]+/\1 $version/" "$folder"/charts/*/Chart.yaml
for chart in thinkimg-crds thinkimg-operator thinkimg-tools thinkimg; do
    "$helm" package "$folder/charts/$chart" --destination "$folder"
    "$helm" push "$folder/$chart-$version.tgz" "$registry" ${PLAIN_HTTP:+--plain-http}
done
