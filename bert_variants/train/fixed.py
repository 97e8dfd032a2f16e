"""What all runs on the same text are judged on: fixed held-out rows under fixed corruptions."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Iterator

import jax
import numpy as np

from bert_variants import config, keys, registry
from bert_variants.text.pipeline import Pipeline
from bert_variants.text.store import Store
from bert_variants.train import pll
from bert_variants.types import Batch, Corrupted, Leaf, Vocab

SEED = 0  # of rows and masks; never the run's

Bound = Callable[[Leaf, Batch], Corrupted]  # (keys_B, batch)


def corruptions(evals: config.Evals, vocab: Vocab) -> dict[str, Bound]:
    """Name of the probe -> its corruption: one for each of ``evals.masks``, and ``pll``."""
    found: dict[str, Bound] = {
        mask: functools.partial(_called, registry.lookup("corruption", mask), vocab)
        for mask in evals.masks
    }
    if evals.pll:
        found[pll.NAME] = lambda keys_B, batch: pll.one_hidden(
            keys_B, batch, vocab, visits=evals.pll
        )
    return found


def _called(call: registry.Call, vocab: Vocab, keys_B: Leaf, batch: Batch) -> Corrupted:
    return call(keys_B, batch, vocab)


def batches(evals: config.Evals, name: str, rows: Pipeline) -> Iterator[Batch]:
    """The host batches of a probe: the first ``evals.rows`` rows, again and again for ``pll``."""
    found = rows.fixed(evals.rows)
    return pll.visited(found, evals.pll) if name == pll.NAME else found


def rows_of(
    experiment: config.Experiment, store: Store, example: str, process: int = 0, processes: int = 1
) -> Pipeline:
    """Held-out rows of a kind; a process's share of each batch."""
    return Pipeline(
        store,
        "held_out",
        example=example,
        length=experiment.data.length,
        batch=experiment.evals.batch,
        seed=SEED,
        process_index=process,
        process_count=processes,
    )


def digest(experiment: config.Experiment, store: Store) -> str:
    """sha256 over the rows and the masks of all probes; empty if there are none.

    Two runs with the same digest were judged on the same tokens at the same positions with the
    same replacements. It covers what is computed and not how: another version of a corruption or
    of jax that draws other numbers has another digest. It does not depend on devices or processes.
    """
    evals, vocab = experiment.evals, store.vocab
    total = hashlib.sha256()
    found = corruptions(evals, vocab)
    for name, corruption in found.items():

        def made(batch: Batch, corruption: Bound = corruption) -> tuple[Leaf, ...]:
            rows = corruption(keys.corruption_keys(keys.root(SEED), batch, 0, 1), batch)
            return rows.tokens_BT, rows.inputs_BT, rows.at_BP, rows.targets_BP, rows.weights_BP

        jitted = jax.jit(made)
        total.update(f"{name}\0".encode())
        pipeline = rows_of(experiment, store, evals.example)
        for batch in batches(evals, name, pipeline):
            for array in jitted(batch):
                values = np.asarray(array)
                total.update(f"{values.dtype}{values.shape}\0".encode())
                total.update(np.ascontiguousarray(values).tobytes())
    return total.hexdigest() if found else ""
