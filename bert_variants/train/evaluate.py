"""Held-out evaluation: the run's own objectives, and the probes that judge every run alike.

A loss under one corruption cannot be compared with a loss under another. So beside the run's own
objectives on its own kind of rows, every model that predicts tokens is judged on fixed masks over
fixed held-out rows: the same rows and masks for every run on the same corpus, whatever its seed,
rows and corruption.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bert_variants.ops import losses
from bert_variants.train.step import Weighted
from bert_variants.types import Corrupted, Mean, Outputs, Terms, Vocab

Metrics = Mapping[str, Mean]


@dataclasses.dataclass(frozen=True)
class Probe:
    """One evaluation: a name, a jitted step, and the batches that it runs over.

    Attributes:
        name: the prefix of its results.
        step: ``(params, device batch, memory) -> (metrics, memory)``, the metrics unreduced.
        batches: device batches, made anew on each call.
        memory: the empty memory, made anew on each call; None where there is none. It is the
            evaluation's own: that of training is not touched.
    """

    name: str
    step: Callable[[Any, Any, Any], tuple[Metrics, Any]]
    batches: Callable[[], Iterable[Any]]
    memory: Callable[[], Any] = lambda: None


def unigram_nats(vocab: Vocab) -> jax.Array:
    """float32 [V]: -log p of each id; p from the counts of the train split, one added to each."""
    counts_V = np.asarray(vocab.counts_V, np.float64) + 1
    return jnp.asarray(-np.log(counts_V / counts_V.sum()), jnp.float32)


def unigram(vocab: Vocab) -> Weighted:
    """Not an objective but its baseline: the nats of the targets under the corpus's unigrams.

    A masked language model that has learnt no context scores this.
    """
    nats_V = unigram_nats(vocab)

    def baseline(outputs: Outputs, batch: Corrupted) -> Terms:
        del outputs
        return Terms(loss=losses.weighted(nats_V[batch.targets_BP], batch.weights_BP))

    return Weighted("unigram", 0.0, baseline)


def evaluate(
    params: Any, probes: Sequence[Probe], interrupted: Callable[[], bool] = lambda: False
) -> dict[str, float]:
    """Run all probes and divide once: ``{"held_out/mlm/loss": 2.1, "tokens(...)/mlm/loss": ...}``.

    Args:
        params: of the network, on the mesh.
        probes: see ``Probe``.
        interrupted: asked between batches; when true the evaluation is abandoned.

    Returns:
        Results by name; empty if it was abandoned.
    """
    results: dict[str, float] = {}
    for probe in probes:
        total: dict[str, Mean] = {}
        memory = probe.memory()
        for batch in probe.batches():
            if interrupted():
                return {}
            part, memory = probe.step(params, batch, memory)
            total = jax.tree.map(jnp.add, total, dict(part)) if total else dict(part)
        results |= {f"{probe.name}/{k}": float(v.value()) for k, v in total.items()}
    return results


def weighted_loss(results: Mapping[str, float], objectives: Sequence[Weighted]) -> float:
    """The run's own held-out loss: the weighted sum that it minimises."""
    return sum(o.weight * results[f"held_out/{o.name}/loss"] for o in objectives)
