# Shared by the scripts beside it, which source it. Needs bash 4.4 or later.
# shellcheck shell=bash disable=SC2034  # the variables it sets are used there
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
dry_run=false

# Wrong input: one line that says what is wrong and what to do.
die() {
  printf 'error: %s\n' "$1" >&2
  exit 2
}

# The arguments as one line that a shell reads back unchanged.
quote() {
  local line
  printf -v line '%q ' "$@"
  printf '%s' "${line% }"
}

# Runs a command, or prints it where the script was given --dry-run.
run() {
  if $dry_run; then
    printf '%s\n' "$(quote "$@")"
  else
    "$@"
  fi
}

# need VARIABLE EXAMPLE MEANING: refuses an unset or empty variable.
need() {
  [[ -n ${!1:-} ]] || die "$1 is not set ($3); run: export $1=$2"
}

# need_count VARIABLE DEFAULT: a variable that holds a positive integer.
need_count() {
  printf -v "$1" '%s' "${!1:-$2}"
  [[ ${!1} =~ ^[1-9][0-9]*$ ]] || die "$1=$(quote "${!1}") is no positive integer; run: export $1=$2"
}

need_capacity() {
  FIT_CAPACITY=${FIT_CAPACITY:-on-demand}
  [[ $FIT_CAPACITY == spot || $FIT_CAPACITY == on-demand ]] ||
    die "FIT_CAPACITY=$(quote "$FIT_CAPACITY") is unknown; run: export FIT_CAPACITY=spot (or on-demand)"
}

# need_run_dir EXAMPLE: the run folder, on storage that outlives the machines. A relative path would be lost with them; a
# URL serves a single process alone.
need_run_dir() {
  need FIT_RUN_DIR "$1" "the run folder, on storage that every host sees"
  [[ ! $FIT_RUN_DIR =~ ^[A-Za-z][A-Za-z0-9+.-]*:/ ]] ||
    die "FIT_RUN_DIR=$(quote "$FIT_RUN_DIR") is a URL; mount the bucket in FIT_SETUP and run: export FIT_RUN_DIR=$1"
  [[ $FIT_RUN_DIR == /* ]] ||
    die "FIT_RUN_DIR=$(quote "$FIT_RUN_DIR") is a relative path; run: export FIT_RUN_DIR=$1"
}

# The variables that name a TPU queued resource; sets `place`, the flags that say where it is.
need_tpu() {
  need FIT_NAME my-run "name of the queued resource"
  need FIT_PROJECT my-project "Google Cloud project"
  need FIT_ZONE us-east5-a "zone of the TPU"
  need_count FIT_SLICES 1
  place=("--project=$FIT_PROJECT" "--zone=$FIT_ZONE")
}

# on_workers SLICE WORKER COMMAND: runs a command line on the chosen hosts (a number or `all`).
on_workers() {
  run gcloud compute tpus queued-resources ssh "$FIT_NAME" "${place[@]}" "--node=$1" "--worker=$2" "--command=$3"
}

# The options of every script; anything else is refused. The help is the comment at the top of the script.
common_option() {
  case $1 in
    --help)
      awk 'NR > 1 { if (!/^#/) exit; sub(/^# ?/, ""); print }' "$0"
      exit 0
      ;;
    --dry-run) dry_run=true ;;
    *) die "unknown argument $(quote "$1"); see $(basename "$0") --help" ;;
  esac
}

# The command line of the scripts that have no options of their own.
common_options() {
  while (($#)); do
    common_option "$1"
    shift
  done
}

# The command line of the scripts that start training: OPTIONS -- ARGUMENTS. Sets `training`, what fit_jax.train gets.
parse_training() {
  while (($#)) && [[ $1 != -- ]]; do
    common_option "$1"
    shift
  done
  (($# > 1)) || die "no arguments for fit_jax.train; add: -- --config configs/NAME.yaml"
  shift
  training=("$@")
}
