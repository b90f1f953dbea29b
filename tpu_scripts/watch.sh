#!/usr/bin/env bash
# watch.sh [--dry-run] [--help] -- ARGUMENTS
#
# Sees a run through: waits for the TPU that create.sh asked for, installs, launches `fit_jax.train ARGUMENTS`, and when the
# TPU is preempted asks for it again and goes on from the last checkpoint. Ends with the exit status of training. It keeps
# no state of its own, so it can be stopped and started at any time. The TPU is left standing: `watch.sh ... ; delete.sh`.
#
# all variables of create.sh, install.sh and launch.sh
# FIT_POLL_SECONDS  seconds between two looks (60)
source "$(dirname "$0")/common.sh"

parse_training "$@"
need_tpu
need_run_dir /mnt/runs/my-run
need_count FIT_POLL_SECONDS 60
scripts=$root/tpu_scripts
readonly FAILURES=10 # looks in a row that may fail, as they do while machines go away, before the watch ends

describe=(gcloud compute tpus queued-resources describe "$FIT_NAME" "${place[@]}" '--format=value(state.state)')
ask='if [ -f fit_jax/source/tpu_scripts/worker.sh ]; then bash fit_jax/source/tpu_scripts/worker.sh status; '
ask+='else echo "fit_jax: absent"; fi'

say() {
  printf '%s %s\n' "$(date '+%F %T')" "$1"
}

# Sets `seen` to what the hosts say of training: running, absent, finished, or failed with a status.
# Each slice is asked by itself because gcloud leaves out a slice that it cannot reach, without failing.
look_at_run() {
  local slice answer answers=''
  for ((slice = 0; slice < FIT_SLICES; slice++)); do
    answer=$(on_workers "$slice" all "$ask") || return
    [[ $answer == *'fit_jax: '* ]] || { say "slice $slice does not answer"; return 1; }
    answers+=$answer$'\n'
  done
  if [[ $answers == *'fit_jax: running'* ]]; then
    seen=running
  elif [[ $answers == *'fit_jax: absent'* ]]; then
    seen=absent
  elif [[ $answers =~ 'fit_jax: exited '([1-9][0-9]*) ]]; then
    seen="failed ${BASH_REMATCH[1]}"
  else
    seen=finished
  fi
}

# Acts on an active TPU. Hosts that are being preempted end one after the other while the TPU still counts as active,
# so only what two looks in a row agree on is acted upon.
follow_run() {
  local before=$seen
  look_at_run || return
  if [[ $seen != "$before" ]]; then
    say "training: $seen"
    return
  fi
  case $seen in
    absent)
      seen=
      "$scripts/install.sh" || return
      "$scripts/launch.sh" -- "${training[@]}" || return
      say "launched"
      ;;
    failed*)
      say "training failed with exit status ${seen#failed }; logs.sh shows why"
      exit "${seen#failed }"
      ;;
    finished)
      say "training finished; the run is in $FIT_RUN_DIR"
      exit 0
      ;;
  esac
}

# One look at the TPU, and what follows from it. Non-zero where a command failed.
look() {
  local before=$state
  if $deleted; then
    "$scripts/create.sh" || return
    deleted=false
  fi
  state=$("${describe[@]}") || return
  [[ $state == "$before" ]] || say "TPU: $state"
  case $state in
    ACTIVE)
      follow_run
      return
      ;;
    SUSPENDED | PREEMPTED)
      "$scripts/delete.sh" --yes || return
      deleted=true
      "$scripts/create.sh" || return
      deleted=false
      ;;
    FAILED)
      say "the request failed; $(quote "${describe[@]:0:6}" "${place[@]}") says why"
      exit 1
      ;;
  esac
  seen=
}

if $dry_run; then
  printf '# every %s seconds\n' "$FIT_POLL_SECONDS"
  run "${describe[@]}"
  printf '# while the TPU is active\n'
  for ((slice = 0; slice < FIT_SLICES; slice++)); do
    on_workers "$slice" all "$ask"
  done
  printf '# when no training is found on it\n'
  "$scripts/install.sh" --dry-run
  "$scripts/launch.sh" --dry-run -- "${training[@]}"
  printf '# when it was preempted\n'
  "$scripts/delete.sh" --dry-run --yes
  "$scripts/create.sh" --dry-run
  exit 0
fi

"$scripts/create.sh" --dry-run >/dev/null # refuses a missing variable now, not at the first preemption
state=
seen=
deleted=false
failures=0
while true; do
  status=0
  look || status=$?
  if ((status)); then
    failures=$((failures + 1))
    say "failed with exit status $status ($failures of $FAILURES in a row)"
    ((failures < FAILURES)) || exit "$status"
  else
    failures=0
  fi
  sleep "$FIT_POLL_SECONDS"
done
