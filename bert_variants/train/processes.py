"""Several processes as one run, through ``jax.distributed``."""

from __future__ import annotations

import os

import jax
import numpy as np
from jax.experimental import multihost_utils

from bert_variants.config import ConfigError

COORDINATOR = "BERT_VARIANTS_COORDINATOR"  # host:port of process 0
PROCESSES = "BERT_VARIANTS_PROCESSES"
PROCESS_ID = "BERT_VARIANTS_PROCESS_ID"


def initialise() -> None:
    """Join the other processes of this run, if there are any. Call it before any device is used.

    In this order: the three variables above, Slurm with several tasks, a TPU pod; else this
    process is the whole run.

    Raises:
        ConfigError: some of the three variables but not all, or not a number.
    """
    given = {
        name: os.environ[name]
        for name in (COORDINATOR, PROCESSES, PROCESS_ID)
        if name in os.environ
    }
    if given:
        if len(given) < 3:
            missing = sorted({COORDINATOR, PROCESSES, PROCESS_ID} - set(given))
            raise ConfigError(f"{', '.join(sorted(given))} set but {', '.join(missing)} missing.")
        try:
            count, index = int(given[PROCESSES]), int(given[PROCESS_ID])
        except ValueError:
            raise ConfigError(
                f"{PROCESSES}={given[PROCESSES]!r}, {PROCESS_ID}={given[PROCESS_ID]!r}: expected "
                "numbers."
            ) from None
        _join(coordinator_address=given[COORDINATOR], num_processes=count, process_id=index)
    else:
        slurm = "SLURM_STEP_ID" in os.environ and int(os.environ.get("SLURM_NTASKS") or 1) > 1
        tpu_pod = "," in os.environ.get("TPU_WORKER_HOSTNAMES", "")
        if slurm or tpu_pod:
            _join()  # jax finds the address itself


def _join(**address: object) -> None:
    # processes without accelerators talk through gloo; other backends ignore the setting
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.distributed.initialize(**address, heartbeat_timeout_seconds=60)


def is_primary() -> bool:
    """True in the one process that writes files and prints."""
    return jax.process_index() == 0


def barrier(name: str) -> None:
    """Wait for all processes of the run."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(name)


def all_agree(mine: bool) -> bool:
    """Whether it is true in every process."""
    if jax.process_count() == 1:
        return mine
    return bool(np.all(multihost_utils.process_allgather(np.asarray(mine))))
