"""WordPiece: words, offsets, awkward text, and files that must be refused."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest

from bert_variants import registry
from bert_variants.text.tokenizer import Tokenizer, TokenizerError, padded

SPECIALS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
PIECES = [
    *["un", "##happi", "##ly", "yes", ",", ".", "!", "?", "[", "]", "#", "mask", "cafe", "##s"],
    *["the", "中", "文", "a", "b", "##a", "##b", "\u2028", "##\u2028", "[unused1]"],
]


def load(tmp_path: Path, data: bytes, **options: object) -> Tokenizer:
    file = tmp_path / "vocab.txt"
    file.write_bytes(data)
    call = registry.write("wordpiece", {"file": str(file), **options})
    return registry.lookup("tokenizer", call)().build([])


@pytest.fixture
def tokenizer(tmp_path: Path) -> Tokenizer:
    return load(tmp_path, "".join(t + "\n" for t in SPECIALS + PIECES).encode())


def spelled(tokenizer: Tokenizer, text: str) -> list[tuple[str, int, str]]:
    e = tokenizer.encode(text)
    return [
        (tokenizer.tokens[i], int(w), text[start:end])
        for i, w, (start, end) in zip(e.ids, e.words, e.offsets.tolist(), strict=True)
    ]


def test_the_row_of_the_docstring(tokenizer: Tokenizer) -> None:
    e = tokenizer.encode("Unhappily, yes")
    assert [tokenizer.tokens[i] for i in e.ids] == ["un", "##happi", "##ly", ",", "yes"]
    assert e.words.tolist() == [0, 0, 0, 1, 2]
    assert e.offsets.tolist() == [[0, 2], [2, 7], [7, 9], [9, 10], [11, 14]]
    assert e.ids.dtype == e.words.dtype == e.offsets.dtype == np.int32
    assert len(e) == 5


def test_empty_text_has_well_formed_arrays(tokenizer: Tokenizer) -> None:
    for text in ("", " \n", "\x00"):
        e = tokenizer.encode(text)
        assert (e.ids.shape, e.words.shape, e.offsets.shape) == ((0,), (0,), (0, 2))
    assert tokenizer.encode_batch([]) == []


def test_chinese_characters_and_marks_are_words(tokenizer: Tokenizer) -> None:
    assert spelled(tokenizer, "the中文?!") == [
        ("the", 0, "the"),
        ("中", 1, "中"),
        ("文", 2, "文"),
        ("?", 3, "?"),
        ("!", 4, "!"),
    ]


def test_special_tokens_in_text_are_text(tokenizer: Tokenizer) -> None:
    e = tokenizer.encode("[MASK] [PAD] ##s [unused1] [UNK]")
    found = {tokenizer.tokens[i] for i in e.ids}
    assert not found & {"[MASK]", "[PAD]", "##s", "[unused1]"}
    assert [t for t, _, _ in spelled(tokenizer, "[MASK]")] == ["[", "mask", "]"]


def test_offsets_count_code_points_of_the_raw_text(tokenizer: Tokenizer) -> None:
    assert spelled(tokenizer, "\x00the 𠀀 cafe\u0301s\u200d yes") == [
        ("the", 0, "the"),
        ("[UNK]", 1, "𠀀"),
        ("cafe", 2, "cafe"),
        ("##s", 2, "s"),
        ("yes", 3, "yes"),
    ]


def test_lone_surrogates_do_not_crash_or_shift(tokenizer: Tokenizer) -> None:
    assert spelled(tokenizer, "\ud800the \udfff\ud800 yes") == [
        ("the", 0, "the"),
        ("yes", 1, "yes"),
    ]


def test_word_of_more_than_100_characters_is_one_unknown(tokenizer: Tokenizer) -> None:
    assert len(tokenizer.encode("a" + "b" * 99)) == 100
    e = tokenizer.encode("a" + "b" * 100 + " yes")
    assert e.ids.tolist() == [tokenizer.vocab.unk, tokenizer.tokens.index("yes")]
    assert e.offsets.tolist() == [[0, 101], [102, 105]]


def test_decode(tokenizer: Tokenizer) -> None:
    e = tokenizer.encode("Unhappily, yes!")
    assert tokenizer.decode(e.ids) == "unhappily, yes!"
    v = tokenizer.vocab
    assert (
        tokenizer.decode([v.cls, v.mask, v.sep, v.size + 2]) == f"[CLS] [MASK] [SEP] [{v.size + 2}]"
    )
    assert tokenizer.continues_word("##s")
    assert not tokenizer.continues_word("the")


def test_special_ids(tokenizer: Tokenizer) -> None:
    v = tokenizer.vocab
    assert (v.pad, v.unk, v.cls, v.sep, v.mask) == (0, 1, 2, 3, 4)
    assert v.specials == (0, 1, 2, 3, 4)  # [unused1] is an ordinary entry
    assert v.size == len(SPECIALS + PIECES) == len(tokenizer.tokens)


def test_padded_vocabulary(tokenizer: Tokenizer) -> None:
    v = tokenizer.vocab
    assert v.size == 29
    assert padded(v, 1) == v
    wide = padded(v, 8)
    assert wide.size == 32
    assert wide.specials == (0, 1, 2, 3, 4, 29, 30, 31)


def test_line_separator_is_an_entry_like_any(tokenizer: Tokenizer) -> None:
    at = tokenizer.tokens.index("\u2028")
    assert tokenizer.tokens[at : at + 3] == ("\u2028", "##\u2028", "[unused1]")


def test_published_chinese_vocabulary_keeps_its_ids(shared_data: Path) -> None:
    file = shared_data / "vocab" / "bert_base_chinese_vocab.txt"
    t = registry.lookup("tokenizer", registry.write("wordpiece", {"file": str(file)}))().build([])
    assert len(t.tokens) == 21128
    assert t.tokens[21127] == "##😎"
    assert t.files()["vocab.txt"] == file.read_bytes().removesuffix(b"\n") + b"\n"


def test_ernie_vocabulary_with_ids(shared_data: Path) -> None:
    file = shared_data / "vocab" / "ernie1_vocab.tsv"
    t = registry.lookup("tokenizer", registry.write("wordpiece", {"file": str(file)}))().build([])
    v = t.vocab
    assert (v.size, v.pad, v.cls, v.sep, v.mask, v.unk) == (17964, 0, 1, 2, 3, 17963)


def test_crlf_and_missing_last_line_end(tmp_path: Path, tokenizer: Tokenizer) -> None:
    text = "\n".join(SPECIALS + PIECES)
    assert load(tmp_path, text.encode()).tokens == tokenizer.tokens
    crlf = text.replace("\n", "\r\n") + "\r\n"
    assert load(tmp_path, crlf.encode()).tokens == tokenizer.tokens


GOOD = "".join(t + "\n" for t in [*SPECIALS, "the"])


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", r"vocab\.txt is empty"),
        (GOOD.replace("[MASK]\n", "").encode(), r"vocab\.txt \(5 entries\) lacks .* \[MASK\]"),
        (GOOD.replace("[PAD]\n", "").encode(), r"\[PAD\]"),
        (GOOD.replace("[UNK]\n", "").encode(), r"\[UNK\]"),
        (GOOD.replace("[CLS]\n", "").encode(), r"\[CLS\]"),
        (GOOD.replace("[SEP]\n", "").encode(), r"\[SEP\]"),
        ((GOOD + "[UNK]\n").encode(), r"line 7: token '\[UNK\]' stands on line 2"),
        ((GOOD + "\ncat\n").encode(), r"line 7 is empty"),
        (GOOD.encode() + b"caf\xe9\n", r"line 7: byte 38 is not UTF-8"),
        (b"\xef\xbb\xbf" + GOOD.encode(), r"line 1 begins with a byte order mark"),
    ],
)
def test_bad_file_is_refused_by_name(tmp_path: Path, data: bytes, message: str) -> None:
    with pytest.raises(TokenizerError, match=message):
        load(tmp_path, data)


def test_missing_file_is_named(tmp_path: Path) -> None:
    call = registry.write("wordpiece", {"file": str(tmp_path / "no.txt")})
    recipe = registry.lookup("tokenizer", call)()
    assert not recipe.needs_text
    with pytest.raises(TokenizerError, match=r"cannot read .*no\.txt: No such file"):
        recipe.build([])


def test_ids_that_do_not_count_up_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "vocab.tsv"
    file.write_text("[PAD]\t0\n[UNK]\t2\n")
    call = registry.write("wordpiece", {"file": str(file)})
    with pytest.raises(TokenizerError, match=r"line 2: .*expected token<TAB>1"):
        registry.lookup("tokenizer", call)().build([])


def test_cased_vocabulary_read_as_lower_case_is_pointed_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data = GOOD + "The\nCat\n"
    with caplog.at_level(logging.WARNING):
        load(tmp_path, data.encode(), lowercase=False)
        assert not caplog.records
        load(tmp_path, data.encode())
    assert "set lowercase=False" in caplog.text
