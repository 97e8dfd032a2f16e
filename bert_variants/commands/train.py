"""Pretrain. The same command again resumes; with --dry-run nothing is trained."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path

import jax
import numpy as np
from jax.experimental import multihost_utils

from bert_variants import config, keys
from bert_variants.commands.prepare import describe, prepared
from bert_variants.plan import summary
from bert_variants.report import console, page, views
from bert_variants.text.pipeline import Position
from bert_variants.text.store import Store
from bert_variants.train import loop, processes, setup
from bert_variants.types import Corrupted


@dataclasses.dataclass(frozen=True)
class Options:
    """How to train.

    Attributes:
        dry_run: print parameters, FLOPs, memory, steps, tokens and one corrupted row, and stop.
    """

    dry_run: bool = False


def main(experiment: config.Experiment, options: Options) -> int:
    """Train to the end, or until stopped."""
    processes.initialise()
    started = time.monotonic()
    store = everywhere(experiment)
    if options.dry_run:
        print(summary.render(summary.summary(experiment, jax.device_count(), store.vocab.size)))
        print(sample(setup.make(experiment, store), rows=1))
        return 0
    ready = setup.make(experiment, store)
    if processes.is_primary():
        print(describe(store))
        print(sample(ready, rows=2))
    reporter = console.TrainProgress(ready) if processes.is_primary() else loop.Silent()
    result = loop.train(ready, reporter)
    if processes.is_primary():
        minutes = (time.monotonic() - started) / 60
        print(f"{result.message} ({minutes:.1f} minutes)")
        if result.exit_code == 0:
            print(f"report: {page.write(Path(experiment.run.dir))}")
    return result.exit_code


def everywhere(experiment: config.Experiment) -> Store:
    """The prepared text, in every process.

    The first process prepares while the others wait; they then find it done, or, where the disk is
    not shared, do the same work with the same result.
    """
    if processes.is_primary():
        prepared(experiment)
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices("prepared")
    return prepared(experiment)


def corrupted_rows(ready: setup.Setup, rows: int, position: Position | None = None) -> Corrupted:
    """The first rows of training after their corruption, as numpy arrays: what the model reads."""
    batch, _ = ready.rows.batch(position or Position(0, 0))
    batch = jax.tree.map(lambda leaf: leaf[:rows], batch)
    root = keys.root(ready.experiment.run.seed)
    row_keys = keys.corruption_keys(root, batch, 0, ready.experiment.data.copies)
    made = setup.bind(ready.experiment.corruption, ready.vocab)(row_keys, batch)
    return jax.tree.map(np.asarray, made)


def sample(ready: setup.Setup, rows: int) -> str:
    """Some corrupted rows to read, and the rates over a whole batch."""
    whole = corrupted_rows(ready, ready.experiment.run.batch)
    shown = jax.tree.map(lambda leaf: leaf[:rows], whole)
    text = views.terminal(shown, ready.tokenizer)
    return f"{text}\n{views.describe(views.statistics(whole, ready.vocab))}"
