"""Byte-level BPE: words, offsets, cleaning, and files that must be refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bert_variants import registry
from bert_variants.text.tokenizer import Tokenizer, TokenizerError
from bert_variants.text.tokenizers.byte_bpe_training import byte_characters

SPECIALS = ["<s>", "<pad>", "</s>", "<unk>"]
MERGES = [("Ġ", "t"), ("h", "e"), ("Ġt", "he"), ("!", "?"), ("ä", "¸"), ("ä¸", "Ń")]


def write(folder: Path, tokens: list[str], merges: list[tuple[str, str]]) -> dict[str, str]:
    vocab, merge = folder / "vocab.json", folder / "merges.txt"
    vocab.write_text(json.dumps({t: i for i, t in enumerate(tokens)}))
    merge.write_text("#version: 0.2\n" + "".join(f"{a} {b}\n" for a, b in merges))
    return {"vocab": str(vocab), "merges": str(merge)}


def build(**arguments: object) -> Tokenizer:
    return registry.lookup("tokenizer", registry.write("byte_bpe", arguments))().build([])


TOKENS = [*SPECIALS, *byte_characters(), *(a + b for a, b in MERGES), "madeupword0000", "<mask>"]


@pytest.fixture
def files(tmp_path: Path) -> dict[str, str]:
    return write(tmp_path, TOKENS, MERGES)


@pytest.fixture
def tokenizer(files: dict[str, str]) -> Tokenizer:
    return build(**files)


def spelled(tokenizer: Tokenizer, text: str) -> list[tuple[str, int, str]]:
    e = tokenizer.encode(text)
    return [
        (tokenizer.tokens[i], int(w), text[start:end])
        for i, w, (start, end) in zip(e.ids, e.words, e.offsets.tolist(), strict=True)
    ]


def test_words_and_offsets(tokenizer: Tokenizer) -> None:
    assert spelled(tokenizer, "he  the !? x;") == [
        ("he", 0, "he"),
        ("Ġ", 1, ""),
        ("Ġthe", 2, "the"),
        ("Ġ", 3, ""),
        ("!?", 3, "!?"),
        ("Ġ", 4, ""),
        ("x", 4, "x"),
        (";", 5, ";"),
    ]


def test_marks_and_chinese_characters_are_words(tokenizer: Tokenizer) -> None:
    found = [(w, s) for _, w, s in spelled(tokenizer, "a.?中中文b")]
    assert found[:5] == [(0, "a"), (1, "."), (2, "?"), (3, "中"), (4, "中")]
    assert found[5:] == [(5, "文")] * 3 + [(6, "b")]


def test_special_tokens_in_text_are_text(tokenizer: Tokenizer) -> None:
    e = tokenizer.encode("<s> </s><mask> <pad><unk>")
    assert not set(e.ids.tolist()) & set(tokenizer.vocab.specials)


def test_nothing_is_unknown_and_decoding_gives_the_text_back(tokenizer: Tokenizer) -> None:
    text = " a\tb\n\n 中文 👨\u200d👩 e\u0301 \u202eשלום \x00\x1f\ufffd 𠀀"
    assert tokenizer.decode(tokenizer.encode(text).ids) == text


def test_decode_writes_specials_and_strange_ids(tokenizer: Tokenizer) -> None:
    v = tokenizer.vocab
    the = tokenizer.tokens.index("Ġthe")
    filler = tokenizer.tokens.index("madeupword0000")
    assert filler not in v.specials
    assert tokenizer.decode([v.cls, the, v.mask, v.sep]) == "<s> the<mask></s>"
    assert tokenizer.decode([filler, v.size + 3]) == f"madeupword0000[{v.size + 3}]"


def test_controls_are_dropped_when_asked(files: dict[str, str]) -> None:
    cleaning = build(**files, clean=True)
    text = "he\x00 \ud800the\x1f."
    assert spelled(cleaning, text) == [("he", 0, "he"), ("Ġthe", 1, "the"), (".", 2, ".")]
    assert cleaning.encode(text).offsets.tolist() == [[0, 2], [5, 8], [9, 10]]
    plain = build(**files)
    assert plain.fingerprint != cleaning.fingerprint
    assert plain.decode(plain.encode(text).ids) == text.replace("\ud800", "\ufffd")


def test_prefix_space(files: dict[str, str]) -> None:
    t = build(**files, prefix_space=True)
    assert spelled(t, "the") == [("Ġthe", 0, "the")]


def test_one_file_without_the_other() -> None:
    with pytest.raises(TokenizerError, match="both files or none"):
        registry.lookup("tokenizer", "byte_bpe(vocab='vocab.json')")()


def test_gpt2_vocabulary_is_explained(shared_data: Path) -> None:
    folder = shared_data / "vocab"
    with pytest.raises(TokenizerError, match=r"gpt2_encoder\.json is a vocabulary of GPT-2"):
        build(vocab=str(folder / "gpt2_encoder.json"), merges=str(folder / "gpt2_vocab.bpe"))


@pytest.mark.parametrize(
    ("vocab", "message"),
    [
        (b"{", r"vocab\.json is not JSON"),
        (b"[1]", "expected an object"),
        (b'{"a": 0, "a": 1}', "token 'a' is given twice"),
        (b'{"a": 0, "b": 2}', "'b' has the id 2, expected 0 .. 1"),
        (b'{"a": 0, "b": 0}', "'a' and 'b' share the id 0"),
        (b'{"a": 0, "b": true}', "'b' has the id True"),
        (b'{"a": NaN}', "'a' has the id nan"),
        (b"[" * 100_000, "is not JSON"),
        (json.dumps({t: i for i, t in enumerate(TOKENS[:-1])}).encode(), "lacks .* <mask>"),
    ],
)
def test_bad_vocabulary(tmp_path: Path, files: dict[str, str], vocab: bytes, message: str) -> None:
    (tmp_path / "vocab.json").write_bytes(vocab)
    (tmp_path / "merges.txt").write_text("#version: 0.2\n")
    with pytest.raises(TokenizerError, match=message):
        build(**files)


@pytest.mark.parametrize(
    ("merges", "message"),
    [
        ("#version: 0.2\nh e\nhe\n", r"merges\.txt, line 3: 'he', expected two tokens"),
        ("h e\na b c\n", r"line 2: 'a b c'"),
        ("h e\nz z\n", r"line 2: 'zz' is not in the vocabulary"),
    ],
)
def test_bad_merges(tmp_path: Path, files: dict[str, str], merges: str, message: str) -> None:
    (tmp_path / "merges.txt").write_text(merges)
    with pytest.raises(TokenizerError, match=message):
        build(**files)


def test_bytes_have_256_visible_names() -> None:
    names = byte_characters()
    assert len(set(names)) == 256
    assert names[ord("a")] == "a"
    assert names[ord(" ")] == "Ġ"
    assert not any(n.isspace() for n in names)
