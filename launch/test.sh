#!/usr/bin/env bash
# The default test suite: everything but the slow tests and those that need PyTorch.
#
#   bash launch/test.sh [ARGUMENTS OF PYTEST]...
#
#   PYTHON=python3.12       the Python to make .venv with
#   PYTEST_WORKERS=4        processes that run tests (default 2; 0: all in one)
#
# It makes .venv with the extra `dev` first. Compiled programs are kept in .jax_cache.

set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
if [[ ${1:-} == -h || ${1:-} == --help ]]; then
    # shellcheck source=launch/lib/commands.sh
    source "$root/launch/lib/commands.sh"
    usage "$0"
    exit 0
fi

bash "$root/launch/install.sh" --extra dev --extra none
export JAX_COMPILATION_CACHE_DIR=${JAX_COMPILATION_CACHE_DIR:-$root/.jax_cache}
workers=${PYTEST_WORKERS:-2}
parallel=()
if [[ $workers != 0 ]]; then
    parallel=(-n "$workers" --dist loadfile --max-worker-restart=0)
fi
cd "$root"
exec "$root/.venv/bin/python" -m pytest -m "not slow and not oracle" \
    ${parallel[@]+"${parallel[@]}"} "$@"
