#!/bin/bash
# Meta-training on two hosts by Slurm: sbatch examples/hosts/slurm.sh
#SBATCH --job-name=learn-a-loss
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --requeue
set -euo pipefail

# A port that no other job on these hosts takes.
export PORT=$((20000 + SLURM_JOB_ID % 10000))
WORKERS=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | sed "s/.*/\"&:$PORT\"/" | paste --serial --delimiters=,)
export WORKERS

# If one host fails, all end; the job that Slurm, or you, starts again goes on from the last epoch.
srun --kill-on-bad-exit=1 bash -c '
    export TF_CONFIG="{\"cluster\": {\"worker\": [$WORKERS]}, \"task\": {\"type\": \"worker\", \"index\": $SLURM_PROCID}}"
    exec python examples/several_hosts.py --folder runs/several_hosts
'
