#!/usr/bin/env bash
# What the other scripts run on each host of a TPU, in ~/fit_jax: source/ (the code), venv/, train.log, exit_status, lock.
#
# worker.sh install SETUP     runs SETUP, then makes the virtual environment
# worker.sh launch ARGUMENTS  starts training in the background
# worker.sh status            says `running`, `absent`, or `exited` with a status
set -euo pipefail

home=$(cd "$(dirname "$0")/../.." && pwd)

install() {
  bash -euc "$1"
  if [[ ! -x $home/venv/bin/python ]]; then
    # TPU images bring an older Python than fit_jax needs; uv puts a newer one beside it, for this user alone.
    PIP_BREAK_SYSTEM_PACKAGES=1 python3 -m pip install --quiet --user uv==0.13.9
    python3 -m uv venv --quiet --seed --python 3.12 "$home/venv"
  fi
  "$home/venv/bin/python" -m pip install --quiet --require-hashes \
    --requirement "$home/source/requirements.lock" --requirement "$home/source/requirements-tpu.lock"
  "$home/venv/bin/python" -m pip install --quiet --no-deps --no-build-isolation --editable "$home/source"
}

# Training inherits the lock and so holds it exactly as long as it lives, whatever ends it.
launch() {
  exec 9>"$home/lock"
  flock --nonblock 9 || {
    printf 'error: training is running on %s already; logs.sh follows it\n' "$(hostname)" >&2
    exit 1
  }
  rm -f "$home/exit_status"
  setsid bash "$0" train "$@" >>"$home/train.log" 2>&1 </dev/null &
}

# A shutdown of the host kills this shell before it can write: no status file means that training was cut off.
train() {
  local status=0
  cd "$home/source"
  "$home/venv/bin/python" -m fit_jax.train "$@" || status=$?
  printf '%s\n' "$status" >"$home/exit_status.part"
  mv "$home/exit_status.part" "$home/exit_status"
}

status() {
  exec 9>"$home/lock"
  if ! flock --nonblock 9; then
    printf 'fit_jax: running\n'
  elif [[ -f $home/exit_status ]]; then
    printf 'fit_jax: exited %s\n' "$(<"$home/exit_status")"
  else
    printf 'fit_jax: absent\n'
  fi
}

"$@"
