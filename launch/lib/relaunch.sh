# shellcheck shell=bash
# The restart loop. Sourced, after commands.sh.
#
# Exit codes of `bert-variants train`: 0 done; 2 usage or config; 3 data or checkpoint invalid;
# 4 diverged; 75 preempted and saved; 76 watchdog, or a peer was lost. 134 (aborted), 137 (killed)
# and 143 (terminated) come from the system. Only 75, 76, 134, 137 and 143 are started again, and
# only while the run gets on: after RELAUNCH_LIMIT restarts without a new step the loop gives up.

RELAUNCH_LIMIT=5       # restarts without progress
RELAUNCH_BACKOFF=10    # seconds before the first restart; doubles while nothing gets on
RELAUNCH_LONGEST=300   # seconds at most
RELAUNCH_TRANSIENT=""  # one more code to start again after: 255 where ssh is in between
RELAUNCH_STOP=0        # 1: a signal asked us to stop
RELAUNCH_CHILD=""

restartable() {
    case $1 in
        75 | 76 | 134 | 137 | 143) return 0 ;;
    esac
    [[ -n $RELAUNCH_TRANSIENT && $1 == "$RELAUNCH_TRANSIENT" ]]
}

meaning() {
    case $1 in
        0) echo "done" ;;
        2) echo "usage or config" ;;
        3) echo "data or checkpoint invalid" ;;
        4) echo "diverged" ;;
        75) echo "preempted and saved" ;;
        76) echo "watchdog, or a peer was lost" ;;
        134) echo "aborted" ;;
        137) echo "killed" ;;
        143) echo "terminated" ;;
        255) echo "connection lost" ;;
        *) echo "a fault" ;;
    esac
}

# The step that a run directory has reached: of its newest committed checkpoint, else of the last
# whole line of metrics.jsonl, else -1.
newest_step() {
    local newest=-1 path name
    for path in "$1"/checkpoints/*/; do
        name=${path%/}
        name=${name##*/}
        if [[ $name =~ ^[0-9]+$ ]] && ((10#$name > newest)); then
            newest=$((10#$name))
        fi
    done
    if ((newest < 0)) && [[ -f $1/metrics.jsonl ]]; then
        name=$(tail -n 20 -- "$1/metrics.jsonl" |
            sed -n 's/^{.*"step": *\([0-9][0-9]*\)[,}].*$/\1/p' | tail -n 1)
        newest=${name:--1}
    fi
    echo "$newest"
}

# A sleep that a signal ends. In slices, because one that comes just before the sleep begins would
# otherwise be noticed at its end.
pause() {
    local left
    for ((left = $1; left > 0 && !RELAUNCH_STOP; left--)); do
        sleep 1
    done
}

# Run a command in the background and hand on the signals that end jobs, as the one signal that
# makes training save and exit 75. Returns the command's own exit code.
run_child() {
    local code signalled
    RELAUNCH_SIGNALLED=0
    RELAUNCH_SENT=0
    trap 'RELAUNCH_STOP=1; RELAUNCH_SIGNALLED=1; stop_child' TERM INT USR1
    # In a process group of its own: Ctrl-C at a terminal goes to the whole group, and the child
    # would hear of it twice.
    set -m
    "$@" </dev/null &
    RELAUNCH_CHILD=$!
    set +m
    # A signal that came before the child was there has not reached it. One is enough: a second
    # one tells training to end at once.
    ((RELAUNCH_STOP && !RELAUNCH_SENT)) && stop_child
    while :; do
        code=0
        wait "$RELAUNCH_CHILD" || code=$?
        signalled=$RELAUNCH_SIGNALLED
        RELAUNCH_SIGNALLED=0
        # A trapped signal ends `wait` early; the second `wait` gives the child's code.
        ((signalled)) || break
    done
    RELAUNCH_CHILD=""
    return "$code"
}

stop_child() {
    [[ -n $RELAUNCH_CHILD ]] || return 0
    RELAUNCH_SENT=1
    kill -TERM "$RELAUNCH_CHILD" 2>/dev/null || true
}

# relaunch STEP-COMMAND COMMAND...
# Runs COMMAND until it is done, fails for good, is told to stop, or gets nowhere. STEP-COMMAND
# prints the step that the run has reached. Returns the last exit code.
relaunch() {
    local step_of=$1 code last now stuck=0 delay=$RELAUNCH_BACKOFF
    shift
    last=$("$step_of")
    while :; do
        code=0
        "$@" || code=$?
        if ((code == 0)); then
            return 0
        fi
        if ((RELAUNCH_STOP)); then
            say "stopped by a signal; exit $code ($(meaning "$code"))"
            return "$code"
        fi
        if ! restartable "$code"; then
            say "exit $code ($(meaning "$code")): not started again"
            return "$code"
        fi
        now=$("$step_of")
        if ((now > last)); then
            last=$now stuck=0 delay=$RELAUNCH_BACKOFF
        else
            stuck=$((stuck + 1))
        fi
        if ((stuck > RELAUNCH_LIMIT)); then
            say "exit $code ($(meaning "$code")): gave up after $RELAUNCH_LIMIT restarts" \
                "without progress beyond step $last"
            return "$code"
        fi
        say "exit $code ($(meaning "$code")) at step $now; starting again in $delay s" \
            "($stuck of $RELAUNCH_LIMIT restarts without progress)"
        pause "$delay"
        if ((RELAUNCH_STOP)); then
            return "$code"
        fi
        delay=$((delay * 2 < RELAUNCH_LONGEST ? delay * 2 : RELAUNCH_LONGEST))
    done
}
