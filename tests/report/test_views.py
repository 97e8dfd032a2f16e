"""What is shown of a corruption is what was done."""

from __future__ import annotations

import dataclasses
import itertools
import json
import re

import jax
import numpy as np
import pytest
from contracts.rows import VOCAB as CONTRACT_VOCAB
from contracts.rows import rows as contract_rows
from report.toy import TOKENS, VOCAB, Toy, rows

from bert_variants import keys, registry
from bert_variants.report import views


@pytest.fixture
def row() -> dict:
    return views.as_dicts(rows(), Toy())[0]


def test_a_row_as_plain_values(row):
    assert row["example_id"] == 4711
    assert row["visit"] == 0
    assert row["labels"] == {"next_sentence": 1}
    assert row["tokens"] == [TOKENS[i] for i in (2, 5, 6, 7, 8, 9, 10, 5, 3, 0)]
    assert row["inputs"] == [TOKENS[i] for i in (2, 5, 4, 4, 5, 9, 10, 5, 3, 0)]
    assert row["positions"] == [2, 3, 4, 6]
    assert row["targets"] == ["cat", "##s", "ran", "\x1b[31m"]
    assert row["weights"] == [1, 1, 1, 1]
    assert row["slots"] == 5
    assert row["spans"] == [[2, 5], [6, 7]]
    happened = "special kept masked masked replaced kept unchanged kept special padding"
    assert row["happened"] == happened.split()
    assert row["joins"] == [False, False, False, True, False, False, False, False, False, False]
    assert json.loads(json.dumps(row)) == row


def test_named_spans_and_shuffles_are_told():
    made = rows().replace(
        offset_BP=np.array([[0, 1, 0, 0, 0], [0] * 5], np.int32),
        left_BP=np.array([[1, 1, 3, 5, 0], [0] * 5], np.int32),
        right_BP=np.array([[4, 4, 5, 7, 0], [0] * 5], np.int32),
        moved_BT=np.arange(10)[None].repeat(2, 0) == 7,
    )
    row = views.as_dicts(made, Toy())[0]
    assert row["spans"] == [[2, 4], [4, 5], [6, 7]]
    assert row["left"] == [1, 1, 3, 5]
    assert row["right"] == [4, 4, 5, 7]
    assert row["happened"][7] == "moved"
    assert views.statistics(made, VOCAB).moved == pytest.approx(1 / 13)
    assert views.statistics(made, VOCAB).span_length == pytest.approx(4 / 3)


def test_an_id_without_a_spelling_is_shown_as_a_number():
    made = rows()
    made.inputs_BT[0, 2] = 11
    assert views.as_dicts(made, Toy())[0]["inputs"][2] == "<11>"


def test_statistics_of_a_known_row():
    found = views.statistics(rows(), VOCAB)
    assert found == views.Statistics(
        rows=2,
        predicted=2.0,
        of_valid=4 / 13,
        of_maskable=4 / 9,
        masked=0.5,
        replaced=0.25,
        unchanged=0.25,
        whole_words=1.0,
        whole_long_words=1.0,
        span_length=2.0,
        moved=None,
        full_rows=0.0,
    )
    made = rows()
    made.weights_BP[0, 1] = 0  # "##s" is no longer predicted, so one word of three is not whole
    assert views.statistics(made, VOCAB).whole_words == pytest.approx(2 / 3)
    assert views.statistics(made, VOCAB).whole_long_words == 0


def test_statistics_of_nothing():
    made = jax.tree.map(lambda leaf: leaf[1:], rows())
    found = views.statistics(made, VOCAB)
    assert (found.of_valid, found.masked, found.span_length) == (0, None, None)
    assert "none" in views.describe(found)


@pytest.mark.parametrize("call", ["tokens(rate=0.15)", "tokens(rate=0.4, mask=0.5, random=0.5)"])
def test_statistics_agree_with_what_was_asked(call):
    batch = contract_rows(count=400, length=48, full=True)
    corruption = registry.lookup("corruption", call)
    row_keys = keys.corruption_keys(keys.root(0), batch, 0, 0)
    made = jax.tree.map(np.asarray, corruption(row_keys, batch, CONTRACT_VOCAB))
    found = views.statistics(made, CONTRACT_VOCAB)
    assert found.of_valid == pytest.approx(corruption.argument("rate"), rel=0.05)
    # a random token is sometimes the original or the mask token: 2 in 97
    assert found.masked == pytest.approx(corruption.argument("mask"), abs=0.03)
    assert found.replaced == pytest.approx(corruption.argument("random"), abs=0.03)
    assert found.masked + found.replaced + found.unchanged == pytest.approx(1)


def test_the_terminal_shows_everything_without_colour():
    text = views.terminal(rows(), Toy(), width=60, colour=False)
    assert "\x1b" not in text
    lines = text.split("\n")
    assert lines[0].startswith("row 1  example 4711  visit 0  next_sentence 1  4 of 9")
    assert any(re.search(r"\[CLS\] the cat    ##s    ran", line) for line in lines)
    assert any(re.search(r"\[CLS\] the \[MASK\] \[MASK\] the", line) for line in lines)
    marks = next(line for line in lines if "^" in line)
    assert marks.split() == ["^^^^^^", "^^^^^^", "~~~", "========"]
    assert "\\x1b[31m" in text
    assert "[PAD] x 6" in text
    assert all(len(line) <= 60 for line in lines if line.startswith("  "))


@pytest.mark.parametrize("width", [12, 40, 200])
def test_marks_stand_below_their_tokens(width):
    text = views.terminal(rows(), Toy(), width=width, colour=False)
    blocks = text.split("\n")
    assert "^^^^^^" in text
    for above, below in itertools.pairwise(blocks):
        if below.strip() and set(below) <= {"^", " "}:
            assert below.index("^") == above.index("[MASK]")


def test_colour_adds_styles_and_nothing_else():
    plain = views.terminal(rows(), Toy(), width=60, colour=False)
    styled = views.terminal(rows(), Toy(), width=60, colour=True)
    assert styled != plain
    bare = re.sub(r"\x1b\[[0-9;]*m", "", styled)
    assert [line.rstrip() for line in bare.split("\n")] == [
        line.rstrip() for line in plain.split("\n")
    ]


def test_the_page_view_escapes_tokens_and_joins_words():
    text = views.html(views.as_dicts(rows(), Toy()))
    assert "<b>" not in text
    assert "&lt;b&gt;&amp;" in text
    assert "\x1b" not in text
    assert "[PAD] × 6" in text
    # "##s" goes on with its word: no blank in front of it
    assert re.search(r'</rt></ruby></span><span class="tok masked predicted"', text)
    assert "<ruby>[MASK]<rt>cat</rt></ruby>" in text


def test_a_run_keeps_some_rows_and_the_rates_of_all():
    kept = views.as_json(rows(), Toy(), VOCAB, shown=1)
    assert len(kept["rows"]) == 1
    assert kept["statistics"] == dataclasses.asdict(views.statistics(rows(), VOCAB))
    assert json.loads(json.dumps(kept)) == kept


def test_what_cannot_be_seen_is_written_out():
    assert views.printable("a\u2028b\u202e\x1b") == "a\\u2028b\\u202e\\x1b"
    assert views.printable("猫 é") == "猫 é"
