"""Tokens drawn with replacement, as ELECTRA was published."""

from __future__ import annotations

import numpy as np
import pytest
from contracts import rows as data
from contracts.test_corruptions import (
    check_devices,
    check_randomness,
    check_rows_are_independent,
    check_shapes,
    check_static_copies,
    run,
)

from bert_variants.registry import RegistryError, lookup

DRAWN = "tokens(selection='with_replacement')"
PUBLISHED = (
    "tokens(rate={rate}, mask=0.85, random=0.0, max_predictions={most}, "
    "selection='with_replacement')"
)


@pytest.mark.parametrize(
    "check",
    [
        check_randomness,
        check_rows_are_independent,
        check_shapes,
        check_devices,
        check_static_copies,
    ],
    ids=lambda c: c.__name__,
)
def test_the_laws_of_every_corruption(check):
    check(DRAWN)


@pytest.mark.parametrize("length", [4, 16, 33])
def test_fields(length):
    """Positions are distinct and ascending; a slot's weight is how often it was drawn."""
    batch = data.rows(3, 8, length, empty=(4,)) if length > 4 else data.rows(3, 8, length)
    found = run("tokens(rate=0.5, selection='with_replacement')", batch)
    used = found.weights_BP > 0
    np.testing.assert_array_equal(found.weights_BP, np.round(found.weights_BP))
    for b in range(8):
        at = found.at_BP[b][used[b]]
        assert (np.diff(at) > 0).all()
        assert batch.maskable_BT[b, at].all()
        np.testing.assert_array_equal(found.targets_BP[b][used[b]], batch.tokens_BT[b, at])
        elsewhere = np.setdiff1d(np.arange(length), at)
        np.testing.assert_array_equal(found.inputs_BT[b, elsewhere], batch.tokens_BT[b, elsewhere])
        draws = max(1, round(0.5 * int(batch.valid_BT[b].sum())))
        available = int(batch.maskable_BT[b].sum())
        assert found.weights_BP[b].sum() == min(draws, available)
    assert (found.at_BP[~used] == 0).all()
    assert (found.targets_BP[~used] == 0).all()


@pytest.mark.parametrize(
    ("length", "rate", "most", "draws", "distinct"),
    [(128, 0.15, 19, 19, 17.7), (512, 0.15, 79, 77, 71.5), (512, 0.25, 130, 128, 113.3)],
)
def test_published_numbers(length, rate, most, draws, distinct):
    """Draws a row, and how many different tokens they are on average."""
    call = PUBLISHED.format(rate=rate, most=most)
    found = run(call, data.rows(0, 1200, length, full=True))
    assert (found.weights_BP.sum(axis=1) == draws).all()
    different = (found.weights_BP > 0).sum(axis=1)
    assert abs(different.mean() - distinct) < 0.3


@pytest.mark.slow
def test_each_draw_is_uniform_and_tosses_its_own_coin():
    """A token that is drawn k times stays with probability 0.15 ** k."""
    batch = data.rows(1, 4000, 128, full=True)
    found = run(PUBLISHED.format(rate=0.25, most=40), batch)
    assert found.weights_BP.sum() > 1e5
    put = np.take_along_axis(found.inputs_BT, found.at_BP, axis=1)
    for k in (1, 2, 3):
        mine = found.weights_BP == k
        share, number = (put[mine] == found.targets_BP[mine]).mean(), mine.sum()
        expected = 0.15**k
        # an original that is [MASK] by itself cannot be: specials are never chosen
        assert abs(share - expected) < 5 * (expected * (1 - expected) / number) ** 0.5, k
        assert set(np.unique(put[mine & (put != found.targets_BP)])) == {data.VOCAB.mask}
    one = data.take(data.rows(12, 1, 32, full=True), np.zeros(20_000, np.int64))
    one = one.replace(example_id_B=np.arange(20_000, dtype=np.uint32))
    drawn = run(DRAWN, one)
    times = np.bincount(drawn.at_BP.ravel(), weights=drawn.weights_BP.ravel(), minlength=32)
    candidates = one.maskable_BT[0]
    expected = times.sum() / candidates.sum()
    assert (times[~candidates] == 0).all()
    assert np.abs(times[candidates] - expected).max() < 5 * expected**0.5


def test_electras_shares_without_replacement():
    """85 % [MASK], the rest as it was, nothing random; 19 distinct tokens of 128."""
    call = "tokens(rate=0.15, mask=0.85, random=0.0, max_predictions=19)"
    found = run(call, data.rows(5, 6000, 128, full=True))
    used = found.weights_BP > 0
    assert (used.sum(axis=1) == 19).all()
    put = np.take_along_axis(found.inputs_BT, found.at_BP, axis=1)[used]
    was = found.targets_BP[used]
    masked = put == data.VOCAB.mask
    assert (put[~masked] == was[~masked]).all()
    assert abs(masked.mean() - 0.85) < 5 * (0.85 * 0.15 / len(put)) ** 0.5


def test_the_default_is_distinct():
    batch = data.rows(2, 8, 64)
    data.assert_equal(run("tokens()", batch), run("tokens(selection='distinct')", batch))
    with pytest.raises(RegistryError, match="Did you mean 'with_replacement'"):
        lookup("corruption", "tokens(selection='with_replacment')")
