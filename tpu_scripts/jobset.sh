#!/usr/bin/env bash
# jobset.sh [--dry-run] [--help] -- ARGUMENTS
#
# Runs `python -m fit_jax.train ARGUMENTS` on TPU node pools of a Kubernetes cluster (GKE) that has the JobSet controller:
# fills in jobset.yaml and creates it. Preempted hosts are started again and go on from the last checkpoint. The run folder
# and the number of slices are added to ARGUMENTS. Logs and deletion: `kubectl logs`, `kubectl delete jobset`.
#
# FIT_NAME            name of the JobSet
# FIT_IMAGE           container image with fit_jax and jax[tpu] installed and the configs in its working folder
# FIT_ACCELERATOR     node label gke-tpu-accelerator, such as tpu-v5-lite-podslice
# FIT_TOPOLOGY        topology of one slice, such as 4x4
# FIT_CLAIM           PersistentVolumeClaim that many hosts may write, mounted at /storage
# FIT_RUN_DIR         run folder, such as /storage/runs/my-run
# FIT_SLICES          number of slices (1)
# FIT_CHIPS_PER_HOST  chips of one node (4)
# FIT_CAPACITY        spot or on-demand (on-demand)
# FIT_RESTARTS        most restarts, preemptions included (100)
source "$(dirname "$0")/common.sh"

parse_training "$@"
need FIT_NAME my-run "name of the JobSet"
need FIT_IMAGE my-registry/fit_jax:latest "container image"
need FIT_ACCELERATOR tpu-v5-lite-podslice "node label gke-tpu-accelerator"
need FIT_TOPOLOGY 4x4 "topology of one slice"
need FIT_CLAIM my-claim "PersistentVolumeClaim mounted at /storage"
need_run_dir /storage/runs/my-run
[[ $FIT_RUN_DIR != /* || $FIT_RUN_DIR == /storage/* ]] ||
  die "FIT_RUN_DIR=$(quote "$FIT_RUN_DIR") is lost with the Pod; run: export FIT_RUN_DIR=/storage/runs/my-run"
need_count FIT_SLICES 1
need_count FIT_CHIPS_PER_HOST 4
need_count FIT_RESTARTS 100
need_capacity

[[ $FIT_TOPOLOGY =~ ^[1-9][0-9]*(x[1-9][0-9]*)+$ ]] ||
  die "FIT_TOPOLOGY=$(quote "$FIT_TOPOLOGY") is no topology; run: export FIT_TOPOLOGY=4x4"
chips=$((${FIT_TOPOLOGY//x/ * }))
((chips % FIT_CHIPS_PER_HOST == 0)) ||
  die "FIT_CHIPS_PER_HOST=$FIT_CHIPS_PER_HOST does not divide the $chips chips of $FIT_TOPOLOGY; export one that does"

# A JSON string, which is YAML too.
json() {
  local text=$1
  text=${text//\\/\\\\}
  text=${text//\"/\\\"}
  text=${text//$'\n'/\\n}
  text=${text//$'\t'/\\t}
  text=${text//$'\r'/\\r}
  printf '"%s"' "$text"
}

training+=(--run_dir "$FIT_RUN_DIR" --mesh.slices "$FIT_SLICES")
arguments=
for argument in "${training[@]}"; do
  arguments+=", $(json "${argument//\$/\$\$}")" # Kubernetes reads $(NAME) in arguments as a variable and $$ as $
done

value_of() {
  case $1 in
    NAME) json "$FIT_NAME" ;;
    RESTARTS) printf '%s' "$FIT_RESTARTS" ;;
    SLICES) printf '%s' "$FIT_SLICES" ;;
    HOSTS) printf '%s' "$((chips / FIT_CHIPS_PER_HOST))" ;;
    ACCELERATOR) json "$FIT_ACCELERATOR" ;;
    TOPOLOGY) json "$FIT_TOPOLOGY" ;;
    IMAGE) json "$FIT_IMAGE" ;;
    ARGUMENTS) printf '[%s]' "${arguments#, }" ;;
    CHIPS) printf '%s' "$FIT_CHIPS_PER_HOST" ;;
    CLAIM) json "$FIT_CLAIM" ;;
    *) die "jobset.yaml: no value for @$1@; take the placeholder out" ;;
  esac
}

# A line holds at most one placeholder, so a value that looks like one is never filled in again.
manifest=
while IFS= read -r line; do
  if [[ $line == *'# spot only' && $FIT_CAPACITY != spot ]]; then
    continue
  fi
  if [[ $line =~ ^(.*)@([A-Z]+)@$ ]]; then
    value=$(value_of "${BASH_REMATCH[2]}")
    line=${BASH_REMATCH[1]}$value
  fi
  manifest+=$line$'\n'
done <"$root/tpu_scripts/jobset.yaml"

# `create` and not `apply`: a JobSet of this name that exists is never changed.
if $dry_run; then
  printf "kubectl create --filename=- <<'END_OF_JOBSET'\n%sEND_OF_JOBSET\n" "$manifest"
else
  kubectl create --filename=- <<<"$manifest"
fi
