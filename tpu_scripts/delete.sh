#!/usr/bin/env bash
# Delete the TPU with its disks (asks first); the work directory in the bucket stays.
#
#   tpu_scripts/delete.sh [--env FILE] [--yes] [--dry-run]

source "$(dirname "$0")/common.sh"
settings "$@"
if [[ $MODE == queued* ]]; then queued_state ACTIVE; else tpu_state READY "$NAME"; fi
[[ -n $answer ]] || { say "$NAME does not exist"; exit 0; }
if [[ $YES != 1 && $DRY != 1 ]]; then
  printf 'Delete %s (%s, %s) in %s? Type its name: ' "$NAME" "$TYPE" "$answer" "$PROJECT" >&2
  read -r reply || reply=""
  [[ $reply == "$NAME" ]] || { say "nothing was deleted"; exit 1; }
fi
if [[ $MODE == queued* ]]; then
  attempt gcloud compute tpus queued-resources delete "$NAME" "${where[@]}" --force --quiet
else
  attempt gcloud compute tpus tpu-vm delete "$NAME" "${where[@]}" --quiet
fi
[[ $DRY == 1 ]] || say "$NAME is deleted"
