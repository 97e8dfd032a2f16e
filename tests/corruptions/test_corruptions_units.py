"""ERNIE's units: independent throws, whole units, 80/10/10 by token, kinds, a file's mode."""

from __future__ import annotations

import dataclasses

import jax
import numpy as np
import pytest
from contracts import rows as data

from bert_variants import config
from bert_variants.corruptions.units import slots

T = 64


def run(call, batch, **arguments):
    return jax.tree.map(np.asarray, data.corrupt(call, batch, **arguments))


def chosen(found):
    """bool [B, T]"""
    made = np.zeros(found.tokens_BT.shape, bool)
    rows, columns = np.nonzero(found.weights_BP > 0)
    made[rows, found.at_BP[rows, columns]] = True
    return made


def groups(batch, kinds=None):
    """int64 [B, T]: unit, else word, unique over the batch; -1 where nothing may be chosen."""
    units = batch.units_BT
    if kinds is not None:
        units = np.where(np.isin(batch.unit_kinds_BT, kinds), units, -1)
    found = np.where(units >= 0, units, 1000 + batch.words_BT)
    found = found + 10_000 * np.arange(len(found))[:, None]
    return np.where(batch.maskable_BT, found, -1)


def is_whole(made, groups):
    """Each group all chosen or not at all."""
    inside = groups >= 0
    _, which = np.unique(groups[inside], return_inverse=True)
    share = np.bincount(which, made[inside]) / np.bincount(which)
    return np.isin(share, (0, 1)).all()


def copies_of_a_row(seed, count, **changes):
    """One full row many times, as different examples."""
    row = data.rows(seed, 1, T, full=True)
    many = data.take(row, np.zeros(count, np.int64))
    return many.replace(example_id_B=np.arange(count, dtype=np.uint32), **changes)


@pytest.mark.slow
def test_rate_whole_units_and_eighty_ten_ten_by_token():
    tokens = hidden = pairs = both = 0
    put = np.zeros(3)
    for step in range(3):
        batch = data.rows(step, 2000, T, full=True)
        found = run("units()", batch, step=step)
        made, group = chosen(found), groups(batch)
        assert is_whole(made, group)
        tokens, hidden = tokens + batch.maskable_BT.sum(), hidden + made.sum()
        masked = made & (found.inputs_BT == data.VOCAB.mask)
        kept = made & (found.inputs_BT == found.tokens_BT)
        put += [masked.sum(), kept.sum(), (made & ~masked & ~kept).sum()]
        same = made[:, 1:] & (group[:, 1:] == group[:, :-1])
        pairs, both = pairs + same.sum(), both + (same & masked[:, 1:] & masked[:, :-1]).sum()
    assert tokens > 3e5
    assert abs(hidden / tokens - 0.15) < 0.005
    other = 0.1 / data.VOCAB.size  # a random token that is [MASK], or the original
    expected = [0.8 + other, 0.1 + other, 0.1 - 2 * other]
    np.testing.assert_allclose(put / hidden, expected, atol=0.01)
    # of two neighbours in a unit both are [MASK] as often as two independent tokens
    assert pairs > 2e4
    assert abs(both / pairs - (0.8 + other) ** 2) < 0.015


@pytest.mark.slow
def test_units_are_thrown_independently():
    batch = copies_of_a_row(5, 20_000)
    group = groups(batch)[0]
    first = np.asarray([np.flatnonzero(group == g)[0] for g in np.unique(group[group >= 0])])
    times = chosen(run("units()", batch))[:, first].astype(float)
    assert len(first) > 15
    sigma = (0.15 * 0.85 / 20_000) ** 0.5
    assert np.abs(times.mean(axis=0) - 0.15).max() < 5 * sigma
    together = np.corrcoef(times.T) - np.eye(len(first))
    assert np.abs(together).max() < 5 / 20_000**0.5


def test_slots():
    assert [slots(n, 0.15) for n in (4, 16, 128, 512)] == [4, 16, 62, 161]
    assert slots(128, 0.15, 30) == 30
    assert slots(128, 0.0) == 1
    assert slots(128, 1.0) == 128
    with pytest.raises(ValueError, match=r"rate is 1\.5"):
        slots(128, 1.5)


@pytest.mark.parametrize(("length", "lengths"), [(128, (1, 2, 3, 4)), (512, (1, 2, 3, 4))])
def test_the_slots_practically_always_suffice(length, lengths):
    """The exact distribution of the number of chosen tokens, units of 1 to 4 alike often."""
    total = np.ones(1)
    for size in np.resize(lengths, 2 * length // (min(lengths) + max(lengths))):
        throw = np.zeros(size + 1)
        throw[0], throw[size] = 0.85, 0.15
        total = np.convolve(total, throw)
    assert total[slots(length, 0.15) + 1 :].sum() < 1e-6


@pytest.mark.slow
def test_the_cap_is_not_met_in_a_hundred_thousand_rows():
    for part in range(25):
        batch = data.rows(part, 4000, 128, full=True, first_id=4000 * part)
        found = run("units()", batch)
        assert (found.weights_BP.sum(axis=1) < found.weights_BP.shape[1]).all()


@pytest.mark.slow
def test_where_the_cap_is_met_whole_units_are_given_back():
    batch = copies_of_a_row(5, 20_000)
    found = run("units(rate=0.5, max_predictions=7)", batch)
    made = chosen(found)
    assert found.at_BP.shape[1] == 7
    assert made.sum(axis=1).max() == 7
    assert made.sum(axis=1).mean() > 6.3
    assert is_whole(made, groups(batch))
    # units of the same length are kept equally often, wherever they stand
    group = groups(batch)[0]
    sizes = {g: (group == g).sum() for g in np.unique(group[group >= 0])}
    for size in (1, 2):
        alike = [np.flatnonzero(group == g)[0] for g, n in sizes.items() if n == size]
        times = made[:, alike].sum(axis=0)
        assert len(alike) > 2
        assert np.abs(times - times.mean()).max() < 5 * times.mean() ** 0.5


def phrases(batch):
    """Units of two words, but for every fourth pair; their kinds are 0, 1, 2 in turn."""
    pair = 2 * (batch.words_BT // 2) + batch.segments_BT  # none goes over a [SEP]
    units = np.where(batch.maskable_BT & (pair % 4 > 0), pair, -1).astype(np.int32)
    kinds = np.where(units < 0, -1, units % 3).astype(np.int8)
    return batch.replace(units_BT=units, unit_kinds_BT=kinds)


@pytest.mark.slow
def test_kinds_choose_which_units_stay_whole():
    batch = phrases(data.rows(7, 4000, T, full=True))
    assert is_whole(chosen(run("units()", batch)), groups(batch))
    made = chosen(run("units(kinds=(1, 2))", batch))
    assert is_whole(made, groups(batch, kinds=(1, 2)))
    assert not is_whole(made, groups(batch))  # units of kind 0 come word by word
    with pytest.raises(config.ConfigError, match=r"units\(kinds=\(1, 2\)\): these rows have no"):
        run("units(kinds=(1, 2))", batch.replace(unit_kinds_BT=None))


def test_tokens_in_no_unit_and_no_word_are_alone():
    batch = copies_of_a_row(8, 5000)
    nothing = np.full_like(batch.units_BT, -1)
    batch = batch.replace(units_BT=nothing, words_BT=nothing)
    made = chosen(run("units()", batch))[:, batch.maskable_BT[0]].astype(float)
    assert abs(made.mean() - 0.15) < 0.005
    together = np.corrcoef(made.T) - np.eye(made.shape[1])
    assert np.abs(together).max() < 5 / 5000**0.5


def one_unit(count, **changes):
    """Rows whose text is one unit: how they are chosen tells the mode."""
    batch = data.rows(9, 1, T, full=True)
    first = batch.maskable_BT & (batch.segments_BT == 0)
    assert first.sum() > 10
    batch = batch.replace(maskable_BT=first, units_BT=np.where(first, 0, -1).astype(np.int32))
    return data.take(batch, np.zeros(count, np.int64)).replace(**changes)


def by_unit(call, batch):
    """bool [B]: rows that were chosen as a whole, or not at all."""
    made = chosen(run(call, batch)).sum(axis=1)
    return np.isin(made, (0, batch.maskable_BT[0].sum()))


@pytest.mark.slow
def test_chance_decides_for_rows_together():
    ids = np.repeat(np.arange(400, dtype=np.uint32) << 10, 4) + np.tile([0, 1, 511, 1023], 400)
    batch = one_unit(1600, example_id_B=ids.astype(np.uint32))
    assert by_unit("units(rate=0.5)", batch).all()
    assert not by_unit("units(rate=0.5, chance=0.0)", batch).any()
    mode = by_unit("units(rate=0.5, chance=0.3)", batch).reshape(400, 4)
    assert (mode.all(axis=1) | ~mode.any(axis=1)).all()
    assert abs(mode[:, 0].mean() - 0.3) < 4 * (0.3 * 0.7 / 400) ** 0.5
    later = batch.replace(visit_B=np.ones(1600, np.uint32))
    again = by_unit("units(rate=0.5, chance=0.3)", later).reshape(400, 4)[:, 0]
    agree = (again == mode[:, 0]).mean()
    assert abs(agree - (0.3**2 + 0.7**2)) < 4 * (0.58 * 0.42 / 400) ** 0.5


@pytest.mark.parametrize(("rate", "share"), [(0.0, 0.0), (1.0, 1.0)])
def test_the_ends_of_the_rate(rate, share):
    batch = data.rows(10, 16, T, empty=(3,))
    made = chosen(run(f"units(rate={rate})", batch))
    np.testing.assert_array_equal(made, batch.maskable_BT & (share > 0))


def test_evaluation_is_alike():
    """Spans are given: what stands outside a run of chosen tokens was not chosen."""
    batch = data.rows(11, 500, T)
    found = run("units()", batch)
    made, used = chosen(found), found.left_BP >= 0
    assert used.any()
    rows = np.nonzero(used)[0]
    for side in (found.left_BP, found.right_BP):
        assert not made[rows, side[used]].any()
        assert batch.maskable_BT[rows, side[used]].all()


@pytest.mark.parametrize(
    "corruption", ["units()", "stages(parts=('tokens()', 'units()'))", "ramp(part='units()')"]
)
def test_text_without_units_is_refused(corruption):
    base = config.get_config("bert", size="tiny")
    with pytest.raises(config.ConfigError, match=r"needs data\.units, which is empty"):
        config.check(dataclasses.replace(base, corruption=corruption))
    words = dataclasses.replace(base.data, units="words()")
    config.check(dataclasses.replace(base, corruption=corruption, data=words))


@pytest.mark.parametrize(
    ("call", "says"),
    [
        ("units(kinds=1)", "kinds is 1"),
        ("units(kinds=('city',))", "numbers of kinds"),
        ("units(kinds=(127,))", "numbers of kinds"),
        ("units(chance=1.1)", "chance is 1.1"),
    ],
)
def test_what_fits_nothing_is_refused_when_the_config_is_checked(call, says):
    base = config.get_config("bert", size="tiny")
    words = dataclasses.replace(base.data, units="words()")
    with pytest.raises(config.ConfigError, match=says):
        config.check(dataclasses.replace(base, corruption=call, data=words))
