#!/usr/bin/env bash
# Builds the real Kubernetes that `make test-kubernetes` runs against, once, into the user's cache:
# etcd, kube-apiserver, kube-controller-manager, kube-scheduler, kubectl. Needs Go; about 20 minutes on two cores.
set -euo pipefail
cd "$(dirname "$0")"
version=$(awk '$1 == "k8s.io/kubernetes" { print substr($2, 2); exit }' go.mod)
folder="${MUSTER_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/muster}/kubernetes/$version"
if [ -n "${KUBEBUILDER_ASSETS:-}" ]; then
  echo "KUBEBUILDER_ASSETS=$KUBEBUILDER_ASSETS is used as it is"
  exit 0
fi
# what was built from these very modules need not be built again
stamp=$(cat go.mod go.sum build.sh | sha256sum | cut -d' ' -f1)
if [ "$(cat "$folder/.stamp" 2>/dev/null)" = "$stamp" ]; then
  echo "Kubernetes $version is built: $folder"
  exit 0
fi
command -v go >/dev/null || { echo "building Kubernetes needs Go (https://go.dev/dl), or set KUBEBUILDER_ASSETS" >&2; exit 1; }
mkdir -p "$folder"
IFS=. read -r major minor _ <<<"$version"
package=k8s.io/component-base/version
flags="-s -w -X $package.gitVersion=v$version -X $package.gitMajor=$major -X $package.gitMinor=$minor"
begun=$SECONDS
build() {
  echo "building $1 ($((SECONDS - begun)) s)"
  CGO_ENABLED=0 go build -trimpath -ldflags "$flags" -o "$folder/$1.new" "$2"
  mv "$folder/$1.new" "$folder/$1"
}
build etcd go.etcd.io/etcd/server/v3
for name in kube-apiserver kube-controller-manager kube-scheduler kubectl; do
  build "$name" "k8s.io/kubernetes/cmd/$name"
done
echo "$stamp" >"$folder/.stamp"
echo "Kubernetes $version is built in $((SECONDS - begun)) s: $folder"
