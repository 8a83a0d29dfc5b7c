#!/usr/bin/env bash
# Renews the locks: those in requirements/, and one with another torch in variants/. What is locked already keeps its version,
# unless uv's options say otherwise (scripts/lock.sh --upgrade). Core and dev take the versions of ml, so that all three
# agree, and so does the variant, but for torch and what comes with it.
set -euo pipefail
cd "$(dirname "$0")/.."
compile=(uv pip compile -q pyproject.toml --universal --python-version 3.11 --generate-hashes --no-emit-index-url "$@")

"${compile[@]}" --extra ml -c requirements/torch.in -o requirements/ml.txt
"${compile[@]}" -c requirements/ml.txt -o requirements/core.txt
"${compile[@]}" --extra dev -c requirements/ml.txt -o requirements/dev.txt

others=$(mktemp --suffix=.txt)
trap 'rm -f "$others"' EXIT
grep -E '^[a-z0-9.-]+==' requirements/ml.txt | sed 's/ *\\$//' | grep -vE '^(torch|triton|cuda-.*|nvidia-.*)==' >"$others"
"${compile[@]}" --extra ml -c "$others" -c variants/torch-2.13.in --no-annotate \
    --custom-compile-command scripts/lock.sh -o variants/ml-2.13.txt
