#!/usr/bin/env bash
# delete.sh [--yes] [--dry-run] [--help]
#
# Deletes the queued resource and its machines, after asking; --yes does not ask. The run folder stays on its storage.
#
# FIT_NAME, FIT_PROJECT, FIT_ZONE  as for create.sh
source "$(dirname "$0")/common.sh"

delete=(gcloud compute tpus queued-resources delete)
while (($#)); do
  case $1 in
    --yes) delete+=(--quiet) ;;
    *) common_option "$1" ;;
  esac
  shift
done
need_tpu

run "${delete[@]}" "$FIT_NAME" "${place[@]}" --force
