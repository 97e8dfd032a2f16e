"""The embedded corpus: which strings are taken, and that repeated ones are not."""

from __future__ import annotations

import random
import re
import sysconfig
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bert_variants import registry
from bert_variants.text.sources import SourceError, pydocs
from bert_variants.text.sources.repetition import SHINGLE, novel

MODULE = '''
"""Module words."""
import os
class Thing:
    """
    Class words,

        indented.
    """
    def run(self):
        "method words"
        "not a docstring"
    @property
    def size(self):
        """first size"""
    @size.setter
    def size(self, value):
        """second size"""
try:
    async def later():
        """guarded words"""
        def inner():
            """inner words"""
except ImportError:
    def later():
        """fallback words"""
if os.name:
    pass
else:
    def other():
        """other words\\x00"""
'''


@pytest.fixture
def installation(tmp_path, monkeypatch):
    """A source tree that stands for the standard library, and no packages."""
    stdlib = tmp_path / "lib"
    (stdlib / "test").mkdir(parents=True)
    (stdlib / "site-packages").mkdir()
    (stdlib / "pydoc_data").mkdir()
    (stdlib / "thing.py").write_text(MODULE)
    (stdlib / "test" / "t.py").write_text('"""tests are not read"""')
    (stdlib / "site-packages" / "t.py").write_text('"""nor are packages below"""')
    (stdlib / "broken.py").write_text("print 1")
    (stdlib / "latin.py").write_bytes(b'# -*- coding: latin-1 -*-\n"""caf\xe9 words"""\n')
    (stdlib / "pydoc_data" / "topics.py").write_text(
        "topics = {'a': '''\\n  A\\n    b''', 'c': 'C c'}"
    )
    monkeypatch.setattr(sysconfig, "get_path", lambda name: str(stdlib))
    monkeypatch.setattr(pydocs, "PACKAGES", ())
    pydocs._corpus.cache_clear()
    yield stdlib
    pydocs._corpus.cache_clear()


def test_docstrings_wherever_they_stand_and_topics(installation):
    reading = registry.lookup("source", "pydocs(min_chars=1)")().documents()
    assert {d.id: d.text for d in reading} == {
        "latin.py:": "café words",
        "pydoc_data/topics.py:a": "A\n  b",
        "pydoc_data/topics.py:c": "C c",
        "thing.py:": "Module words.",
        "thing.py:Thing": "Class words,\n\n    indented.",
        "thing.py:Thing.run": "method words",
        "thing.py:Thing.size": "first size",
        "thing.py:Thing.size#2": "second size",
        "thing.py:later": "guarded words",
        "thing.py:later.inner": "inner words",
        "thing.py:later#2": "fallback words",
        "thing.py:other": "other words",
    }
    assert reading.dropped == {"Python file that does not parse": 1, "control character removed": 1}


def test_short_ones_are_counted(installation):
    reading = registry.lookup("source", "pydocs(min_chars=13)")().documents()
    assert sorted(len(d.text) for d in reading) == [13, 13, 14, 27]
    assert reading.dropped["shorter than 13 characters"] == 8
    with pytest.raises(SourceError, match="at least 1"):
        pydocs.pydocs(min_chars=0)


def test_fingerprint_changes_with_any_file(installation):
    before = pydocs.pydocs().fingerprint()
    assert pydocs.pydocs().fingerprint() == before
    assert pydocs.pydocs(min_chars=300).fingerprint() != before
    (installation / "thing.py").write_text(MODULE + "#")
    assert pydocs.pydocs().fingerprint() != before


def test_nothing_is_imported(installation):
    (installation / "boom.py").write_text('"""never run this"""\nraise SystemExit\n')
    found = registry.lookup("source", "pydocs(min_chars=1)")().documents()
    assert "boom.py:" in [d.id for d in found]


@pytest.mark.slow
def test_the_real_corpus_is_about_as_large_as_promised():
    pydocs._corpus.cache_clear()
    reading = pydocs.pydocs().documents()
    documents = list(reading)
    assert 6_000 < len(documents) < 15_000
    assert 7e6 < sum(len(d.text) for d in documents) < 16e6
    assert len({d.id for d in documents}) == len(documents)
    assert all(len(d.text) >= 200 for d in documents)
    assert reading.dropped["near duplicate"] > 500
    ids = {d.id.partition("/")[0] for d in documents}
    assert {"numpy", "scipy", "jax", "flax", "optax", "orbax", "pydoc_data"} <= ids
    assert Path(pydocs.__file__).name not in ids


def test_wrapped_lines_are_joined_and_others_are_not():
    wide = "a line that was wrapped because it had become rather long,"
    assert len(wide) >= 55
    goes_on = ["and went on", "(or so)", "`x` too", "3 times", "`f` and (b)"]
    for line in goes_on:
        assert pydocs.unwrap(f"{wide}\n{line}") == f"{wide} {line}"
        assert pydocs.unwrap(f"  {wide}\n  {line}\nEnd") == f"  {wide} {line}\nEnd"
    for line in [
        "* item",
        "- item",
        "1. item",
        "x : int",
        "x=1",
        "f(x)",
        ">>> f",
        "",
        "  deeper",
        "---",
    ]:
        assert pydocs.unwrap(f"{wide}\n{line}") == f"{wide}\n{line}"
    assert pydocs.unwrap("short\nlines") == "short\nlines"


# -- repetition -----------------------------------------------------------------------------------


def prose(rng, words):
    return " ".join(f"w{rng.randrange(10_000)}" for _ in range(words))


def test_copies_excerpts_and_templates_go_and_the_longest_stays():
    rng = random.Random(0)
    long, other = prose(rng, 200), prose(rng, 150)
    excerpt = " ".join(long.split()[50:120])
    template = " ".join([*other.split()[:100], *prose(rng, 20).split()])
    fresh = " ".join([*other.split()[:40], *prose(rng, 100).split()])
    texts = [excerpt, long, long.upper().replace(" ", ",  "), other, template, fresh]
    kept, dropped = novel(texts)
    assert kept == [2, 3, 5]  # the shouted copy is the longer one
    assert dropped == {"exact duplicate": 1, "near duplicate": 2}


def test_short_and_wordless_texts():
    assert novel(["a b", "a  b", "a c", "", "...", "a"])[0] == [1, 2, 4, 5]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.text(st.sampled_from("ab .\n"), max_size=60), max_size=12))
def test_what_is_kept_says_mostly_new_things(texts):
    kept, dropped = novel(texts)
    assert kept == sorted(set(kept))
    assert len(kept) + sum(dropped.values()) == len(texts)
    assert novel([texts[i] for i in kept])[0] == list(range(len(kept)))
    said = set()
    for i in sorted(kept, key=lambda i: (-len(texts[i]), i)):
        words = re.findall(r"\w+", texts[i])
        runs = [tuple(words[k : k + SHINGLE]) for k in range(max(len(words) - SHINGLE + 1, 1))]
        assert not words or sum(run in said for run in runs) * 2 < len(runs)
        said.update(runs)
