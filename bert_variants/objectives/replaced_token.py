"""ELECTRA's replaced-token detection."""

from __future__ import annotations

from typing import Literal

import jax.numpy as jnp
import optax

from bert_variants.ops import losses
from bert_variants.registry import register
from bert_variants.types import Corrupted, Outputs, Terms


@register("objective", reads={"replaced_logits_BT": 0, "replaced_BT": 0}, needs=())
def replaced_token(
    outputs: Outputs, batch: Corrupted, *, on: Literal["all", "predicted"] = "all"
) -> Terms:
    """Binary cross-entropy of "this token was replaced", in nats a token.

    The mean is over every real token, [CLS] and [SEP] included; a token that the generator drew
    right counts as not replaced (google-research/electra:run_pretraining.py). ELECTRA weighs it by
    50: ``mlm + 50*replaced_token``.

    A worked row::

        original  a b c d      chosen  b c      drawn  b x
        inputs    a b x d      labels  0 0 1 0

    Args:
        outputs: of a model that holds a generator.
        batch: the rows as the generator read them.
        on: ``all`` real tokens, or the ``predicted`` positions alone: the paper's ablation
            "ELECTRA 15 %".

    ``replaced`` among the metrics is the share of these tokens that was replaced: one minus it is
    the accuracy of saying "original" always. ``found`` is the share that was replaced and said so.
    """
    logits, labels = outputs.replaced_logits_BT, outputs.replaced_BT
    weights = batch.valid_BT.astype(jnp.float32)
    if on == "predicted":
        logits, labels = (jnp.take_along_axis(x, batch.at_BP, axis=1) for x in (logits, labels))
        weights = batch.weights_BP
    logits = jnp.where(weights > 0, logits, 0.0)  # what does not count may be anything, even NaN
    said = (logits > 0).astype(jnp.float32)
    labels = labels.astype(jnp.float32)
    right = (said == labels).astype(jnp.float32)
    return Terms(
        loss=losses.weighted(optax.sigmoid_binary_cross_entropy(logits, labels), weights),
        metrics={
            "accuracy": losses.weighted(right, weights),
            "replaced": losses.weighted(labels, weights),
            "found": losses.weighted(said * labels, weights),
        },
    )
