#!/usr/bin/env bash
# The main job on real input: builds the image of a real ML service without a container engine, shows where its bytes
# are, slims it, and proves that the slim image behaves like the original. The verdict comes last.
#
#   scripts/demo.sh torch|small [DIR]
#
# DIR (build/demo) gets the images and the build's files. torch needs about 30 GB there, small about 4 GB.
set -euo pipefail
cd "$(dirname "$0")/.."

variant=${1:-}
if [ "$variant" != torch ] && [ "$variant" != small ]; then
    echo "usage: scripts/demo.sh torch|small [DIR]" >&2
    exit 2
fi
work=${2:-build/demo}
image=$work/factcheck-$variant.tar
slim=$work/factcheck-$variant-slim.tar
plan=$work/factcheck-$variant-plan.json

# The torch image is for one kind of GPU; the other has no GPU code.
gpu=()
if [ "$variant" = torch ]; then
    gpu=(--gpu h100 --drop-ptx)
fi

rm -f "$slim"
"${PYTHON:-python3}" examples/demo/build_image.py --variant "$variant" --work "$work/work-$variant" --out "$image"

set -x
.venv/bin/deadweight inspect "docker-archive:$image"
.venv/bin/deadweight slim "docker-archive:$image" --to "docker-archive:$slim" "${gpu[@]}" --plan-out "$plan"
.venv/bin/deadweight compare "docker-archive:$image" "docker-archive:$slim"
.venv/bin/deadweight verify "docker-archive:$image" "docker-archive:$slim" --plan "$plan" \
    --spec examples/demo/deadweight.toml
