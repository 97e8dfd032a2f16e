"""Left to right: every token is predicted from those before it."""

from __future__ import annotations

import jax.numpy as jnp

from bert_variants.ops import masking
from bert_variants.registry import register
from bert_variants.types import Batch, Corrupted, Leaf, Vocab


@register("corruption", gives=("order_BT",), random=False)
def causal(keys_B: Leaf, batch: Batch, vocab: Vocab) -> Corrupted:
    """Predict every token that has another one before it; nothing is hidden.

    The order of the text is the order of reading (``order_BT`` is the position), so that a language
    model learns by the same ``mlm`` as all others: the cross-entropy of the targets. Nothing here
    is random. A worked row::

        tokens   a b [SEP] c d [PAD]
        inputs   a b [SEP] c d [PAD]
        order    0 1   2   3 4   5
        at         1       3 4
        targets    b       c d

    A row's first token has nothing before it in the row and is not predicted. To lose none of a
    text, let rows begin with the last token of the one before: ``stream(reuse=1)``.

    Args:
        keys_B: not used.
        batch: the rows. In packed rows each sequence has a first token.
        vocab: not used.
    """
    del keys_B, vocab
    length = batch.tokens_BT.shape[1]
    chosen_BT = batch.maskable_BT & _shifted(batch.valid_BT, False)
    if batch.packs_BT is not None:
        chosen_BT = chosen_BT & (batch.packs_BT == _shifted(batch.packs_BT, 0))
    order_BT = jnp.broadcast_to(jnp.arange(length, dtype=jnp.int32)[None, :], chosen_BT.shape)
    inputs_BT = batch.tokens_BT.astype(jnp.int32)
    return masking.predict(batch, inputs_BT, chosen_BT, max(1, length - 1), order_BT=order_BT)


def _shifted(x_BT: Leaf, fill: bool | int) -> Leaf:
    """What stands one place to the left."""
    return jnp.pad(x_BT, [(0, 0), (1, 0)], constant_values=fill)[:, :-1]
