#!/usr/bin/env bash
# Renews the locks in requirements/. Core and dev take the versions of ml, so that all three agree.
set -euo pipefail
cd "$(dirname "$0")/.."
compile=(uv pip compile -q pyproject.toml --universal --python-version 3.11 --generate-hashes --no-emit-index-url)

"${compile[@]}" --extra ml -o requirements/ml.txt
"${compile[@]}" -c requirements/ml.txt -o requirements/core.txt
"${compile[@]}" --extra dev -c requirements/ml.txt -o requirements/dev.txt
