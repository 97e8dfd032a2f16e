"""Spans of words, as in SpanBERT."""

from __future__ import annotations

from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np

from bert_variants.ops import masking
from bert_variants.ops import spans as ops
from bert_variants.registry import register
from bert_variants.types import Batch, Corrupted, Leaf, Vocab


@register("corruption", gives=("left_BP", "right_BP", "offset_BP"))
def spans(
    keys_B: Leaf,
    batch: Batch,
    vocab: Vocab,
    *,
    rate: float = 0.15,
    p: float = 0.2,
    max_words: int = 10,
    mask: float = 0.8,
    random: float = 0.1,
    max_predictions: int = 0,
    rounding: masking.Rounding = "ceil",
    random_ids: masking.RandomIds = "corpus",
    draw: Literal["span", "token"] = "span",
) -> Corrupted:
    """Hide spans of 3.8 words on average; a span as a whole is masked, replaced or kept.

    Spans are drawn until ``ceil(rate * n)`` tokens are hidden, n counting the text without special
    tokens. An anchor is drawn uniformly over the tokens that are not hidden yet; from the beginning
    of its word on, a span of ``geometric(p, max_words)`` words is hidden, tokens of other spans in
    it included. It ends where its run of text ends: at a special token. The last span is cut where
    the number is reached, in mid-word if need be, so that the number is always exact. Spans that
    touch or overlap are one from then on: for the 80/10/10, and for their boundaries. Random
    tokens are drawn as often as they occur in the corpus, each by itself (arXiv 1907.10529;
    facebookresearch/SpanBERT:pretraining/fairseq/data/masking.py). A worked row::

        tokens   [CLS] a ##b c d ##e f g [SEP]     n = 7, 3 tokens at 40 %
        anchor   ##e, 2 words: d ##e f
        inputs   [CLS] a ##b c [MASK] [MASK] [MASK] g [SEP]
        at        4 5 6      left 3 3 3      right 7 7 7      offset 0 1 2

    Args:
        keys_B: typed keys, one a row.
        batch: the rows.
        vocab: of the tokenizer; with the corpus's counts for ``random_ids="corpus"``.
        rate: share of a row's text that is hidden.
        p, max_words: of the lengths; see ``geometric``.
        mask, random: shares of the spans; see ``masking.replace_row``.
        max_predictions: P; 0: ``ceil(rate * T)``.
        rounding: of the number; see ``masking.budget_row``.
        random_ids: see ``masking.draw_ids``.
        draw: whether a span or each of its tokens is masked, replaced or kept as one.

    Raises:
        ValueError: shares or lengths that are none, or a vocabulary without counts.
    """
    masking.check_shares(mask, random)
    shares = geometric(p, max_words)
    length = batch.tokens_BT.shape[1]
    most = masking.slots(length, rate, max_predictions)

    def choose(key: Leaf, row: Batch) -> tuple[Leaf, Leaf]:
        count_key, length_key, anchor_key, coin_key, replace_key = jax.random.split(key, 5)
        n = masking.budget_row(
            count_key, row.maskable_BT, row.maskable_BT, rate=rate, most=most, rounding=rounding
        )
        words = ops.number_words(row.words_BT, row.maskable_BT)
        lengths_W = ops.draw_lengths(length_key, length, shares)
        chosen_T = choose_spans(anchor_key, words, lengths_W, max_words, n)
        coin_T = jax.random.uniform(coin_key, (length,))
        inputs_T = masking.replace_row(
            replace_key,
            row.tokens_BT,
            chosen_T,
            vocab,
            mask=mask,
            random=random,
            random_ids=random_ids,
            coin_T=ops.one_a_run(coin_T, chosen_T) if draw == "span" else coin_T,
        )
        return inputs_T, chosen_T

    inputs_BT, chosen_BT = masking.each_row(choose, keys_B, batch)
    return ops.predict(batch, inputs_BT, chosen_BT, most)


def geometric(p: float, max_words: int) -> np.ndarray:
    """Shares of the lengths 1 .. max_words: ``p * (1 - p) ** (l - 1)``, made to sum to 1.

    At 0.2 and 10: .2241 .1792 .1434 .1147 .0918 .0734 .0587 .0470 .0376 .0301, a mean of 3.797.
    What a geometric distribution has beyond the longest is spread over all lengths; put on the
    longest it would give a mean of 4.463, which is not what is published. 0 makes all lengths
    equally frequent.

    Raises:
        ValueError: p outside [0, 1], or no length.
    """
    if not 0 <= p <= 1:
        raise ValueError(f"p is {p}, expected 0 <= p <= 1.")
    if max_words < 1:
        raise ValueError(f"max_words is {max_words}, expected at least 1.")
    shares = (1.0 - p) ** np.arange(max_words)
    return shares / shares.sum()


def choose_spans(
    key: jax.Array, words: ops.Words, lengths_W: Leaf, longest: int, n: Leaf
) -> jax.Array:
    """Exactly ``n`` tokens in spans from random words on.

    The next anchor is uniform over the tokens that no span hides. A word is hidden as a whole, so
    what counts is the word that the anchor is in, drawn by its number of tokens: words come in the
    order of exponential numbers divided by their sizes, and one that is hidden already is passed
    over. Every word is tried, so that the number is reached whatever the lengths.

    Args:
        key: a typed key.
        words: of the row.
        lengths_W: int32, how many words the span that begins with a word has.
        longest: no length is larger.
        n: at most the tokens of all words.

    Returns:
        bool [T].
    """
    number_W = jnp.arange(lengths_W.shape[0], dtype=jnp.int32)
    lengths_W = jnp.minimum(lengths_W, words.stop_W - number_W)
    lengths_W = jnp.where(words.size_W > 0, lengths_W, 0)
    scores_W = jax.random.exponential(key, lengths_W.shape) / jnp.maximum(words.size_W, 1)
    taken_W = ops.accept(scores_W, lengths_W, longest, apart=False)
    first_W = ops.covered_from(scores_W, lengths_W, taken_W, longest)
    return ops.earliest(jnp.where(words.of_T >= 0, first_W[words.of_T], jnp.inf), n)
