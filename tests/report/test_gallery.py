"""The same row under every corruption: each is drawn, or says why it is not."""

from __future__ import annotations

import dataclasses
import re

import numpy as np
import pytest
from report.toy import TOKENS, VOCAB, Toy, rows

from bert_variants import registry
from bert_variants.report import gallery
from bert_variants.types import Batch

COUNTED = dataclasses.replace(VOCAB, counts_V=np.arange(12, dtype=np.int64))


def batch(**changes: object) -> Batch:
    made = rows()
    fields = {f.name: getattr(made, f.name) for f in dataclasses.fields(Batch)}
    return Batch(**{**fields, **changes})


@pytest.fixture(scope="module")
def found() -> list[gallery.Picture]:
    return gallery.pictures(batch(), Toy(), COUNTED)


def test_every_corruption_is_drawn_or_says_why(found):
    assert [one["call"] for one in found] == [f"{n}()" for n in registry.names("corruption")]
    for one in found:
        needs = registry.lookup("corruption", one["call"]).traits["needs"]
        assert bool(one["row"]) == ("data.units" not in needs)
        assert bool(one["refused"]) != bool(one["row"])
        assert one["says"]
        if one["row"]:
            assert one["row"]["tokens"] == [TOKENS[i] for i in (2, 5, 6, 7, 8, 9, 10, 5, 3, 0)]


def test_units_in_the_row_are_drawn():
    units = rows().words_BT
    found = gallery.pictures(batch(units_BT=units), Toy(), COUNTED, calls=["whole_units(rate=0.5)"])
    assert found[0]["row"]["positions"]


def test_rows_are_cut_and_calls_are_chosen():
    (one,) = gallery.pictures(batch(), Toy(), COUNTED, calls=["tokens(rate=0.5)"], tokens=5)
    assert one["row"]["tokens"] == ["[CLS]", "the", "cat", "##s", "ran"]
    assert len(one["row"]["positions"]) == 2


def test_what_cannot_run_says_so():
    (one,) = gallery.pictures(batch(), Toy(), VOCAB, calls=["tokens(random_ids='corpus')"])
    assert one["row"] is None
    assert "without counts" in one["refused"]
    assert "without counts" in gallery.terminal([one], width=80)


def test_drawings_name_each_call_and_escape_the_text(found):
    drawn = [one for one in found if one["row"]]
    text = gallery.terminal(found, width=100, colour=False)
    page = gallery.standalone(found, "A & B")
    assert "<h3>A &amp; B</h3>" in page
    assert "<b>&" not in page
    assert "\x1b" not in text + page
    assert not re.search(r"<script|https?:|\son\w+=", page)
    for one in drawn:
        assert one["call"] in text
    assert page.count('class="row-head"') == len(drawn)
    assert "set data.units" in text
