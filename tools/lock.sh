#!/usr/bin/env bash
# Renews requirements/*.txt from pyproject.toml and requirements/*.in: exact versions with hashes, for every Python we support.
set -euo pipefail
cd "$(dirname "$0")/.."
command -v uv >/dev/null || { echo "lock.sh needs uv (pip install uv)" >&2; exit 1; }
compile() { uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-annotate --no-header "$@"; }
compile pyproject.toml requirements/dev.in -o requirements/dev.txt
compile pyproject.toml --extra uvloop -o requirements/runtime.txt
compile requirements/build.in -o requirements/build.txt
for spark in 3.5 4.3; do compile "requirements/spark-$spark.in" -o "requirements/spark-$spark.txt"; done
