#!/usr/bin/env bash
# fetch.sh FOLDER [--dry-run] [--help]
#
# Copies the run folder to FOLDER on this machine, through the first host or straight from the bucket. FOLDER must not
# exist; it appears only once the copy is whole.
#
# FIT_RUN_DIR                      as for launch.sh, or the gs:// URL of the folder in the bucket that is mounted there
# FIT_NAME, FIT_PROJECT, FIT_ZONE  as for create.sh
source "$(dirname "$0")/common.sh"

folder=
while (($#)); do
  if [[ $1 == -* || -n $folder ]]; then
    common_option "$1"
  else
    folder=$1
  fi
  shift
done
[[ -n $folder ]] || die "no folder to copy the run to; run: $(basename "$0") FOLDER"
[[ ! -e $folder ]] || die "$(quote "$folder") exists; name a new folder"
need_tpu
[[ ${FIT_RUN_DIR:-} == gs://* ]] || need_run_dir /mnt/runs/my-run

part=${folder%/}.incomplete
run rm -rf -- "$part"
if [[ $FIT_RUN_DIR == gs://* ]]; then
  run mkdir -p -- "$part"
  run gcloud storage rsync --recursive "--project=$FIT_PROJECT" "$FIT_RUN_DIR" "$part"
else
  run mkdir -p -- "$(dirname -- "$part")"
  run gcloud compute tpus queued-resources scp --recurse "$FIT_NAME:$FIT_RUN_DIR" "$part" "${place[@]}" --node=0 --worker=0
fi
run mv -- "$part" "$folder"
