#!/usr/bin/env bash
# From nothing to a trained tiny BERT and a report about it, on a CPU, a GPU or a TPU.
#
#   bash launch/quickstart.sh [--minutes N] [--dir DIR] [--python PY] [--extra NAME]
#
#   --minutes N   training time on two laptop cores (default 5); the installation and the
#                 rest take some minutes more
#   --dir DIR     where everything is written (default runs/quickstart in the checkout)
#   --python PY   the Python (>= 3.11) to make .venv with; without it the first fit one on PATH
#   --extra NAME  cuda, tpu or none, where the choice by the machine's accelerator is wrong
#
# It makes .venv, installs the package, trains a vocabulary on the embedded corpus, pretrains,
# evaluates, fills masks, and prints the path of the report last. Again: it resumes.

set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=launch/lib/commands.sh
source "$root/launch/lib/commands.sh"

minutes=5
dir=$root/runs/quickstart
install=()
while (($#)); do
    case $1 in
        --minutes) need_value "$1" $# && minutes=$2 && shift 2 ;;
        --dir) need_value "$1" $# && dir=$2 && shift 2 ;;
        --python | --extra) need_value "$1" $# && install+=("$1" "$2") && shift 2 ;;
        -h | --help) usage "$0" && exit 0 ;;
        *) fail 2 "unknown argument '$1'; see --help" ;;
    esac
done
[[ $dir == /* ]] || dir=$PWD/$dir

bash "$root/launch/install.sh" ${install[@]+"${install[@]}"}
export JAX_COMPILATION_CACHE_DIR=${JAX_COMPILATION_CACHE_DIR:-$root/.jax_cache}
cd "$root"
exec "$root/.venv/bin/bert-variants" quickstart --minutes "$minutes" --dir "$dir"
