"""Rows of a few turns: who speaks, which turn was replaced, and what is cut."""

from __future__ import annotations

import dataclasses

import corpora
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bert_variants.config import ConfigError
from bert_variants.text.examples.dialogue import CUT, LONE, REPLACED, dialogue, fitting
from bert_variants.text.rows import assemble


def plan_of(window, *, seed=0, length=64, **options):
    return dialogue(window, np.random.default_rng(seed), corpora.VOCAB, length=length, **options)


def rows_of(plan, window):
    return [corpora.row_tokens(plan, r, window) for r in range(len(plan))]


def with_roles(window, roles):
    return dataclasses.replace(window, roles=np.asarray(roles, np.uint8))


def test_three_turns_by_hand():
    """Turns "5 6", "7" and "8 9 10", as query, response and query."""
    window = corpora.window([[2, 1, 3]])
    plan = plan_of(window, fakes=0.0)
    batch = assemble(plan, np.array([0]), window, corpora.VOCAB, 12)
    assert batch.tokens_BT.tolist() == [[2, 5, 6, 3, 7, 3, 8, 9, 10, 3, 0, 0]]
    assert batch.segments_BT.tolist() == [[0, 0, 0, 0, 1, 1, 0, 0, 0, 0, 0, 0]]
    assert plan.labels["real"].tolist() == [1]


@pytest.mark.parametrize("roles", [[0, 1, 0], [0, 1, 1], [0, 0, 1]])
def test_roles_are_those_of_the_text(roles):
    window = with_roles(corpora.window([[1, 1, 1]]), roles)
    q, r, s = roles
    batch = assemble(plan_of(window), np.array([0]), window, corpora.VOCAB, 8)
    assert batch.segments_BT.tolist() == [[0, q, q, r, r, s, s, 0]]
    batch = assemble(plan_of(window, first_role=2), np.array([0]), window, corpora.VOCAB, 8)
    assert batch.segments_BT.tolist() == [[0, q + 2, q + 2, r + 2, r + 2, s + 2, s + 2, 0]]


def test_rows_of_a_longer_dialogue_overlap_at_its_end():
    window = corpora.window([[1] * 8, [1] * 2, [1], [1] * 3])
    plan = plan_of(window, fakes=0.0)
    text = [[t - 5 for t in row if t >= 5] for row in rows_of(plan, window)]
    assert text == [[0, 1, 2], [3, 4, 5], [5, 6, 7], [8, 9], [11, 12, 13]]
    assert plan.dropped == {LONE: 1, REPLACED: 0, CUT: 0}


def test_half_of_the_rows_are_fake_by_one_turn_of_another_dialogue():
    window = corpora.window([[4] * 3] * 40_000)
    plan = plan_of(window)
    n, real = len(plan), plan.labels["real"]
    assert n == 40_000
    assert abs(real.mean() - 0.5) < 5 * 0.5 / np.sqrt(n)
    turns = plan.start.reshape(n, 7)[:, 1::2]
    own = turns // 12 == np.arange(n)[:, None]
    assert own[real == 1].all()
    assert ((~own[real == 0]).sum(1) == 1).all()
    places = (~own[real == 0]).sum(0)  # each turn is replaced as often as another
    assert (abs(places - (n - real.sum()) / 3) < 5 * np.sqrt(n / 2 * 2 / 9)).all()
    came_from = turns[~own] // 12  # from all over the text
    assert abs(came_from.mean() - n / 2) < 5 * n / np.sqrt(12 * len(came_from))
    assert plan.dropped[REPLACED] == 4 * (real == 0).sum()


def test_replaced_turns_keep_the_role_of_their_place():
    window = corpora.window([[1] * 3] * 200)
    plan = plan_of(window, fakes=1.0)
    assert (plan.labels["real"] == 0).all()
    assert (plan.segment.reshape(-1, 7) == [0, 0, 0, 1, 1, 0, 0]).all()


def test_one_dialogue_has_no_fakes():
    plan = plan_of(corpora.window([[3] * 30]), fakes=1.0)
    assert len(plan) == 10
    assert (plan.labels["real"] == 1).all()


def test_two_dialogues_always_take_the_other_ones_turns():
    window = corpora.window([[1] * 3, [1] * 5] * 1)
    for seed in range(50):
        plan = plan_of(window, seed=seed, fakes=1.0)
        other = (plan.start.reshape(-1, 7)[:, 1::2] < 3) != [[True], [False], [False]]
        assert (other.sum(1) == 1).all()


def shortened(lengths, budget):
    lengths = list(lengths)
    while sum(lengths) > budget:
        last = len(lengths) - 1 - int(np.argmax(lengths[::-1]))
        lengths[last] -= 1
    return lengths


@given(st.lists(st.integers(0, 40), min_size=1, max_size=5), st.integers(5, 90))
@settings(deadline=None, max_examples=300)
def test_fitting_is_what_a_loop_does(lengths, budget):
    found = fitting(np.array([lengths]), np.array([budget]))
    assert found.tolist() == [shortened(lengths, budget)]


def test_what_is_cut_is_counted():
    window = corpora.window([[20, 30, 2]])
    plan = plan_of(window, length=24, fakes=0.0)
    assert plan.length.reshape(-1, 7)[:, 1::2].tolist() == [[9, 9, 2]]
    assert plan.dropped[CUT] == 32


def test_more_turns():
    window = corpora.window([[2] * 10] * 20)
    plan = plan_of(window, turns=5)
    assert len(plan) == 40
    assert (np.diff(plan.rows) == 11).all()


def test_settings_are_checked():
    window = corpora.window([[2, 2]])
    with pytest.raises(ConfigError, match=r"length is 6, expected at least 7 for 3 turns"):
        plan_of(window, length=6)
    for bad in ({"turns": 1}, {"fakes": 1.5}, {"first_role": -1}):
        with pytest.raises(ConfigError, match=next(iter(bad))):
            plan_of(window, **bad)
