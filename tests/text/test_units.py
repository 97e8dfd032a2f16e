"""Words, Chinese words and lexicon entries as spans of a text."""

from __future__ import annotations

import gzip
import importlib
import sys
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bert_variants import registry
from bert_variants.text.sources import SourceError
from bert_variants.text.synthetic import World
from bert_variants.text.units import UnitsError, fingerprint
from bert_variants.text.units import lexicon as module


def call(string):
    return registry.lookup("units", string)


def found(string, text):
    return [text[a:b] for a, b, _ in call(string)(text)]


@pytest.fixture(params=["pyahocorasick", "python"])
def finder(request, monkeypatch):
    """Both ways of finding entries."""
    if request.param == "python":
        monkeypatch.setattr(module, "_automaton", lambda entries: None)
    else:
        pytest.importorskip("ahocorasick")
    module.read_lexicon.cache_clear()
    yield request.param
    module.read_lexicon.cache_clear()


@pytest.fixture
def listed(tmp_path, finder):
    """Write a list and return the call-string that reads it."""

    def write(text, name="list.tsv", **arguments):
        data = text.encode()
        (tmp_path / name).write_bytes(gzip.compress(data) if name.endswith("gz") else data)
        return registry.write("lexicon", {"file": str(tmp_path / name), **arguments})

    return write


def test_words():
    assert found("words", " 我们 在\n清华\u3000大学 ok. ") == ["我们", "在", "清华", "大学", "ok."]
    assert call("words")("") == []


def test_chinese_words():
    pytest.importorskip("rjieba")
    assert found("chinese_words", "我们在清华大学用Python 3.14学习！") == [
        "我们", "在", "清华大学", "用", "学习",
    ]  # fmt: skip
    assert call("chinese_words")("plain English") == []


@given(st.text(st.sampled_from("我们在清华大学ab 1.,!？😀\n\u3000é𠀀"), max_size=40))
def test_chinese_words_cover_every_character_of_the_script_once(text):
    pytest.importorskip("rjieba")
    units = call("chinese_words")(text)
    inside = [at for a, b, _ in units for at in range(a, b)]
    assert inside == sorted(set(inside))
    assert {at for at, c in enumerate(text) if c in "我们在清华大学𠀀"} <= set(inside)


def test_chinese_words_without_rjieba_name_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "rjieba", None)
    chinese_words = importlib.import_module("bert_variants.text.units.chinese_words")
    chinese_words._rjieba.cache_clear()
    with pytest.raises(UnitsError, match=r"bert-variants\[zh\]"):
        call("chinese_words")("中")


def test_leftmost_longest_whole_words(listed):
    units = listed(
        "New York\tcity\nNew York Times\tpaper\nTimes Square\tplace\ncat\nin spite of\t7"
    )
    assert found(units, "New York Times Square, New Yorker, New York. concat cat; in spite of") == [
        "New York Times", "New York", "cat", "in spite of",
    ]  # fmt: skip
    kinds = module.read_lexicon(call(units).argument("file")).kinds
    assert kinds == ["", "city", "paper", "place"]
    assert [u.kind for u in call(units)("cat New York Times, New York")] == [0, 2, 1]
    assert found(units, "new york") == []


def test_chinese_entries_match_anywhere(listed):
    units = listed("清华\n清华大学\n大学生\n北京\t100\nA股")
    assert found(units, "北京清华大学生在清华买A股") == ["北京", "清华大学", "清华", "A股"]
    assert found(units, "CPA股") == []


def test_ignoring_case_keeps_positions(listed):
    units = listed("New York\nİstanbul x", ignore_case=True)
    assert found(units, "İİ NEW york") == ["NEW york"]
    assert found(units, "in İstanbul X") == ["İstanbul X"]


def test_odd_entries_are_literal_or_left_out_and_counted(listed):
    units = listed(
        "\ufeffa.*b\r\n\n \nx\n" + "l" * 65 + "\n(c\na.*b\tz\n[MASK]\n\\d+\n", "l.tsv.gz"
    )
    assert found(units, "axxb a.*b [MASK] (c \\d+ 12 (") == ["a.*b", "[MASK]", "(c", "\\d+"]
    assert module.read_lexicon(call(units).argument("file")).dropped == {
        "empty line": 2,
        "entry of one character": 1,
        "entry of more than 64 characters": 1,
        "entry that stands twice": 1,
    }


def test_the_fingerprint_follows_the_list(listed):
    units = listed("New York")
    before = fingerprint(units)
    assert fingerprint(units) == before
    listed("New Work")
    assert fingerprint(units) != before
    assert fingerprint("words") == "words()"


def test_errors_name_the_list(listed, tmp_path):
    with pytest.raises(UnitsError, match=r"list\.tsv.*has no entry"):
        call(listed("\nx\n"))("text")
    with pytest.raises(UnitsError, match="128 kinds"):
        call(listed("".join(f"e{n}\tk{n}\n" for n in range(128)), "k.tsv"))("text")
    with pytest.raises(UnitsError, match=r"long\.tsv:2: a line of"):
        call(listed("ab\n" + "x" * (1 << 17), "long.tsv"))("text")
    (tmp_path / "bad.tsv").write_bytes(b"ab\n\xff\n")
    with pytest.raises(UnitsError, match=r"bad\.tsv:2: not UTF-8"):
        call(registry.write("lexicon", {"file": str(tmp_path / "bad.tsv")}))("text")
    with pytest.raises(SourceError, match=r"nowhere.*matches no file"):
        call("lexicon('nowhere.tsv')")("text")


def apart(text, at):
    """Whether a word may begin or end at ``at``."""
    sides = text[at - 1 : at + 1] if at else ""
    return len(sides) < 2 or not all(c in "abA" for c in sides)


ENTRIES = st.lists(st.text(st.sampled_from("abA 中文."), min_size=2, max_size=5), min_size=1)


@settings(max_examples=150, deadline=None)
@given(ENTRIES, st.text(st.sampled_from("abA 中文."), max_size=30))
def test_both_ways_find_the_same_and_what_is_defined(entries, text):
    numbered = dict.fromkeys(entries, 0)
    if fast := module._automaton(numbered):
        assert sorted(fast(text)) == sorted(module._scan(numbered)(text))
    units = module.Lexicon(numbered, [""], module.Counter()).find(text)
    at = 0
    for start, stop, _ in units:
        for begin in range(at, start):  # nothing that could begin earlier was passed over
            for end in range(begin + 2, len(text) + 1):
                assert not (text[begin:end] in numbered and apart(text, begin) and apart(text, end))
        assert at <= start < stop <= len(text)
        assert text[start:stop] in numbered
        at = stop


@pytest.mark.parametrize("text", ["ab" * 20_000, "中" * 40_000, "a" * 40_000])
def test_linear_time(finder, text):
    entries = {"ab" * n: 0 for n in range(1, 33)} | {"中" * n: 0 for n in range(2, 65)}
    found = module.Lexicon(entries, [""], module.Counter())
    began = time.process_time()
    found.find(text)
    assert time.process_time() - began < 15


def test_the_synthetic_world_is_found_by_its_own_lexicon(listed):
    for language in ("en", "zh"):
        world = World(0, language)
        units = listed("".join(f"{n}\t{k}\n" for n, k in world.lexicon()), f"{language}.tsv")
        story = world.document(np.random.default_rng(1))
        names = [
            story.text[slice(*story.span(at, m.start, m.stop))]
            for at, sentence in enumerate(story.sentences)
            for m in sentence.mentions
            if m.form == "name"
        ]
        assert [u for u in found(units, story.text) if u in names] == names


def test_a_real_lexicon(finder, shared_data):
    units = registry.write("lexicon", {"file": str(shared_data / "thuocl" / "*.tsv.xz")})
    text = "北京大学位于中华人民共和国首都北京。"
    assert found(units, text)[0] == "北京大学"
    assert len(found(units, text)) >= 3
