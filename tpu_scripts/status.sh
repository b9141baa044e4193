#!/usr/bin/env bash
# The state of the TPU, and a line for each worker: running, ended with a code, gone or never started, and its last words.
#
#   tpu_scripts/status.sh [--env FILE] [--dry-run]

source "$(dirname "$0")/common.sh"
settings "$@"

ready=1
for node in $(nodes); do
  tpu_state READY "$node"
  [[ $DRY == 1 ]] || echo "$node: ${answer:-absent}"
  [[ $answer == READY ]] || ready=0
done
((ready)) || exit 0
code=0
for node in $(nodes); do
  { said=$(LIMIT=$SSH_LIMIT on_workers all "$if_set_up $remote status" "$node" 2>&1 >&3) || code=1; } 3>&1
  [[ -z $said ]] || say "$said"
  sed -n "s/.*worker \([0-9][0-9]*\) failed.*/$node-w-\1 silent | no answer by ssh/p" <<<"$said"
done
((code == 0)) || die "not every worker answers: preempted, or under maintenance? tpu_scripts/babysit.sh would see to it"
