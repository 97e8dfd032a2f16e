"""Items made by a thread while the consumer is busy: bounded, in order, and never a hang."""

from __future__ import annotations

import collections
import threading
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

Item = TypeVar("Item")
State = TypeVar("State")


class Prefetch(Iterator[tuple[Item, State]], Generic[Item, State]):
    """``(item, state), ...`` where ``item, state = make(state)``, a few of them ahead of time.

    A context manager: leaving it stops the threads. They also end with the process, so that a
    consumer that forgets to close can still exit.
    """

    def __init__(
        self,
        make: Callable[[State], tuple[Item, State]],
        state: State,
        depth: int,
        *,
        ahead: Callable[[State], None] | None = None,
    ) -> None:
        """
        Args:
            make: the item at a state, and the state after it. Called in one thread, in order.
            state: where to begin.
            depth: items that are kept ready, at least 1.
            ahead: told of each new state, in a thread of its own, to get ready for what follows.
                What it raises is ignored: ``make`` will meet the same when its turn comes.
        """
        if depth < 1:
            raise ValueError(f"depth is {depth}, expected at least 1.")
        self._make, self._ahead, self._depth = make, ahead, depth
        self._ready: collections.deque[tuple[Item, State]] = collections.deque()
        self._changed = threading.Condition()
        self._error: BaseException | None = None
        self._closed = False
        self._newest, self._seen = state, None
        work = [self._fill] if ahead is None else [self._fill, self._look_ahead]
        self._threads = [threading.Thread(target=w, name=w.__name__, daemon=True) for w in work]
        for thread in self._threads:
            thread.start()

    def __enter__(self) -> Prefetch[Item, State]:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __next__(self) -> tuple[Item, State]:
        with self._changed:
            self._changed.wait_for(lambda: self._ready or self._error or self._closed)
            if self._ready:
                self._changed.notify_all()
                return self._ready.popleft()
            if self._error is not None:
                raise self._error
            raise StopIteration

    def ready(self, seconds: float) -> bool:
        """Whether the next item (or error) is there, after waiting for it at most so long."""
        with self._changed:
            return bool(
                self._changed.wait_for(
                    lambda: self._ready or self._error or self._closed, timeout=seconds
                )
            )

    def close(self) -> None:
        """Stop the threads and wait for what they are in the middle of."""
        with self._changed:
            self._closed = True
            self._ready.clear()
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()

    def _fill(self) -> None:
        state = self._newest
        try:
            while True:
                with self._changed:
                    self._changed.wait_for(lambda: len(self._ready) < self._depth or self._closed)
                    if self._closed:
                        return
                item, state = self._make(state)
                with self._changed:
                    if self._closed:
                        return
                    self._ready.append((item, state))
                    self._newest = state
                    self._changed.notify_all()
        except BaseException as error:
            with self._changed:
                self._error = error
                self._changed.notify_all()

    def _look_ahead(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(
                    lambda: self._newest is not self._seen or self._closed or self._error
                )
                if self._closed or self._error is not None:
                    return
                state = self._seen = self._newest
            try:
                self._ahead(state)
            except Exception:
                return
