#!/usr/bin/env bash
# launch.sh [--dry-run] [--help] -- ARGUMENTS
#
# Starts `python -m fit_jax.train ARGUMENTS` on every host of the TPU and returns; logs.sh shows how it goes. A run folder
# that holds a checkpoint is resumed. The run folder and the number of slices are added to ARGUMENTS.
#
# FIT_NAME, FIT_PROJECT, FIT_ZONE, FIT_SLICES  as for create.sh
# FIT_RUN_DIR                                  run folder, on a mounted bucket or disk that outlives the TPU
source "$(dirname "$0")/common.sh"

parse_training "$@"
need_tpu
need_run_dir /mnt/runs/my-run

training+=(--run_dir "$FIT_RUN_DIR" --mesh.slices "$FIT_SLICES")
on_workers all all "$(quote bash fit_jax/source/tpu_scripts/worker.sh launch "${training[@]}")"
