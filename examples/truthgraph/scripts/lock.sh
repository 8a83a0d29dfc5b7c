#!/usr/bin/env bash
# Renews the locks: those in requirements/, and those of variants in variants/. What is locked already keeps its version,
# unless uv's options say otherwise (scripts/lock.sh --upgrade). Core and dev take the versions of ml, so that all three
# agree, and so do the variants, but for torch and what comes with it.
set -euo pipefail
cd "$(dirname "$0")/.."
options=(-q --universal --python-version 3.11 --generate-hashes --no-emit-index-url "$@")

uv pip compile pyproject.toml "${options[@]}" --extra ml -c requirements/torch.in -o requirements/ml.txt
uv pip compile pyproject.toml "${options[@]}" -c requirements/ml.txt -o requirements/core.txt
uv pip compile pyproject.toml "${options[@]}" --extra dev -c requirements/ml.txt -o requirements/dev.txt

others=$(mktemp --suffix=.txt)
trap 'rm -f "$others"' EXIT
pinned() { grep -E '^[a-z0-9.-]+==' "$1" | sed 's/ *\\$//'; }
pinned requirements/ml.txt | grep -vE '^(torch|triton|cuda-.*|nvidia-.*)==' >"$others"
options+=(--extra ml --no-annotate --custom-compile-command scripts/lock.sh)
uv pip compile pyproject.toml "${options[@]}" -c "$others" -c variants/torch-2.13.in -o variants/ml-2.13.txt
# With torchao, by which transformers reads weights in 8 bits.
pinned variants/ml-2.13.txt >"$others"
uv pip compile pyproject.toml variants/int8.in "${options[@]}" -c "$others" -o variants/ml-2.13-int8.txt
