#!/usr/bin/env bash
# The last lines of the log of one worker (0) or of all; they are in WORKDIR/logs too.
#
#   tpu_scripts/logs.sh [--env FILE] [--worker N|all] [--lines 50] [--follow] [--dry-run]

OWN=1
source "$(dirname "$0")/common.sh"
settings "$@"
worker=0 lines=50 follow=""
own_flags worker lines follow!
whole lines
[[ $worker == all ]] || whole worker
on_workers "$worker" "$remote logs $lines${follow:+ follow}"
