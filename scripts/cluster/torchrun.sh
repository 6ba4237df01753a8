#!/bin/bash
# All stages of training, each by torchrun with so many processes on this machine. Given again, the run goes on.
#   scripts/cluster/torchrun.sh PROCESSES --train DIR --val DIR --output DIR --config configs/overlays/multi_gpu.yaml ...
# The trainer must be told the same number, or find it: trainer.devices is auto in multi_gpu.yaml, which means all GPUs.
set -euo pipefail
python=${PYTHON:-python}
processes=$1
shift
exec "$python" -m s3dnerf train --launch "$python -m torch.distributed.run --standalone --nproc-per-node $processes" "$@"
