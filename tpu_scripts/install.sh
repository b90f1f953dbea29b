#!/usr/bin/env bash
# install.sh [--dry-run] [--help]
#
# Copies the committed state of this checkout to every host of the TPU and installs it there in a virtual environment.
# Installing again replaces the code and keeps the environment.
#
# FIT_NAME, FIT_PROJECT, FIT_ZONE  as for create.sh
# FIT_SETUP                        shell command run on every host first, such as one that mounts storage (none)
source "$(dirname "$0")/common.sh"

common_options "$@"
need_tpu

archive=$root/build/fit_jax-$FIT_NAME.tar.gz
run mkdir -p "$root/build"
run git -C "$root" archive --format=tar.gz "--output=$archive" HEAD
run gcloud compute tpus queued-resources scp "$archive" "$FIT_NAME:fit_jax.tar.gz" "${place[@]}" --node=all --worker=all
unpack='rm -rf fit_jax/source && mkdir -p fit_jax/source && tar -xzf fit_jax.tar.gz -C fit_jax/source'
on_workers all all "$unpack && bash fit_jax/source/tpu_scripts/worker.sh install $(quote "${FIT_SETUP:-}")"
