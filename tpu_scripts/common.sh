# shellcheck shell=bash disable=SC2034
# What every script here shares: settings from one env file and flags, one way to call gcloud, states and their reasons.
set -euo pipefail

LIMIT="" # see limited
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
program=$(basename "$0")

say() { printf '%s\n' "$*" >&2; }
told() { [[ $DRY == 1 ]] || say "$@"; } # of what was done: nothing is in a dry run
die() { say "$program: $*"; exit 1; }
wrong() { say "$program: $*"; exit 2; }

# settings [flag]...: read the env file, then the flags, which win. What follows `--` is left in AFTER; a script that sets OWN=1
# finds flags unknown here in REST (see own_flags), elsewhere they are wrong use.
settings() {
  local args=("$@") i file=${TPU_ENV:-tpu.env} asked=""
  for ((i = 0; i < ${#args[@]}; i++)); do
    case ${args[i]} in
      --env) ((i + 1 < ${#args[@]})) || wrong "--env: no value given"; file=${args[i + 1]} asked=1 ;;
      --env=*) file=${args[i]#*=} asked=1 ;;
      --) break ;;
    esac
  done
  if [[ -f $file ]]; then
    # shellcheck disable=SC1090
    source "$file"
  elif [[ -n $asked ]]; then
    wrong "no such file: $file"
  fi
  PROJECT=${PROJECT:-} ZONE=${ZONE:-} NAME=${NAME:-synthrl} TYPE=${TYPE:-} MODE=${MODE:-on-demand} SLICES=${SLICES:-1}
  SSH_LIMIT=${SSH_LIMIT:-240} # seconds for what only looks or stops
  RUNTIME=${RUNTIME:-} WORKDIR=${WORKDIR:-} WAIT=${WAIT:-60} POLL=${POLL:-20} REST=() AFTER=()
  DRY=0 YES=0 # flags alone: one left in the environment must not answer a question
  while (($#)); do
    local flag=$1 value
    shift
    case $flag in
      --dry-run) DRY=1 ;;
      --yes) YES=1 ;;
      --help | -h) sed -n '2,/^$/s/^# \{0,1\}//p' "$0"; exit 0 ;;
      --) AFTER=("$@"); break ;;
      --env | --project | --zone | --name | --type | --mode | --slices | --runtime | --workdir | --wait | --poll)
        (($#)) || wrong "$flag: no value given"
        value=$1; shift; setting "${flag#--}" "$value" ;;
      --env=* | --project=* | --zone=* | --name=* | --type=* | --mode=* | --slices=* | --runtime=* | --workdir=* | --wait=* | --poll=*)
        value=${flag#*=}; flag=${flag%%=*}; setting "${flag#--}" "$value" ;;
      *) if [[ ${OWN:-0} == 1 ]]; then REST+=("$flag"); else wrong "unknown argument $flag (--help tells)"; fi ;;
    esac
  done
  local missing=()
  [[ -n $PROJECT ]] || missing+=(PROJECT)
  [[ -n $ZONE ]] || missing+=(ZONE)
  [[ -n $TYPE ]] || missing+=(TYPE)
  ((${#missing[@]} == 0)) || wrong "not set: ${missing[*]} (in $file, or as flags)"
  case $MODE in on-demand | spot | queued | queued-spot) ;; *) wrong "MODE=$MODE: on-demand, spot, queued or queued-spot" ;; esac
  # a name of Google's, and a word in commands and file names here
  [[ $NAME =~ ^[a-z]([a-z0-9-]{0,48}[a-z0-9])?$ ]] || wrong "NAME=$NAME: small letters, digits and -, a letter first, at most 50"
  [[ $SLICES =~ ^[1-9][0-9]*$ ]] || wrong "SLICES=$SLICES: a number of slices"
  [[ ${CLOUD:-gcloud} != gcloud || $SLICES == 1 || $MODE == queued* ]] || wrong "SLICES=$SLICES: several slices come as a queued resource (MODE=queued)"
  [[ $WAIT =~ ^[0-9]+$ ]] || wrong "WAIT=$WAIT: whole minutes, 0 for ever"
  WAIT=$((10#$WAIT))
  [[ $POLL =~ ^[0-9]+(\.[0-9]+)?$ ]] || wrong "POLL=$POLL: seconds"
  where=("--project=$PROJECT" "--zone=$ZONE")
  needed gcloud "https://cloud.google.com/sdk/docs/install"
}

# needed PROGRAM WHERE: stop unless it is installed (a dry run only prints its commands).
needed() {
  [[ $DRY == 1 || ${CLOUD:-gcloud} != "$1" ]] || command -v "$1" >/dev/null || die "$1 is not installed here: $2"
}

# own_flags NAME ...: set the variables NAME from `--NAME VALUE` or `--NAME=VALUE` in REST (`NAME!`: a switch, set to 1).
own_flags() {
  local known=" $* " name
  set -- ${REST[@]+"${REST[@]}"}
  while (($#)); do
    name=${1%%=*} name=${name#--}
    if [[ $1 == --* && $known == *" $name! "* && $1 != *=* ]]; then
      printf -v "$name" 1
    elif [[ $1 != --?* || $known != *" $name "* ]]; then
      wrong "unknown argument $1 (--help tells)"
    elif [[ $1 == *=* ]]; then
      printf -v "$name" %s "${1#*=}"
    else
      (($# > 1)) || wrong "--$name: no value given"
      printf -v "$name" %s "$2"; shift
    fi
    shift
  done
}

# whole NAME ...: the variables have to hold whole numbers, decimal ones (09 too).
whole() {
  local name
  for name in "$@"; do
    [[ ${!name} =~ ^[0-9]+$ ]] || wrong "--$name=${!name}: a whole number"
    printf -v "$name" %d "$((10#${!name}))"
  done
}

setting() {
  case $1 in
    env) ;;
    project) PROJECT=$2 ;; zone) ZONE=$2 ;; name) NAME=$2 ;; type) TYPE=$2 ;; mode) MODE=$2 ;; slices) SLICES=$2 ;;
    runtime) RUNTIME=$2 ;; workdir) WORKDIR=$2 ;; wait) WAIT=$2 ;; poll) POLL=$2 ;;
  esac
}

# The TPU VM image of an accelerator type.
runtime() {
  if [[ -n $RUNTIME ]]; then echo "$RUNTIME"; return; fi
  case $TYPE in
    v5litepod-* | v5lite-*) echo v2-alpha-tpuv5-lite ;;
    v5p-*) echo v2-alpha-tpuv5 ;;
    v6e-*) echo v2-alpha-tpuv6e ;;
    v4-*) echo tpu-ubuntu2204-base ;;
    *) wrong "TYPE=$TYPE: v4-N, v5litepod-N, v5p-N or v6e-N (for another one give RUNTIME too)" ;;
  esac
}

# The nodes of the request, one a line: NAME, or NAME-0 .. of several slices.
nodes() {
  if [[ $SLICES == 1 ]]; then echo "$NAME"; else seq -f "$NAME-%.0f" 0 $((SLICES - 1)); fi
}

quoted() {
  local word
  for word in "$@"; do
    if [[ $word =~ ^[A-Za-z0-9_./:=,@%+-]+$ ]]; then printf '%s ' "$word"; else printf "'%s' " "${word//\'/\'\\\'\'}"; fi
  done
}

# run COMMAND ...: run it, or with --dry-run print it, ready to be pasted.
run() {
  if [[ $DRY == 1 ]]; then quoted "$@" | sed 's/ $//'; echo; else limited "$@"; fi
}

# limited COMMAND ...: run it, for LIMIT seconds at most where that is set: an ssh that hangs must not hang whoever looks after runs.
limited() {
  local code=0
  if [[ -z ${LIMIT:-} ]] || ! command -v timeout >/dev/null; then "$@"; return; fi
  timeout -k 10 "$LIMIT" "$@" || code=$?
  [[ $code != 124 && $code != 137 ]] || say "no answer within $LIMIT s: $1 ${2:-} ${3:-} ${4:-} ${5:-} ${6:-}"
  return "$code"
}

# ask ANSWER COMMAND ...: its output in $answer, "" where gcloud finds no such thing; a dry run prints the command and
# takes ANSWER instead, and says so. Other errors end the script with what gcloud said.
ask() {
  local assumed=$1 errors
  shift
  if [[ $DRY == 1 ]]; then run "$@"; say "# assumed: ${assumed:-there is none}"; answer=$assumed; return; fi
  errors=$(mktemp)
  if ! answer=$(LIMIT=$SSH_LIMIT limited "$@" 2>"$errors"); then
    # of the thing itself: a project or zone that does not exist is no reason to say that nothing is there
    if grep -q -i -E 'NOT_FOUND|not found' "$errors" && ! grep -q -i -E '\b(project|zone|location)\b[^/]*not (found|exist)' "$errors"; then
      answer=""
    else
      cat "$errors" >&2; explain "$(<"$errors")"; rm -f "$errors"; exit 1
    fi
  fi
  rm -f "$errors"
}

tpu_state() { ask "$1" gcloud compute tpus tpu-vm describe "$2" "${where[@]}" '--format=value(state)'; }
queued_state() { ask "$1" gcloud compute tpus queued-resources describe "$NAME" "${where[@]}" '--format=value(state.state)'; }

# explain TEXT: what to do about the usual causes of what gcloud said.
explain() {
  if grep -q -i -E 'quota' <<<"$1"; then
    say "-> quota: ask for more of this chip in $ZONE (console, IAM & Admin > Quotas, TPU), or take a smaller TYPE, another ZONE, or MODE=spot: it has a quota of its own"
  elif grep -q -i -E 'no more capacity|stockout|RESOURCE_EXHAUSTED|insufficient capacity' <<<"$1"; then
    say "-> no capacity in $ZONE now: MODE=queued or queued-spot waits in line; or take another ZONE"
  elif grep -q -i -E 'PERMISSION_DENIED|permission|UNAUTHENTICATED|gcloud auth login' <<<"$1"; then
    say "-> permission: \`gcloud auth login\`, the role roles/tpu.admin on $PROJECT, and the API: \`gcloud services enable tpu.googleapis.com --project=$PROJECT\`"
  elif grep -q -i -E 'invalid.*accelerator|accelerator type .* not found|not available in' <<<"$1"; then
    say "-> $ZONE has no $TYPE: \`gcloud compute tpus accelerator-types list --zone=$ZONE\` lists what it has"
  fi
}

# attempt COMMAND ...: like run, with an explanation when it fails.
attempt() {
  if [[ $DRY == 1 ]]; then run "$@"; return; fi
  local errors status=0
  errors=$(mktemp)
  "$@" 2> >(tee "$errors" >&2) || status=$?
  ((status == 0)) || { sleep 0.2; explain "$(<"$errors")"; } # tee may still be writing
  rm -f "$errors"
  return "$status"
}

# on_workers WORKER COMMAND [NODE ...]: run a command on one worker or `all` of each node.
on_workers() {
  local worker=$1 command=$2 node status=0
  shift 2
  local on="$*"
  for node in ${on:-$(nodes)}; do
    run gcloud compute tpus tpu-vm ssh "$node" "${where[@]}" "--worker=$worker" "--command=$command" --quiet || status=$?
  done
  return "$status"
}

# What the workers are told to do (see there), and what to do first where a worker may not be set up.
remote="bash synthrl_jax/tpu_scripts/worker.sh"
if_set_up="[ -e synthrl_jax ] || { echo \"\$(hostname) absent (not set up)\"; exit 0; };"
