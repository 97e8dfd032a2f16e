"""Being told to stop, and the same decision in every process.

The first SIGTERM or SIGINT sets a flag, which the loop reads between steps, between evaluation
batches and while it waits for data: it then saves and ends with exit code 75. A second one, given a
second later or more, ends the process at once with 128 + its number. Nearer ones are the first one
again: a service manager tells every process of a group, and their supervisor passes it on. Nothing
is left half done by the second: a checkpoint that is being written is not committed and is
discarded at the next start.

With ``jax.distributed`` jax takes SIGTERM for itself when it is initialised; handlers that are
installed afterwards replace that, so ``Signals`` is entered after it.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from types import FrameType, TracebackType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

HANDLED = (signal.SIGTERM, signal.SIGINT)
SAME = 1.0  # seconds within which further signals are the first one again


class Signals:
    """Context manager that owns the two signals of this process.

    Outside the main thread (a notebook's executor, a test) nothing is installed and nothing is
    ever requested.

    Attributes:
        received: name of the first signal, empty until there is one.
    """

    def __init__(self) -> None:
        self.received = ""
        self._first = 0.0
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Signals:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._handle) for number in HANDLED}
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for number, handler in self._before.items():
            # None stands for a handler that was not installed from Python and cannot be put back
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        self._before = {}

    @property
    def requested(self) -> bool:
        """True once this process was told to stop."""
        return bool(self.received)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        del frame
        now = time.monotonic()
        if not self.received:
            self.received, self._first = signal.Signals(number).name, now
        elif now - self._first >= SAME:
            os.write(sys.__stderr__.fileno(), b"second signal: ending at once\n")
            os._exit(128 + number)


class Agreement:
    """Whether any process was told to stop, answered alike in all of them.

    Every process calls ``poll`` equally often. Each call starts one tiny reduction over the mesh
    and returns the result of the call before, so that it never waits for the device to catch up.
    A single process answers for itself, at once.
    """

    def __init__(self, mesh: Mesh) -> None:
        self._alone = jax.process_count() == 1
        self._stop = False
        self._before: jax.Array | None = None
        if not self._alone:
            self._spread = NamedSharding(mesh, PartitionSpec(mesh.axis_names))
            self._local = len(mesh.local_devices)
            everywhere = NamedSharding(mesh, PartitionSpec())
            self._any = jax.jit(jnp.max, out_shardings=everywhere)

    def poll(self, mine: bool) -> bool:
        """True from the call on at which all processes know that one of them said True."""
        if self._alone:
            self._stop = self._stop or mine
            return self._stop
        flags = np.full(self._local, mine, np.int32)
        spread = jax.make_array_from_process_local_data(self._spread, flags)
        before, self._before = self._before, self._any(spread)
        if before is not None and not self._stop:
            self._stop = bool(np.asarray(before))
        return self._stop
