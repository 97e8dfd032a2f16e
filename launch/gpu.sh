#!/usr/bin/env bash
# Train on a GPU box: this one, or one or several others over ssh.
#
#   bash launch/gpu.sh run    [OPTIONS] -- CONFIG ... --run.dir DIR   copy, start, follow
#   bash launch/gpu.sh follow --host HOST [...]    the log of the first host until the run ends
#   bash launch/gpu.sh status --host HOST [...]    one line a host
#   bash launch/gpu.sh stop   --host HOST [...]    save and end
#
#   --host [USER@]HOST  a box to train on; without one, this machine. Repeated: one process a box,
#                       joined by jax.distributed, the first one coordinating (it must be
#                       reachable from the others by that name, on --port)
#   --remote-dir DIR    where the code goes there, from the home directory (default bert-variants)
#   --gpus LIST         CUDA devices to use, such as 0,1 (default all: one process drives them all)
#   --port N            of the coordinator (default 8476)
#   --setup FILE        a script run with bash on every box first
#   --extra NAME        cuda or none, where the choice by the accelerator is wrong
#   --restarts N        restarts without a new step before giving up (default 5)
#   --backoff S         seconds before the first restart (default 10; doubles up to 300)
#   --dry-run           print the exact commands and run none
#
# With several boxes the run directory must be on a file system that all of them see. Over ssh the
# run goes on when the connection breaks; Ctrl-C ends the following, `stop` ends the run. On this
# machine Ctrl-C saves and ends it. Exit codes are those of training; see launch/worker.sh.

set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=launch/lib/commands.sh
source "$root/launch/lib/commands.sh"
# shellcheck source=launch/lib/relaunch.sh
source "$root/launch/lib/relaunch.sh"

ssh_options=(-o BatchMode=yes -o ServerAliveInterval=30 -o ServerAliveCountMax=4)
connects=5

# on HOST COMMAND...: over ssh, again while the connection itself fails (255).
on() {
    local host=$1 tries code started delay=$RELAUNCH_BACKOFF
    shift
    for ((tries = 1; ; tries++)); do
        code=0
        started=$SECONDS
        run ssh "${ssh_options[@]}" -- "$host" "$(quote "$@")" || code=$?
        # Following for days may lose the connection many times.
        ((SECONDS - started < 60)) || tries=1
        ((code == 255 && tries < connects)) || return "$code"
        say "ssh to $host failed; again in $delay s ($tries of $connects)"
        pause "$delay"
    done
}

worker() {
    local host=$1
    shift
    on "$host" bash "$remote_dir/launch/worker.sh" "$@"
}

# The code as it is here, ignored files left out; what is ignored there stays there.
copy_code() {
    run rsync -az --delete --exclude=/.git --filter=':- .gitignore' \
        -e "ssh ${ssh_options[*]}" "$root/" "$1:$remote_dir/"
}

# on_box VERB INDEX: prepare or start the INDEX-th box's process.
on_box() {
    local verb=$1 index=$2 host=${hosts[$2]} options
    shift 2
    options=(--extra "$extra" --restarts "$RELAUNCH_LIMIT" --backoff "$RELAUNCH_BACKOFF")
    options+=(${environment[@]+"${environment[@]}"})
    if ((${#hosts[@]} > 1)); then
        options+=(--env "BERT_VARIANTS_COORDINATOR=${hosts[0]##*@}:$port")
        options+=(--env "BERT_VARIANTS_PROCESSES=${#hosts[@]}")
        options+=(--env "BERT_VARIANTS_PROCESS_ID=$index")
    fi
    if [[ -n $setup && $verb == prepare ]]; then
        run rsync -az -e "ssh ${ssh_options[*]}" "$setup" "$host:$remote_dir/runs/setup.sh"
        options+=(--setup "$remote_dir/runs/setup.sh")
    fi
    worker "$host" "$verb" "${options[@]}" -- "$@" || fail $? "$verb on $host failed"
}

run_remote() {
    local index host
    for host in "${hosts[@]}"; do
        on "$host" mkdir -p "$remote_dir/runs"
        copy_code "$host"
    done
    # Every box is ready before the first process starts: it waits for the others, not for long.
    for index in "${!hosts[@]}"; do
        on_box prepare "$index" "$@"
    done
    for index in "${!hosts[@]}"; do
        on_box start "$index" "$@"
    done
    worker "${hosts[0]}" follow
}

run_here() {
    local options=(--extra "$extra" --restarts "$RELAUNCH_LIMIT" --backoff "$RELAUNCH_BACKOFF")
    options+=(${environment[@]+"${environment[@]}"})
    [[ -z $setup ]] || options+=(--setup "$setup")
    if ((DRY_RUN)); then
        run bash "$root/launch/worker.sh" run "${options[@]}" -- "$@"
    else
        exec bash "$root/launch/worker.sh" run "${options[@]}" -- "$@"
    fi
}

verb=${1:---help}
(($# == 0)) || shift
hosts=()
remote_dir=bert-variants
environment=()
port=8476
setup=""
extra=auto
while (($#)); do
    case $1 in
        --host)
            need_value "$1" $#
            [[ $2 != -* ]] || fail 2 "--host is '$2', expected [USER@]HOST"
            hosts+=("$2")
            shift 2
            ;;
        --remote-dir) need_value "$1" $# && remote_dir=$2 && shift 2 ;;
        --gpus) need_value "$1" $# && environment=(--env "CUDA_VISIBLE_DEVICES=$2") && shift 2 ;;
        --port) need_value "$1" $# && need_number "$1" "$2" && port=$2 && shift 2 ;;
        --setup) need_value "$1" $# && setup=$2 && shift 2 ;;
        --extra) need_value "$1" $# && extra=$2 && shift 2 ;;
        --restarts) need_value "$1" $# && need_number "$1" "$2" && RELAUNCH_LIMIT=$2 && shift 2 ;;
        --backoff) need_value "$1" $# && need_number "$1" "$2" && RELAUNCH_BACKOFF=$2 && shift 2 ;;
        --dry-run) DRY_RUN=1 && shift ;;
        --) shift && break ;;
        *) fail 2 "unknown argument '$1'; see --help" ;;
    esac
done
[[ $remote_dir =~ ^[A-Za-z0-9_.][A-Za-z0-9_./-]*$ ]] ||
    fail 2 "--remote-dir is '$remote_dir', expected a plain path below the home directory"
[[ -z $setup || -f $setup ]] || fail 2 "--setup: $setup is not a file"
case $verb in
    -h | --help) usage "$0" ;;
    run)
        check_training "$@"
        if ((${#hosts[@]})); then
            run_remote "$@"
        else
            run_here "$@"
        fi
        ;;
    follow)
        ((${#hosts[@]})) || fail 2 "follow needs --host"
        worker "${hosts[0]}" follow
        ;;
    status | stop)
        ((${#hosts[@]})) || fail 2 "$verb needs --host"
        worst=0
        for host in "${hosts[@]}"; do
            worker "$host" "$verb" || worst=$?
        done
        exit "$worst"
        ;;
    *) fail 2 "unknown verb '$verb'; see --help" ;;
esac
