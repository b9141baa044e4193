#!/usr/bin/env bash
# Create the TPU and wait until it is ready; does nothing where it is ready already.
#
#   tpu_scripts/create.sh [--env FILE] [--project P] [--zone Z] [--name N] [--type v5litepod-64] [--mode on-demand|spot|queued|queued-spot]
#                         [--slices N] [--runtime IMAGE] [--wait MINUTES] [--dry-run]
# A preempted or stopped one is brought back. --wait 0 waits for ever (in a queue it may be hours).

source "$(dirname "$0")/common.sh"
settings "$@"

spot=()
[[ $MODE != *spot ]] || spot=(--spot)
image=$(runtime)

create_queued() {
  local made=("--node-id=$NAME")
  [[ $SLICES == 1 ]] || made=("--node-count=$SLICES" "--node-prefix=$NAME")
  attempt gcloud compute tpus queued-resources create "$NAME" "${where[@]}" "${made[@]}" "--accelerator-type=$TYPE" \
    "--runtime-version=$image" ${spot[@]+"${spot[@]}"} --async --quiet
}

remove_queued() { run gcloud compute tpus queued-resources delete "$NAME" "${where[@]}" --force --quiet; }

create_now() {
  attempt gcloud compute tpus tpu-vm create "$NAME" "${where[@]}" "--accelerator-type=$TYPE" "--version=$image" \
    ${spot[@]+"${spot[@]}"} --quiet
}

# in_time SINCE: stop after WAIT minutes.
in_time() {
  ((WAIT == 0 || SECONDS - $1 < 60 * WAIT)) || die "$NAME is still $answer after $WAIT minutes$(reason); the same command goes on waiting"
}

# settled QUESTION ...: what is being stopped or deleted is waited for; then it can be started, or made anew.
settled() {
  local before="" start=$SECONDS
  while "$@" ""; do
    case $answer in STOPPING | DELETING) ;; *) return 0 ;; esac
    [[ $answer == "$before" ]] || say "$NAME: $answer, waiting for its end"
    before=$answer
    in_time "$start"
    sleep "$POLL"
  done
}

# wait_for STATE QUESTION ...: poll until the answer is STATE, telling each change.
wait_for() {
  local wanted=$1 before="" start=$SECONDS
  shift
  [[ $DRY != 1 ]] || say "# until it is $wanted the next command every $POLL s; of a queued request also one that asks for the reason"
  while "$@" "$wanted" && [[ $answer != "$wanted" ]]; do
    [[ $answer == "$before" ]] || say "$NAME: ${answer:-gone}, waiting for $wanted$(reason)"
    before=$answer
    case $answer in
      FAILED) explain "$(reason)"; die "$NAME is $answer$(reason); the same command again makes a new one" ;;
      STOPPED) die "$NAME is $answer; the same command again $([[ $MODE == queued* ]] && echo "makes a new one" || echo "starts it")" ;;
      SUSPENDED | PREEMPTED | TERMINATED | DELETING | "") die "$NAME is ${answer:-gone}$(reason); the same command again makes a new one" ;;
    esac
    in_time "$start"
    sleep "$POLL"
  done
}

reason() {
  local text=""
  if [[ $MODE == queued* ]]; then
    text=$(gcloud compute tpus queued-resources describe "$NAME" "${where[@]}" '--format=value(state.stateInitiator,state.failedData.error.message)' 2>/dev/null || true)
  fi
  case ${answer:-} in
    WAITING_FOR_RESOURCES) text="no capacity yet; the request keeps its place in line $text" ;;
    REPAIRING) text="maintenance $text" ;;
    PREEMPTED | SUSPENDED) text="its capacity was taken back $text" ;;
  esac
  [[ -z ${text// /} ]] || echo " (${text% })"
}

ask_node() { tpu_state "$1" "$node"; }
node=$(nodes | head -1)

if [[ $MODE == queued* ]]; then
  settled queued_state
  case $answer in
    "") create_queued ;;
    ACTIVE)
      for node in $(nodes); do
        ask_node READY
        case $answer in # what is being started or repaired is waited for
          "" | PREEMPTED | TERMINATED | STOPPED | SUSPENDED) remove_queued; create_queued; break ;;
        esac
      done ;;
    FAILED) say "the earlier request failed$(reason)"; remove_queued; create_queued ;;
    SUSPENDED | SUSPENDING) remove_queued; create_queued ;;
  esac
  wait_for ACTIVE queued_state
else
  settled ask_node
  case $answer in
    "") create_now ;;
    PREEMPTED | TERMINATED | SUSPENDED | FAILED) say "$NAME is $answer: made anew"
      run gcloud compute tpus tpu-vm delete "$NAME" "${where[@]}" --quiet
      create_now ;;
    STOPPED) run gcloud compute tpus tpu-vm start "$NAME" "${where[@]}" ;;
  esac
fi
for node in $(nodes); do wait_for READY ask_node; done
told "$NAME is ready: $TYPE in $ZONE"
