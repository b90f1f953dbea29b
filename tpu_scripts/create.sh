#!/usr/bin/env bash
# create.sh [--dry-run] [--help]
#
# Asks for a TPU: one slice, or several joined by the data centre network. The request is queued; watch.sh waits for the
# machines, installs and launches.
#
# FIT_NAME         name of the queued resource and of its nodes
# FIT_PROJECT      Google Cloud project
# FIT_ZONE         zone, such as us-east5-a
# FIT_ACCELERATOR  accelerator type of one slice, such as v5litepod-16
# FIT_RUNTIME      TPU software version, such as v2-alpha-tpuv5-lite
# FIT_SLICES       number of slices (1)
# FIT_CAPACITY     spot or on-demand (on-demand)
# FIT_DATA_DISK    persistent disk to attach for writing, projects/P/zones/Z/disks/D (none; one host only)
source "$(dirname "$0")/common.sh"

common_options "$@"
need_tpu
need FIT_ACCELERATOR v5litepod-16 "accelerator type of one slice"
need FIT_RUNTIME v2-alpha-tpuv5-lite "TPU software version"
need_capacity

create=(gcloud compute tpus queued-resources create "$FIT_NAME" "${place[@]}")
create+=("--accelerator-type=$FIT_ACCELERATOR" "--runtime-version=$FIT_RUNTIME")
if ((FIT_SLICES > 1)); then
  create+=("--node-count=$FIT_SLICES" "--node-prefix=$FIT_NAME")
else
  create+=("--node-id=$FIT_NAME")
fi
if [[ $FIT_CAPACITY == spot ]]; then
  create+=(--spot)
fi
if [[ -n ${FIT_DATA_DISK:-} ]]; then
  create+=("--data-disk=source=$FIT_DATA_DISK,mode=read-write")
fi
run "${create[@]}"
