"""Spans of tokens of a fixed number and mean length, as in T5."""

from __future__ import annotations

from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np

from bert_variants.ops import masking, spans
from bert_variants.registry import register
from bert_variants.types import Batch, Corrupted, Leaf, Vocab


@register("corruption", gives=("left_BP", "right_BP", "offset_BP"))
def t5_spans(
    keys_B: Leaf,
    batch: Batch,
    vocab: Vocab,
    *,
    rate: float = 0.15,
    mean_length: float = 3.0,
    roll: bool = False,
    mask: float = 0.8,
    random: float = 0.1,
    max_predictions: int = 0,
    rounding: masking.Rounding = "nearest",
    random_ids: masking.RandomIds = "vocab",
    draw: Literal["span", "token"] = "token",
) -> Corrupted:
    """Hide ``round(m / mean_length)`` spans of m = ``round(rate * n)`` tokens together.

    The n tokens of the text, special tokens left out, are cut into plain and hidden spans by turns,
    the first one plain and so the last one hidden; none is empty, and all such cuts are equally
    likely. Words play no part. At least one token is hidden and, where there are two, one plain
    (arXiv 1910.10683, section 3.1.4; google-research/text-to-text-transfer-transformer:
    t5/data/preprocessors.py, ``random_spans_noise_mask``). A worked row::

        tokens   [CLS] a b c d e f g h i [SEP]     n = 9, m = 4 and 2 spans at 45 %, mean length 2
        hidden     0   0 0 1 0 0 0 1 1 1   0       plain 2 and 3 tokens, hidden 1 and 3

    What is put there is BERT's choice: T5 puts one sentinel in the place of a whole span, which is
    for an encoder with a decoder to take apart.

    Args:
        keys_B: typed keys, one a row.
        batch: the rows.
        vocab: of the tokenizer.
        rate: share of a row's text that is hidden.
        mean_length: of the hidden spans, in tokens.
        roll: whether the pattern is moved round the text by a random number of tokens; else the
            last token is always hidden and the first never, as published.
        mask, random: shares; see ``masking.replace_row``.
        max_predictions: P; 0: ``ceil(rate * T)``.
        rounding: of m; see ``masking.budget_row``.
        random_ids: see ``masking.draw_ids``.
        draw: whether each token or a span is masked, replaced or kept as one.

    Raises:
        ValueError: shares that are none, or a mean length below 1.
    """
    masking.check_shares(mask, random)
    if not mean_length >= 1:
        raise ValueError(f"mean_length is {mean_length}, expected at least 1.")
    length = batch.tokens_BT.shape[1]
    most = masking.slots(length, rate, max_predictions)

    def choose(key: Leaf, row: Batch) -> tuple[Leaf, Leaf]:
        count_key, choose_key, coin_key, replace_key = jax.random.split(key, 4)
        n = masking.budget_row(
            count_key, row.maskable_BT, row.maskable_BT, rate=rate, most=most, rounding=rounding
        )
        chosen_T = choose_segments(choose_key, row.maskable_BT, n, mean_length, roll)
        coin_T = jax.random.uniform(coin_key, (length,))
        inputs_T = masking.replace_row(
            replace_key,
            row.tokens_BT,
            chosen_T,
            vocab,
            mask=mask,
            random=random,
            random_ids=random_ids,
            coin_T=spans.one_a_run(coin_T, chosen_T) if draw == "span" else coin_T,
        )
        return inputs_T, chosen_T

    inputs_BT, chosen_BT = masking.each_row(choose, keys_B, batch)
    return spans.predict(batch, inputs_BT, chosen_BT, most)


def choose_segments(
    key: jax.Array, text_T: Leaf, n: Leaf, mean_length: float, roll: bool
) -> jax.Array:
    """``n`` tokens of the text in random spans; see ``t5_spans``. bool [T].

    Args:
        key: a typed key.
        text_T: bool, the tokens to choose from, numbered without the others between them.
        n: how many, one less where that would be all of several.
        mean_length: of the spans.
        roll: see ``t5_spans``.
    """
    length = text_T.shape[0]
    cut_key, roll_key = jax.random.split(key)
    number_T = jnp.arange(length, dtype=jnp.int32)
    total = jnp.sum(text_T, dtype=jnp.int32)
    hidden = jnp.minimum(n, jnp.maximum(total - 1, 1))
    plain = total - hidden
    table = np.maximum(1, np.round(np.arange(length + 1) / mean_length))
    parts = jnp.asarray(table, jnp.int32)[hidden]
    parts = jnp.minimum(parts, jnp.minimum(jnp.maximum(plain, 1), jnp.maximum(hidden, 1)))
    # Two heaps side by side, the plain tokens and the hidden ones, each cut at parts - 1 of its
    # inner borders; then the k-th part of either heap, by turns
    is_hidden_T = number_T >= plain
    inner_T = (number_T < total) & (number_T > 0) & (number_T != plain)
    draws_T = jax.random.uniform(cut_key, (length,)) + is_hidden_T
    rank_T = masking.ranks(jnp.where(inner_T, draws_T, jnp.inf))
    rank_T = rank_T - jnp.where(is_hidden_T, jnp.maximum(plain - 1, 0), 0)
    cuts_T = jnp.cumsum(inner_T & (rank_T < parts - 1), dtype=jnp.int32)
    part_T = cuts_T - jnp.where(is_hidden_T & (plain > 0), parts - 1, 0)
    place_T = jnp.where(number_T < total, 2 * part_T + is_hidden_T, 2 * length)
    pattern_T = jnp.sort(place_T) % 2 == 1
    index_T = jnp.cumsum(text_T, dtype=jnp.int32) - 1
    if roll:
        by = jax.random.randint(roll_key, (), 0, jnp.maximum(total, 1))
        index_T = (index_T + by) % jnp.maximum(total, 1)
    return pattern_T[index_T] & text_T
