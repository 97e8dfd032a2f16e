"""Training is exact (against a slow reference), and the same bytes always."""

from __future__ import annotations

import itertools
import json
import os
import random
import subprocess
import sys
import time
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bert_variants import registry
from bert_variants.text.tokenizer import TokenizerError
from bert_variants.text.tokenizers.byte_bpe_training import byte_characters
from bert_variants.text.tokenizers.pair_merging import learn_merges
from bert_variants.text.tokenizers.word_counts import count_words
from bert_variants.text.tokenizers.wordpiece import _words_of
from bert_variants.text.tokenizers.wordpiece_training import _chunks

TEXTS = [
    "The quick brown fox jumps over the lazy dog. The dog sleeps; the fox doesn't.",
    "Unhappily, the happiest foxes jumped quickly, quicker, quickest over lazier dogs!",
    "naïve café — \u201cquoted\u201d 中文 中国 文中 ①② \u0130stanbul e\u0301te\u0301",
    "line one\nline two\ttabbed\r\nline  three " * 3,
    "a\x00b \x1fcontrol \ud800 surrogate \u2028 separator",
    "aaaa aaaaa aaaaaaa banana bananas ananas " * 2,
] * 2


def reference(words: dict, tokens: list[str], size: int, least: int) -> list[tuple[str, str]]:
    """Algorithm 1 of Sennrich et al., counting every pair anew before every merge."""
    tokens, merges = list(tokens), []
    corpus = [(list(word), n) for word, n in words.items()]
    while len(tokens) < size:
        counts = Counter()
        for word, n in corpus:
            for pair in itertools.pairwise(word):
                counts[pair] += n
        if not counts:
            break
        pair, count = min(counts.items(), key=lambda item: (-item[1], item[0]))
        if count < least:
            break
        spelling = tokens[pair[0]] + tokens[pair[1]]
        if spelling not in tokens:
            tokens.append(spelling)
        new = tokens.index(spelling)
        merges.append((tokens[pair[0]], tokens[pair[1]]))
        for word, _ in corpus:
            i = 0
            while i < len(word) - 1:
                if (word[i], word[i + 1]) == pair:
                    word[i : i + 2] = [new]
                i += 1
    return merges


@settings(max_examples=200, deadline=None)
@given(
    words=st.dictionaries(
        st.lists(st.integers(0, 2), min_size=1, max_size=12).map(tuple),
        st.integers(1, 5),
        max_size=12,
    ),
    size=st.integers(3, 25),
    least=st.integers(1, 4),
)
def test_merges_are_those_of_the_slow_reference(words: dict, size: int, least: int) -> None:
    tokens = ["a", "b", "c"]
    found = learn_merges(words, tokens, size, least, lambda a, b: a + b)
    assert found == reference(words, ["a", "b", "c"], size, least)
    assert len(tokens) == len(set(tokens)) <= max(size, 3)


def test_the_row_of_the_docstring() -> None:
    tokens = ["a", "b", "c"]
    merges = learn_merges({(0, 1): 3, (0, 1, 2): 2}, tokens, 5, 1, lambda a, b: a + b)
    assert tokens == ["a", "b", "c", "ab", "abc"]
    assert merges == [("a", "b"), ("ab", "c")]


@pytest.mark.parametrize("lowercase", [True, False])
def test_words_are_counted_as_the_encoder_sees_them(lowercase: bool) -> None:
    words_of = _words_of(lowercase, None)
    whole = Counter(word for text in TEXTS for word in words_of(text))
    assert count_words(TEXTS, _chunks, words_of) == whole
    assert sum(whole.values()) > 100


CALLS = [
    "wordpiece(size=300)",
    "wordpiece(size=250, lowercase=False, min_frequency=1)",
    "byte_bpe(size=330)",
    "sentencepiece(size=90)",
    "sentencepiece(size=90, kind='bpe', lowercase=True)",
]
PROGRAM = """
import json, sys
from bert_variants import registry
texts = json.loads(sys.stdin.read())
for call in sys.argv[1:]:
    print(registry.lookup("tokenizer", call)().build(texts).fingerprint)
"""


def test_same_bytes_whatever_the_hash_seed_and_threads() -> None:
    found = []
    for seed, threads in (("0", "1"), ("1", "8"), ("12345", "3")):
        environment = {
            **os.environ,
            "PYTHONHASHSEED": seed,
            "RAYON_NUM_THREADS": threads,
            "OMP_NUM_THREADS": threads,
            "TOKENIZERS_PARALLELISM": "false" if threads == "1" else "true",
        }
        result = subprocess.run(
            [sys.executable, "-c", PROGRAM, *CALLS],
            input=json.dumps(TEXTS),
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        )
        found.append(result.stdout.split())
    assert len(found[0]) == len(set(found[0])) == len(CALLS)
    assert found[0] == found[1] == found[2]


@pytest.mark.parametrize("call", [c for c in CALLS if not c.startswith("sentencepiece")])
def test_order_of_documents_does_not_matter(call: str) -> None:
    recipe = registry.lookup("tokenizer", call)()
    assert recipe.needs_text
    shuffled = list(TEXTS)
    random.Random(3).shuffle(shuffled)
    assert shuffled != TEXTS
    assert recipe.build(shuffled).fingerprint == recipe.build(iter(TEXTS)).fingerprint


def test_wordpiece_layout_and_account() -> None:
    call = "wordpiece(size=160, min_frequency=2, coverage=1.0)"
    t = registry.lookup("tokenizer", call)().build(TEXTS)
    assert t.tokens[:5] == ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
    single = [x for x in t.tokens[5:] if len(x.removeprefix("##")) == 1]
    assert list(t.tokens[5 : 5 + len(single)]) == single
    plain = [x for x in single if not x.startswith("##")]
    assert plain == sorted(plain)
    assert "中" in plain
    assert "##中" not in single
    assert "##z" in single  # letters have both forms, so that every word over them can be written
    account = t.training
    assert account["size"] == len(t.tokens) == 160
    assert account["alphabet"] == account["distinct_characters"] == len(plain)
    assert account["dropped_characters"] == account["unknown_words"] == 0
    assert not any(t.vocab.unk in e.ids for e in t.encode_batch(TEXTS))


def test_what_the_alphabet_drops_is_counted() -> None:
    texts = ["aaaa bbbb aabb " * 10 + "azq qa", "x" * 101]
    call = "wordpiece(size=40, limit_alphabet=2)"
    t = registry.lookup("tokenizer", call)().build(texts)
    assert [x for x in t.tokens if len(x) == 1] == ["a", "b"]
    account = t.training
    assert account["distinct_dropped"] == 2  # z, q
    assert account["dropped_characters"] == 3
    assert account["unknown_words"] == 2  # azq, qa
    assert account["long_words"] == 1
    e = t.encode("azq aabb")
    assert (e.ids == t.vocab.unk).tolist() == [True, False]


def test_chinese_alphabet_is_not_cut_at_the_size_of_a_latin_one() -> None:
    characters = "".join(chr(0x4E00 + i) for i in range(1500))
    t = registry.lookup("tokenizer", "wordpiece(size=2000)")().build([characters * 3])
    assert t.training["alphabet"] == 1500
    assert not (t.encode(characters).ids == t.vocab.unk).any()


def test_small_size_keeps_the_frequent_characters() -> None:
    t = registry.lookup("tokenizer", "wordpiece(size=15)")().build(TEXTS)
    assert len(t.tokens) <= 15
    assert t.training["distinct_dropped"] > 0
    assert "e" in t.tokens


def test_training_stops_when_no_pair_is_frequent_enough() -> None:
    t = registry.lookup("tokenizer", "wordpiece(size=8192)")().build(["aa aa bc"])
    assert "aa" in t.tokens
    assert "bc" not in t.tokens
    assert t.training["size"] == len(t.tokens) < t.training["asked"] == 8192


def test_byte_bpe_layout() -> None:
    t = registry.lookup("tokenizer", "byte_bpe(size=300)")().build(TEXTS)
    assert t.tokens[:4] == ("<s>", "<pad>", "</s>", "<unk>")
    assert t.tokens[-1] == "<mask>"
    assert sorted(t.tokens[4:260]) == sorted(byte_characters())
    assert len(t.tokens) == 300
    assert t.training["merges"] == 39


@pytest.mark.parametrize("kind", ["wordpiece", "byte_bpe", "sentencepiece"])
@pytest.mark.parametrize("texts", [[], ["", "\n"]])
def test_empty_corpus_is_refused(kind: str, texts: list[str]) -> None:
    if kind == "byte_bpe" and texts:
        texts = [""]  # a line end is a word to it
    with pytest.raises(TokenizerError, match=r"corpus holds no word|could not train"):
        registry.lookup("tokenizer", kind)().build(texts)


def test_too_small_a_size_is_refused() -> None:
    with pytest.raises(TokenizerError, match="leaves room for 0 of"):
        registry.lookup("tokenizer", "wordpiece(size=6)")().build(["ab cd"])
    with pytest.raises(TokenizerError, match="size >= 261, found 260"):
        registry.lookup("tokenizer", "byte_bpe(size=260)")().build(["ab cd"])
    with pytest.raises(TokenizerError, match="could not train 6 unigram pieces"):
        registry.lookup("tokenizer", "sentencepiece(size=6)")().build(TEXTS)


def test_merging_counts_are_kept_up_and_not_made_anew() -> None:
    """About a second here; counting all pairs before every merge takes several minutes."""
    rng = np.random.default_rng(0)
    lengths = rng.integers(2, 10, 40_000).tolist()
    words = {tuple(rng.integers(0, 26, n).tolist()): n for n in lengths}
    tokens = [chr(97 + i) for i in range(26)]
    begin = time.perf_counter()
    learn_merges(words, tokens, 2026, 2, lambda a, b: a + b)
    assert len(set(tokens)) == 2026
    assert time.perf_counter() - begin < 30
