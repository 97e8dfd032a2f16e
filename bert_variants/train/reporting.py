"""What a run tells whoever watches it. The command line draws it; tests and notebooks may not."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable


@dataclasses.dataclass(frozen=True)
class Start:
    """How a run begins: from which step to which, and from what (run, init_from, scratch)."""

    step: int
    steps: int
    origin: str


@dataclasses.dataclass(frozen=True)
class Result:
    """How it ended.

    Attributes:
        exit_code: 0 done, 75 stopped and saved. Everything else is an exception.
        message: for people.
        step: steps done.
        held_out: the last held-out results; empty if there were none.
    """

    exit_code: int
    message: str
    step: int
    held_out: Mapping[str, float]


@runtime_checkable
class Reporter(Protocol):
    """Called by the loop, in the first process only."""

    def start(self, start: Start) -> None:
        """Before the first step."""

    def step(self, line: Mapping[str, Any]) -> None:
        """After each step, one step late: a line of metrics.jsonl (whether or not it is logged)."""

    def evaluated(self, step: int, results: Mapping[str, float]) -> None:
        """After each held-out evaluation."""

    def saved(self, step: int) -> None:
        """When a checkpoint is committed and listed."""

    def note(self, text: str) -> None:
        """Something that a person should read: a damaged checkpoint, a skipped step, a signal."""

    def done(self, result: Result) -> None:
        """At the end, also of a run that was stopped; not after an exception."""


class Silent:
    """Tells nobody."""

    def start(self, start: Start) -> None:
        """Nothing."""

    def step(self, line: Mapping[str, Any]) -> None:
        """Nothing."""

    def evaluated(self, step: int, results: Mapping[str, float]) -> None:
        """Nothing."""

    def saved(self, step: int) -> None:
        """Nothing."""

    def note(self, text: str) -> None:
        """Nothing."""

    def done(self, result: Result) -> None:
        """Nothing."""


class Lines(Silent):
    """Plain lines on standard output, for logs: every ``every`` steps, evaluations, notes."""

    def __init__(self, every: int = 100) -> None:
        self._every = every

    def start(self, start: Start) -> None:
        """Where the run begins."""
        self._print(f"step {start.step} of {start.steps}, from {start.origin}")

    def step(self, line: Mapping[str, Any]) -> None:
        """Loss and speed, now and then."""
        if line["step"] % self._every == 0:
            speed = line["timing"]["tokens_per_second"]
            self._print(f"step {line['step']}: loss {line['loss']}, {speed:,.0f} tokens/s")

    def evaluated(self, step: int, results: Mapping[str, float]) -> None:
        """The held-out loss."""
        self._print(f"step {step}: held-out loss {results.get('held_out/loss')}")

    def saved(self, step: int) -> None:
        """Which step is safe now."""
        self._print(f"step {step}: saved")

    def note(self, text: str) -> None:
        """As it is."""
        self._print(text)

    def _print(self, text: str) -> None:
        print(text, file=sys.stdout, flush=True)
