# shellcheck shell=bash
# A fit Python, and a virtual environment that is kept up to date. Sourced, after commands.sh.

# A virtual environment whose making was interrupted has a Python and no pip.
environment_is_fit() {
    python_is_fit "$1/bin/python" && "$1/bin/python" -c 'import pip' 2>/dev/null
}

python_is_fit() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; }

# find_python [PYTHON] -> path of a Python >= 3.11 that can make virtual environments.
find_python() {
    local name seen=""
    local names=(python3 python python3.12 python3.11 python3.13)
    [[ -z ${1:-} ]] || names=("$1")
    for name in "${names[@]}"; do
        command -v "$name" >/dev/null || continue
        if ! python_is_fit "$name"; then
            seen+="${seen:+, }$name is $("$name" --version 2>&1 | tail -n 1)"
        elif ! "$name" -c 'import ensurepip, venv' >/dev/null 2>&1; then
            seen+="${seen:+, }$name lacks the venv module (Debian, Ubuntu: apt install python3-venv)"
        else
            "$name" -c 'import sys; print(sys.executable)'
            return 0
        fi
    done
    say "error: no Python >= 3.11 among ${names[*]}${seen:+ ($seen)}."
    say "       Install one, or name it: --python /path/to/python3.12"
    return 1
}

# What an installation depends on: a hash of the packaging files, the Python and the place.
install_key() {
    "$1/.venv/bin/python" - "$1/setup.py" "$1/pyproject.toml" <<'PY'
import hashlib, sys
digest = hashlib.sha256(f"{sys.version} {sys.prefix}".encode())
for path in sys.argv[1:]:
    with open(path, "rb") as file:
        digest.update(file.read())
print(digest.hexdigest())
PY
}

# prepare_environment ROOT PYTHON EXTRA...
# Makes ROOT/.venv where there is none (or it belongs to another Python) and installs the package
# editable with the extras, unless the stamp says that this has been done. PYTHON may be empty.
prepare_environment() {
    local root=$1 python=$2 venv=$1/.venv stamp=$1/.venv/installed key extra installed="" missing=0
    shift 2
    if [[ -n $python ]] || ! environment_is_fit "$venv"; then
        python=$(find_python "$python") || return 1
        if ! environment_is_fit "$venv" || ! same_version "$python" "$venv/bin/python"; then
            say "making $venv with $("$python" --version 2>&1)"
            "$python" -m venv --clear "$venv" || return 1
        fi
    fi
    key=$(install_key "$root") || return 1
    if [[ -f $stamp ]]; then
        [[ $(sed -n 1p "$stamp") == "$key" ]] || missing=1
        installed=$(sed -n 2p "$stamp")
    else
        missing=1
    fi
    for extra in "$@"; do
        if [[ -n $extra && ,$installed, != *,$extra,* ]]; then
            installed+="${installed:+,}$extra"
            missing=1
        fi
    done
    ((missing)) || return 0
    rm -f "$stamp"
    install_package "$root" "$installed" || return 1
    printf '%s\n' "$key" "$installed" >"$stamp.new"
    mv "$stamp.new" "$stamp"
}

same_version() {
    local version='import sys; print(sys.version)'
    [[ "$("$1" -c "$version")" == "$("$2" -c "$version")" ]]
}

# install_package ROOT COMMA-SEPARATED-EXTRAS: quiet, with its log in .venv/install.log.
install_package() {
    local root=$1 target=".${2:+[$2]}" log=$1/.venv/install.log started=$SECONDS code=0 ticker=""
    say "installing bert-variants${2:+ with $2} into $root/.venv (some minutes the first time)"
    if [[ -t 2 ]]; then
        show_progress "$log" $$ &
        ticker=$!
    fi
    (
        cd "$root" || exit 1
        .venv/bin/python -m pip install --disable-pip-version-check --no-input \
            --progress-bar off --editable "$target"
    ) >"$log" 2>&1 || code=$?
    if [[ -n $ticker ]]; then
        kill "$ticker" 2>/dev/null || true
        wait "$ticker" 2>/dev/null || true
        printf '\r\033[K' >&2
    fi
    if ((code)); then
        tail -n 25 "$log" >&2
        say "error: pip failed with exit code $code; the whole log is $log"
        return 1
    fi
    say "installed in $((SECONDS - started)) s"
}

# One line that is written over itself: seconds, and what pip does. Ends with its parent.
show_progress() {
    local started=$SECONDS
    while kill -0 "$2" 2>/dev/null; do
        sleep 1
        printf '\r\033[K  %3d s  %.60s' $((SECONDS - started)) "$(tail -n 1 "$1" 2>/dev/null)" >&2
    done
}

# The extra that this machine's accelerator needs: cuda, tpu or nothing. ROOT is for tests.
accelerator_extra() {
    local root=${1:-} path
    if command -v nvidia-smi >/dev/null && nvidia-smi -L 2>/dev/null | grep -q '^GPU '; then
        echo cuda
        return 0
    fi
    for path in "$root"/dev/accel[0-9]*; do
        [[ -e $path ]] || continue
        echo tpu
        return 0
    done
    # Newer TPUs sit behind vfio, which other devices use too; the environment or the PCI
    # identity (vendor 0x1ae0, as jax looks for it) tells.
    for path in "$root"/dev/vfio/[0-9]*; do
        [[ -e $path ]] || continue
        if [[ -n ${TPU_NAME:-}${TPU_ACCELERATOR_TYPE:-}${TPU_WORKER_ID:-} ]] || tpu_on_pci "$root"; then
            echo tpu
        fi
        return 0
    done
    return 0
}

tpu_on_pci() {
    local path
    for path in "$1"/sys/bus/pci/devices/*/; do
        [[ -r ${path}vendor && $(<"${path}vendor") == 0x1ae0 ]] || continue
        case $(<"${path}device") in
            0x0027 | 0x0056 | 0x005e | 0x0062 | 0x0063 | 0x006f | 0x0076) return 0 ;;
        esac
    done
    return 1
}
