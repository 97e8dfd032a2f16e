"""StructBERT's shuffled trigrams: where they lie, how many, and in which orders."""

from __future__ import annotations

import itertools

import jax
import numpy as np
import pytest
from contracts import rows as data

from bert_variants import registry
from bert_variants.registry import RegistryError

T = 64


def run(call, batch, **arguments):
    return jax.tree.map(np.asarray, data.corrupt(call, batch, **arguments))


def distinct(seed, count, length=T, **changes):
    """Rows in which no token stands twice, so that every move can be seen."""
    batch = data.rows(seed, count, length, **changes)
    rng = np.random.default_rng(seed)
    text = np.argsort(rng.random((count, data.VOCAB.size - 5)), axis=1)[:, :length] + 5
    tokens = np.where(batch.maskable_BT, text, batch.tokens_BT)
    return batch.replace(tokens_BT=tokens.astype(np.int32))


def hidden(found):
    """bool [B, T]: the masked positions."""
    made = np.zeros(found.tokens_BT.shape, bool)
    rows, columns = np.nonzero(found.weights_BP > 0)
    made[rows, found.at_BP[rows, columns]] = True
    assert (made >= found.moved_BT).all(), "all moved positions are predicted"
    return made & ~found.moved_BT


def windows(found, size=3):
    """(row, start) of each window. Windows may touch, so runs are cut every ``size`` tokens."""
    moved = found.moved_BT
    starts = []
    for row in range(len(moved)):
        at = np.flatnonzero(moved[row])
        assert len(at) % size == 0
        for window in at.reshape(-1, size):
            assert window[-1] - window[0] == size - 1
            starts.append((row, window[0]))
    return np.asarray(starts)


def possible(free, size=3):
    """int [B]: in how many places a window of free tokens fits."""
    runs = np.lib.stride_tricks.sliding_window_view(free, size, axis=1)
    return runs.all(axis=-1).sum(axis=1)


@pytest.mark.parametrize("size", [2, 3, 4])
def test_windows_lie_apart_from_masks_and_specials(size):
    batch = distinct(0, 1500, empty=(7,))
    call = f"shuffle(size={size}, trigrams=0.12)"
    found = run(call, batch)
    masked = hidden(found)
    assert not (found.moved_BT & ~batch.maskable_BT).any()
    at = windows(found, size)
    assert len(at) > 1500
    inside = at[:, 1, None] + np.arange(size)
    rows = at[:, 0, None]
    was, put = batch.tokens_BT[rows, inside], found.inputs_BT[rows, inside]
    np.testing.assert_array_equal(np.sort(was, axis=1), np.sort(put, axis=1))
    assert (was != put).any(axis=1).all(), "no window stands as it stood"
    # as many as the share of the places says; elsewhere nothing but masked tokens changed
    places = possible(batch.maskable_BT & ~masked, size)
    np.testing.assert_array_equal(
        found.moved_BT.sum(axis=1), size * np.round(0.12 * places).astype(int)
    )
    changed = found.inputs_BT != batch.tokens_BT
    assert not (changed & ~masked & ~found.moved_BT).any()


def test_masked_tokens_are_berts():
    """Number, shares and targets of the masked tokens are those of ``tokens``, moved ones apart."""
    batch = data.rows(1, 300, T)
    found, alone = run("shuffle()", batch), run("tokens()", batch)
    masked = hidden(found)
    np.testing.assert_array_equal(masked.sum(axis=1), alone.weights_BP.sum(axis=1))
    put = found.inputs_BT[masked]
    assert abs((put == data.VOCAB.mask).mean() - 0.8) < 0.03
    nothing = run("shuffle(trigrams=0.0)", batch)
    assert not nothing.moved_BT.any()
    assert nothing.at_BP.shape == alone.at_BP.shape


def test_slots_hold_both():
    """P is the 20 masked tokens of 128 and three for each of 6 windows."""
    assert run("shuffle()", data.rows(2, 8, 128)).at_BP.shape == (8, 20 + 3 * 6)
    # about five windows in a hundred places
    found = run("shuffle()", data.rows(3, 400, 128, full=True))
    assert 0.07 < found.moved_BT.sum() / found.maskable_BT.sum() < 0.11


@pytest.mark.slow
@pytest.mark.parametrize(("identity", "share", "orders"), [(False, 1 / 5, 5), (True, 1 / 3, 6)])
def test_orders_are_uniform(identity, share, orders):
    """Over 1e5 moved tokens: which stay in place, and how often each order comes up."""
    every = dict.fromkeys(itertools.permutations(range(3)), 0)
    moved = fixed = 0
    for step in range(4):
        batch = distinct(step, 2500, full=True)
        found = run(f"shuffle(trigrams=0.15, identity={identity})", batch, step=step)
        at = windows(found)
        inside, rows = at[:, 1, None] + np.arange(3), at[:, 0, None]
        was, put = batch.tokens_BT[rows, inside], found.inputs_BT[rows, inside]
        order = np.argmax(put[:, :, None] == was[:, None, :], axis=2)
        for one, times in zip(*np.unique(order, axis=0, return_counts=True), strict=True):
            every[tuple(one.tolist())] += int(times)
        moved, fixed = moved + order.size, fixed + (order == np.arange(3)).sum(axis=0)
    assert moved > 1e5
    np.testing.assert_allclose(fixed / (moved / 3), share, atol=0.01)
    times = np.asarray(list(every.values()))
    assert (times > 0).sum() == orders
    expected = moved / 3 / orders
    assert np.abs(times[times > 0] - expected).max() < 5 * expected**0.5


def starts(call, count, seed):
    """How often a window begins at each place of one full row without masks."""
    row = data.rows(seed, 1, T, full=True)
    many = data.take(row, np.zeros(count, np.int64))
    many = many.replace(example_id_B=np.arange(count, dtype=np.uint32))
    at = windows(run(call, many))
    fits = np.lib.stride_tricks.sliding_window_view(row.maskable_BT[0], 3).all(axis=1)
    return np.bincount(at[:, 1], minlength=T)[: T - 2], fits


def test_one_window_is_uniform():
    times, fits = starts("shuffle(rate=0.0, trigrams=0.02)", 20_000, 5)
    assert times.sum() == 20_000
    assert (times[~fits] == 0).all()
    expected = 20_000 / fits.sum()
    assert np.abs(times[fits] - expected).max() < 5 * expected**0.5


def test_several_windows_are_drawn_one_after_another():
    """As often at each place as when each is drawn uniformly among those that are left."""
    count = 20_000
    times, fits = starts("shuffle(rate=0.0, trigrams=0.1)", count, 5)
    number = round(0.1 * fits.sum())
    assert times.sum() == number * count
    rng = np.random.default_rng(0)
    left = np.broadcast_to(fits, (count, len(fits))).copy()
    slow = np.zeros(len(fits), np.int64)
    for _ in range(number):
        at = np.where(left, rng.random(left.shape), 2.0).argmin(axis=1)
        slow += np.bincount(at, minlength=len(fits))
        left &= np.abs(np.arange(len(fits)) - at[:, None]) > 2
    sigma = np.sqrt(2 * np.maximum(slow, 1))
    assert (np.abs(times - slow)[fits] < 5 * sigma[fits]).all()
    # what the docstring says of windows at an edge, and that it is little
    uniform = times.sum() / fits.sum()
    assert 1 < times[fits].max() / uniform < 1.6
    assert times[fits].min() / uniform > 0.75


@pytest.mark.parametrize(
    ("call", "says"),
    [
        ("shuffle(size=1)", "size is 1"),
        ("shuffle(size=6)", "size is 6"),
        ("shuffle(trigrams=1.2)", "trigrams is 1.2"),
    ],
)
def test_what_is_wrong_is_refused(call, says):
    with pytest.raises(RegistryError, match=says):
        registry.lookup("corruption", call)


def test_rows_shorter_than_a_window():
    found = run("shuffle(size=5, trigrams=1.0)", data.rows(6, 8, 4))
    assert not found.moved_BT.any()
