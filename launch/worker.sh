#!/usr/bin/env bash
# One machine's part of a run: starts training there, restarts it, follows it, stops it.
# launch/tpu_vm.sh and launch/gpu.sh call it on the machines that train; it works by hand too.
#
#   bash launch/worker.sh prepare [OPTIONS]   run the set-up script, make .venv, install
#   bash launch/worker.sh start  [OPTIONS] -- CONFIG ... --run.dir DIR    detached, outlives ssh
#   bash launch/worker.sh run    [OPTIONS] -- CONFIG ... --run.dir DIR    in the foreground
#   bash launch/worker.sh follow     the log as it grows; ends with the run and its exit code
#   bash launch/worker.sh status     one line: running or ended, since when, at which step
#   bash launch/worker.sh alive      exit 0 while a run is in progress, 1 otherwise
#   bash launch/worker.sh step       the step that the run has reached; -1 before the first
#   bash launch/worker.sh stop       save and end (exit 75, not started again)
#
#   --extra NAME        cuda, tpu or none, where the choice by the accelerator is wrong
#   --setup FILE        a script run with bash first, such as one that mounts a bucket
#   --fetch-python      get a Python through uv where the machine's own is older than 3.11
#   --env NAME=VALUE    into the environment of training; may be repeated
#   --restarts N        restarts without a new step before giving up (default 5)
#   --backoff S         seconds before the first restart (default 10; doubles up to 300)
#   --dry-run           print the training command and stop
#
# Exit codes are those of `bert-variants train`: 0 done, 2 usage, 3 data or checkpoint invalid,
# 4 diverged, 75 preempted and saved, 76 watchdog or peer lost. Only 75, 76, 134, 137 and 143
# are started again.

set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=launch/lib/commands.sh
source "$root/launch/lib/commands.sh"
# shellcheck source=launch/lib/environment.sh
source "$root/launch/lib/environment.sh"
# shellcheck source=launch/lib/relaunch.sh
source "$root/launch/lib/relaunch.sh"

# What the running (or the last) run is: its process, command, run directory, log, exit code.
state=$root/runs/.launch

alive() {
    local pid
    [[ -f $state/pid ]] || return 1
    pid=$(<"$state/pid")
    # The number may belong to another process by now.
    [[ $(ps -o args= -p "$pid" 2>/dev/null) == *worker.sh* ]]
}

run_dir_step() {
    local dir=""
    [[ ! -f $state/run_dir ]] || dir=$(<"$state/run_dir")
    [[ $dir == /* ]] || dir=$root/$dir
    newest_step "$dir"
}

prepare() {
    local python="" chosen=$extra
    if [[ -n $setup ]]; then
        bash "$setup"
    fi
    if [[ $chosen == auto ]]; then
        chosen=$(accelerator_extra)
    elif [[ $chosen == none ]]; then
        chosen=""
    fi
    if ((fetch_python)) && ! environment_is_fit "$root/.venv" && ! find_python >/dev/null 2>&1; then
        say "no Python >= 3.11 here; getting one through uv"
        python3 -m pip install --user --quiet uv
        python3 -m uv python install --quiet 3.12
        python=$(python3 -m uv python find 3.12)
    fi
    prepare_environment "$root" "$python" "$chosen"
}

# Training in the foreground, restarted as agreed, its last exit code stored.
supervise() {
    local code=0
    mkdir -p "$state"
    rm -f "$state/code"
    echo $$ >"$state/pid"
    quote "$@" >"$state/command"
    run_dir_of "$@" >"$state/run_dir"
    export JAX_COMPILATION_CACHE_DIR=${JAX_COMPILATION_CACHE_DIR:-$root/.jax_cache}
    cd "$root"
    relaunch run_dir_step run_child "$root/.venv/bin/bert-variants" train "$@" || code=$?
    echo "$code" >"$state/code.new"
    mv "$state/code.new" "$state/code"
    return "$code"
}

start() {
    if alive; then
        if [[ $(<"$state/command") == "$(quote "$@")" ]]; then
            say "this run is in progress already (process $(<"$state/pid"))"
            return 0
        fi
        fail 2 "another run is in progress here: $(<"$state/command"). Stop it first."
    fi
    prepare
    mkdir -p "$state"
    rm -f "$state/code" "$state/pid"
    echo "--- $(date -u +%Y-%m-%dT%H:%M:%SZ) $(quote "$@")" >>"$state/log"
    setsid nohup bash "$root/launch/worker.sh" supervise --restarts "$RELAUNCH_LIMIT" \
        --backoff "$RELAUNCH_BACKOFF" -- "$@" >>"$state/log" 2>&1 </dev/null &
    local tries
    for ((tries = 0; tries < 100; tries++)); do
        [[ ! -f $state/pid ]] || break
        sleep 0.1
    done
    [[ -f $state/pid ]] || fail 1 "the run did not start; see $state/log"
    say "started (process $(<"$state/pid")); log in $state/log"
}

follow() {
    local tries
    [[ -f $state/log ]] || fail 1 "nothing has run here: $state/log does not exist"
    if alive; then
        tail -n 30 --pid="$(<"$state/pid")" -F "$state/log" 2>/dev/null || true
    else
        tail -n 30 "$state/log"
    fi
    for ((tries = 0; tries < 20; tries++)); do
        [[ ! -f $state/code ]] || return "$(<"$state/code")"
        sleep 0.1
    done
    say "the run ended without an exit code: the machine or its supervisor was killed"
    return 137
}

status() {
    local what="nothing has run here"
    if alive; then
        what="running, process $(<"$state/pid")"
    elif [[ -f $state/code ]]; then
        what="ended with exit $(<"$state/code") ($(meaning "$(<"$state/code")"))"
    elif [[ -f $state/pid ]]; then
        what="killed without an exit code"
    fi
    echo "$(uname -n): $what, step $(run_dir_step)"
}

stop() {
    local pid
    alive || fail 1 "no run is in progress here"
    pid=$(<"$state/pid")
    kill -TERM "$pid"
    say "told process $pid to save and end"
    while alive; do
        sleep 0.2
    done
    status
}

verb=${1:---help}
(($# == 0)) || shift
extra=auto
setup=""
fetch_python=0
while (($#)); do
    case $1 in
        --extra) need_value "$1" $# && extra=$2 && shift 2 ;;
        --setup) need_value "$1" $# && setup=$2 && shift 2 ;;
        --fetch-python) fetch_python=1 && shift ;;
        --env)
            need_value "$1" $#
            [[ $2 =~ ^[A-Za-z_][A-Za-z0-9_]*= ]] || fail 2 "--env is '$2', expected NAME=VALUE"
            export "${2?}"
            shift 2
            ;;
        --restarts) need_value "$1" $# && need_number "$1" "$2" && RELAUNCH_LIMIT=$2 && shift 2 ;;
        --backoff) need_value "$1" $# && need_number "$1" "$2" && RELAUNCH_BACKOFF=$2 && shift 2 ;;
        --dry-run) DRY_RUN=1 && shift ;;
        --) shift && break ;;
        *) fail 2 "unknown argument '$1'; see --help" ;;
    esac
done
case $verb in
    -h | --help) usage "$0" ;;
    prepare) prepare ;;
    start | run | supervise)
        check_training "$@"
        if ((DRY_RUN)); then
            run "$root/.venv/bin/bert-variants" train "$@"
        elif [[ $verb == start ]]; then
            start "$@"
        elif [[ $verb == supervise ]]; then
            supervise "$@"
        else
            alive && fail 2 "a run is in progress here: $(<"$state/command"). Stop it first."
            prepare
            supervise "$@"
        fi
        ;;
    follow) follow ;;
    status) status ;;
    alive) alive ;;
    step) run_dir_step ;;
    stop) stop ;;
    *) fail 2 "unknown verb '$verb'; see --help" ;;
esac
