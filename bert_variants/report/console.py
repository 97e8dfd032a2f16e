"""Progress of long work: bars in a terminal, plain lines in a log, a pipe or a notebook.

Only the first process of a run has one of these. A bar is drawn ten times a second at most,
whatever the speed of the work.
"""

from __future__ import annotations

import atexit
import sys
import time
from collections import deque
from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn
from rich.text import Text

from bert_variants.plan import abstract, flops, peaks
from bert_variants.train.reporting import Result, Start
from bert_variants.train.setup import Setup

WINDOW = 50  # steps that loss and speed are averaged over
EVERY = 5.0  # seconds between two plain lines, at least


class _Shown:
    """A bar where there is a terminal, else nothing; a context manager that puts all in order."""

    def __init__(self, console: Console | None, what: str) -> None:
        self.console = console or Console(file=sys.stdout, highlight=False)
        self.live = self.console.is_terminal and not self.console.is_jupyter
        self._what, self._bar, self._task = what, None, TaskID(0)

    def begin(self, done: int, total: int) -> None:
        """Draw an empty bar, if bars are drawn."""
        if not self.live or self._bar is not None:
            return
        self._bar = Progress(
            TextColumn(self._what),
            BarColumn(),
            TextColumn("{task.percentage:3.0f}%  {task.fields[told]}", markup=False),
            console=self.console,
            transient=True,
        )
        self._task = self._bar.add_task("", total=total, completed=done, told="")
        self._bar.start()
        # an exception may end the process without a last word: the cursor must come back
        atexit.register(self.end)

    def move(self, done: int, total: int, told: str) -> None:
        """Redraw."""
        if self._bar is not None:
            self._bar.update(self._task, completed=done, total=total, told=told)

    def say(self, text: str) -> None:
        """A line of its own, above the bar."""
        self.console.print(Text(text), soft_wrap=True)
        self.console.file.flush()

    def end(self) -> None:
        """Take the bar away; a second call does nothing."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None
            atexit.unregister(self.end)


class TrainProgress:
    """Tells how a run goes; a ``train.reporting.Reporter``.

    In a terminal: a bar with loss, tokens a second, utilisation and time left. Elsewhere a line
    when metrics are logged, but not more often than every five seconds (``metrics.jsonl`` has them
    all). Loss and speed are means over the last 50 steps.

    Utilisation (MFU) is operations of the step's matrix products, counted by ``plan.flops``, a
    second, over the devices' peak: the published one, on a CPU one that is measured at the start.
    Where neither is known it is not shown.

    Args:
        setup: of the run.
        console: to draw on; None: standard output.
        every: least seconds between two plain lines.
    """

    def __init__(
        self, setup: Setup, console: Console | None = None, *, every: float = EVERY
    ) -> None:
        run, data = setup.experiment.run, setup.experiment.data
        self._shown = _Shown(console, setup.experiment.name)
        self._log_every, self._every = run.log_every, every
        self._tokens = run.batch * data.length
        self._losses: deque[float] = deque(maxlen=WINDOW)
        self._seconds: deque[float] = deque(maxlen=WINDOW)
        self._steps, self._first, self._last_line = run.steps, True, float("-inf")
        self._setup, self._full = setup, 0.0

    def start(self, start: Start) -> None:
        """Say from where; measure what utilisation is measured by."""
        self._first, self._steps = True, start.steps
        told = f"training steps {start.step:,} to {start.steps:,}, from {start.origin}"
        self._shown.say(told)
        try:
            operations, peak = full_speed(self._setup)
        except Exception as error:  # whatever a display cannot do, training goes on
            self._shown.say(f"utilisation is not shown: {type(error).__name__}: {error}")
        else:
            self._full = peak.flops / operations if peak else 0.0
            self._shown.say(
                f"{operations:.3g} FLOP a step; "
                + (f"peak {peak.flops / 1e12:.3g} TFLOP/s ({peak.source})" if peak else "no peak")
            )
        self._shown.begin(start.step, start.steps)

    def step(self, line: Mapping[str, Any]) -> None:
        """Take in a step; the first one holds the compilation and does not count for the speed."""
        step, loss = line["step"], line["loss"]
        if loss is not None and loss == loss:
            self._losses.append(loss)
        if not self._first:
            self._seconds.append(line["timing"]["step_seconds"])
        first, self._first = self._first, False
        told = self.told(step)
        self._shown.move(step, self._steps, told)
        now = time.monotonic()
        logged = first or (self._log_every and step % self._log_every == 0) or step == self._steps
        if not self._shown.live and logged and now - self._last_line >= self._every:
            self._last_line = now
            self._shown.say(f"step {step:,}/{self._steps:,}  {told}")

    def told(self, step: int) -> str:
        """``loss 3.214  41.5k tokens/s  MFU 43%  4:05 left``, as far as it is known."""
        parts = []
        if self._losses:
            parts.append(f"loss {sum(self._losses) / len(self._losses):.3f}")
        if self._seconds:
            mean = sum(self._seconds) / len(self._seconds)
            parts.append(f"{_count(self._tokens / mean)} tokens/s")
            if self._full:
                parts.append(f"MFU {1 / mean / self._full:.0%}")
            parts.append(f"{clock(mean * (self._steps - step))} left")
        return "  ".join(parts)

    def evaluated(self, step: int, results: Mapping[str, float]) -> None:
        """The losses on held-out rows, the fixed masks' beside the unigram baseline."""
        told = []
        for name, loss in results.items():
            probe, objective, measure = (["", "", *name.rsplit("/", 2)])[-3:]
            if measure != "loss" or not probe or objective == "unigram":
                continue
            label = f"{objective}" if probe == "held_out" else probe
            baseline = results.get(f"{probe}/unigram/loss")
            beside = "" if baseline is None else f" (unigram {baseline:.3f})"
            told.append(f"{label} {loss:.3f}{beside}")
        self._shown.say(f"step {step:,}  held-out loss  " + "  ".join(told))

    def saved(self, step: int) -> None:
        """That a step is safe; no line of its own in a terminal."""
        if not self._shown.live:
            self._shown.say(f"step {step:,}  saved")

    def note(self, text: str) -> None:
        """As it is."""
        self._shown.say(text)

    def done(self, result: Result) -> None:
        """Take the bar away."""
        del result
        self.close()

    def close(self) -> None:
        """Take the bar away; a second call does nothing."""
        self._shown.end()

    def __enter__(self) -> TrainProgress:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class PrepareProgress:
    """Tells how preparing text goes: megabytes and tokens a second, time left.

    ``report`` is what ``text.prepare.prepare`` calls.
    """

    def __init__(self, console: Console | None = None, *, every: float = EVERY) -> None:
        self._shown, self._every = _Shown(console, "preparing"), every
        self._last_line = time.monotonic()

    def report(self, done: int, total: int, tokens: int, seconds: float) -> None:
        """Bytes of text done and in all (a guess), tokens so far, seconds so far."""
        self._shown.begin(0, total)
        told = rate(done, total, tokens, seconds)
        self._shown.move(done, max(done, total), told)
        now = time.monotonic()
        if not self._shown.live and now - self._last_line >= self._every:
            self._last_line = now
            self._shown.say(f"preparing  {told}")

    def __enter__(self) -> PrepareProgress:
        return self

    def __exit__(self, *_: object) -> None:
        self._shown.end()


def rate(done: int, total: int, tokens: int, seconds: float) -> str:
    """``3.1/11.5 MB  4.2 MB/s  1.1M tokens/s  0:02 left``."""
    told = f"{done / 1e6:.1f}/{max(done, total) / 1e6:.1f} MB"
    if seconds > 0 and done > 0:
        left = seconds * max(total - done, 0) / done
        told += f"  {done / 1e6 / seconds:.1f} MB/s  {_count(tokens / seconds)} tokens/s"
        told += f"  {clock(left)} left"
    return told


def full_speed(setup: Setup) -> tuple[int, peaks.Peak | None]:
    """Operations of a step's products, and the peak of the run's devices."""
    experiment = setup.experiment
    counted = flops.of(abstract.of(experiment, setup.vocab.size))
    precision = setup.network.module.precision
    return counted.training, peaks.peak(list(setup.mesh.devices.flat), precision)


def clock(seconds: float) -> str:
    """``0:07``, ``4:05``, ``2:13:00``, ``3d 4:00:00``."""
    days, rest = divmod(round(seconds), 86_400)
    hours, rest = divmod(rest, 3600)
    minutes, seconds = divmod(rest, 60)
    told = f"{hours}:{minutes:02}:{seconds:02}" if hours or days else f"{minutes}:{seconds:02}"
    return f"{days}d {told}" if days else told


def _count(value: float) -> str:
    for scale, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= scale:
            return f"{value / scale:.3g}{letter}"
    return f"{value:.3g}"
