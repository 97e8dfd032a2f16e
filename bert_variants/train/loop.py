"""The life of a run: the only loop.

At each step's edge, in this order: evaluate, save, take the next batch, dispatch the step, read the
metrics of the step *before* (so the device never waits for the host). What is saved is the state
after all its metrics were read and written, so a run that goes on from a checkpoint writes exactly
the lines that come after it.
"""

from __future__ import annotations

import contextlib
import math
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np

from bert_variants import config
from bert_variants.text.pipeline import Position, prefetch
from bert_variants.text.prefetch import Prefetch
from bert_variants.train import begin, branches, describe, errors, record, resume, watchdog
from bert_variants.train.begin import Beginning
from bert_variants.train.checkpoint import Checkpoints
from bert_variants.train.lock import Lock
from bert_variants.train.meta import Meta, tokenizer_entry
from bert_variants.train.processes import all_agree, is_primary
from bert_variants.train.reporting import Lines, Reporter, Result, Silent, Start
from bert_variants.train.restore import newest_valid
from bert_variants.train.setup import Setup
from bert_variants.train.signals import Agreement, Signals
from bert_variants.train.watchdog import Watchdog
from bert_variants.types import Batch

__all__ = ["Lines", "Reporter", "Result", "Silent", "Start", "train"]

POLL = 0.1  # seconds between two looks at the signals while waiting for data


def train(setup: Setup, reporter: Reporter | None = None) -> Result:
    """Train to the last step, or until told to stop. Called again, it goes on.

    Args:
        setup: of the run.
        reporter: told what happens; None: plain lines.

    Returns:
        With exit code 0 (done) or 75 (stopped by a signal and saved).

    Raises:
        LockedError: another process works in ``run.dir``.
        RunDirError: ``run.dir`` cannot be written.
        ResumeRefusedError: ``run.dir`` holds a run with other settings.
        CheckpointError: no checkpoint is valid, or one could not be written.
        DivergedError: non-finite steps, after three roll-backs.
        PeerLostError: another process of the run died.
    """
    reporter = Lines() if reporter is None else reporter
    try:
        with contextlib.ExitStack() as stack:
            lock = _locked(Path(setup.experiment.run.dir), stack)
            life = _Life(setup, reporter if is_primary() else Silent(), lock, stack)
            result = life.live()
    except jax.errors.JaxRuntimeError as error:
        if jax.process_count() == 1 or "RESOURCE_EXHAUSTED" in str(error):
            raise
        raise errors.PeerLostError(f"another process of this run is gone: {error}") from error
    life.reporter.done(result)
    return result


def _locked(run_dir: Path, stack: contextlib.ExitStack) -> Lock | None:
    """The run's lock, held by the first process for all."""
    lock, error = None, None
    if is_primary():
        try:
            lock = stack.enter_context(Lock(run_dir))
        except errors.RunError as refused:
            error = refused
    if not all_agree(error is None):
        raise error or errors.LockedError(f"the first process cannot work in {run_dir}.")
    return lock


class _Life:
    """A run between its start and its end: what it is made of, and where it stands."""

    def __init__(
        self, setup: Setup, reporter: Reporter, lock: Lock | None, stack: contextlib.ExitStack
    ) -> None:
        run = setup.experiment.run
        self.setup, self.reporter, self._lock, self._run = setup, reporter, lock, run
        self._dir = Path(run.dir)
        self._signals = stack.enter_context(Signals())
        self._agreement = Agreement(setup.mesh)
        self._watchdog = stack.enter_context(Watchdog())
        if lock is not None and lock.stale:
            reporter.note(f"{lock.stale} did not end in order; going on in its place")
        self._checkpoints = stack.enter_context(
            Checkpoints(self._dir, setup.abstract_state, keep=run.keep, keep_every=run.keep_every)
        )
        self._rollbacks = branches.read(self._dir)
        start = begin.begin(setup, self._checkpoints, self._rollbacks, reporter.note)
        if is_primary():
            describe.write(setup, start)
        self._versions, self._tokenizer = resume.versions(), tokenizer_entry(setup.tokenizer)
        self._config = config.to_dict(setup.experiment)
        self._noted_signal = False
        self._bad: tuple[int, Position, int] | None = None  # (step, position after it, skipped)
        self._stack = stack
        self._enter(start)
        reporter.start(Start(start.step, run.steps, start.origin))

    def _enter(self, start: Beginning) -> None:
        """Stand at a beginning; what was written beyond it is moved aside."""
        self._state, self._step = start.state, start.step
        self._position, self._tokens = start.position, start.tokens
        self._held_out = start.held_out
        self._saved_step = start.step if start.saved else -1
        self._pending: tuple[int, Position, dict[str, Any]] | None = None
        self._first, self._mark = True, time.monotonic()
        if is_primary():
            lost = record.rewind(self._dir, start.step, bool(start.held_out))
            if lost:
                self.reporter.note(f"{lost} lines of metrics beyond step {start.step} moved aside")
        self._record = self._stack.enter_context(
            record.Record(self._dir, first_step=start.step + 1, enabled=is_primary())
        )

    # ---- one turn is one step

    def live(self) -> Result:
        """Until the end, or until stopped; again from a checkpoint after each roll-back."""
        while True:
            with prefetch(self.setup.rows, self._position, depth=2) as batches:
                result = self._steps(batches)
            if result is not None:
                return result
            self._roll_back()

    def _steps(self, batches: Prefetch[Batch, Position]) -> Result | None:
        """Steps until the run ends; None if it has to be rolled back."""
        while True:
            stop = self._told_to_stop()
            last = self._step == self._run.steps
            if self._due(self._run.eval_every) and not self._held_out and not stop:
                if not self._settle():
                    return None
                stop = self._evaluate()
            if stop or last or (self._due(self._run.save_every) and self._step > 0):
                if not self._settle():
                    return None
                self._save()
            if stop or last:
                return self._end(stopped=stop and not (last and bool(self._held_out)))
            self._follow_save()
            batch = self._next(batches)
            if batch is not None and not self._dispatch(batch):
                return None

    def _told_to_stop(self) -> bool:
        stop = self._agreement.poll(self._signals.requested)
        if (stop or self._signals.requested) and not self._noted_signal:
            self._noted_signal = True
            why = self._signals.received or "another process was told to stop"
            self.reporter.note(f"{why} at step {self._step}: saving, then stopping")
        return stop

    def _due(self, every: int) -> bool:
        if self._step == self._run.steps:
            return True
        return self._step > 0 and every > 0 and self._step % every == 0

    def _next(self, batches: Prefetch[Batch, Position]) -> Batch | None:
        """The next batch on the mesh; None if a signal came while waiting for it."""
        self._watchdog.arm(f"step {self._step + 1}", watchdog.LONG if self._first else None)
        alone = jax.process_count() == 1  # several must take every step together
        while not batches.ready(POLL):
            if alone and self._signals.requested:
                return None
        batch, self._position = next(batches)
        return self.setup.put_batch(batch)

    def _dispatch(self, batch: Batch) -> bool:
        """Start a step, then read the one before it. False if the run has to be rolled back."""
        self._state, metrics = self.setup.train_step(self._state, batch)
        before, self._pending = self._pending, (self._step + 1, self._position, metrics)
        self._step += 1
        self._tokens += self._run.batch * self.setup.experiment.data.length
        self._held_out = {}
        return before is None or self._read(*before)

    def _settle(self) -> bool:
        """Read the last step's metrics too. False if the run has to be rolled back."""
        before, self._pending = self._pending, None
        return before is None or self._read(*before)

    def _read(self, step: int, position: Position, metrics: dict[str, Any]) -> bool:
        found = jax.device_get(metrics)
        now = time.monotonic()
        seconds, self._mark = now - self._mark, now
        if not self._first:  # the first one holds the compilation
            self._watchdog.took(seconds)
        self._first = False
        values = {name: _divided(mean) for name, mean in found.items()}
        skipped = int(values.pop("skipped"))
        loss = sum(o.weight * values[f"{o.name}/loss"] for o in self.setup.objectives)
        per_step = self._run.batch * self.setup.experiment.data.length
        behind = 1 if self._pending is not None else 0
        line = {
            "position": int(position),
            "tokens": self._tokens - behind * per_step,
            "loss": loss,
            **values,
            "skipped": skipped,
        }
        timing = {"step_seconds": seconds, "tokens_per_second": per_step / seconds}
        every = self._run.log_every
        if skipped or step == self._run.steps or (every and step % every == 0):
            self.reporter.step(self._record.line("train", step, line, timing))
        else:
            self.reporter.step({"kind": "train", "step": step, **line, record.TIMING: timing})
        if skipped:
            self.reporter.note(
                f"step {step}: loss or gradient is not finite; skipped ({skipped} in a row)"
            )
        if skipped > self._run.max_skipped:
            self._bad = step, position, skipped
            return False
        return True

    # ---- at a step's edge

    def _evaluate(self) -> bool:
        """Held-out results of this step. True if it was abandoned because the run must stop."""
        self._watchdog.arm(f"evaluation at step {self._step}", watchdog.LONG)
        started = time.monotonic()
        results = self.setup.evaluate(self._state.params, self._told_to_stop)
        self._mark = time.monotonic()
        if results:
            self._held_out = results
            timing = {"evaluation_seconds": self._mark - started}
            self._record.line("held_out", self._step, results, timing)
            self.reporter.evaluated(self._step, results)
        return not results and self._told_to_stop()

    def _save(self) -> None:
        if self._saved_step == self._step:
            return
        self._watchdog.arm(f"saving step {self._step}", watchdog.LONG)
        if self._lock is not None:
            self._lock.check()
        self._record.sync()
        done = self._checkpoints.finish()
        if done is not None:
            self.reporter.saved(done)
        meta = Meta(
            step=self._step,
            position=int(self._position),
            tokens=self._tokens,
            branch=len(self._rollbacks),
            config=self._config,
            tokenizer=self._tokenizer,
            store=self.setup.store.fingerprint,
            versions=self._versions,
            held_out=self._held_out,
        )
        self._checkpoints.save(self._state, meta)
        self._saved_step = self._step
        self._mark = time.monotonic()

    def _follow_save(self) -> None:
        done = self._checkpoints.poll()
        if done is not None:
            self.reporter.saved(done)

    def _end(self, *, stopped: bool) -> Result:
        """Wait until what was saved is safe and read it back."""
        self._watchdog.arm("the last save", watchdog.LONG)
        done = self._checkpoints.finish()
        if done is not None:
            self.reporter.saved(done)
            self._checkpoints.verify(done)
        self._watchdog.off()
        steps = f"step {self._step:,} of {self._run.steps:,}"
        if stopped:
            message = f"stopped at {steps}, saved in {self._dir}; the same command goes on"
            return Result(errors.STOPPED, message, self._step, self._held_out)
        message = f"done: {steps}, {self._tokens:,} tokens, in {self._dir}"
        return Result(errors.DONE, message, self._step, self._held_out)

    def _roll_back(self) -> None:
        """Back to the newest valid checkpoint before the bad steps, with the data past them.

        Raises:
            DivergedError: it was done three times already.
        """
        step, position, skipped = self._bad
        self._bad, self._pending = None, None
        reason = f"{skipped} steps up to {step} had a loss or gradient that was not finite"
        if len(self._rollbacks) >= branches.MOST:
            raise errors.DivergedError(
                f"{reason}, after {branches.MOST} roll-backs. Lower optim.lr, lengthen "
                "optim.warmup, set optim.clip, or look at the data there (position "
                f"{int(position)}). The last checkpoint is finite."
            )
        self._watchdog.arm("rolling back", watchdog.LONG)
        self._checkpoints.finish()
        found = newest_valid(self._checkpoints, lambda meta: None, at_most=step - skipped)
        to_step = 0 if found is None else found.meta.step
        for damaged, what in found.damaged.items() if found is not None else ():
            self.reporter.note(f"CHECKPOINT DAMAGED: step {damaged} is set aside: {what}")
        new = branches.Rollback(step, to_step, int(position), skipped)
        self._rollbacks = (
            branches.add(self._dir, self._rollbacks, new)
            if is_primary()
            else [*self._rollbacks, new]
        )
        self._checkpoints.discard([s for s in self._checkpoints.steps() if s > to_step])
        self.reporter.note(
            f"ROLLED BACK: {reason}; going on from step {to_step}, past those rows "
            f"({len(self._rollbacks)} of at most {branches.MOST} times)"
        )
        self._record.close()
        if found is None:
            self._enter(begin.from_start(self.setup, self._rollbacks, self.reporter.note))
        else:
            self._enter(begin.restored(self.setup, found.state, found.meta, position))


def _divided(mean: Any) -> float:
    """total / weight as Python floats; 0 where the weight is 0, NaN where the total is."""
    total, weight = float(np.asarray(mean.total)), float(np.asarray(mean.weight))
    return total / weight if weight else (total if math.isnan(total) else 0.0)
