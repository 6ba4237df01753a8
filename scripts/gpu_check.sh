#!/bin/sh
# Checks every path of a GPU on the GPU at hand, then measures it; under ten minutes. Figures are written into the folder that is
# given, gpu_figures by default: sh scripts/gpu_check.sh [folder]
set -eu
cd "$(dirname "$0")/.."
folder="${1:-gpu_figures}"
mkdir -p "$folder"
python -m pytest -n 0 -m gpu tests/test_gpu.py 2>&1 | tee "$folder/checks.txt"
for quality in best balanced fast; do
    python -m s3dnerf benchmark --device cuda --quality "$quality" --seconds 40 --output "$folder/$quality.json" \
        | tee "$folder/$quality.txt"
done
