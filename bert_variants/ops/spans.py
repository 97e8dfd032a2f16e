"""Spans and runs of chosen tokens: how they are drawn, where they end, what stands outside.

As in ``ops/masking.py``, functions take single rows (``_T``) and are vmapped by the corruptions.
Arrays over the words of a row end in ``_W``; they are as long as the row, and 0 beyond its words.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from bert_variants.ops import masking
from bert_variants.types import Batch, Corrupted, Leaf


def groups(*numbers_T: Leaf) -> jax.Array:
    """One numbering for several: a token belongs to its unit, else to its word.

    A worked row: words 0 1 1 2 3 -1 and units -1 -1 -1 0 0 -1 give, called with (units, words),
    0 1 1 2 2 -1: the unit joins the words 2 and 3.

    Args:
        numbers_T: int32, the index of the group of each token, -1 for none; the first numbering
            that has a group for a token decides.

    Returns:
        int32 [T], counted from 0 in the order of the row, -1 for none. The members of a group
        stand side by side.
    """
    length = numbers_T[0].shape[0]
    found_T = jnp.full(length, -1, jnp.int32)
    for level, one_T in reversed(list(enumerate(numbers_T))):
        found_T = jnp.where(one_T >= 0, one_T + level * length, found_T)
    starts_T = (found_T >= 0) & (found_T != jnp.roll(found_T, 1).at[0].set(-1))
    return jnp.where(found_T >= 0, jnp.cumsum(starts_T) - 1, -1).astype(jnp.int32)


# ------------------------------------------------------------- words, and spans of them


class Words(NamedTuple):
    """The words of a row, numbered from 0 in its order.

    A worked row, T=8: text "un ##happi ##ly yes [SEP] no way", then padding::

        of      0  0  0  1 -1  2  3 -1
        size    3  1  1  1  0  0  0  0
        stop    2  2  4  4  0  0  0  0

    Attributes:
        of_T: int32, the word of each token, -1 for none.
        size_W: int32, the tokens of each word.
        stop_W: int32, the number after the last word of the run of text that a word stands in.
    """

    of_T: Leaf
    size_W: Leaf
    stop_W: Leaf


def number_words(words_T: Leaf, text_T: Leaf) -> Words:
    """The words of the text of a row; see ``Words``.

    Args:
        words_T: int32, the word of each token as the batch counts them. A token of the text
            that is in none is a word of its own.
        text_T: bool, the tokens that may be chosen; what is not text ends a word and a run.
    """
    length = text_T.shape[0]
    column_T = jnp.arange(length, dtype=jnp.int32)
    of_T = groups(jnp.where(text_T, words_T, -1), jnp.where(text_T, column_T, -1))
    so_far_T = jax.lax.cummax(of_T) + 1
    stop_T = jax.lax.cummin(jnp.where(text_T, so_far_T[-1], so_far_T), reverse=True)
    index_T = jnp.where(text_T, of_T, length)
    nothing_W = jnp.zeros(length, jnp.int32)
    return Words(
        of_T=of_T,
        size_W=nothing_W.at[index_T].add(1, mode="drop"),
        stop_W=nothing_W.at[index_T].max(stop_T, mode="drop"),
    )


def draw_lengths(key: jax.Array, count: int, shares: np.ndarray) -> jax.Array:
    """``count`` random lengths: l with a probability as ``shares[l - 1]``. int32, from 1 on."""
    upper = np.cumsum(np.asarray(shares, np.float64))
    upper = jnp.asarray(upper[:-1] / upper[-1], jnp.float32)
    drawn = jax.random.uniform(key, (count,))
    return 1 + jnp.sum(drawn[:, None] >= upper[None, :], axis=-1, dtype=jnp.int32)


def around(x_W: Leaf, reach: int, fill: float | int | bool) -> Callable[[int], jax.Array]:
    """``around(x, 3, 0)(by)`` is x moved by up to 3 places: its w-th entry is ``x[w + by]``."""
    length = x_W.shape[0]
    padded = jnp.pad(x_W, reach, constant_values=fill)
    return lambda by: jax.lax.slice_in_dim(padded, reach + by, reach + by + length)


def accept(
    scores_W: Leaf, lengths_W: Leaf, longest: int, *, apart: bool, rounds: int = 16
) -> jax.Array:
    """Which words begin a span, when they are tried one after the other in the order of scores.

    A span is ``lengths_W[w]`` words from w on. Its word is refused where a span that was accepted
    earlier holds it or, with ``apart``, where one holds any word of the new span.

    The sequential rule is evaluated for all words at once, again and again: a word at the end of a
    chain of k earlier words, each of which decides about the next, is right from round k on. In
    1,500 rows of 512 words and spans of 3.8 words the longest chain that mattered had 3 such words
    at a budget of 15 %, 8 at 60 % and 13 at 100 %, and each one more is about four times as rare.
    The number of rounds being even, a chain that is too long lets a word too many in, never one too
    few.

    Args:
        scores_W: float32, the order.
        lengths_W: int32, in words; 0 for no word.
        longest: no length is larger.
        apart: see above.
        rounds: even.

    Returns:
        bool [W].
    """
    reach = min(longest, scores_W.shape[0])
    tried_W = lengths_W > 0
    scores_W = jnp.where(tried_W, scores_W, jnp.inf)
    score, length = around(scores_W, reach, jnp.inf), around(lengths_W, reach, 0)
    decides = {-by: (score(-by) < scores_W) & (length(-by) > by) for by in range(1, reach)}
    if apart:
        decides |= {by: (score(by) < scores_W) & (lengths_W > by) for by in range(1, reach)}

    def a_round(_: Leaf, taken_W: Leaf) -> Leaf:
        taken = around(taken_W, reach, False)
        refused_W = jnp.zeros_like(taken_W)
        for by, decides_W in decides.items():
            refused_W = refused_W | (taken(by) & decides_W)
        return tried_W & ~refused_W

    return jax.lax.fori_loop(0, rounds, a_round, tried_W)


def covered_from(scores_W: Leaf, lengths_W: Leaf, taken_W: Leaf, longest: int) -> jax.Array:
    """The score of the first of the taken spans that holds a word; infinite where none does."""
    reach = min(longest, scores_W.shape[0])
    score = around(jnp.where(taken_W, scores_W, jnp.inf), reach, jnp.inf)
    length = around(lengths_W, reach, 0)
    first_W = jnp.full(scores_W.shape, jnp.inf)
    for by in range(reach):
        first_W = jnp.minimum(first_W, jnp.where(length(-by) > by, score(-by), jnp.inf))
    return first_W


def earliest(scores_T: Leaf, n: Leaf) -> jax.Array:
    """The ``n`` tokens of the smallest finite scores; of equal ones the first in the row. bool."""
    last = jnp.sort(scores_T)[jnp.maximum(n - 1, 0)]
    below_T, level_T = scores_T < last, scores_T == last
    spare = n - jnp.sum(below_T, dtype=jnp.int32)
    return (below_T | (level_T & (jnp.cumsum(level_T) <= spare))) & (scores_T < jnp.inf)


# ------------------------------------------------------------- runs of chosen tokens


def run_starts(chosen_T: Leaf) -> jax.Array:
    """Where the run of chosen tokens that a token belongs to begins; T where it is not chosen.

    chosen 0 1 1 0 1 gives 5 1 1 5 4.
    """
    length = chosen_T.shape[0]
    column_T = jnp.arange(length, dtype=jnp.int32)
    before_T = jax.lax.cummax(jnp.where(chosen_T, -1, column_T))
    return jnp.where(chosen_T, before_T + 1, length)


def run_stops(chosen_T: Leaf) -> jax.Array:
    """Where that run ends, exclusive; -1 where a token is not chosen.

    chosen 0 1 1 0 1 gives -1 3 3 -1 5.
    """
    length = chosen_T.shape[0]
    column_T = jnp.arange(length, dtype=jnp.int32)
    after_T = jax.lax.cummin(jnp.where(chosen_T, length, column_T), reverse=True)
    return jnp.where(chosen_T, after_T, -1)


def one_a_run(numbers_T: Leaf, chosen_T: Leaf) -> jax.Array:
    """The number of a run's first token for all of its tokens; elsewhere any number.

    numbers .1 .2 .3 .4 .5, chosen 0 1 1 0 1 give  -  .2 .2  -  .5.
    """
    return numbers_T[jnp.minimum(run_starts(chosen_T), numbers_T.shape[0] - 1)]


def boundaries(
    chosen_T: Leaf, visible_T: Leaf, at_P: Leaf, weights_P: Leaf
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The tokens just outside the run of each predicted position, and the place within it.

    Adjacent chosen tokens are one run, so both boundaries are tokens that were not chosen. A run
    that touches a special token or the end of the row has no target from its boundaries: both are
    -1 (facebookresearch/SpanBERT:pretraining/fairseq/data/masking.py).

    A worked row, V visible text, X chosen, S special::

        row     S V X X V X S
        at      2 3 5
        left    1 1 -1      right  4 4 -1      offset  0 1 0

    Args:
        chosen_T: bool.
        visible_T: bool, the tokens that may serve as a boundary where they are not chosen.
        at_P: int32, positions of chosen tokens.
        weights_P: 0 for unused slots.

    Returns:
        left, right, offset int32 [P]; -1, -1, 0 in unused slots.
    """
    length = chosen_T.shape[0]
    start_P, stop_P = run_starts(chosen_T)[at_P], run_stops(chosen_T)[at_P]
    left_P, right_P = start_P - 1, stop_P
    inside_P = (left_P >= 0) & (right_P < length) & (weights_P > 0)
    there_P = (
        inside_P
        & visible_T[jnp.clip(left_P, 0, length - 1)]
        & visible_T[jnp.clip(right_P, 0, length - 1)]
    )
    offset_P = jnp.where(weights_P > 0, at_P - start_P, 0)
    return (
        jnp.where(there_P, left_P, -1).astype(jnp.int32),
        jnp.where(there_P, right_P, -1).astype(jnp.int32),
        offset_P.astype(jnp.int32),
    )


def predict(
    batch: Batch, inputs_BT: Leaf, chosen_BT: Leaf, slots_P: int, **more: Leaf
) -> Corrupted:
    """``masking.predict`` with the boundaries of every run of chosen tokens."""
    rows = masking.predict(batch, inputs_BT, chosen_BT, slots_P, **more)
    left_BP, right_BP, offset_BP = jax.vmap(boundaries)(
        chosen_BT, batch.maskable_BT, rows.at_BP, rows.weights_BP
    )
    return rows.replace(left_BP=left_BP, right_BP=right_BP, offset_BP=offset_BP)
