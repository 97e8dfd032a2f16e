"""ELECTRA's replaced-token detection."""

from __future__ import annotations

from typing import Literal

import jax.numpy as jnp
import optax

from bert_variants.ops import losses
from bert_variants.registry import register
from bert_variants.types import Corrupted, Outputs, Terms


@register("objective", reads={"replaced_logits_BT": 0}, needs=())
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
    labels_BT = outputs.replaced_BT.astype(jnp.float32)
    logits_BT = outputs.replaced_logits_BT
    nats_BT = optax.sigmoid_binary_cross_entropy(logits_BT, labels_BT)
    said_BT = (logits_BT > 0).astype(jnp.float32)
    right_BT = (said_BT == labels_BT).astype(jnp.float32)
    of_each = nats_BT, right_BT, labels_BT, said_BT * labels_BT
    weights = batch.valid_BT.astype(jnp.float32)
    if on == "predicted":
        of_each = tuple(jnp.take_along_axis(x, batch.at_BP, axis=1) for x in of_each)
        weights = batch.weights_BP
    nats, *others = (losses.weighted(x, weights) for x in of_each)
    return Terms(
        loss=nats, metrics=dict(zip(("accuracy", "replaced", "found"), others, strict=True))
    )
