"""Assembly against a reading of the plan piece by piece, and the worked row of the glossary."""

from __future__ import annotations

import dataclasses

import corpora
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bert_variants.text.plan import Plan, Window
from bert_variants.text.rows import RowError, assemble, joined, padding

VOCAB = corpora.VOCAB


def slow(plan, rows, window, length):
    """Every array of a batch, token by token."""
    names = (
        *("tokens", "segments", "positions", "valid", "maskable", "words", "units"),
        *("unit_kinds", "packs"),
    )
    out = {name: [] for name in names}
    for r in rows:
        row = {name: [] for name in names}
        word = unit = -1
        origin = pack = 0
        for piece in range(plan.rows[r], plan.rows[r + 1]):
            start = int(plan.start[piece])
            if plan.pack is not None and plan.length[piece] and plan.pack[piece] != pack:
                pack, origin = int(plan.pack[piece]), len(row["tokens"])
            back = plan.backward is not None and bool(plan.backward[r])
            size = int(plan.length[piece])
            for n in range(size):
                text = start >= 0
                at = start + (size - 1 - n if back else n)
                row["tokens"].append(int(window.tokens[at]) if text else -start - 1)
                row["positions"].append(len(row["positions"]) - origin)
                row["segments"].append(int(plan.segment[piece]))
                row["valid"].append(True)
                row["maskable"].append(text)
                row["packs"].append(pack)
                if text and (n == 0 or window.word_starts[at + back]):
                    word += 1
                row["words"].append(word if text else -1)
                code = int(window.units[at]) if text and window.units is not None else 0
                begins = bool(code & 128)
                if text and window.units is not None and back and n:  # in front of another, or none
                    begins = bool(window.units[at + 1] & 128) or not window.units[at + 1] & 127
                if code & 127 and (n == 0 or begins):
                    unit += 1
                row["units"].append(unit if code & 127 else -1)
                row["unit_kinds"].append((code & 127) - 1)
        pad = {"words": -1, "units": -1, "unit_kinds": -1, "valid": False, "maskable": False}
        while len(row["tokens"]) < length:
            row["positions"].append(len(row["positions"]) - origin)
            for name in names:
                if name != "positions":
                    row[name].append(pad.get(name, 0))
        for name in names:
            out[name].append(row[name])
    return out


@st.composite
def plans(draw):
    """A window and an arbitrary plan over it, with packs and empty pieces."""
    window = corpora.window(
        draw(st.lists(st.lists(st.integers(1, 9), min_size=1, max_size=3), min_size=1, max_size=4)),
        seed=draw(st.integers(0, 9)),
        units=draw(st.booleans()),
    )
    count = len(window.tokens)
    rows, start, size, segment, pack = [0], [], [], [], []
    for _ in range(draw(st.integers(1, 5))):
        for k in range(draw(st.integers(1, 6))):
            if draw(st.booleans()):
                start.append(-1 - draw(st.sampled_from([2, 3, 4])))
                size.append(1)
            else:
                begin = draw(st.integers(0, count - 1))
                start.append(begin)
                size.append(draw(st.integers(0, min(5, count - begin))))
            segment.append(draw(st.integers(0, 1)))
            pack.append(1 + k // 2)
        rows.append(len(start))
    kinds = (np.int64, np.int64, np.int32, np.int32, np.int32)
    arrays = (
        np.array(x, t) for x, t in zip((rows, start, size, segment, pack), kinds, strict=True)
    )
    plan = Plan(*arrays, labels={"name": np.arange(len(rows) - 1)})
    if not draw(st.booleans()):
        plan = Plan(plan.rows, plan.start, plan.length, plan.segment, labels=plan.labels)
    if draw(st.booleans()):
        turned = [draw(st.booleans()) for _ in range(len(plan))]
        plan = dataclasses.replace(plan, backward=np.array(turned))
    return window, plan


@given(plans(), st.integers(31, 40), st.randoms(use_true_random=False))
@settings(deadline=None, max_examples=150)
def test_assembly_is_the_slow_reading(case, length, random):
    window, plan = case
    rows = [random.randrange(len(plan)) for _ in range(4)]
    batch = assemble(plan, np.array(rows), window, VOCAB, length, first_id=7, visit=3)
    expected = slow(plan, rows, window, length)
    packs = expected.pop("packs")
    if window.units is None:
        assert batch.unit_kinds_BT is None
        expected.pop("unit_kinds")
    else:
        assert batch.unit_kinds_BT.dtype == np.int8
    for name, values in expected.items():
        assert getattr(batch, f"{name}_BT").tolist() == values, name
    if plan.pack is None:
        assert batch.packs_BT is None
    else:
        assert batch.packs_BT.tolist() == packs
    assert batch.example_id_B.tolist() == [r + 7 for r in rows]
    assert batch.visit_B.tolist() == [3] * 4
    assert batch.labels["name"].tolist() == rows


def test_worked_row_of_the_glossary():
    window = Window(
        documents=np.array([0, 2]),
        sentences=np.array([0, 3, 4]),
        tokens=np.array([10, 11, 12, 13], np.uint16),  # the cat ##s | ran
        word_starts=np.array([True, True, False, True]),
    )
    plan = Plan(
        rows=np.array([0, 5]),
        start=np.array([-3, 0, -4, 3, -4]),
        length=np.array([1, 3, 1, 1, 1], np.int32),
        segment=np.array([0, 0, 0, 1, 1], np.int32),
    )
    batch = assemble(plan, np.array([0]), window, VOCAB, 10)
    assert batch.tokens_BT.tolist() == [[2, 10, 11, 12, 3, 13, 3, 0, 0, 0]]
    assert batch.segments_BT.tolist() == [[0, 0, 0, 0, 0, 1, 1, 0, 0, 0]]
    assert batch.positions_BT.tolist() == [list(range(10))]
    assert batch.valid_BT.astype(int).tolist() == [[1, 1, 1, 1, 1, 1, 1, 0, 0, 0]]
    assert batch.maskable_BT.astype(int).tolist() == [[0, 1, 1, 1, 0, 1, 0, 0, 0, 0]]
    assert batch.words_BT.tolist() == [[-1, 0, 1, 1, -1, 2, -1, -1, -1, -1]]
    assert batch.units_BT.tolist() == [[-1] * 10]
    kinds = {k: v.dtype for k, v in vars(batch).items() if isinstance(v, np.ndarray)}
    assert kinds == {
        **dict.fromkeys(
            ("tokens_BT", "segments_BT", "positions_BT", "words_BT", "units_BT"), np.dtype(np.int32)
        ),
        **dict.fromkeys(("valid_BT", "maskable_BT"), np.dtype(bool)),
        **dict.fromkeys(("example_id_B", "visit_B"), np.dtype(np.uint32)),
    }


def test_a_row_read_backwards():
    """The glossary's text from its end: a word begins with its last piece."""
    window = Window(
        documents=np.array([0, 2]),
        sentences=np.array([0, 3, 4]),
        tokens=np.array([10, 11, 12, 13], np.uint16),  # the cat ##s | ran
        word_starts=np.array([True, True, False, True]),
        units=np.array([0, 0x82, 2, 0x81], np.uint8),
    )
    plan = Plan(
        rows=np.array([0, 3, 6]),
        start=np.array([0, -4, -3, 0, -4, -3]),
        length=np.array([4, 1, 1, 4, 1, 1], np.int32),
        segment=np.zeros(6, np.int32),
        backward=np.array([True, False]),
    )
    batch = assemble(plan, np.array([0, 1]), window, VOCAB, 6)
    assert batch.tokens_BT.tolist() == [[13, 12, 11, 10, 3, 2], [10, 11, 12, 13, 3, 2]]
    assert batch.words_BT.tolist() == [[0, 1, 1, 2, -1, -1], [0, 1, 1, 2, -1, -1]]
    assert batch.units_BT.tolist() == [[0, 1, 1, -1, -1, -1], [-1, 0, 0, 1, -1, -1]]
    assert batch.unit_kinds_BT.tolist() == [[0, 1, 1, -1, -1, -1], [-1, 1, 1, 0, -1, -1]]


def test_a_row_that_is_too_long_is_an_error():
    window = corpora.window([[9]])
    plan = Plan(np.array([0, 1]), np.array([0]), np.array([9], np.int32), np.zeros(1, np.int32))
    with pytest.raises(RowError, match="row 0 of the plan has 9 tokens"):
        assemble(plan, np.array([0]), window, VOCAB, 8)


def test_a_piece_outside_the_window_is_an_error():
    window = corpora.window([[9]])
    plan = Plan(np.array([0, 1]), np.array([5]), np.array([6], np.int32), np.zeros(1, np.int32))
    with pytest.raises(RowError, match="ends at token 11, the window has 9"):
        assemble(plan, np.array([0]), window, VOCAB, 16)


def test_identities_wrap_at_32_bits():
    window = corpora.window([[9]])
    plan = Plan(np.array([0, 1]), np.array([0]), np.array([9], np.int32), np.zeros(1, np.int32))
    batch = assemble(plan, np.array([0]), window, VOCAB, 9, first_id=(1 << 32) + 5)
    assert batch.example_id_B.tolist() == [5]


def test_padding_and_joining_keep_shape_and_type():
    window = corpora.window([[9]])
    plan = Plan(
        np.array([0, 1]),
        np.array([0]),
        np.array([9], np.int32),
        np.zeros(1, np.int32),
        labels={"x": np.array([4])},
    )
    one = assemble(plan, np.array([0]), window, VOCAB, 12)
    both = joined([one, padding(one, 2, VOCAB)])
    assert both.valid_BT.sum(1).tolist() == [9, 0, 0]
    assert both.labels["x"].tolist() == [4, 0, 0]
    for name, value in vars(one).items():
        if isinstance(value, np.ndarray):
            assert getattr(both, name).dtype == value.dtype, name
            assert getattr(both, name).shape == (3, *value.shape[1:]), name
