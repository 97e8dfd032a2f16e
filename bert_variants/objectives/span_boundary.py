"""SpanBERT's span-boundary objective."""

from __future__ import annotations

import jax.numpy as jnp

from bert_variants.ops import losses
from bert_variants.registry import register
from bert_variants.types import Corrupted, Outputs, Terms

PLACES = 15  # of a span that are predicted from its boundaries, as in the published command


@register(
    "objective",
    reads={"span_logits_BPV": PLACES},
    needs=("left_BP", "right_BP", "offset_BP"),
)
def span_boundary(outputs: Outputs, batch: Corrupted) -> Terms:
    """Cross-entropy of the hidden tokens as predicted from the two tokens outside their span.

    A span that touches a special token has no boundary and does not count, nor do the tokens of a
    span beyond its 15th. The mean is over what counts; facebookresearch/SpanBERT:pretraining/
    fairseq/criterions/spanbert_loss.py divides by one more.
    """
    counts_BP = (batch.left_BP >= 0) & (batch.right_BP >= 0) & (batch.offset_BP < PLACES)
    weights_BP = batch.weights_BP * counts_BP.astype(jnp.float32)
    nats_BP = losses.cross_entropy(outputs.span_logits_BPV, batch.targets_BP)
    right_BP = losses.correct(outputs.span_logits_BPV, batch.targets_BP)
    return Terms(
        loss=losses.weighted(nats_BP, weights_BP),
        metrics={"accuracy": losses.weighted(right_BP, weights_BP)},
    )
