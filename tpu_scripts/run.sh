#!/usr/bin/env bash
# Start an experiment on all workers, in tmux; does nothing where it runs already.
#
#   tpu_scripts/run.sh [--env FILE] [--workdir gs://BUCKET/NAME] [--dry-run] -- --config=configs/FILE.py [--config.field=value ...]
# What follows -- goes to `python -m experiments.run`. Settings for the workers' environment: ENVIRONMENT="A=1 B=2" in the env file.

source "$(dirname "$0")/common.sh"
settings "$@"
[[ -n $WORKDIR ]] || wrong "WORKDIR is not set: gs://BUCKET/NAME, where all workers see the same files"
((${#AFTER[@]})) || wrong "say what to run: tpu_scripts/run.sh -- --config=configs/FILE.py"

words=$(quoted "$WORKDIR" "${AFTER[@]}")
on_workers all "${ENVIRONMENT:+env $ENVIRONMENT }$remote start ${words% }" || die "not every worker started: tpu_scripts/status.sh tells which"
told "started; tpu_scripts/status.sh, logs.sh and attach.sh look on"
