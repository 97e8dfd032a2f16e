"""StructBERT's word structural objective."""

from __future__ import annotations

import jax.numpy as jnp

from bert_variants.ops import losses
from bert_variants.registry import register
from bert_variants.types import Corrupted, Outputs, Terms


@register("objective", reads={"token_logits_BPV": 0}, needs=("moved_BT",))
def word_order(outputs: Outputs, batch: Corrupted) -> Terms:
    """Cross-entropy of the original token at every masked and every moved position, in nats.

    The softmax is over the vocabulary, for moved tokens too, and the loss is one mean over both
    (arXiv 1908.04577, section 2.2, "equal weight"; that this is one mean over the tokens and not
    the mean of two is a choice). It takes the place of ``mlm``: with a corruption that moves
    tokens, ``mlm`` is the same number, and both together would count every token twice. The
    metrics tell masked from moved.
    """
    nats_BP = losses.cross_entropy(outputs.token_logits_BPV, batch.targets_BP)
    right_BP = losses.correct(outputs.token_logits_BPV, batch.targets_BP)
    moved_BP = jnp.take_along_axis(batch.moved_BT, batch.at_BP, axis=1).astype(jnp.float32)
    moved_BP = batch.weights_BP * moved_BP
    masked_BP = batch.weights_BP - moved_BP
    return Terms(
        loss=losses.weighted(nats_BP, batch.weights_BP),
        metrics={
            "masked_nats": losses.weighted(nats_BP, masked_BP),
            "masked_accuracy": losses.weighted(right_BP, masked_BP),
            "moved_nats": losses.weighted(nats_BP, moved_BP),
            "moved_accuracy": losses.weighted(right_BP, moved_BP),
        },
    )
