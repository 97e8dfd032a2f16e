"""Pseudo-log-likelihood: tokens of a row hidden one at a time, each predicted from all the others.

A row's pseudo-log-likelihood is the sum of log p(token | rest) over its tokens (Salazar et al.
2020, arXiv 1910.14659, section 2). It asks the same of every model, whatever was masked in
training, and it is what a sentence is scored with. The probe gives minus its mean over the tokens
of the held-out rows, in nats.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import jax
import jax.numpy as jnp
import numpy as np

from bert_variants.ops import masking
from bert_variants.types import Batch, Corrupted, Leaf, Vocab

NAME = "pll"


def visited(batches: Iterable[Batch], visits: int) -> Iterator[Batch]:
    """Each batch ``visits`` times, ``visit_B`` counting from 0."""
    for batch in batches:
        for visit in range(visits):
            yield batch.replace(visit_B=np.full_like(batch.visit_B, visit))


def one_hidden(keys_B: Leaf, batch: Batch, vocab: Vocab, *, visits: int) -> Corrupted:
    """One token a row becomes [MASK]: on visit v the v-th in a random order of the row's tokens.

    The order comes from the row's key, which must be the same on every visit; so visits hide
    distinct tokens. A row with n tokens is seen min(n, visits) times and weighs n in all: sums of
    nats over sums of weights estimate the mean over *tokens* without bias, and are it exactly
    where ``visits`` reaches the longest row. A worked row, n = 3, visits = 2, order b, c, a::

        visit 0   [CLS] a [MASK] c [SEP]     at 2   weight 3/2
        visit 1   [CLS] a b [MASK] [SEP]     at 3   weight 3/2

    Args:
        keys_B: typed keys, one a row.
        batch: the rows, with their visit; see ``visited``.
        vocab: of the tokenizer.
        visits: how many there are in all.
    """

    def choose(key: Leaf, row: Batch) -> tuple[Leaf, Leaf, Leaf]:
        n = jnp.sum(row.maskable_BT, dtype=jnp.int32)
        scores_T = jax.random.uniform(key, row.maskable_BT.shape)
        place_T = masking.ranks(jnp.where(row.maskable_BT, scores_T, 2.0))
        chosen_T = (place_T == row.visit_B.astype(jnp.int32)) & row.maskable_BT
        inputs_T = jnp.where(chosen_T, vocab.mask, row.tokens_BT).astype(jnp.int32)
        return inputs_T, chosen_T, n / jnp.clip(n, 1, visits)

    inputs_BT, chosen_BT, weight_B = masking.each_row(choose, keys_B, batch)
    hidden = masking.predict(batch, inputs_BT, chosen_BT, 1)
    return hidden.replace(weights_BP=hidden.weights_BP * weight_B[:, None])
