#!/usr/bin/env bash
# Stop the run on all workers: it saves what it can and ends; run.sh goes on from there. The TPU stays, and costs.
#
#   tpu_scripts/stop.sh [--env FILE] [--dry-run]

source "$(dirname "$0")/common.sh"
settings "$@"
up=()
for node in $(nodes); do
  tpu_state READY "$node"
  if [[ $answer == READY ]]; then up+=("$node"); else say "$node is ${answer:-absent}: nothing runs there"; fi
done
((${#up[@]})) || exit 0
LIMIT=$SSH_LIMIT on_workers all "$if_set_up $remote stop" "${up[@]}" || die "not every worker stopped: tpu_scripts/status.sh tells which"
