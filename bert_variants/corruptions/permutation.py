"""XLNet's permuted factorisation: nothing is hidden, but it is read in a random order."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np

from bert_variants.corruptions.ngrams import harmonic
from bert_variants.ops import masking, spans
from bert_variants.ops.permutation import places
from bert_variants.registry import Call, RegistryError, register
from bert_variants.types import Batch, Corrupted, Leaf, Vocab


def _check(call: Call) -> None:
    least = {"max_ngram": 1, "context": 0, "window": 0}
    for name, low in least.items():
        if call.argument(name) < low:
            raise RegistryError(
                f"corruption '{call}': {name} is {call.argument(name)}, expected at least {low}."
            )


@register("corruption", gives=("order_BT",), check=_check)
def permutation(
    keys_B: Leaf,
    batch: Batch,
    vocab: Vocab,
    *,
    rate: float = 1 / 6,
    max_ngram: int = 5,
    context: int = 6,
    unit: Literal["token", "word"] = "token",
    reuse: int | None = None,
    window: int = 0,
    max_predictions: int = 0,
    rounding: masking.Rounding = "nearest",
) -> Corrupted:
    """Predict spans of tokens, each from what stands before it in a random order of the row.

    The inputs are the text itself; ``order_BT`` says who may read whom (``ops/permutation.py``).
    Ordinary tokens come first, all at once; then the tokens to predict and the special tokens in
    random order. A row has two parts. The first one, the ``reuse`` positions that a memory keeps,
    comes wholly before the second, of which it therefore sees nothing. A worked row, all one part,
    ``rate=0.3``, n = 3 of 9 tokens::

        tokens   a b c d e f g [SEP] [CLS]
        span     b c, and then g by itself to make up the number
        rank     5 0 7 2 8 4 6   3     1       random
        inputs   a b c d e f g [SEP] [CLS]
        at         1 2       6
        order    0 1 8 0 0 0 7   4     2       g is predicted from a d e f b [CLS] [SEP]

    Spans are drawn from left to right in each part: n tokens with a probability as 1 / n, a random
    share of 6n tokens to pass over, on to the next beginning of a word, n tokens, then the rest of
    the 6n. They alone do not make up the number (36 of 43 tokens); single tokens drawn from the
    rest do. A span that would reach the end of the part is left out and ends the drawing.

    zihangdai/xlnet:data_utils.py (``_sample_mask``, ``_local_perm``). There n counts pieces, which
    its authors call an oversight for words; ``unit="word"`` is what was meant. There special tokens
    may be drawn and are dropped afterwards, so that a row has 85 targets at most; here others take
    their place. There the targets are drawn once, with the data; ``data.copies`` does that here.

    Args:
        keys_B: typed keys, one a row.
        batch: the rows. Where the label ``backward`` is 1 they hold their text in reverse order,
            and words begin at their right end.
        vocab: of the tokenizer.
        rate: share of a row's tokens, specials counted, that is predicted.
        max_ngram: the largest n; see ``ngrams.harmonic``.
        context: tokens that are passed over for each token of a span.
        unit: whether n counts tokens or words. A span of words that is longer than what is left
            of the number ends the drawing.
        reuse: positions of the first part; None: half of the row; 0: there is one part.
        window: so many positions share a permutation, which every window of a part takes again, the
            windows coming one after another (``perm_size``); it divides both parts. 0: the part.
        max_predictions: P; 0: ``ceil(rate * T)``. The released model has 85 for 512 tokens.
        rounding: of the number; see ``masking.budget_row``.

    Raises:
        ValueError: a ``reuse`` longer than the row, or a window that does not divide a part.
    """
    del vocab
    length = batch.tokens_BT.shape[1]
    parts = _parts(length, reuse, window)
    most = masking.slots(length, rate, max_predictions)
    shares = harmonic(max_ngram)

    def choose(key: Leaf, row: Batch) -> tuple[Leaf, Leaf]:
        count_key, part_key = jax.random.split(key)
        numbers = _numbers(count_key, row, parts, rate=rate, most=most, rounding=rounding)
        backward = row.labels["backward"] != 0 if "backward" in row.labels else None
        starts_T = _word_starts(row, backward)
        chosen, order = [], []
        for number, (part, n) in enumerate(zip(parts, numbers, strict=True)):
            draw_key, fill_key, rank_key = jax.random.split(jax.random.fold_in(part_key, number), 3)
            text_X = row.maskable_BT[part]
            spans_X = _read_in_order(
                lambda starts_X, text_X, key=draw_key, n=n: choose_spans(
                    key, starts_X, text_X, n, shares=shares, context=context, unit=unit
                ),
                backward,
                starts_T[part],
                text_X,
            )
            rest = n - jnp.sum(spans_X, dtype=jnp.int32)
            chosen_X = spans_X | masking.choose_tokens(fill_key, text_X & ~spans_X, rest)
            late_X = chosen_X | (row.valid_BT[part] & ~text_X)
            ranks_X = _ranks(rank_key, part.stop - part.start, window)
            order.append(places(ranks_X, late_X) + (part.start + number))
            chosen.append(chosen_X)
        return jnp.concatenate(chosen), jnp.concatenate(order)

    chosen_BT, order_BT = masking.each_row(choose, keys_B, batch)
    inputs_BT = batch.tokens_BT.astype(jnp.int32)
    return masking.predict(batch, inputs_BT, chosen_BT, most, order_BT=order_BT)


def _parts(length: int, reuse: int | None, window: int) -> list[slice]:
    """The stretches of a row that come one after another."""
    first = length // 2 if reuse is None else reuse
    if not 0 <= first <= length:
        raise ValueError(f"reuse is {first}, expected 0 to {length}, the length of the row.")
    parts = [part for part in (slice(0, first), slice(first, length)) if part.stop > part.start]
    for part in parts:
        if window and (part.stop - part.start) % window:
            raise ValueError(
                f"window is {window}, which does not divide the {part.stop - part.start} positions "
                f"{part.start} .. {part.stop - 1}."
            )
    return parts


def _numbers(
    key: jax.Array,
    row: Batch,
    parts: list[slice],
    *,
    rate: float,
    most: int,
    rounding: masking.Rounding,
) -> list[jax.Array]:
    """How many tokens of each part are predicted: 43 and 42 of twice 256.

    The first part's number is rounded, the second takes what is left of the row's; what one of them
    has not enough tokens for goes to the other.
    """

    def budget(valid_X: Leaf, text_X: Leaf) -> jax.Array:
        return masking.budget_row(key, valid_X, text_X, rate=rate, most=most, rounding=rounding)

    whole = budget(row.valid_BT, row.maskable_BT)
    if len(parts) == 1:
        return [whole]
    first = parts[0]
    free = [jnp.sum(row.maskable_BT[part], dtype=jnp.int32) for part in parts]
    left = whole - budget(row.valid_BT[first], row.maskable_BT[first])
    of_second = jnp.clip(left, 0, free[1])
    of_first = jnp.minimum(whole - of_second, free[0])
    return [of_first, jnp.minimum(whole - of_first, free[1])]


def _word_starts(row: Batch, backward: Leaf) -> jax.Array:
    """bool [T]: where a word begins in the direction of reading. A token in none is a word."""

    def differs(neighbour_T: Leaf) -> jax.Array:
        return row.maskable_BT & ((row.words_BT < 0) | (row.words_BT != neighbour_T))

    starts_T = differs(jnp.pad(row.words_BT, (1, 0), constant_values=-1)[:-1])
    if backward is None:
        return starts_T
    ends_T = differs(jnp.pad(row.words_BT, (0, 1), constant_values=-1)[1:])
    return jnp.where(backward, ends_T, starts_T)


def _read_in_order(
    function: Callable[..., jax.Array], backward: Leaf, *arrays_X: Leaf
) -> jax.Array:
    """A function of a part of a row, given it in the direction of reading."""
    if backward is None:
        return function(*arrays_X)
    turned = function(*(jnp.where(backward, x[::-1], x) for x in arrays_X))
    return jnp.where(backward, turned[::-1], turned)


def _ranks(key: jax.Array, length: int, window: int) -> jax.Array:
    """int32 [X]: a permutation of each window, the same in all of them, window after window."""
    window = window or length
    ranks_W = masking.ranks(jax.random.uniform(key, (window,)))
    windows = np.arange(length // window, dtype=np.int32) * window
    return (windows[:, None] + ranks_W[None, :]).reshape(length).astype(jnp.int32)


def choose_spans(
    key: jax.Array,
    starts_X: Leaf,
    text_X: Leaf,
    n: Leaf,
    *,
    shares: np.ndarray,
    context: int,
    unit: Literal["token", "word"] = "token",
) -> jax.Array:
    """Spans with room around them, from left to right; see ``permutation``. At most ``n`` tokens.

    Args:
        key: a typed key.
        starts_X: bool, tokens at which a word begins.
        text_X: bool, tokens that may be chosen. Others in a span are left out of it.
        n: at most so many tokens.
        shares: of the lengths 1, 2, ...
        context: tokens that are passed over for each one of a span.
        unit: of the lengths.

    Returns:
        bool [X].
    """
    length = starts_X.shape[0]
    turns = -(-length // (context + 1))  # each takes at least 1 + context positions
    size_key, left_key = jax.random.split(key)
    sizes = spans.draw_lengths(size_key, turns, shares)
    lefts = jax.random.uniform(left_key, (turns,))
    column_X = jnp.arange(length, dtype=jnp.int32)
    next_X = jax.lax.cummin(jnp.where(starts_X, column_X, length), reverse=True)
    next_X = jnp.append(next_X, length)
    number_X = jnp.cumsum(starts_X, dtype=jnp.int32)
    stop = jnp.max(jnp.where(text_X, column_X + 1, 0))

    def a_span(turn: Leaf, state: tuple[Leaf, Leaf, Leaf]) -> tuple[Leaf, Leaf, Leaf]:
        chosen_X, at, goes_on = state
        left = n - jnp.sum(chosen_X, dtype=jnp.int32)
        size = jnp.minimum(sizes[turn], left)
        before = jnp.floor(lefts[turn] * (context * size)).astype(jnp.int32)
        begin = next_X[jnp.minimum(at + before, length)]
        end = begin + size
        if unit == "word":
            last = number_X[jnp.minimum(begin, length - 1)] + size - 1
            end = jnp.sum(number_X <= last, dtype=jnp.int32)
        new_X = (column_X >= begin) & (column_X < end) & text_X
        goes_on = goes_on & (left > 0) & (begin < length) & (end < stop)
        goes_on = goes_on & (jnp.sum(new_X, dtype=jnp.int32) <= left)
        return chosen_X | (new_X & goes_on), end + context * size - before, goes_on

    start = (jnp.zeros(length, bool), jnp.zeros((), jnp.int32), jnp.ones((), bool))
    return jax.lax.fori_loop(0, turns, a_span, start)[0]
