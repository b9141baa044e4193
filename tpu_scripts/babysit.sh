#!/usr/bin/env bash
# Keep an experiment running until it says that it is done: brings back the TPU after preemption or maintenance, sets it up, starts again.
#
#   tpu_scripts/babysit.sh [--env FILE] [--restarts 20] [--backoff 60] [--poll 20] [--dry-run] -- --config=configs/FILE.py ...
# Each start waits longer than the one before (--backoff seconds, doubled, at most half an hour; back to the first value once a
# run held an hour). Ends with 0 when every worker ended with 0, with 2 at once for wrong use (a restart would not help), with
# 1 after the last restart. A worker that ended with 75 saved its state after SIGTERM: started again like any that was lost. How an
# earlier run ended says nothing of this one; only one that still runs is looked after instead (stop.sh first for other flags).

OWN=1
source "$(dirname "$0")/common.sh"
settings "$@"
restarts=20 backoff=60
own_flags restarts backoff
whole restarts backoff
((${#AFTER[@]})) || wrong "say what to run: tpu_scripts/babysit.sh -- --config=configs/FILE.py"
[[ -n $WORKDIR ]] || wrong "WORKDIR is not set: gs://BUCKET/NAME, where all workers see the same files"

export PROJECT ZONE NAME TYPE MODE SLICES RUNTIME WORKDIR WAIT POLL SSH_LIMIT ENVIRONMENT="${ENVIRONMENT:-}" TPU_ENV=/dev/null
dry=()
[[ $DRY != 1 ]] || dry=(--dry-run)

bring_up() {
  "$here/create.sh" ${dry[@]+"${dry[@]}"} && "$here/stop.sh" ${dry[@]+"${dry[@]}"} &&
    "$here/setup.sh" ${dry[@]+"${dry[@]}"} && "$here/run.sh" ${dry[@]+"${dry[@]}"} -- "${AFTER[@]}"
}

# The workers' lines (host, word, ...) in one word: done, running, wrong, or why they have to be started again.
verdict() {
  local text
  if ! text=$("$here/status.sh" 2>&1); then echo "a worker does not answer"; return; fi
  awk -v tpu="$NAME" '
    index($1, tpu) == 1 && $1 ~ /:$/ { if ($2 != "READY") lost = "the TPU is " $2; next }
    $2 == "ended" && $3 == 2 { wrong = 1 }
    $2 == "ended" && $3 != 0 || $2 == "gone" || $2 == "absent" { if (!lost) lost = $1 " " $2 ($2 == "ended" ? " with " $3 : "") }
    $2 == "running" { running = 1 }
    $2 == "ended" && $3 == 0 { done = 1 }
    END { print wrong ? "wrong" : lost ? lost : running ? "running" : done ? "done" : "a worker does not answer" }' <<<"$text"
}

if [[ $DRY == 1 ]]; then
  tpu_state "" "$(nodes | head -1)"
  bring_up
  "$here/status.sh" --dry-run
  exit 0
fi

# look: the verdict in $found; until this run has begun, what the last one left is no verdict on it.
look() {
  found=$(verdict)
  case $found in
    running) begun=1 ;;
    done | wrong | *" ended with "*) ((begun)) || found="not begun" ;;
  esac
}

began=$SECONDS pause=$backoff silent=0 count=-1 begun=0
look
((!begun)) || say "a run goes already: it is looked after"
while :; do
  if [[ $found == "a worker does not answer" ]] && ((silent < 2)); then
    silent=$((silent + 1)) # a moment without ssh is usual, three in a row are not
    sleep "$POLL"
    look
    continue
  fi
  silent=0
  case $found in
    done) say "every worker is done"; exit 0 ;;
    running) sleep "$POLL" ;;
    wrong) say "wrong use: a restart would not help"; "$here/logs.sh" --lines 5 >&2 || true; exit 2 ;;
    *)
      count=$((count + 1))
      ((count <= restarts)) || { say "gave up after $restarts restarts; the last reason: $found"; exit 1; }
      ((SECONDS - began < 3600)) || pause=$backoff
      if ((count)); then
        say "$(date -u +%FT%TZ) restart $count of $restarts in $pause s: $found"
        sleep "$pause"
        pause=$((pause * 2 > 1800 ? 1800 : pause * 2))
      fi
      began=$SECONDS
      code=0
      bring_up || code=$?
      ((code != 2)) || { say "wrong use: a restart would not help"; exit 2; }
      if ((code == 0)); then begun=1; else say "bringing it up failed; tried again"; fi ;;
  esac
  look
done
