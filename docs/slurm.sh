#!/usr/bin/env bash
# Trains one network on four nodes of eight GPUs. Slurm sends SIGTERM two minutes before the time limit;
# the run saves and ends with code 143, and this script requeues itself.
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

# One process per node, numbered by Slurm; JAX detects the others ("auto"). All nodes share the folder.
# The first start creates the run, later starts resume it.
if [ -f "$run/config.json" ]; then
  arguments=(--resume "$run")
else
  arguments=("$experiment" --out "$run" --batch 1024)
fi
srun snnjax train "${arguments[@]}" --coordinator auto --mesh "data=-1" --data-dir "$SNNJAX_DATA"
code=$?

[ "$code" -eq 143 ] && scontrol requeue "$SLURM_JOB_ID"
exit "$code"
