"""Next-sentence prediction."""

from __future__ import annotations

import jax.numpy as jnp

from bert_variants.ops import losses
from bert_variants.registry import register
from bert_variants.types import Corrupted, Outputs, Terms


@register("objective", reads={"pair_logits_BC": 2}, needs=("labels.next_sentence",))
def nsp(outputs: Outputs, batch: Corrupted) -> Terms:
    """Cross-entropy of "does B follow A" over rows; label 0: it follows, 1: it is random.

    google-research/bert:run_pretraining.py. Rows that are all padding do not count.
    """
    labels_B = batch.labels["next_sentence"]
    weights_B = jnp.any(batch.valid_BT, axis=-1).astype(jnp.float32)
    nats_B = losses.cross_entropy(outputs.pair_logits_BC, labels_B)
    right_B = losses.correct(outputs.pair_logits_BC, labels_B)
    return Terms(
        loss=losses.weighted(nats_B, weights_B),
        metrics={"accuracy": losses.weighted(right_B, weights_B)},
    )
