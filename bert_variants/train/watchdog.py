"""Every wait is bounded: a step that takes far too long ends the process instead of hanging.

A thread of Python's own ends the process with exit code 76 after printing all stacks. Time in which
that thread did not run either does not count: a process that was stopped (Ctrl-Z, a suspended
machine) and goes on has its whole limit before it. Should the interpreter itself be stuck (its lock
held for ever), ``faulthandler``'s thread, which needs no interpreter, does the same an hour and a
half after the limit; it can only exit with 1, and cannot tell who was stopped.
"""

from __future__ import annotations

import collections
import faulthandler
import os
import statistics
import sys
import threading
import time
from types import TracebackType

from bert_variants.train.errors import LOST

SHORTEST = 300.0  # seconds that a step may always take
TIMES_MEDIAN = 20.0
LONG = 3600.0  # for evaluation, saving and the first step, whose compilation takes its time


class Watchdog:
    """``arm`` before a wait, again before the next one, ``off`` at the end; a context manager."""

    def __init__(self, shortest: float = SHORTEST) -> None:
        self._shortest = shortest
        self._recent: collections.deque[float] = collections.deque(maxlen=100)
        self._deadline: float | None = None
        self._what = ""
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)

    def __enter__(self) -> Watchdog:
        self._ran = time.monotonic()  # here, and not by the thread, which may begin later
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.off()
        self._closed.set()
        self._thread.join()

    def took(self, seconds: float) -> None:
        """A step's duration, from which the limit of the next ones comes."""
        self._recent.append(seconds)

    @property
    def limit(self) -> float:
        """Seconds that a step may take: max(300, 20 x median of the last 100 steps)."""
        median = statistics.median(self._recent) if self._recent else 0.0
        return max(self._shortest, TIMES_MEDIAN * median)

    def arm(self, what: str, limit: float | None = None) -> None:
        """From now on ``limit`` seconds (a step's, if None) until the next call."""
        seconds = self.limit if limit is None else limit
        self._what, self._deadline = what, time.monotonic() + seconds
        last = seconds + 1.5 * LONG
        faulthandler.dump_traceback_later(last, exit=True, file=sys.__stderr__)

    def off(self) -> None:
        """Nothing is waited for."""
        self._deadline = None
        faulthandler.cancel_dump_traceback_later()

    def _watch(self) -> None:
        turn = min(1.0, self._shortest / 4)
        while not self._closed.wait(turn):
            now = time.monotonic()
            missed, self._ran = now - self._ran - turn, now
            deadline = self._deadline
            if deadline is None:
                continue
            if missed > turn:  # nobody ran meanwhile
                self._deadline = deadline + missed
            elif now > deadline:
                message = f"watchdog: {self._what} took too long; all stacks follow. Exit {LOST}.\n"
                os.write(sys.__stderr__.fileno(), message.encode())
                faulthandler.dump_traceback(file=sys.__stderr__, all_threads=True)
                os._exit(LOST)
