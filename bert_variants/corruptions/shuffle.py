"""StructBERT's word structural corruption: masked tokens, and shuffled trigrams among the rest."""

from __future__ import annotations

import itertools

import jax
import jax.numpy as jnp
import numpy as np

from bert_variants.ops import masking
from bert_variants.registry import Call, RegistryError, register
from bert_variants.types import Batch, Corrupted, Leaf, Vocab

LARGEST = 5  # a window of 5 has 120 orders


def _check(call: Call) -> None:
    if not 2 <= call.argument("size") <= LARGEST:
        raise RegistryError(
            f"corruption '{call}': size is {call.argument('size')}, expected 2 to {LARGEST}."
        )
    if not 0 <= call.argument("trigrams") <= 1:
        raise RegistryError(
            f"corruption '{call}': trigrams is {call.argument('trigrams')}, expected a share of "
            "0 to 1."
        )


@register("corruption", gives=("moved_BT",), check=_check)
def shuffle(
    keys_B: Leaf,
    batch: Batch,
    vocab: Vocab,
    *,
    rate: float = 0.15,
    mask: float = 0.8,
    random: float = 0.1,
    trigrams: float = 0.05,
    size: int = 3,
    identity: bool = False,
    max_predictions: int = 0,
    rounding: masking.Rounding = "nearest",
    random_ids: masking.RandomIds = "vocab",
) -> Corrupted:
    """Choose tokens as ``tokens`` does; of the rest, put some trigrams in another order.

    All tokens of a shuffled trigram are predicted, also one that ends where it was: ``at_BP``
    holds masked and moved positions, ``moved_BT`` marks the moved ones. Take the objective
    ``word_order``, which counts both alike and reports them apart. A worked row, one window::

        tokens   [CLS] the cat sat on a mat [SEP]
        inputs   [CLS] the sat on cat a [MASK] [SEP]
        moved      0    0   1   1   1  0   0     0
        at                  2   3   4      6
        targets            cat sat  on     mat

    StructBERT's pretraining code is not public (arXiv 1908.04577, section 2.2, "5 % of trigrams").
    These are choices: the share is that of the trigrams that could be taken, those without a
    special or a masked token, so that about 9 % of the tokens move; windows do not overlap; the
    order in which a window stood is left out, ``identity=True`` lets it come up too.

    Windows are taken one at a time, uniformly among those that overlap no earlier one. A window
    beside a special or a masked token competes with fewer others and comes up a little more often
    than one in the open (8 % at the edge of a row, the one next to it 6 % less often).

    Args:
        keys_B: typed keys, one a row.
        batch: the rows.
        vocab: of the tokenizer.
        rate, mask, random, max_predictions, rounding, random_ids: of the masked tokens, as
            ``tokens``.
        trigrams: share of the possible windows that is shuffled, rounded to the nearest number
            (half to even).
        size: tokens of a window, 2 to 5.
        identity: whether all orders are drawn, or all but the one in which the tokens stood.
    """
    masking.check_shares(mask, random)
    length = batch.tokens_BT.shape[1]
    hidden = masking.slots(length, rate, max_predictions)
    counts = np.round(trigrams * np.arange(max(1, length - size + 2))).astype(np.int32)
    most = min(int(counts[-1]), length // size)

    def choose(key: Leaf, row: Batch) -> tuple[Leaf, Leaf, Leaf]:
        count_key, choose_key, replace_key, move_key = jax.random.split(key, 4)
        n = masking.budget_row(
            count_key, row.valid_BT, row.maskable_BT, rate=rate, most=hidden, rounding=rounding
        )
        chosen_T = masking.choose_tokens(choose_key, row.maskable_BT, n)
        inputs_T = masking.replace_row(
            replace_key,
            row.tokens_BT,
            chosen_T,
            vocab,
            mask=mask,
            random=random,
            random_ids=random_ids,
        )
        window_key, order_key = jax.random.split(move_key)
        fits_T = _fitting(row.maskable_BT & ~chosen_T, size)
        wanted = jnp.asarray(counts)[jnp.sum(fits_T, dtype=jnp.int32)]
        starts_T = choose_windows(window_key, fits_T, wanted, size, most)
        from_T, moved_T = _sources(order_key, starts_T, size, identity)
        return jnp.where(moved_T, row.tokens_BT[from_T], inputs_T), chosen_T | moved_T, moved_T

    inputs_BT, chosen_BT, moved_BT = masking.each_row(choose, keys_B, batch)
    slots = min(length, hidden + size * most)
    return masking.predict(batch, inputs_BT, chosen_BT, slots, moved_BT=moved_BT)


def _fitting(free_T: Leaf, size: int) -> jax.Array:
    """bool [T]: whether a window of free tokens can begin here."""
    length = free_T.shape[0]
    padded = jnp.pad(free_T, (0, size - 1))
    return jnp.all(jnp.stack([padded[k : k + length] for k in range(size)]), axis=0)


def choose_windows(key: jax.Array, fits_T: Leaf, n: Leaf, size: int, most: int) -> jax.Array:
    """Where ``n`` windows begin that do not overlap, one after another, uniformly of what is left.

    Args:
        key: a typed key.
        fits_T: bool, where a window may begin.
        n: how many, at most ``most``; fewer where no more fit.
        size: tokens of a window.
        most: static bound.

    Returns:
        bool [T].
    """
    column_T = jnp.arange(fits_T.shape[0], dtype=jnp.int32)
    # The smallest of fixed random numbers among those that are left is a uniform choice of them.
    scores_T = jnp.where(fits_T, jax.random.uniform(key, fits_T.shape), 2.0)

    def take(i: Leaf, state: tuple[Leaf, Leaf]) -> tuple[Leaf, Leaf]:
        scores_T, starts_T = state
        at = jnp.argmin(scores_T).astype(jnp.int32)
        taken = (i < n) & (scores_T[at] < 2.0)
        near_T = jnp.abs(column_T - at) < size
        return (
            jnp.where(taken & near_T, 2.0, scores_T),
            starts_T | (taken & (column_T == at)),
        )

    state = (scores_T, jnp.zeros_like(fits_T))
    return jax.lax.fori_loop(0, most, take, state)[1]


def _sources(key: jax.Array, starts_T: Leaf, size: int, identity: bool) -> tuple[Leaf, Leaf]:
    """int32 [T], bool [T]: whose token stands at a position, and whether it is in a window."""
    column_T = jnp.arange(starts_T.shape[0], dtype=jnp.int32)
    orders = np.asarray(list(itertools.permutations(range(size))), np.int32)  # identity first
    draw_T = jax.random.randint(key, starts_T.shape, 0 if identity else 1, len(orders))
    start_T = jax.lax.cummax(jnp.where(starts_T, column_T, -size))
    offset_T = column_T - start_T
    inside_T = offset_T < size
    order_T = draw_T[jnp.maximum(start_T, 0)]
    moved_to_T = jnp.asarray(orders)[order_T, jnp.minimum(offset_T, size - 1)]
    return jnp.where(inside_T, start_T + moved_to_T, column_T), inside_T
