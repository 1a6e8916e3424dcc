#!/usr/bin/env bash
# Builds the Helm that the chart's tests run, once, into the user's cache. Needs Go; a few minutes on two cores.
set -euo pipefail
cd "$(dirname "$0")"
version=$(awk '$1 == "helm.sh/helm/v4" { print substr($2, 2); exit }' go.mod)
folder="${MUSTER_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/muster}/helm/$version"
# what was built from these very modules need not be built again
stamp=$(cat go.mod go.sum build.sh | sha256sum | cut -d' ' -f1)
if [ "$(cat "$folder/.stamp" 2>/dev/null)" = "$stamp" ]; then
  echo "Helm $version is built: $folder"
  exit 0
fi
command -v go >/dev/null || { echo "building Helm needs Go (https://go.dev/dl)" >&2; exit 1; }
mkdir -p "$folder"
echo "building helm"
CGO_ENABLED=0 go build -trimpath -ldflags "-s -w -X helm.sh/helm/v4/internal/version.version=v$version" -o "$folder/helm.new" helm.sh/helm/v4/cmd/helm
mv "$folder/helm.new" "$folder/helm"
echo "$stamp" >"$folder/.stamp"
echo "Helm $version is built in $SECONDS s: $folder"
