"""Pretrain. The same command again resumes; with --dry-run nothing is trained."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path

import jax
from jax.experimental import multihost_utils

from bert_variants import config
from bert_variants.commands.prepare import describe, prepared
from bert_variants.convert import pretrained
from bert_variants.plan import summary
from bert_variants.report import console, gallery, page, views
from bert_variants.text.pipeline import Position
from bert_variants.text.store import Store
from bert_variants.train import loop, processes, record, setup
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
    ready = setup.make(experiment, store, origin=pretrained.origin)
    if options.dry_run:
        print(summary.render(summary.summary(experiment, jax.device_count(), store.vocab.size)))
        print(sample(ready, setup.first_rows(ready), shown=1))
        return 0
    rows = setup.first_rows(ready)
    setup.check_predicts(rows, experiment)
    if not processes.is_primary():
        return loop.train(ready, loop.Silent()).exit_code
    print(describe(store))
    print(sample(ready, rows, shown=2))
    with console.TrainProgress(ready) as progress:
        result = loop.train(ready, progress)
    minutes = (time.monotonic() - started) / 60
    print(f"{result.message} ({minutes:.1f} minutes)")
    folder = Path(experiment.run.dir)
    record.write_json(folder / "views.json", views.as_json(rows, ready.tokenizer, ready.vocab))
    record.write_json(folder / gallery.FILE, all_corruptions(ready))
    if result.exit_code == 0:
        print(f"report: {page.write(folder)}")
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


def all_corruptions(ready: setup.Setup, epoch: int = 0) -> list[gallery.Picture]:
    """The first row of an epoch under every registered corruption."""
    batch, _ = ready.rows.batch(Position(epoch, 0))
    return gallery.pictures(batch, ready.tokenizer, ready.vocab, seed=ready.experiment.run.seed)


def sample(ready: setup.Setup, rows: Corrupted, shown: int) -> str:
    """Some corrupted rows to read, and the rates over all of them."""
    text = views.terminal(jax.tree.map(lambda leaf: leaf[:shown], rows), ready.tokenizer)
    return f"{text}\n{views.describe(views.statistics(rows, ready.vocab))}"
