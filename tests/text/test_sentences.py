"""Sentence boundaries: the cases that matter, and what holds for any text."""

from __future__ import annotations

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bert_variants.text.sentences import split


@pytest.mark.parametrize(
    "marked",  # "|" where a sentence must end and another begin
    [
        "One. |Two! |Three? |Four",
        'He met Dr. J. Li (in 1999). |"Why?" he asked. |Then he left.',
        "It costs 3.14 dollars, i.e. 3.1 or v1.2.3. |Cheap!",
        "See e.g. Smith et al. 2001 and Fig. 3. |It is clear.",
        "The U.S. Army and J. R. R. Tolkien met at 5 p.m. |They talked.",
        "Born on Jan. 5. |Died in Dec. |Nobody knew.",
        "Take the matrix A. |The result is by A. Turing.",
        "Wait... what? |Really... |Yes.",
        "Wait… what? |Really… |Yes.",
        'He said: "Go." |She went. |(He stayed.) |[He did!] |End',
        "“Go!” |‘No.’ |End",
        "A line without point\n|another line\n\n  |and a third",
        "1. First item.\n|2. Second item. |More",
        "He counted to 10. |Then he came.",
        "Visit Yahoo! or example.com now.",
        "Is it?! |Yes!!! |No...",
        "他笑了。|“好！”|她问：“为什么？！”|没有人知道……|真的。",
        "今天气温是3.5度。|很冷！|是吗？|对",
        "好!|真的?|是的.|对",
        "他用Python 3.11。|OK. |好",
        "（他走了。）|【完】",
        "それは本当ですか？|はい。",
        "Mixed 中文. |And English。|Yes",
        "etc. and so on. |Apples, pears, etc. |Then more.",
        "no end",
        "",
    ],
)
def test_boundaries(marked):
    text = marked.replace("|", "")
    expected = [part.strip() for part in marked.split("|") if part.strip()]
    assert [text[a:b] for a, b in split(text)] == expected


@settings(max_examples=300, deadline=None)
@given(st.text(st.sampled_from("aB1 .!?。…\"”)('\n\r\t\u2028é中😀") | st.characters(), max_size=60))
def test_spans_cover_everything_but_space_in_order(text):
    spans = split(text)
    at = 0
    for a, b in spans:
        assert at <= a < b <= len(text)
        assert text[at:a].strip() == ""
        assert text[a:b] == text[a:b].strip()
        assert "\n" not in text[a:b]
        at = b
    assert text[at:].strip() == ""


@given(st.text(st.sampled_from('aB. ?!。\n"')), st.text(st.sampled_from('aB. ?!。\n"')))
def test_paragraphs_are_independent(one, two):
    offset = len(one) + 1
    joined = split(one + "\n" + two)
    assert joined == split(one) + [(a + offset, b + offset) for a, b in split(two)]


@pytest.mark.parametrize(
    "unit", ["!", ".", ". ", "a. ", "(", ". (", "a", "Dr. ", "。", ' ."', "\n", " ", "x.\t", "1."]
)
def test_linear_time(unit):
    text = unit * (200_000 // len(unit)) + "x"
    began = time.process_time()
    split(text)
    assert time.process_time() - began < 6
