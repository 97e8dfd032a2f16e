"""Collocations: planted ones are found, those of chance are not, and counts are exact."""

from __future__ import annotations

import itertools
import math
import random
from collections import Counter

import corpora
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bert_variants import cli, registry
from bert_variants.config import ConfigError
from bert_variants.text import collocations as module
from bert_variants.text import ngrams
from bert_variants.text.collocations import collocations, write_lexicon
from bert_variants.text.encoding import PrepareError
from bert_variants.text.pipeline import Pipeline
from bert_variants.text.prepare import prepare

LETTERS = "bcdfghjklmnpqrstvwxz"
WORDS = ["".join(pair) + "o" for pair in itertools.product(LETTERS, LETTERS[:10])]


@pytest.fixture
def corpus(tmp_path):
    """Write documents to a file and return settings that read them."""

    def write(documents, **changes):
        tmp_path.joinpath("text").mkdir(exist_ok=True)
        text = "\n\n".join(documents)
        (tmp_path / "text" / "a.txt").write_text(text + "\n", encoding="utf-8")
        source = f"text('{tmp_path}/text/*.txt', by='blank_line')"
        held = {"held_out": 0.0, "held_out_source": source.replace("/text/", "/held/")}
        if "held_out" in changes or "held_out_source" in changes:
            held = {}
        elif not (tmp_path / "held").exists():
            (tmp_path / "held").mkdir()
            (tmp_path / "held" / "b.txt").write_text("something else\n", encoding="utf-8")
        return corpora.settings(tmp_path / "data", source, **held, **changes)

    return write


def planted(seed=0, documents=200, length=100):
    """Random words, and among them "new york", "new york city", "top secret file box one"."""
    rng = random.Random(seed)
    made = []
    for number in range(documents):
        text = rng.choices(WORDS, k=length)
        text[10:12] = ["new", "york"]
        text[30:33] = ["new", "york", "city"]
        text[50:55] = ["top", "secret", "file", "box", "one"]
        text[70:73] = ["new", "york", "is"]
        # "is" is frequent by itself
        for at in (2, 5, 8, 60, 64, 80, 84, 88, 92, 96):
            text[at] = "is"
        text[40] = "Top"
        made.append(f"{number} " + " ".join(text) + ".")
    return made


def spelt(found, length=None):
    return {" ".join(c.words) for c in found.collocations if length in (None, len(c.words))}


def test_planted_ones_are_found_and_chance_is_not(corpus):
    found = collocations(corpus(planted()), minimum=10)
    assert found.documents == 200
    assert found.words == 200 * 101  # the number in front counts as a word without a spelling
    pairs = {"new york", "york city", "top secret", "secret file", "file box", "box one"}
    assert spelt(found, 2) == pairs
    assert spelt(found, 5) == {"top secret file box one"}
    assert spelt(found, 3) == {
        "new york city", "top secret file", "secret file box", "file box one",
    }  # fmt: skip


def test_a_strong_pair_makes_no_strong_triple(corpus):
    """By the plain measure "new york is" is far above the bar; by the paper's it is not."""
    data = corpus(planted())
    found = collocations(data, minimum=10, score=-100.0)
    scores = {" ".join(c.words): (c.score, c.count) for c in found.collocations}
    score, count = scores["new york is"]
    text = " ".join(planted()).lower()
    plain = math.log(count / found.words) - sum(
        math.log(len([w for w in text.replace(".", "").split() if w == word]) / found.words)
        for word in ("new", "york", "is")
    )
    assert plain > 3
    assert score < 3 < scores["new york"][0]
    assert score < plain - 2


def brute_force(documents, longest, minimum):
    """Counts and the measure by its definition, over every way to cut."""
    counts, words = Counter(), 0
    for text in documents:
        for line in text.lower().split("\n"):
            run = line.split()
            words += len(run)
            for n in range(1, longest + 1):
                counts.update(tuple(run[i : i + n]) for i in range(len(run) - n + 1))
    log = {gram: math.log(n / words) for gram, n in counts.items()}

    def cuts(gram):
        for borders in range(1, 2 ** (len(gram) - 1)):
            at = [k + 1 for k in range(len(gram) - 1) if borders >> k & 1]
            yield [gram[a:b] for a, b in itertools.pairwise([0, *at, len(gram)])]

    return {
        gram: (n, min(log[gram] - sum(log[piece] for piece in cut) for cut in cuts(gram)))
        for gram, n in counts.items()
        if n >= minimum and len(gram) > 1
    }


@pytest.mark.parametrize("chunk", [module.CHUNK, 7])
def test_the_measure_is_its_definition(corpus, monkeypatch, chunk):
    """Every count and score, whatever the size of the stretches that are read together."""
    monkeypatch.setattr(module, "CHUNK", chunk)
    rng = random.Random(1)
    documents = [
        "\n".join(
            " ".join(rng.choices(["ab", "cd", "ef", "gh"], [4, 2, 1, 1], k=9)) for _ in range(3)
        )
        for _ in range(30)
    ]
    documents = sorted(set(documents))
    found = collocations(corpus(documents), minimum=3, score=-100.0, most=10**6)
    expected = brute_force(documents, 5, 3)
    counts = {c.words: c.count for c in found.collocations}
    assert counts == {gram: count for gram, (count, _) in expected.items()}
    for one in found.collocations:
        assert one.score == pytest.approx(expected[one.words][1], abs=1e-9)
    for length in range(2, 6):
        scores = [c.score for c in found.collocations if len(c.words) == length]
        assert scores == sorted(scores, reverse=True)


def test_what_parts_words(corpus):
    """A line end, punctuation, two spaces, a digit: no collocation crosses them; case is none."""
    joins = ["red fox", "Red FOX", "(red fox)", "red fox's", "_red fox_", "red fox\n"]
    parts = ["red\nfox", "red, fox", "red  fox", "red7 fox", "red-fox", "red 7 fox", "bored fox"]
    lines = [f"{text} number {'i' * n}" for n, text in enumerate(joins + parts, 1)]
    found = collocations(corpus(lines), minimum=2, score=-100.0)
    counts = {" ".join(c.words): c.count for c in found.collocations}
    assert counts["red fox"] == len(joins)
    assert not any("7" in gram for gram in counts)
    assert "s number" not in counts


def test_held_out_documents_and_repeated_ones_do_not_count(corpus, tmp_path):
    documents = [f"{w} red fox" for w in WORDS[:40]]
    data = corpus(documents + documents[:20])
    assert collocations(data, minimum=2, score=0.1).collocations[0].count == 40
    (tmp_path / "held" / "b.txt").write_text("\n\n".join(documents[:10]) + "\n", encoding="utf-8")
    found = collocations(data, minimum=2, score=0.1)
    assert (found.documents, found.collocations[0].count) == (30, 30)
    shared = corpus(documents, held_out=0.5)
    found = collocations(shared, minimum=2, score=0.1)
    store = module.registry.lookup("source", shared.source)().documents()
    digests = np.stack([np.frombuffer(module.digest(d.text), np.uint8) for d in store])
    assert found.documents == int((~module.is_held_out(digests, 0.5)).sum())
    assert 5 < found.documents < 35


def test_the_best_are_kept(corpus):
    data = corpus(planted())
    best = collocations(data, minimum=10)
    first = collocations(data, minimum=10, most=2)
    for length in (2, 3):
        every = [c for c in best.collocations if len(c.words) == length]
        assert [c for c in first.collocations if len(c.words) == length] == every[:2]
    short = collocations(data, minimum=10, longest=2)
    assert spelt(short) == spelt(best, 2)


def test_the_lexicon_reads_the_list(corpus, tmp_path):
    found = collocations(corpus(planted()), minimum=10)
    path = tmp_path / "pmi.tsv"
    write_lexicon(found, path)
    lines = path.read_text(encoding="utf-8").split("\n")
    assert lines == [*sorted(lines[:-1]), ""]
    assert "new york city\tpmi3" in lines
    units = registry.lookup("units", f"lexicon('{path}', ignore_case=True)")
    text = "In New York City the top secret file box one of New York."
    assert [(text[a:b], kind) for a, b, kind in units(text)] == [
        ("New York City", 1), ("top secret file box one", 3), ("New York", 0),
    ]  # fmt: skip
    again = tmp_path / "again.tsv"
    write_lexicon(collocations(corpus(planted()), minimum=10), again)
    assert again.read_bytes() == path.read_bytes()


def test_limits_are_counted(corpus, monkeypatch):
    monkeypatch.setattr(module, "WORDS", 100)
    found = collocations(corpus(planted()), minimum=10)
    assert found.dropped[module._NO_WORD] > 0
    assert "new york" in spelt(found)  # met before the hundredth different word
    monkeypatch.setattr(module, "WORDS", 1 << 22)
    monkeypatch.setattr(module, "CANDIDATES", 500)
    monkeypatch.setattr(module, "CHUNK", 1000)
    monkeypatch.setattr(ngrams, "PENDING", 1000)
    found = collocations(corpus(planted()), minimum=10)
    assert found.dropped["rare candidate of 2 words forgotten"] > 1000
    assert 0 < found.dropped["count of 2 words that may be missed, at most"] < 100
    assert "new york" in spelt(found)


@settings(deadline=None, max_examples=60)
@given(st.lists(st.lists(st.integers(0, 40), max_size=30), max_size=20), st.integers(4, 60))
def test_a_tally_is_exact_or_says_by_how_much_not(parts, capacity):
    tally = ngrams.Tally(capacity)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ngrams, "PENDING", 10)
        for part in parts:
            tally.add(np.asarray(part, np.int64))
        keys, counts = tally.result()
    true = Counter(itertools.chain(*parts))
    assert keys.tolist() == sorted(set(keys.tolist()))
    assert len(keys) <= capacity
    found = dict(zip(keys.tolist(), counts.tolist(), strict=True))
    for key, count in true.items():
        assert count - tally.missed <= found.get(key, 0) <= count
    if len(true) <= capacity:
        assert tally.missed == tally.forgotten == 0


@pytest.mark.parametrize(
    ("arguments", "error", "says"),
    [
        ({"longest": 6}, ConfigError, "longest=6"),
        ({"longest": 1}, ConfigError, "longest=1"),
        ({"minimum": 0}, ConfigError, "minimum=0"),
        ({"most": 0}, ConfigError, "most=0"),
        ({"minimum": 10**6}, PrepareError, "has no collocation: 200 documents of 20200 words"),
        ({"score": 50.0}, PrepareError, "has no collocation"),
    ],
)
def test_errors(corpus, arguments, error, says):
    with pytest.raises(error, match=says):
        collocations(corpus(planted()), **arguments)


def test_text_without_words(corpus):
    with pytest.raises(PrepareError, match="has no collocation: 2 documents of 0 words"):
        collocations(corpus(["...", "?!"]))


def test_the_command(corpus, tmp_path, capsys):
    data = corpus(planted(), held_out=0.2)
    out = tmp_path / "pmi.tsv"
    argv = ["collocations", "bert", "--data.source", data.source, "--data.held-out", "0.2"]
    assert cli.main([*argv, "--out", str(out), "--minimum", "10"]) == 0
    said = capsys.readouterr().out
    assert "6 of 2 words: box one (4.6)" in said
    assert f"written: {out}" in said
    assert "new york\tpmi2\n" in out.read_text(encoding="utf-8")
    assert cli.main([*argv, "--out", str(tmp_path / "no" / "pmi.tsv")]) == 2
    assert "does not exist" in capsys.readouterr().err
    assert cli.main([*argv, "--out", str(out), "--minimum", "100000"]) == 3
    assert "has no collocation" in capsys.readouterr().err


def test_kinds_reach_the_rows(corpus, tmp_path):
    """From the list over the store to the batches, also where rows fill a batch up."""
    path = tmp_path / "pmi.tsv"
    path.write_text("new york city\tpmi3\nnew york\tpmi2\n", encoding="utf-8")
    units = registry.write("lexicon", {"file": str(path), "ignore_case": True})
    documents = [f"He saw New York by {w}. Then new york city met {w}." for w in WORDS[:70]]
    store = prepare(corpus(documents, units=units))
    rows = Pipeline(store, "train", example="nsp_pairs()", length=48, batch=8, seed=0)
    found, whole = Counter(), ["newyork", "newyorkcity"]
    tokens = store.tokenizer.tokens
    for batch in rows.fixed(10**6):
        assert batch.unit_kinds_BT.dtype == np.int8
        np.testing.assert_array_equal(batch.unit_kinds_BT >= 0, batch.units_BT >= 0)
        for row, numbers in enumerate(batch.units_BT):
            for number in range(numbers.max() + 1):
                inside = numbers == number
                (kind,) = set(batch.unit_kinds_BT[row][inside].tolist())
                pieces = [tokens[t] for t in batch.tokens_BT[row][inside]]
                text = "".join(piece.removeprefix("##") for piece in pieces)
                assert text in whole[kind], "no more than the border of a row may be missing"
                found[kind, text == whole[kind]] += 1
    assert not batch.valid_BT[-1].any()
    assert found[0, True] > 60
    assert found[1, True] > 60
