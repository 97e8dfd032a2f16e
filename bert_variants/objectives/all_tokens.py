"""Every token, predicted from text in which a generator replaced some, with a gate that copies."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from bert_variants.ops import losses
from bert_variants.registry import register
from bert_variants.types import Corrupted, Outputs, Terms


@register("objective", reads={"all_logits_BTV": 0, "copy_logits_BT": 0, "replaced_BT": 0}, needs=())
def all_tokens(outputs: Outputs, batch: Corrupted) -> Terms:
    """-log p of the original token, mean over every real token, in nats.

    The paper's ablation "All-Tokens MLM" (Clark et al. 2020, section 3.4)::

        p(v) = g 1[v = input] + (1 - g) softmax(logits)[v]        g = sigmoid(copy logit)

    so that an input that was not replaced is right with at least g. Here ``mlm + all_tokens``,
    where ``mlm`` trains the generator. The released code has no such objective. It needs logits at
    every position, [B, T, V].

    Two tokens, p = 0.2 for the original by the softmax, g = 0.5: one that was not replaced costs
    -log(0.5 + 0.5 * 0.2), one that was -log(0.5 * 0.2).

    Metrics: ``predicted_nats``, the same over the predicted positions alone, which compares with
    ``corrected``; ``copied``, the mean of g.
    """
    weights_BT = batch.valid_BT.astype(jnp.float32)
    # what does not count may be anything, even NaN
    copy_BT = jnp.where(batch.valid_BT, outputs.copy_logits_BT, 0.0)
    guessed_BT = losses.cross_entropy(outputs.all_logits_BTV, batch.tokens_BT)
    guessed_BT = jnp.where(batch.valid_BT, guessed_BT, 0.0)
    by_guess_BT = jax.nn.log_sigmoid(-copy_BT) - guessed_BT
    by_either_BT = jnp.logaddexp(jax.nn.log_sigmoid(copy_BT), by_guess_BT)
    nats_BT = -jnp.where(outputs.replaced_BT, by_guess_BT, by_either_BT)
    predicted_BP = jnp.take_along_axis(nats_BT, batch.at_BP, axis=1)
    return Terms(
        loss=losses.weighted(nats_BT, weights_BT),
        metrics={
            "predicted_nats": losses.weighted(predicted_BP, batch.weights_BP),
            "copied": losses.weighted(jax.nn.sigmoid(copy_BT), weights_BT),
        },
    )
