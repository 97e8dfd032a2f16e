"""Strict JAX for every test, eight fake CPU devices, and fixtures that more than one room uses."""

from __future__ import annotations

import functools
import gc
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

os.environ.setdefault("JAX_PLATFORMS", "cpu")
# Eight devices share the machine's cores with other tests: the runtime takes a collective that some
# device has not joined after 40 seconds for stuck, and ends the whole process.
_FLAGS = os.environ.get("XLA_FLAGS", "")
for _flag in (
    "--xla_force_host_platform_device_count=8",
    "--xla_cpu_collective_call_terminate_timeout_seconds=600",
):
    if _flag.partition("=")[0] not in _FLAGS:
        _FLAGS = f"{_FLAGS} {_flag}".strip()
os.environ["XLA_FLAGS"] = _FLAGS
# Programs of tiny arrays cost their compilation: the partitioner works as always, the machine code
# need not be fast. JAX_DISABLE_MOST_OPTIMIZATIONS=0 tests what users run.
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")

# Of what tests make hardly anything is in cycles, and each collection also walks jax's caches: at
# the usual thresholds that is a part of the suite's time which is felt.
gc.set_threshold(100_000, 50, 50)

# A shell that starts the suite in the background has it ignore SIGINT, and a process that ignores
# a signal hands that on to its children: the launch scripts could then not be interrupted.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

import jax  # noqa: E402
import pytest  # noqa: E402

jax.config.update("jax_numpy_rank_promotion", "raise")

REPOSITORY = Path(__file__).resolve().parent.parent


# Linux allows a process 65,530 mappings (vm.max_map_count), and each compiled program takes dozens;
# beyond them the compiler dies of a segmentation fault. The module with most of them adds 42,000
# (contracts/test_models.py with its slow tests).
MAPPINGS = 15_000
_Cached = type(functools.cache(lambda: None))


@pytest.fixture(scope="module", autouse=True)
def _forget_programs() -> Iterator[None]:
    """Let go of compiled programs after a module, once there are many."""
    yield
    maps = Path("/proc/self/maps")
    if maps.is_file() and maps.read_bytes().count(b"\n") > MAPPINGS:
        for module in list(sys.modules.values()):
            if not _is_test(getattr(module, "__file__", None)):
                continue
            for made in vars(module).values():
                if isinstance(made, _Cached):  # what it holds may hold compiled programs
                    made.cache_clear()
        jax.clear_caches()


def _is_test(file: str | None) -> bool:
    return file is not None and Path(file).is_relative_to(REPOSITORY / "tests")


@pytest.fixture(scope="session")
def repository() -> Path:
    """The root of the checkout."""
    return REPOSITORY


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data; tests that need it are skipped, visibly, where it is absent."""
    named = os.environ.get("BERT_VARIANTS_DATA")
    folder = Path(named) if named else REPOSITORY.parent / "shared" / "data"
    if not (folder / "README.md").is_file():
        pytest.skip(f"no real data at {folder}; set BERT_VARIANTS_DATA")
    return folder
