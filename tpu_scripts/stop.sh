#!/usr/bin/env bash
# Stop the run on all workers: it saves what it can and ends; run.sh goes on from there. The TPU stays, and costs.
#
#   tpu_scripts/stop.sh [--env FILE] [--dry-run]

source "$(dirname "$0")/common.sh"
settings "$@"
tpu_state READY "$(nodes | head -1)"
[[ $answer == READY ]] || { say "$NAME is ${answer:-absent}: nothing runs there"; exit 0; }
on_workers all "$if_set_up $remote stop" || die "not every worker stopped: tpu_scripts/status.sh tells which"
