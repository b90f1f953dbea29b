#!/usr/bin/env bash
# logs.sh [--slice N] [--worker N] [--dry-run] [--help]
#
# Follows the training log of one host, by default the first host of the first slice, which logs for all.
#
# FIT_NAME, FIT_PROJECT, FIT_ZONE  as for create.sh
source "$(dirname "$0")/common.sh"

slice=0
worker=0
while (($#)); do
  case $1 in
    --slice | --worker)
      [[ ${2:-} =~ ^[0-9]+$ ]] || die "$1 needs a number, counted from 0: $1 0"
      printf -v "${1#--}" '%s' "$2"
      shift
      ;;
    *) common_option "$1" ;;
  esac
  shift
done
need_tpu

on_workers "$slice" "$worker" 'tail -n 200 -F fit_jax/train.log'
