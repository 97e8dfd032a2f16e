"""Rows of several parts: kept apart, each of its kind, drawn by weight."""

from __future__ import annotations

import dataclasses

import corpora
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bert_variants import config
from bert_variants.config import ConfigError
from bert_variants.registry import RegistryError, lookup, write
from bert_variants.text.examples.by_part import BEYOND, REPEATED, wanted
from bert_variants.text.plan import Plan
from bert_variants.text.rows import assemble


def mixed(documents, parts, roles=None):
    window = corpora.window(documents)
    return dataclasses.replace(
        window,
        parts=np.asarray(parts, np.uint8),
        roles=None if roles is None else np.asarray(roles, np.uint8),
    )


def plan_of(window, *examples, seed=0, length=32, **options):
    call = write("by_part", {"examples": examples, **options})
    return lookup("example", call)(
        window, np.random.default_rng(seed), corpora.VOCAB, length=length
    )


def parts_of(plan, window):
    """The part of each piece of text, and of the row that it stands in."""
    borders = window.sentences[window.documents]
    document = np.searchsorted(borders, plan.start, side="right") - 1
    part = np.where(plan.start >= 0, window.parts[document], 255)
    row = np.repeat(np.arange(len(plan)), np.diff(plan.rows))
    return part, row


def many(count=400, seed=0):
    rng = np.random.default_rng(seed)
    documents = corpora.random_documents(seed, count=count)
    return mixed(documents, rng.integers(0, 2, count))


def test_each_part_in_its_own_rows_by_hand():
    """Documents of part 0 as single rows, the dialogue of part 1 as turns."""
    window = mixed([[2, 2], [1, 1, 1], [3]], [0, 1, 0], roles=[0, 0, 0, 1, 1, 0])
    plan = plan_of(window, "single()", "dialogue()", length=10)
    batch = assemble(plan, np.arange(len(plan)), window, corpora.VOCAB, 10)
    assert batch.tokens_BT.tolist() == [
        [2, 5, 6, 7, 8, 3, 0, 0, 0, 0],
        [2, 12, 13, 14, 3, 0, 0, 0, 0, 0],
        [2, 9, 3, 10, 3, 11, 3, 0, 0, 0],
    ]
    assert batch.segments_BT[2].tolist() == [0, 0, 0, 1, 1, 1, 1, 0, 0, 0]
    assert plan.labels["real"].tolist() == [-1, -1, 1]


def test_labels_of_other_kinds_are_minus_one():
    window = many()
    plan = plan_of(window, "nsp_pairs()", "sop_pairs()")
    part, row = parts_of(plan, window)
    of_row = np.array([part[(row == r) & (part < 255)][0] for r in range(len(plan))])
    assert set(plan.labels) == {"next_sentence", "swapped"}
    assert (plan.labels["next_sentence"][of_row == 1] == -1).all()
    assert (plan.labels["swapped"][of_row == 0] == -1).all()
    assert set(plan.labels["next_sentence"][of_row == 0].tolist()) == {0, 1}
    assert set(plan.labels["swapped"][of_row == 1].tolist()) == {0, 1}


@pytest.mark.parametrize("example", ["nsp_pairs()", "full_sentences()", "single()"])
def test_parts_never_meet_in_a_row(example):
    window = many()
    plan = plan_of(window, example, example)
    part, row = parts_of(plan, window)
    kinds = np.zeros((len(plan), 2), bool)
    text = part < 255
    kinds[row[text], part[text]] = True
    assert (kinds.sum(1) == 1).all()
    assert kinds.any(0).all()


def test_every_row_of_every_part_is_there_once_without_weights():
    window = many()
    plan = plan_of(window, "single()", "single()", length=300)
    whole = lookup("example", "single()")(
        window, np.random.default_rng(0), corpora.VOCAB, length=300
    )
    starts = lambda p: np.sort(p.start[p.start >= 0]).tolist()  # noqa: E731
    assert starts(plan) == starts(whole)
    assert plan.dropped == dict(whole.dropped)
    one_for_all = plan_of(window, "single()", length=300)
    np.testing.assert_array_equal(one_for_all.start, plan.start)


@pytest.mark.parametrize("weights", [(1.0, 1.0), (5.0, 1.0), (1.0, 30.0), (0.0, 1.0)])
def test_rows_are_drawn_by_weight(weights):
    window = many()
    plan = plan_of(window, "single()", "single()", weights=weights)
    part, _ = parts_of(plan, window)
    rows = np.bincount(part[part < 255], minlength=2)
    assert abs(rows[0] - rows.sum() * weights[0] / sum(weights)) < 1
    all_rows = plan_of(window, "single()", "single()")
    of = np.bincount(parts_of(all_rows, window)[0], minlength=256)
    assert rows.sum() == (of[:2].sum() if min(weights) else of[1])
    # Each row of a part as often as another, or once more.
    start = plan.start[plan.start >= 0]
    _, often = np.unique(start[part[part < 255] == 1], return_counts=True)
    assert often.max() - often.min() <= 1
    assert plan.altered[REPEATED] == np.maximum(rows - of[:2], 0).sum()
    text = lambda p: int(p.length[p.start >= 0].sum())  # noqa: E731
    beyond = plan.dropped[BEYOND]
    assert (beyond > 0) == (rows < of[:2]).any()
    if weights == (0.0, 1.0):
        assert beyond == text(all_rows) - text(plan)


def test_other_seeds_draw_other_rows():
    window = many()
    one, two, again = (
        plan_of(window, "single()", weights=(1.0, 9.0), seed=seed) for seed in (1, 2, 1)
    )
    assert one.start.tolist() == again.start.tolist() != two.start.tolist()


@given(
    st.lists(st.tuples(st.integers(0, 50), st.floats(0, 10)), min_size=1, max_size=6),
)
@settings(deadline=None)
def test_wanted_rows_add_up(parts):
    counts = np.array([n for n, _ in parts])
    weights = np.array([w for _, w in parts])
    rows = wanted(counts, weights)
    used = (counts > 0) & (weights > 0)
    assert (rows[~used] == 0).all()
    assert rows.sum() == counts[used].sum()
    if used.any():
        exact = rows.sum() * weights[used] / weights[used].sum()
        assert (abs(rows[used] - exact) < 1 + 1e-9).all()


def test_a_part_that_is_not_there_leaves_its_share_to_the_others():
    window = mixed([[2, 2], [3, 1]], [0, 2])
    plan = plan_of(window, "single()", weights=(1.0, 8.0, 1.0))
    assert len(plan) == 2
    assert plan.dropped[BEYOND] == 0


def test_a_text_of_one_source_is_one_part():
    window = corpora.window(corpora.random_documents(0))
    plan = lookup("example", "by_part(examples='nsp_pairs()')")(
        window, np.random.default_rng(3), corpora.VOCAB, length=32
    )
    alone = lookup("example", "nsp_pairs()")(
        window, np.random.default_rng(3), corpora.VOCAB, length=32
    )
    np.testing.assert_array_equal(plan.start, alone.start)
    np.testing.assert_array_equal(plan.labels["next_sentence"], alone.labels["next_sentence"])


def test_what_does_not_fit_is_refused():
    window = mixed([[2, 2], [3, 1]], [0, 1])
    plain = corpora.window([[2, 2]])
    with pytest.raises(ConfigError, match="the text has one source"):
        plan_of(plain, "single()", "single()")
    with pytest.raises(ConfigError, match="2 examples and 3 weights"):
        plan_of(window, "single()", "single()", weights=(1.0, 1.0, 1.0))
    with pytest.raises(ConfigError, match="has a part 1"):
        plan_of(window, "single()", weights=(1.0,))
    with pytest.raises(ConfigError, match="expected x >= 0, not all 0"):
        plan_of(window, "single()", weights=(0.0, 0.0))
    with pytest.raises(ConfigError, match=r"part 1: example dialogue: data\.length"):
        plan_of(window, "single()", "dialogue()", length=5)
    with pytest.raises(RegistryError, match=r"unknown example 'singel'.*'single'"):
        plan_of(window, "singel()")


def test_a_piece_over_the_end_of_a_document_is_refused(monkeypatch):
    """Such a builder does not exist here; its pieces could not be put back."""

    def careless(window, rng, vocab, *, length):
        one = np.array([0, 1])
        return Plan(one, one[:1], np.array([5], np.int32), np.zeros(1, np.int32))

    from bert_variants import registry

    monkeypatch.setitem(
        registry._ENTRIES["example"],
        "careless",
        registry.Entry(
            "example",
            "careless",
            careless,
            {"labels": (), "order": "random", "reserved": ("length",)},
        ),
    )
    with pytest.raises(ConfigError, match="over the end of a document"):
        plan_of(mixed([[3], [3], [3]], [0, 1, 0]), "careless()", "single()")


def test_a_config_knows_the_labels_of_all_parts():
    experiment = config.get_config("bert", size="tiny")
    both = write("by_part", {"examples": ("nsp_pairs()", "dialogue()")})
    for example, objectives, fine in (
        (both, "mlm + nsp + real_fake", True),
        (both, "mlm + sop", False),
        ("nsp_pairs()", "mlm + nsp + real_fake", False),
    ):
        changed = config.set_field(experiment, "data.example", example)
        changed = config.set_field(changed, "objectives", objectives)
        if fine:
            config.check(changed)
        else:
            with pytest.raises(ConfigError, match=r"needs labels\."):
                config.check(changed)
