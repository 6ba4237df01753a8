#!/bin/bash
# All stages of training on several machines. The job is queued again when its time runs out, or a machine fails, and then
# goes on where it was; shards and output must be on a disk that all machines see.
#   sbatch scripts/cluster/slurm.sh --train DIR --val DIR --output DIR
#SBATCH --job-name=s3dnerf
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=96
#SBATCH --time=24:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --signal=B:USR1@120
set -euo pipefail
python=${PYTHON:-python}
read -r first < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
machines=$(mktemp "${TMPDIR:-/tmp}/s3dnerf-XXXXXX.yaml")
trap 'rm -f "$machines"' EXIT
echo "trainer: {num_nodes: $SLURM_JOB_NUM_NODES, devices: $SLURM_GPUS_ON_NODE}" > "$machines"
launch="srun --kill-on-bad-exit=1 $python -m torch.distributed.run --nnodes $SLURM_JOB_NUM_NODES \
  --nproc-per-node $SLURM_GPUS_ON_NODE --rdzv-backend c10d --rdzv-id $SLURM_JOB_ID --rdzv-endpoint $first:${PORT:-29500}"

# two minutes before the end of the job's time: end the run, and queue the job again
again=no
trap 'again=yes; kill -TERM "$run"' USR1
"$python" -m s3dnerf train --config configs/overlays/multi_gpu.yaml --config "$machines" --launch "$launch" "$@" &
run=$!
status=0
wait "$run" || status=$?
if [ "$again" = yes ]; then
  wait "$run" || true  # the first wait was ended by the signal
  scontrol requeue "$SLURM_JOB_ID"
  exit 0
fi
exit "$status"
