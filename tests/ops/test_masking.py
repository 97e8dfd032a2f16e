"""The choices of ``ops/masking.py`` against literal, sequential transcriptions of the rules."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from contracts import rows as data
from hypothesis import given, settings
from hypothesis import strategies as st

from bert_variants.ops import masking

KEY = jax.random.key(0)


@pytest.mark.parametrize(
    ("length", "rate", "most", "expected"),
    [
        (128, 0.15, 0, 20),
        (512, 0.15, 0, 77),
        (512, 0.15, 20, 20),
        (20, 0.15, 0, 3),  # 0.15 * 20 is 3.0000000000000004 nowhere but in careless code
        (4, 0.15, 0, 1),
        (16, 1.0, 0, 16),
        (16, 0.0, 0, 1),
    ],
)
def test_slots(length, rate, most, expected):
    assert masking.slots(length, rate, most) == expected


@pytest.mark.parametrize("rate", [-0.1, 1.1])
def test_slots_refuses_what_is_no_rate(rate):
    with pytest.raises(ValueError, match="expected 0 <= rate <= 1"):
        masking.slots(16, rate)


@pytest.mark.parametrize(
    ("rounding", "rule"),
    [
        ("nearest", lambda n, rate: max(1, round(n * rate))),
        ("ceil", lambda n, rate: max(1, math.ceil(round(n * rate, 9)))),
    ],
)
@pytest.mark.parametrize("rate", [0.15, 0.2, 0.25, 0.3, 0.5])
def test_budget_is_pythons_for_every_length(rounding, rule, rate):
    valid = np.tril(np.ones((512, 512), bool))  # row i holds i + 1 tokens
    found = jax.vmap(
        lambda v: masking.budget_row(KEY, v, v, rate=rate, most=600, rounding=rounding)
    )(valid)
    np.testing.assert_array_equal(found, [rule(n, rate) for n in range(1, 513)])


def test_budget_bounds():
    """Never more than P, than the candidates, than the rate 0 allows."""
    valid = np.ones(100, bool)
    few = np.arange(100) < 3
    assert masking.budget_row(KEY, valid, valid, rate=0.15, most=7) == 7
    assert masking.budget_row(KEY, valid, few, rate=0.15, most=20) == 3
    assert masking.budget_row(KEY, valid, ~valid, rate=0.15, most=20) == 0
    assert masking.budget_row(KEY, valid, valid, rate=0.0, most=20) == 0
    # by the function itself, or by the type check that tests run under
    with pytest.raises(Exception, match="nearest"):
        masking.budget_row(KEY, valid, valid, rate=0.1, most=9, rounding="up")


@given(st.lists(st.booleans(), min_size=1, max_size=24), st.integers(0, 30), st.integers(0, 99))
@settings(max_examples=60, deadline=None)
def test_choose_tokens_takes_exactly_n(candidates, n, seed):
    candidates = np.array(candidates + [False] * (24 - len(candidates)))
    chosen = np.asarray(masking.choose_tokens(jax.random.key(seed), candidates, n))
    assert chosen.sum() == min(n, candidates.sum())
    assert not chosen[~candidates].any()


def test_ranks_break_ties_by_position():
    np.testing.assert_array_equal(masking.ranks(jnp.array([0.5, 0.1, 0.5, 0.1])), [2, 0, 3, 1])


def greedy(order: np.ndarray, groups: np.ndarray, n: int) -> np.ndarray:
    """google-research/bert:create_pretraining_data.py, its loop over candidates."""
    chosen = np.zeros(len(groups), bool)
    for group in order:
        at = np.flatnonzero(groups == group)
        if chosen.sum() >= n:
            break
        if chosen.sum() + len(at) > n:
            continue
        chosen[at] = True
    return chosen


@pytest.mark.parametrize("longest", [1, 4, 9, 16])
def test_choose_groups_is_the_sequential_rule(longest):
    """3,000 random rows, groups of up to ``longest`` tokens, some tokens in no group."""
    rng = np.random.default_rng(longest)
    count, length = 3000, 48
    groups = np.full((count, length), -1, np.int32)
    for row in groups:
        at = group = 0
        while at < length:
            size = int(rng.integers(1, longest + 1))
            row[at : at + size] = group
            at += size + (rng.random() < 0.3)
            group += 1
    candidates = rng.random(groups.shape) < 0.9
    budgets = rng.integers(0, 20, count).astype(np.int32)
    row_keys = jax.random.split(jax.random.key(longest), count)
    choose = jax.jit(jax.vmap(masking.choose_groups))
    found = np.asarray(choose(row_keys, groups, candidates, budgets))
    draws = np.asarray(jax.vmap(lambda k: jax.random.uniform(k, (length,)))(row_keys))
    for b in range(count):
        member = np.where(candidates[b], groups[b], -1)
        there = np.unique(member[member >= 0])
        order = there[np.argsort(draws[b][there])]
        expected = greedy(order, member, int(budgets[b]))
        np.testing.assert_array_equal(found[b], expected, err_msg=f"row {b}")


def test_choose_groups_stays_within_the_budget_beyond_its_rounds():
    """Groups longer than ``rounds`` may leave tokens unused; they are never cut or exceeded."""
    groups = np.repeat(np.arange(4, dtype=np.int32), 30)
    some = np.ones(120, bool)
    choose = jax.jit(jax.vmap(lambda key: masking.choose_groups(key, groups, some, 65, rounds=1)))
    for chosen in np.asarray(choose(jax.random.split(jax.random.key(0), 20))):
        assert chosen.sum() in (30, 60)
        assert set(chosen.reshape(4, 30).mean(axis=1)) <= {0.0, 1.0}


def test_replace_row_by_a_shared_coin():
    """Equal coins, equal decisions: one for the whole span."""
    tokens = np.arange(10, 26, dtype=np.int32)
    chosen = np.arange(16) < 8
    for coin, expected in ((0.1, "mask"), (0.85, "random"), (0.95, "same")):
        put = np.asarray(
            masking.replace_row(
                KEY,
                tokens,
                chosen,
                data.VOCAB,
                mask=0.8,
                random=0.1,
                coin_T=jnp.full(16, coin),
            )
        )
        np.testing.assert_array_equal(put[8:], tokens[8:])
        if expected == "mask":
            assert (put[:8] == data.VOCAB.mask).all()
        elif expected == "same":
            np.testing.assert_array_equal(put[:8], tokens[:8])
        else:
            assert (put[:8] != data.VOCAB.mask).all()
            assert (put[:8] != tokens[:8]).sum() >= 6


@pytest.mark.parametrize(("mask", "random"), [(0.8, 0.3), (-0.1, 0.1), (0.5, -0.1), (1.2, 0.0)])
def test_shares_are_probabilities(mask, random):
    with pytest.raises(ValueError, match="sum to <= 1"):
        masking.check_shares(mask, random)
    with pytest.raises(ValueError, match="sum to <= 1"):
        data.corrupt(f"tokens(mask={mask}, random={random})", data.rows())


def test_predict_worked_row():
    batch = data.take(data.rows(0, 1, 5, full=True), slice(0, 1))
    chosen = np.array([[False, False, True, True, False]])
    found = masking.predict(batch, batch.tokens_BT, chosen, 4)
    np.testing.assert_array_equal(found.at_BP, [[2, 3, 0, 0]])
    expected = [[*batch.tokens_BT[0, 2:4], 0, 0]]
    np.testing.assert_array_equal(found.targets_BP, expected)
    np.testing.assert_array_equal(found.weights_BP, [[1, 1, 0, 0]])
