#!/usr/bin/env bash
# Train on a Cloud TPU VM or pod slice, also a preemptible one, from any machine with gcloud.
#
#   bash launch/tpu_vm.sh up     NAME [OPTIONS]           find or create the TPU, wait until ready
#   bash launch/tpu_vm.sh run    NAME [OPTIONS] -- CONFIG ... --run.dir DIR
#                                                         copy the code, start on all workers
#   bash launch/tpu_vm.sh follow NAME [OPTIONS]           the log of worker 0 until the run ends
#   bash launch/tpu_vm.sh watch  NAME [OPTIONS] -- CONFIG ... --run.dir DIR
#                                                         up, run and follow; after a preemption
#                                                         create the TPU again and resume
#   bash launch/tpu_vm.sh status NAME [OPTIONS]           the TPU's state, one line a worker
#   bash launch/tpu_vm.sh stop   NAME [OPTIONS]           save and end the run, keep the TPU
#   bash launch/tpu_vm.sh delete NAME [OPTIONS]           the TPU, and its queued resource
#
#   --zone Z, --project P   where (default: what gcloud is configured for)
#   --type T                accelerator type, such as v4-8, v5litepod-16, v6e-64
#   --version V             runtime version (default by --type)
#   --queued                ask through a queued resource: waits for capacity in the queue
#   --spot                  preemptible and cheaper
#   --create-flag FLAG      one more flag for gcloud's create, such as --network=mine; repeated
#   --setup FILE            a script run with bash on every worker first, such as one that mounts
#                           the bucket or disk of the run directory
#   --delete-after          watch deletes the TPU when the run has ended, however it ended
#   --poll S                seconds between looks at a TPU that is being made (default 30)
#   --restarts N            restarts without a new step before giving up (default 5)
#   --backoff S             seconds before the first restart (default 10; doubles up to 300)
#   --dry-run               print the exact commands and run none
#
# A preempted TPU VM loses its disk, and the workers of a slice share none: on a --spot TPU or a
# slice, DIR must lie on a file system that --setup mounts on every worker.
# The run outlives this script: Ctrl-C ends the following, `stop` ends the run. Exit codes are
# those of training (launch/worker.sh); 1 where gcloud fails (quota, capacity, permission).

set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=launch/lib/commands.sh
source "$root/launch/lib/commands.sh"
# shellcheck source=launch/lib/relaunch.sh
source "$root/launch/lib/relaunch.sh"

remote=bert-variants # the code's directory on the workers, from the home directory
connects=5           # ssh attempts in a row
dry_state=NOT_FOUND  # what a dry run pretends to see

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# vm VERB FLAGS..., queue VERB FLAGS...: of this TPU, of its queued resource.
vm() {
    local verb=$1
    shift
    run gcloud compute tpus tpu-vm "$verb" "$name" "$@" "${place[@]}"
}

queue() {
    local verb=$1
    shift
    run gcloud compute tpus queued-resources "$verb" "$name" "$@" "${place[@]}"
}

# copy FILE PATH: a file of this machine to all workers, again while the connection fails.
copy() {
    local tries code delay=$RELAUNCH_BACKOFF
    for ((tries = 1; ; tries++)); do
        code=0
        run gcloud compute tpus tpu-vm scp "$1" "$name:$2" --worker=all "${place[@]}" || code=$?
        ((code != 0 && tries < connects)) || return "$code"
        [[ $(look vm state) == READY ]] || return 255
        say "copying to $name failed; again in $delay s ($tries of $connects)"
        pause "$delay"
    done
}

# look vm|queue FIELD: the state that gcloud describes, NOT_FOUND, or UNKNOWN where it cannot say.
look() {
    local out
    if ((DRY_RUN)); then
        "$1" describe "--format=value($2)" >&3
        echo "$dry_state"
    elif out=$("$1" describe "--format=value($2)" 2>"$work/error"); then
        echo "${out:-UNKNOWN}"
    elif grep -qi 'not[_ ]found' "$work/error"; then
        echo NOT_FOUND
    else
        cat "$work/error" >&2
        echo UNKNOWN
    fi
}

# The state of what was asked for: of the queued resource while it waits, then of its TPU.
tpu_state() {
    local state=ACTIVE
    if ((queued)); then
        state=$(look queue state.state)
    fi
    if [[ $state == ACTIVE || $state == READY ]]; then
        state=$(look vm state)
        # An active request whose TPU is gone was preempted a moment ago.
        if ((queued)) && [[ $state == NOT_FOUND ]]; then
            state=SUSPENDED
        fi
    fi
    echo "$state"
}

runtime_version() {
    case $type in
        v6e-*) echo v2-alpha-tpuv6e ;;
        v5p-*) echo v2-alpha-tpuv5 ;;
        v5litepod-* | v5e-*) echo v2-alpha-tpuv5-lite ;;
        v2-* | v3-* | v4-*) echo tpu-ubuntu2204-base ;;
        *) fail 2 "no runtime version is known for --type '$type'; give --version" ;;
    esac
}

# Exit 0: asked for. 75: no capacity now. Anything else is final and has been said.
create() {
    local code=0 chosen flags=("--accelerator-type=$type")
    [[ -n $type ]] || fail 2 "$name does not exist yet; give --type to create it"
    chosen=${version:-$(runtime_version)} || exit
    ((!spot)) || flags+=(--spot)
    flags+=(${create_flags[@]+"${create_flags[@]}"})
    if ((queued)); then
        queue create "--node-id=$name" "--runtime-version=$chosen" "${flags[@]}" 2>"$work/error" || code=$?
    else
        vm create "--version=$chosen" "${flags[@]}" 2>"$work/error" || code=$?
    fi
    dry_state=READY
    ((code)) || return 0
    cat "$work/error" >&2
    if grep -qiE 'no more capacity|insufficient capacity|stockout|resource_pool_exhausted' "$work/error"; then
        say "no capacity for $type in this zone now; --queued waits for it in line"
        return 75
    elif grep -qiE 'already[_ ]exists' "$work/error"; then
        return 0
    elif grep -qiE 'quota' "$work/error"; then
        say "error: the project's quota does not allow $type here: another zone or type, delete" \
            "what is unused, or ask for more quota"
        return 1
    fi
    say "error: gcloud could not create $name (exit $code)"
    return 1
}

remove() {
    local code=0
    if [[ $1 == queue ]]; then
        queue delete --force --quiet || code=$?
    else
        vm delete --quiet || code=$?
    fi
    dry_state=NOT_FOUND
    return "$code"
}

# The TPU and, where there is one, the queued resource that holds it.
remove_all() {
    if ((queued)) || [[ $(look queue state.state) != NOT_FOUND ]]; then
        remove queue
    else
        remove vm
    fi
}

# Find or create the TPU and wait until it is ready.
up() {
    local state said="" created=0 refused=0 unknown=0 delay=$RELAUNCH_BACKOFF code
    while :; do
        state=$(tpu_state)
        [[ $state == "$said" ]] || say "$name: $state"
        said=$state
        [[ $state == UNKNOWN ]] || unknown=0
        case $state in
            READY) return 0 ;;
            NOT_FOUND)
                code=0
                create || code=$?
                if ((code == 75 && refused < RELAUNCH_LIMIT)); then
                    refused=$((refused + 1))
                    say "again in $delay s ($refused of $RELAUNCH_LIMIT)"
                    pause "$delay"
                    delay=$((delay * 2 < RELAUNCH_LONGEST ? delay * 2 : RELAUNCH_LONGEST))
                elif ((code)); then
                    return 1
                else
                    created=1
                fi
                ;;
            FAILED)
                if ((created)); then
                    say "error: the request for $name failed; \`gcloud compute tpus" \
                        "queued-resources describe $name\` says why"
                    return 1
                fi
                remove queue || return 1
                ;;
            SUSPENDED) remove queue || return 1 ;;
            PREEMPTED | TERMINATED)
                if ((queued)); then remove queue; else remove vm; fi || return 1
                ;;
            STOPPED) vm start || return 1 ;;
            *)
                if [[ $state == UNKNOWN ]]; then
                    unknown=$((unknown + 1))
                    ((unknown <= RELAUNCH_LIMIT)) || {
                        say "error: gcloud cannot say what became of $name"
                        return 1
                    }
                fi
                pause "$poll"
                ;;
        esac
    done
}

# on WORKER COMMAND...: again while the connection itself fails (255) and the TPU is there.
on() {
    local worker=$1 tries code started delay=$RELAUNCH_BACKOFF
    shift
    for ((tries = 1; ; tries++)); do
        code=0
        started=$SECONDS
        vm ssh "--worker=$worker" "--command=$(quote "$@")" || code=$?
        ((SECONDS - started < 60)) || tries=1
        ((code == 255 && tries < connects)) || return "$code"
        [[ $(look vm state) == READY ]] || return 255
        say "the connection to $name failed; again in $delay s ($tries of $connects)"
        pause "$delay"
    done
}

worker_does() {
    local which=$1
    shift
    on "$which" bash "$remote/launch/worker.sh" "$@"
}

# Tracked files and new ones that git does not ignore, as they are now: NUL-separated on stdout.
list_code() {
    local path
    (
        cd "$root"
        if git rev-parse --is-inside-work-tree >/dev/null 2>&1; then
            git ls-files -coz --exclude-standard
        else
            find . \( -name .venv -o -name runs -o -name data -o -name .jax_cache \) -prune \
                -o -type f -print0
        fi
    ) | while IFS= read -r -d '' path; do
        path=${path#./}
        [[ ! -e $root/$path ]] || printf '%s\0' "$path"
    done
}

copy_code() {
    local path top tops=()
    list_code >"$work/files"
    while IFS= read -r -d '' path; do
        top=$remote/${path%%/*}
        [[ " ${tops[*]-} " == *" $top "* ]] || tops+=("$top")
    done <"$work/files"
    run tar -C "$root" --null -czf "$work/code.tgz" -T "$work/files" || return
    copy "$work/code.tgz" "$remote.tgz" || return
    # What the code consists of is replaced; .venv, runs and data beside it stay.
    on all rm -rf -- "${tops[@]}" || return
    on all mkdir -p "$remote/runs" || return
    on all tar -xzf "$remote.tgz" -C "$remote" || return
    if [[ -n $setup ]]; then
        copy "$setup" "$remote/runs/setup.sh"
    fi
}

# Copy and start, unless this very run is in progress.
start() {
    local options=(--extra tpu --fetch-python)
    options+=(--restarts "$RELAUNCH_LIMIT" --backoff "$RELAUNCH_BACKOFF")
    [[ -z $setup ]] || options+=(--setup "$remote/runs/setup.sh")
    if ((!DRY_RUN)) && worker_does 0 alive 2>/dev/null; then
        worker_does all start "${options[@]}" -- "$@"
        return
    fi
    copy_code || return
    worker_does all prepare "${options[@]}" || return
    worker_does all start "${options[@]}" -- "$@"
}

# One life of the TPU. What it returns decides whether there is another.
life() {
    local code=0
    up || return
    start "$@" || code=$?
    if ((code)); then
        gone && return 255
        return "$code"
    fi
    reached=$(worker_does 0 step 2>/dev/null) || reached=-1
    [[ $reached =~ ^-?[0-9]+$ ]] || reached=-1
    worker_does 0 follow || code=$?
    if ((code)) && gone; then
        return 255
    fi
    return "$code"
}

gone() { [[ $(look vm state) != READY ]]; }

watch() {
    local code=0
    reached=-1
    RELAUNCH_TRANSIENT=255
    step_reached() { echo "$reached"; }
    relaunch step_reached life "$@" || code=$?
    if ((delete_after)); then
        remove_all || say "error: $name could not be deleted and goes on costing"
    else
        say "$name goes on costing until: bash launch/tpu_vm.sh delete $(quote "$name")"
    fi
    return "$code"
}

verb=${1:---help}
(($# == 0)) || shift
if [[ $verb == -h || $verb == --help ]]; then
    usage "$0"
    exit 0
fi
(($#)) && [[ $1 != -* ]] || fail 2 "$verb needs the TPU's name; see --help"
name=$1
shift
type="" version="" setup=""
queued=0 spot=0 delete_after=0 poll=30
place=("--quiet")
create_flags=()
while (($#)); do
    case $1 in
        --zone | --project) need_value "$1" $# && place+=("$1=$2") && shift 2 ;;
        --type) need_value "$1" $# && type=$2 && shift 2 ;;
        --version) need_value "$1" $# && version=$2 && shift 2 ;;
        --queued) queued=1 && shift ;;
        --spot) spot=1 && shift ;;
        --delete-after) delete_after=1 && shift ;;
        --create-flag) need_value "$1" $# && create_flags+=("$2") && shift 2 ;;
        --setup) need_value "$1" $# && setup=$2 && shift 2 ;;
        --poll) need_value "$1" $# && need_number "$1" "$2" && poll=$2 && shift 2 ;;
        --restarts) need_value "$1" $# && need_number "$1" "$2" && RELAUNCH_LIMIT=$2 && shift 2 ;;
        --backoff) need_value "$1" $# && need_number "$1" "$2" && RELAUNCH_BACKOFF=$2 && shift 2 ;;
        --dry-run) DRY_RUN=1 && shift ;;
        --) shift && break ;;
        *) fail 2 "unknown argument '$1'; see --help" ;;
    esac
done
[[ -z $setup || -f $setup ]] || fail 2 "--setup: $setup is not a file"
((DRY_RUN)) || need_command gcloud "reach Cloud TPU (Google Cloud CLI)"
exec 3>&1 # where a dry run prints commands whose output is read
case $verb in
    up) up ;;
    run | watch)
        check_training "$@"
        if [[ $verb == watch ]]; then watch "$@"; else start "$@"; fi
        ;;
    follow) worker_does 0 follow ;;
    status)
        state=$(tpu_state)
        echo "$name: $state"
        [[ $state != READY ]] || worker_does all status
        ;;
    stop) worker_does all stop ;;
    delete) remove_all ;;
    *) fail 2 "unknown verb '$verb'; see --help" ;;
esac
