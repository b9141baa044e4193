#!/usr/bin/env bash
# The same life cycle on Google Kubernetes Engine, over xpk (`pip install xpk`): it queues, restarts after preemption, collects logs.
#
#   tpu_scripts/gke.sh create|run|status|logs|stop|delete [--env FILE] [--restarts 20] [--dry-run] [-- --config=configs/FILE.py ...]
# NAME is the cluster and the workload. The pods install the package themselves, from the files that xpk sends: all of this directory.

action=""
if [[ ${1:-} != -* && $# != 0 ]]; then action=$1; shift; fi
OWN=1
source "$(dirname "$0")/common.sh"
CLOUD=xpk
[[ $action != logs ]] || CLOUD=kubectl
settings "$@"
needed xpk "pip install xpk"
needed kubectl "gcloud components install kubectl"
restarts=20
own_flags restarts
whole restarts
cluster=("--cluster=$NAME" "${where[@]}")
capacity=--on-demand
[[ $MODE != *spot ]] || capacity=--spot

case $action in
  create) run xpk cluster create "${cluster[@]}" "--tpu-type=$TYPE" "--num-slices=$SLICES" "$capacity" ;;
  run)
    [[ -n $WORKDIR ]] || wrong "WORKDIR is not set: gs://BUCKET/NAME"
    ((${#AFTER[@]})) || wrong "say what to run: tpu_scripts/gke.sh run -- --config=configs/FILE.py"
    [[ ! -d $here/../models ]] || say "models/ goes into the image, with all its weights: better in a bucket alone"
    words=$(quoted "$WORKDIR" "${AFTER[@]}")
    run xpk workload create "${cluster[@]}" "--workload=$NAME" "--tpu-type=$TYPE" "--num-slices=$SLICES" \
      --base-docker-image=python:3.11 "--script-dir=$here/.." "--max-restarts=$restarts" \
      "--command=pip install -q '.[tpu]' && ${ENVIRONMENT:+env $ENVIRONMENT }python -u -m experiments.run --distributed=auto --workdir=${words% }" ;;
  status) run xpk workload list "${cluster[@]}" "--filter-by-job=$NAME" ;;
  logs) run kubectl logs --all-containers --prefix --tail=50 "--selector=jobset.sigs.k8s.io/jobset-name=$NAME" ;;
  stop) run xpk workload delete "${cluster[@]}" "--workload=$NAME" ;;
  delete)
    if [[ $YES != 1 && $DRY != 1 ]]; then
      printf 'Delete the cluster %s in %s? Type its name: ' "$NAME" "$PROJECT" >&2
      read -r reply || reply=""
      [[ $reply == "$NAME" ]] || { say "nothing was deleted"; exit 1; }
    fi
    run xpk cluster delete "${cluster[@]}" --force ;;
  *) wrong "create, run, status, logs, stop or delete" ;;
esac
