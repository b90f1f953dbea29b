#!/usr/bin/env bash
# slurm.sh [--dry-run] [--help] -- ARGUMENTS
#
# Submits `python -m fit_jax.train ARGUMENTS` to SLURM, one process a GPU. A job that reaches its time limit saves a
# checkpoint, is queued again and goes on; a preempted job goes on from its last checkpoint. The run folder is added to
# ARGUMENTS. Partition, account, time limit and whatever else a site asks for are sbatch's own variables:
# SBATCH_PARTITION, SBATCH_ACCOUNT, SBATCH_TIMELIMIT.
#
# FIT_NAME           name of the job
# FIT_VENV           virtual environment with fit_jax[cuda] installed, on storage that every node sees
# FIT_RUN_DIR        run folder, on storage that every node sees
# FIT_NODES          number of nodes (1)
# FIT_GPUS_PER_NODE  GPUs of one node (8)
source "$(dirname "$0")/common.sh"

parse_training "$@"
need FIT_NAME my-run "name of the job"
need FIT_VENV "$root/.venv" "virtual environment that every node sees"
need_run_dir /shared/runs/my-run
need_count FIT_NODES 1
need_count FIT_GPUS_PER_NODE 8

run sbatch "--job-name=$FIT_NAME" "--nodes=$FIT_NODES" \
  "--ntasks-per-node=$FIT_GPUS_PER_NODE" "--gpus-per-node=$FIT_GPUS_PER_NODE" \
  --requeue --open-mode=append --signal=B:TERM@300 \
  "$root/tpu_scripts/slurm.sbatch" "$root" "$FIT_VENV/bin/python" "${training[@]}" --run_dir "$FIT_RUN_DIR"
