#!/usr/bin/env bash
# What the other scripts ask of one worker; runs there, in its home directory.
#
#   worker.sh setup | chips | start WORKDIR ARGUMENT... | main WORKDIR ARGUMENT... | status | logs LINES [follow] | stop
# Files: ~/synthrl_jax (the package), ~/synthrl_venv, ~/synthrl_state/{pid,main,exit,run.log}; pid and main hold a process and when
# it began, for numbers come again.

set -euo pipefail
cd "$HOME"
state=$HOME/synthrl_state session=synthrl
mkdir -p "$state"
host=$(hostname)

# identity PID: the number and the tick at which that process began; nothing where none (or only its remains) is there.
identity() {
  local text
  text=$(cat "/proc/$1/stat" 2>/dev/null) || return 0
  # the name, in parentheses, may hold anything; after it the state is the first field, the start the twentieth
  awk -v pid="$1" '$1 != "Z" { print pid, $20 }' <<<"${text##*) }"
}

# lives KIND: whether the process that wrote ~/synthrl_state/KIND is there still.
lives() {
  local noted
  noted=$(cat "$state/$1" 2>/dev/null) || return 1
  [[ -n $noted && $(identity "${noted%% *}") == "$noted" ]]
}

# A Python of at least 3.11: the image's own, or one that uv brings.
find_python() {
  local name
  for name in python3.13 python3.12 python3.11 python3; do
    if command -v "$name" >/dev/null && "$name" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
      command -v "$name"; return
    fi
  done
  bring_uv
  uv python install 3.11 >&2
  uv python find 3.11
}

bring_uv() {
  export PATH=$HOME/.local/bin:$PATH
  command -v uv >/dev/null || curl -LsSf https://astral.sh/uv/install.sh | sh >&2
}

setup() {
  local mark
  mark=$(cksum <synthrl_jax.new/setup.py)
  command -v tmux >/dev/null || sudo apt-get install -y -q tmux >&2
  # the environment outlives the files: it is made anew only when what it has to hold changes
  if [[ -n ${SYNTHRL_PYTHON:-} ]]; then echo "$SYNTHRL_PYTHON" >"$state/python"
  elif [[ $(cat "$state/installed" 2>/dev/null) != "$mark" ]]; then
    local python
    python=$(find_python)
    # (images leave ensurepip out)
    "$python" -m venv "$HOME/synthrl_venv" 2>/dev/null || { bring_uv; uv venv --seed --clear --python "$python" "$HOME/synthrl_venv" >&2; }
    (cd synthrl_jax.new && "$HOME/synthrl_venv/bin/python" -m pip install -q --disable-pip-version-check '.[tpu]')
    "$HOME/synthrl_venv/bin/python" -m pip uninstall -q -y synthrl_jax # its needs stay, its files are those sent
    echo "$HOME/synthrl_venv/bin/python" >"$state/python"
    echo "$mark" >"$state/installed"
  fi
  rm -rf synthrl_jax && mv synthrl_jax.new synthrl_jax
  echo "$host set up with $("$(cat "$state/python")" --version)"
}

chips() {
  # device files: counting them takes no hold of the chips
  local n
  n=$({ find /dev -maxdepth 1 -name 'accel[0-9]*' || true; } 2>/dev/null | wc -l)
  ((n)) || n=$({ find /dev/vfio -maxdepth 1 -name '[0-9]*' || true; } 2>/dev/null | wc -l)
  echo "$host chips ${SYNTHRL_CHIPS:-$n}"
}

running() { tmux has-session -t "=$session" 2>/dev/null; }

start() {
  if running; then echo "$host runs already"; return; fi
  rm -f "$state/exit" "$state/pid" "$state/main"
  local words
  printf -v words '%q ' "$@"
  # a tmux server that was there before hands on its own variables, not these
  (umask 077 && export -p >"$state/environment")
  tmux new-session -d -s "$session" "bash synthrl_jax/tpu_scripts/worker.sh main $words"
  echo "$host started"
}

# The log so far, beside the artifacts.
keep_log() {
  case $1 in
    gs://*) gcloud storage cp --quiet "$state/run.log" "$1/logs/$host.log" >/dev/null 2>&1 || true ;;
    *) mkdir -p "$1/logs" && cp "$state/run.log" "$1/logs/$host.log" || true ;;
  esac
}

main() {
  local workdir=$1 code=0 python child="" keeper
  shift
  # shellcheck disable=SC1091
  [[ ! -f $state/environment ]] || source "$state/environment"
  cd "$HOME"
  identity $$ >"$state/main"
  python=$(cat "$state/python")
  # TERM reaches the shell when the session is killed: the child is told, saves, and is waited for
  trap 'kill -TERM $child 2>/dev/null || true' TERM HUP
  cd synthrl_jax
  echo "=== $(date -u +%FT%TZ) $host" >>"$state/run.log"
  "$python" -u -m experiments.run --distributed="${SYNTHRL_DISTRIBUTED:-auto}" --workdir="$workdir" "$@" >>"$state/run.log" 2>&1 &
  child=$!
  identity "$child" >"$state/pid"
  (while sleep 60; do keep_log "$workdir"; done) &
  keeper=$!
  wait "$child" && code=0 || code=$?
  # a signal cuts a wait short: again until the child is gone, and then for the code that it left
  while kill -0 "$child" 2>/dev/null; do wait "$child" || true; done
  ((code <= 128)) || { wait "$child" && code=0 || code=$?; }
  kill "$keeper" 2>/dev/null || true
  keep_log "$workdir"
  echo "$code" >"$state/exit"
}

status() {
  local words="" last
  last=$(tail -c 2000 "$state/run.log" 2>/dev/null | tr '\r' '\n' | grep -v '^ *$' | tail -1 || true)
  if [[ -f $state/exit ]]; then words="ended $(cat "$state/exit")"
  elif running && [[ -f $state/pid ]] && ! lives pid; then words="running (ending)"
  elif running; then words=running
  elif [[ -f $state/pid ]]; then words=gone # no exit code: the machine went down, or it was killed from outside
  elif [[ -d synthrl_jax ]]; then words="absent (set up, not started)"
  else words="absent (not set up)"; fi
  echo "$host $words | ${last:0:160}"
}

logs() {
  if [[ ${2:-} == follow ]]; then tail -n "$1" -F "$state/run.log"; else tail -n "$1" "$state/run.log" | sed "s/^/$host | /"; fi
}

signal() { kill "-$1" "$(cut -d ' ' -f 1 "$state/$2")" 2>/dev/null || true; }

# The run is told, and then whoever is left is killed; the shell around it goes last, for it writes down how the run ended.
stop() {
  local kind i
  for kind in pid main; do
    lives "$kind" || continue
    [[ $kind == main ]] || signal TERM "$kind"
    for ((i = 0; i < 600; i++)); do lives "$kind" || break; sleep 0.1; done
    ! lives "$kind" || signal KILL "$kind"
  done
  tmux kill-session -t "=$session" 2>/dev/null || true
  rm -f "$state/pid" "$state/main" "$state/exit"
  echo "$host stopped"
}

case ${1:-} in
  setup | chips | start | main | status | logs | stop) "$@" ;;
  *) echo "worker.sh: setup, chips, start, main, status, logs or stop" >&2; exit 2 ;;
esac
