#!/usr/bin/env bash
# Delete the TPU with its disks (asks first); the work directory in the bucket stays.
#
#   tpu_scripts/delete.sh [--env FILE] [--yes] [--dry-run]

source "$(dirname "$0")/common.sh"
settings "$@"

# Both kinds are looked for, whatever MODE says: what is not found goes on costing.
if [[ $MODE == queued* ]]; then queued_state ACTIVE; else queued_state ""; fi
request=$answer found=${answer:+request $answer} made=()
for node in $(nodes); do
  tpu_state READY "$node"
  [[ -z $answer ]] || { made+=("$node"); found+="${found:+, }$node $answer"; }
done
[[ -n $found ]] || { say "$NAME does not exist"; exit 0; }
if [[ $YES != 1 && $DRY != 1 ]]; then
  printf 'Delete %s (%s, %s) in %s? Type its name: ' "$NAME" "$TYPE" "$found" "$PROJECT" >&2
  read -r reply || reply=""
  [[ $reply == "$NAME" ]] || { say "nothing was deleted"; exit 1; }
fi
[[ -z $request ]] || attempt gcloud compute tpus queued-resources delete "$NAME" "${where[@]}" --force --quiet
for node in ${made[@]+"${made[@]}"}; do
  [[ -z $request ]] || { tpu_state "" "$node"; [[ -n $answer ]] || continue; } # a request takes its own with it
  attempt gcloud compute tpus tpu-vm delete "$node" "${where[@]}" --quiet
done
told "$NAME is deleted"
