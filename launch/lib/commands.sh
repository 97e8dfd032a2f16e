# shellcheck shell=bash
# Saying, failing, quoting, and running or printing commands. Sourced, never run.
# Commands are arrays from end to end; text is quoted once, where it crosses to another shell.

DRY_RUN=${DRY_RUN:-0}

# A line for the person at the terminal. Standard output is kept for answers.
say() { printf '%s\n' "$*" >&2; }

# fail CODE MESSAGE...
fail() {
    local code=$1
    shift
    say "error: $*"
    exit "$code"
}

# The comment block at the top of a script is its --help.
usage() { sed -n '2,/^$/s/^# \{0,1\}//p' "$1"; }

# need_value OPTION COUNT-OF-ARGUMENTS-LEFT
need_value() { (($2 > 1)) || fail 2 "$1 needs a value; see --help"; }

# need_command NAME WHAT-FOR
need_command() {
    command -v "$1" >/dev/null || fail 1 "$1 is not on PATH; it is needed to $2"
}

# need_number OPTION VALUE: a whole number from 0.
need_number() {
    [[ $2 =~ ^[0-9]+$ ]] || fail 2 "$1 is '$2', expected a whole number"
}

# Arguments -> one line that any POSIX shell reads back as the same arguments.
quote() {
    local word line="" mark="'" escaped="'\\''"
    for word in "$@"; do
        if [[ ! $word =~ ^[A-Za-z0-9_./:=@%+,-]+$ ]]; then
            word="'${word//$mark/$escaped}'"
        fi
        line+="${line:+ }$word"
    done
    printf '%s' "$line"
}

# Run a command, or only print it when DRY_RUN is 1.
run() {
    if ((DRY_RUN)); then
        printf '%s\n' "$(quote "$@")"
    else
        "$@"
    fi
}

# The value of --run.dir among the arguments of a training command; empty when it is not there.
run_dir_of() {
    local found=""
    while (($#)); do
        case $1 in
            --run.dir) found=${2:-} ;;
            --run.dir=*) found=${1#--run.dir=} ;;
        esac
        shift
    done
    printf '%s' "$found"
}

# check_training ARGUMENTS...: a config, and a run directory that is named.
check_training() {
    (($#)) || fail 2 "no training command; put it after --, such as: -- configs/bert.py --run.dir runs/mine"
    case $1 in
        -*) fail 2 "the training command starts with '$1', expected a config such as configs/bert.py" ;;
    esac
    [[ -n $(run_dir_of "$@") ]] ||
        fail 2 "the training command names no --run.dir; resuming and counting progress need one"
}
