"""One n-gram in each stretch of the text, as in DeBERTa."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from bert_variants.corruptions.ngrams import harmonic
from bert_variants.ops import masking, spans
from bert_variants.registry import register
from bert_variants.types import Batch, Corrupted, Leaf, Vocab


@register("corruption", gives=("left_BP", "right_BP", "offset_BP"))
def windows(
    keys_B: Leaf,
    batch: Batch,
    vocab: Vocab,
    *,
    rate: float = 0.15,
    max_ngram: int = 1,
    mask: float = 0.8,
    random: float = 0.1,
    max_predictions: int = 0,
    rounding: masking.Rounding = "nearest",
    random_ids: masking.RandomIds = "vocab",
) -> Corrupted:
    """Cut the text into windows and choose one n-gram in each; 80/10/10 is drawn for each token.

    With w = floor(1 / rate) the text is walked from left to right: n is drawn with a probability
    as 1 / n, the next n * w units are a window, and an n-gram that begins anywhere in it is
    chosen; the walk goes on behind the window, or behind the n-gram where that reaches beyond.
    Units are whole words, or single tokens where ``max_ngram`` is 1. Then the chosen units are
    kept from left to right as long as they fit in BERT's budget
    (microsoft/DeBERTa:DeBERTa/apps/tasks/mlm_task.py).

    So at 15 % a sixth of the units is chosen first, and **the end of a long row is never masked**:
    of 512 tokens 77 are chosen with ``max_ngram=1``, always, and none of the last 48. That is the
    published behaviour. There the word that reaches the budget may exceed it; here it is left out.
    A worked row, ``rate=0.5``, w = 2::

        tokens   [CLS] a b c d e [SEP]      n = 7, round(3.5) = 4, budget 4
        windows        |a b|c d|e|
        chosen          0 1 1 0 1

    Args:
        keys_B: typed keys, one a row.
        batch: the rows.
        vocab: of the tokenizer.
        rate: share of a row's tokens, specials counted, that is chosen; above 0.
        max_ngram: the largest n, in units.
        mask, random: shares of the chosen tokens; see ``masking.replace_row``. The generator of
            version 3 reads [MASK] alone: 1.0 and 0.0.
        max_predictions: P; 0: ``ceil(rate * T)``.
        rounding: of the budget; see ``masking.budget_row``.
        random_ids: see ``masking.draw_ids``.

    Raises:
        ValueError: shares that are none, no n, or a rate outside (0, 1].
    """
    masking.check_shares(mask, random)
    shares = harmonic(max_ngram)
    length = batch.tokens_BT.shape[1]
    most = masking.slots(length, rate, max_predictions)
    if rate == 0:
        raise ValueError("rate is 0, expected 0 < rate <= 1: windows are 1 / rate units long.")

    def choose(key: Leaf, row: Batch) -> tuple[Leaf, Leaf]:
        count_key, walk_key, replace_key = jax.random.split(key, 3)
        n = masking.budget_row(
            count_key, row.valid_BT, row.maskable_BT, rate=rate, most=most, rounding=rounding
        )
        words_T = row.words_BT if max_ngram > 1 else jnp.full_like(row.words_BT, -1)
        words = spans.number_words(words_T, row.maskable_BT)
        chosen_W = walk(walk_key, words.size_W > 0, shares, int(1 / rate))
        kept_W = chosen_W & (jnp.cumsum(jnp.where(chosen_W, words.size_W, 0)) <= n)
        chosen_T = kept_W[words.of_T] & (words.of_T >= 0)
        inputs_T = masking.replace_row(
            replace_key,
            row.tokens_BT,
            chosen_T,
            vocab,
            mask=mask,
            random=random,
            random_ids=random_ids,
        )
        return inputs_T, chosen_T

    inputs_BT, chosen_BT = masking.each_row(choose, keys_B, batch)
    return spans.predict(batch, inputs_BT, chosen_BT, most)


def walk(key: jax.Array, there_W: Leaf, shares: np.ndarray, window: int) -> jax.Array:
    """One n-gram in each window of ``n * window`` units, from left to right.

    Args:
        key: a typed key.
        there_W: bool, the units; they come first.
        shares: of n = 1, 2, ...
        window: in units.

    Returns:
        bool [W].
    """
    length = there_W.shape[0]
    units = jnp.sum(there_W, dtype=jnp.int32)
    turns = -(-length // window)  # all windows but the last have at least that many units
    length_key, start_key = jax.random.split(key)
    lengths_K = spans.draw_lengths(length_key, turns, shares)
    places_K = jax.random.uniform(start_key, (turns,))

    def a_window(begin: Leaf, drawn: tuple[Leaf, Leaf]) -> tuple[Leaf, tuple[Leaf, Leaf]]:
        n, place = drawn
        size = jnp.minimum(n * window, units - begin)  # 0 or less behind the text
        inside = jnp.minimum(jnp.floor(place * size).astype(jnp.int32), size - 1)
        start = jnp.where(size > 0, begin + inside, 0)
        stop = jnp.where(size > 0, jnp.minimum(start + n, units), 0)
        return jnp.where(size > 0, jnp.maximum(begin + size, stop), begin), (start, stop)

    _, (starts_K, stops_K) = jax.lax.scan(a_window, jnp.int32(0), (lengths_K, places_K))
    edges = jnp.zeros(length + 1, jnp.int32).at[starts_K].add(1).at[stops_K].add(-1)
    return jnp.cumsum(edges[:-1]) > 0
