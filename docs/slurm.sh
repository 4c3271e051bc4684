#!/usr/bin/env bash
# Four nodes of eight GPUs train one network. Slurm sends SIGTERM two minutes before the time is up;
# the run saves, ends with 143, and this script puts itself into the queue again.
#SBATCH --job-name=snnjax
#SBATCH --nodes=4
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=32
#SBATCH --time=04:00:00
#SBATCH --signal=TERM@120
#SBATCH --requeue
#SBATCH --open-mode=append
set -u

experiment=experiments/rev_resnet_cifar.py
run=runs/rev_resnet_cifar

# One process per node, which Slurm numbers; JAX finds the others ("auto"). All nodes see the same
# folder. The first start makes the run, every later one goes on with it.
if [ -f "$run/config.json" ]; then
  what=(--resume "$run")
else
  what=("$experiment" --out "$run" --batch 1024)
fi
srun snnjax train "${what[@]}" --coordinator auto --mesh "data=-1" --data-dir "$SNNJAX_DATA"
code=$?

[ "$code" -eq 143 ] && scontrol requeue "$SLURM_JOB_ID"
exit "$code"
