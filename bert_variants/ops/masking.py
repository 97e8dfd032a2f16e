"""Choosing what to corrupt and what to put there, one row at a time.

Functions named ``*_row`` or taking ``_T`` arrays work on a single row and are vmapped by the
corruptions. All shapes are static; ranks come from a double ``argsort`` and never from
``lax.top_k``, which makes XLA gather a batch-sharded array across devices.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from bert_variants.types import Batch, Corrupted, Leaf, Vocab

Rounding = Literal["nearest", "ceil", "random"]
RandomIds = Literal["vocab", "text", "corpus"]


def each_row(function: Callable[[Leaf, Batch], Any], keys_B: Leaf, batch: Batch) -> Any:
    """``function(key, row)`` for every row, joined along B.

    A row has the fields of a Batch without their leading axis: ``row.tokens_BT`` is [T]. It has no
    ``step``, which is not a row's: read that of the batch.
    """
    return jax.vmap(function)(keys_B, batch.replace(step=None))


def slots(length: int, rate: float, max_predictions: int = 0) -> int:
    """P: how many positions a row of ``length`` tokens can predict at most.

    ``ceil(rate * length)``, or ``max_predictions`` where it is given and smaller: 20 for 128 tokens
    and 77 for 512 at 15 %, as BERT's README advises.

    Raises:
        ValueError: a rate outside [0, 1].
    """
    if not 0 <= rate <= 1:
        raise ValueError(f"rate is {rate}, expected 0 <= rate <= 1.")
    most = int(np.ceil(np.round(rate * length, 9)))
    return max(1, min(most, max_predictions) if max_predictions else most)


def budget_row(
    key: jax.Array,
    counted_T: Leaf,
    candidates_T: Leaf,
    *,
    rate: float,
    most: int,
    rounding: Rounding = "nearest",
) -> jax.Array:
    """How many tokens of a row to choose.

    Args:
        key: used by rounding ``random`` alone.
        counted_T: bool, the tokens that the rate refers to (BERT counts specials too).
        candidates_T: bool, the tokens that may be chosen.
        rate: share of the counted tokens.
        most: upper bound, P.
        rounding: ``nearest`` is Python's half-to-even, at least 1 (BERT: 10 tokens -> 2, 30 -> 4);
            ``ceil``, at least 1 (SpanBERT); ``random`` is floor(rate * n + u) (RoBERTa).

    Returns:
        int32 scalar; 0 for a row without candidates.
    """
    length = counted_T.shape[0]
    exact = rate * np.arange(length + 1)  # in double precision, as the published code counts
    n = jnp.sum(counted_T, dtype=jnp.int32)
    if rounding == "nearest":
        table = np.maximum(1, np.round(exact))
    elif rounding == "ceil":
        table = np.maximum(1, np.ceil(np.round(exact, 9)))
    elif rounding == "random":
        table = np.floor(np.round(exact, 9))
    else:
        raise ValueError(f"rounding is {rounding!r}, expected nearest, ceil or random.")
    wanted = jnp.asarray(table, jnp.int32)[n]
    if rounding == "random":
        fraction = jnp.asarray(exact - table, jnp.float32)[n]
        wanted = wanted + (jax.random.uniform(key) < fraction).astype(jnp.int32)
    if rate == 0:
        wanted = jnp.zeros_like(wanted)
    available = jnp.sum(candidates_T, dtype=jnp.int32)
    return jnp.minimum(jnp.minimum(wanted, most), available)


def ranks(scores_T: Leaf) -> jax.Array:
    """The rank of each score, 0 for the smallest; ties by position."""
    return jnp.argsort(jnp.argsort(scores_T))


def choose_tokens(key: jax.Array, candidates_T: Leaf, n: Leaf) -> jax.Array:
    """Exactly ``n`` of the candidates, uniformly, without replacement. bool [T]."""
    scores_T = jnp.where(candidates_T, jax.random.uniform(key, candidates_T.shape), 2.0)
    return (ranks(scores_T) < n) & candidates_T


def draw_tokens(
    key: jax.Array, candidates_T: Leaf, n: Leaf, most: int
) -> tuple[jax.Array, jax.Array]:
    """``n`` draws from the candidates, uniformly, with replacement.

    Args:
        key: a typed key.
        candidates_T: bool.
        n: how many draws, at most ``most``.
        most: static.

    Returns:
        How often each token was drawn, int32 [T]; and the smallest of the uniform numbers that its
        draws come with, float32 [T], 1 where there was none.
    """
    place_key, coin_key = jax.random.split(key)
    order_T = jnp.argsort(~candidates_T, stable=True)
    available = jnp.maximum(jnp.sum(candidates_T, dtype=jnp.int32), 1)
    at_P = order_T[jax.random.randint(place_key, (most,), 0, available)]
    used_P = jnp.arange(most) < n
    coin_P = jnp.where(used_P, jax.random.uniform(coin_key, (most,)), 1.0)
    times_T = jnp.zeros(candidates_T.shape, jnp.int32).at[at_P].add(used_P.astype(jnp.int32))
    return times_T, jnp.ones(candidates_T.shape, jnp.float32).at[at_P].min(coin_P)


def choose_groups(
    key: jax.Array, groups_T: Leaf, candidates_T: Leaf, n: Leaf, rounds: int = 16
) -> jax.Array:
    """Whole groups (words, units) in random order, skipping each that would exceed ``n`` tokens.

    This is BERT's greedy rule: groups come in uniform random order; one that does not fit in
    what is left of the budget is skipped, never cut, and later smaller ones may still fit.

    The sequential rule is evaluated a prefix at a time: of the groups not larger than what is left,
    take the longest run that fits; the one that stopped it can never fit again. After the first
    prefix less is left than one group holds, and every further round leaves strictly less, so the
    result is the sequential one wherever no skipped group is longer than ``rounds`` tokens; beyond
    that a few tokens of the budget may stay unused.

    Args:
        key: a typed key.
        groups_T: int32, the group of each token, -1 for none; ids are below T.
        candidates_T: bool, tokens that may be chosen.
        n: the budget in tokens.
        rounds: see above.

    Returns:
        bool [T], the chosen tokens: all candidates of a group or none.
    """
    length = groups_T.shape[0]
    member_T = candidates_T & (groups_T >= 0)
    group_T = jnp.where(member_T, groups_T, 0)
    size_G = jnp.zeros(length, jnp.int32).at[group_T].add(member_T.astype(jnp.int32))
    scores_G = jnp.where(size_G > 0, jax.random.uniform(key, (length,)), 2.0)
    order_G = jnp.argsort(scores_G)
    size_O = size_G[order_G]

    def a_round(_: Leaf, state: tuple[Leaf, Leaf, Leaf]) -> tuple[Leaf, Leaf, Leaf]:
        taken_O, open_O, left = state
        fits_O = open_O & (size_O <= left)
        through_O = fits_O & (jnp.cumsum(jnp.where(fits_O, size_O, 0)) <= left)
        # sizes are positive, so the cumulative sum stays above once it is above
        spent = jnp.sum(jnp.where(through_O, size_O, 0), dtype=jnp.int32)
        return taken_O | through_O, fits_O & ~through_O, left - spent

    start = (jnp.zeros(length, bool), size_O > 0, jnp.asarray(n, jnp.int32))
    taken_O, _, _ = jax.lax.fori_loop(0, rounds, a_round, start)
    taken_G = jnp.zeros(length, bool).at[order_G].set(taken_O)
    return taken_G[group_T] & member_T


def replace_row(
    key: jax.Array,
    tokens_T: Leaf,
    chosen_T: Leaf,
    vocab: Vocab,
    *,
    mask: float,
    random: float,
    random_ids: RandomIds = "vocab",
    coin_T: Leaf | None = None,
) -> jax.Array:
    """Put [MASK], a random token, or the token itself where a row's tokens are chosen.

    Args:
        key: a typed key.
        tokens_T: int32, the original ids.
        chosen_T: bool.
        vocab: gives the id of [MASK], V and the counts.
        mask: share that becomes [MASK].
        random: share that becomes a random token. The rest stays.
        random_ids: where random tokens come from; see ``draw_ids``.
        coin_T: uniform numbers that decide; give equal ones within a span or word for one
            decision each. None: one a token.

    Returns:
        int32 [T].
    """
    coin_key, id_key = jax.random.split(key)
    if coin_T is None:
        coin_T = jax.random.uniform(coin_key, tokens_T.shape)
    random_T = draw_ids(id_key, tokens_T.shape, vocab, random_ids)
    put_T = jnp.where(
        coin_T < mask, vocab.mask, jnp.where(coin_T < mask + random, random_T, tokens_T)
    )
    return jnp.where(chosen_T, put_T, tokens_T).astype(jnp.int32)


def draw_ids(
    key: jax.Array, shape: tuple[int, ...], vocab: Vocab, source: RandomIds = "vocab"
) -> jax.Array:
    """Random ids, int32, each of which may happen to be the original.

    Args:
        key: a typed key.
        shape: of the result.
        vocab: gives V, the special ids and the counts.
        source: ``vocab`` is uniform over all of V, special ids too: BERT. ``text`` leaves the
            special ids out: RoBERTa, whose code leaves out all of them but <mask>. ``corpus`` draws
            as often as an id occurs in the train split: SpanBERT.

    Raises:
        ValueError: ``corpus`` without counts, or another source.
    """
    if source == "vocab":
        return jax.random.randint(key, shape, 0, vocab.size, jnp.int32)
    if source == "text":
        ids = np.setdiff1d(np.arange(vocab.size, dtype=np.int32), vocab.specials)
        return jnp.asarray(ids)[jax.random.randint(key, shape, 0, len(ids), jnp.int32)]
    if source != "corpus":
        raise ValueError(f"random_ids is {source!r}, expected vocab, text or corpus.")
    if vocab.counts_V is None or not np.sum(vocab.counts_V):
        raise ValueError("random_ids is 'corpus', but this vocabulary comes without counts.")
    # counts are summed as integers and rescaled to what a uniform uint32 can tell apart
    sums_V = np.cumsum(np.asarray(vocab.counts_V, np.float64))
    upper_V = np.floor(sums_V / sums_V[-1] * (2**32 - 1)).astype(np.uint32)
    bits = jax.random.bits(key, shape, jnp.uint32)
    found = jnp.searchsorted(jnp.asarray(upper_V), bits, side="left", method="scan")
    return jnp.minimum(found, vocab.size - 1).astype(jnp.int32)


def check_shares(mask: float, random: float) -> None:
    """Refuse shares of replacement that are not probabilities."""
    if not (0 <= mask <= 1 and 0 <= random <= 1 and mask + random <= 1 + 1e-9):
        raise ValueError(
            f"mask={mask} and random={random}: shares must lie in [0, 1] and sum to <= 1."
        )


def predict(
    batch: Batch, inputs_BT: Leaf, chosen_BT: Leaf, slots_P: int, **fields: Leaf
) -> Corrupted:
    """Join a batch, its corrupted inputs and the chosen positions into a Corrupted.

    A worked row, P=4::

        tokens    [CLS]  the  cat  ##s  [SEP]
        chosen      0     0    1    1     0
        at        2  3  0  0
        targets  cat ##s 0  0
        weights   1  1  0  0

    Args:
        batch: the rows.
        inputs_BT: int32.
        chosen_BT: bool, at most ``slots_P`` a row.
        slots_P: P.
        fields: further fields of Corrupted.
    """
    # argsort is stable: chosen positions first, ascending
    at_BP = jnp.argsort(~chosen_BT, axis=-1, stable=True)[:, :slots_P].astype(jnp.int32)
    used_BP = jnp.take_along_axis(chosen_BT, at_BP, axis=-1)
    targets_BP = jnp.take_along_axis(batch.tokens_BT, at_BP, axis=-1)
    return Corrupted.of(
        batch,
        inputs_BT=inputs_BT,
        at_BP=jnp.where(used_BP, at_BP, 0),
        targets_BP=jnp.where(used_BP, targets_BP, 0),
        weights_BP=used_BP.astype(jnp.float32),
        **fields,
    )
