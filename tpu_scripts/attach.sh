#!/usr/bin/env bash
# Look at the run on a worker as it goes, in its tmux session (leave it with Ctrl-b d).
#
#   tpu_scripts/attach.sh [--env FILE] [--worker 0] [--dry-run]

OWN=1
source "$(dirname "$0")/common.sh"
settings "$@"
worker=0
own_flags worker
whole worker
run gcloud compute tpus tpu-vm ssh "$(nodes | head -1)" "${where[@]}" "--worker=$worker" -- -t tmux attach -t synthrl
