#!/usr/bin/env bash
# The last lines of the log of one worker (0) or of all; they are in WORKDIR/logs too.
#
#   tpu_scripts/logs.sh [--env FILE] [--worker N|all] [--lines 50] [--follow] [--dry-run]

OWN=1
source "$(dirname "$0")/common.sh"
settings "$@"
worker=0 lines=50 follow=""
set -- ${REST[@]+"${REST[@]}"}
while (($#)); do
  case $1 in
    --worker) worker=${2:?}; shift ;; --worker=*) worker=${1#*=} ;;
    --lines) lines=${2:?}; shift ;; --lines=*) lines=${1#*=} ;;
    --follow) follow=" follow" ;;
    *) wrong "unknown argument $1 (--help tells)" ;;
  esac
  shift
done
on_workers "$worker" "$remote logs $lines$follow"
