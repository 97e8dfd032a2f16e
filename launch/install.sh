#!/usr/bin/env bash
# Install the package from this checkout into .venv, editable.
#
#   bash launch/install.sh [--extra NAME]... [--python PY]
#
#   --extra NAME   an extra of setup.py (zh, lexicon, dev, oracle, cuda, tpu, ...); may be repeated.
#                  Without cuda, tpu or none among them, the accelerator of this machine decides.
#   --python PY    the Python (>= 3.11) to make .venv with; without it the first fit one on PATH
#
# Running it again does nothing while setup.py, pyproject.toml and the Python stay the same.

set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=launch/lib/commands.sh
source "$root/launch/lib/commands.sh"
# shellcheck source=launch/lib/environment.sh
source "$root/launch/lib/environment.sh"

python=${PYTHON:-}
extras=()
accelerator=auto
while (($#)); do
    case $1 in
        --extra)
            need_value "$1" $#
            case $2 in
                cuda | tpu) accelerator=$2 ;;
                none) accelerator="" ;;
                *) extras+=("$2") ;;
            esac
            shift 2
            ;;
        --python) need_value "$1" $# && python=$2 && shift 2 ;;
        -h | --help) usage "$0" && exit 0 ;;
        *) fail 2 "unknown argument '$1'; see --help" ;;
    esac
done
if [[ $accelerator == auto ]]; then
    accelerator=$(accelerator_extra)
fi
prepare_environment "$root" "$python" ${extras[@]+"${extras[@]}"} "$accelerator"
