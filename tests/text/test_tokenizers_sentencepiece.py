"""SentencePiece: ALBERT's text and words, offsets, and damaged models."""

from __future__ import annotations

from pathlib import Path

import pytest

from bert_variants import registry
from bert_variants.text.tokenizer import Tokenizer, TokenizerError
from bert_variants.text.tokenizers import restore
from bert_variants.text.tokenizers.albert_text import albert_text, starts_word

TEXTS = [
    "The quick brown fox jumps over the lazy dog in 2010, and 1,000 foxes jumped over dogs.",
    "Unhappily, the happiest foxes jumped quickly; the laziest dogs didn't.",
    "naïve café for the foxes and the dogs",
] * 4


def build(texts: list[str] = [], **arguments: object) -> Tokenizer:  # noqa: B006
    return registry.lookup("tokenizer", registry.write("sentencepiece", arguments))().build(texts)


@pytest.fixture(scope="module")
def model() -> Tokenizer:
    return build(TEXTS, size=80, coverage=1.0)


@pytest.fixture(scope="module")
def albert(shared_data: Path) -> Tokenizer:
    return build(file=str(shared_data / "vocab" / "albert_30k-clean.vocab"))


@pytest.fixture(scope="module")
def chinese(shared_data: Path) -> Tokenizer:
    return build(file=str(shared_data / "vocab" / "cluecorpussmall_spm.model"))


def spelled(tokenizer: Tokenizer, text: str) -> list[tuple[str, int, str]]:
    e = tokenizer.encode(text)
    return [
        (tokenizer.tokens[i], int(w), text[start:end])
        for i, w, (start, end) in zip(e.ids, e.words, e.offsets.tolist(), strict=True)
    ]


def test_trained_layout(model: Tokenizer) -> None:
    assert model.tokens[:5] == ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
    v = model.vocab
    assert (v.pad, v.unk, v.cls, v.sep, v.mask) == v.specials == (0, 1, 2, 3, 4)
    assert v.size == len(model.tokens) == model.training["size"] <= 80
    assert model.training["threads"] == 1


def test_specials_and_the_blank_sign_in_text_are_text(model: Tokenizer) -> None:
    e = model.encode("the [MASK] [CLS] <unk> </s>")
    assert not set(e.ids.tolist()) & {0, 2, 3, 4}
    # "▁" in a text is an unknown character and not a blank.
    assert [s for t, _, s in spelled(model, "a▁b") if t == "[UNK]"] == ["▁"]
    assert "▁b" not in {t for t, _, _ in spelled(model, "a▁b")}


def test_user_defined_specials_of_a_model_are_not_found_in_text(chinese: Tokenizer) -> None:
    v = chinese.vocab
    assert (v.pad, v.unk, v.cls, v.sep, v.mask) == (0, 1, 2, 3, 4)
    assert v.size == 100_000
    e = chinese.encode("天安门 [MASK] [UNK]")
    assert not set(e.ids.tolist()) & set(v.specials)
    # The file itself is stored unchanged.
    again = restore(chinese.files())
    assert again.fingerprint == chinese.fingerprint


def test_offsets_count_code_points(chinese: Tokenizer) -> None:
    assert spelled(chinese, "Hello  中文字 don't é") == [
        ("▁", 0, ""),
        ("Hello", 0, "Hello"),
        ("▁", 1, ""),
        ("中", 2, "中"),
        ("文字", 3, "文字"),
        ("▁don", 4, "don"),
        ("'", 5, "'"),
        ("t", 5, "t"),
        ("▁", 6, ""),
        ("é", 7, "é"),
    ]
    text = "a\x00\x01中\ud800文字 b"
    assert [s for _, _, s in spelled(chinese, text) if s] == ["a", "中", "文字", "b"]


def test_albert_words_and_numbers(albert: Tokenizer) -> None:
    assert spelled(albert, "In 2010, ``Ça'' 1,000s.") == [
        ("▁in", 0, "In"),
        ("▁2010", 1, "2010"),
        (",", 2, ","),
        ("▁", 3, "`"),
        ('"', 4, "`"),
        ("ca", 4, "Ça"),
        ('"', 5, "'"),
        ("▁1,000", 6, "1,000"),
        ("s", 6, "s"),
        (".", 7, "."),
    ]


def test_albert_special_pieces_are_not_found_in_text(albert: Tokenizer) -> None:
    v = albert.vocab
    assert v.specials == (0, 1, 2, 3, 4)
    e = albert.encode("<pad> <unk> [MASK] [mask]")
    assert not set(e.ids.tolist()) & {v.pad, v.cls, v.sep, v.mask}
    assert albert.decode([v.cls, *albert.encode("the Cats").ids, v.sep]) == "[CLS] the cats [SEP]"
    assert albert.decode([v.size]) == "[30000]"


@pytest.mark.parametrize(
    ("text", "changed", "places"),
    [
        ("Plain TEXT", "plain text", None),
        ("Ça", "ca", None),
        ("Ça ½", "ca 1⁄2", [0, 1, 2, 3, 3, 3, 4]),
        ("e\u0301a", "ea", [0, 2, 3]),
        ("``a''b", '"a"b', [1, 2, 4, 5, 6]),  # of two quotes the second
        ("İ", "i", None),
        ("ΣΑΣ", "σας", None),
        ("", "", None),
    ],
)
def test_albert_text(text: str, changed: str, places: list[int] | None) -> None:
    found, moved = albert_text(text)
    assert found == changed
    assert (None if moved is None else moved.tolist()) == places


@pytest.mark.parametrize(
    ("piece", "starts"),
    [
        ("▁the", True),
        ("▁", True),
        ("<unk>", True),
        (".", True),
        ("9", True),
        ("'s", True),
        ("ß", True),
        ("中文", True),
        ("s", False),
        ("ING", False),
        ("--", False),
        ("s.", False),
    ],
)
def test_starts_word(piece: str, starts: bool) -> None:
    assert starts_word(piece) is starts


def test_unknown_characters_are_words_whatever_the_piece_is_called(model: Tokenizer) -> None:
    e = model.encode("fox鿿s")
    at = e.ids.tolist().index(model.vocab.unk)
    assert e.words[at] == e.words[at - 1] + 1


def test_truncated_models_are_refused(model: Tokenizer) -> None:
    files = dict(model.files())
    whole = files["spiece.model"]
    step = max(1, len(whole) // 400)
    assert len(whole) > 1000
    for cut in [*range(0, len(whole), step), len(whole) - 1]:
        with pytest.raises(TokenizerError, match="not a whole sentencepiece model"):
            restore({**files, "spiece.model": whole[:cut]})


def test_model_cut_between_two_pieces_is_refused(shared_data: Path, tmp_path: Path) -> None:
    """The library itself accepts this file."""
    whole = (shared_data / "vocab" / "cluecorpussmall_spm.model").read_bytes()
    at = 0
    while at < len(whole) // 2:  # every piece is the byte 10, a length, and that many bytes
        at += 2 + whole[at + 1]
    file = tmp_path / "cut.model"
    file.write_bytes(whole[:at])
    import sentencepiece

    assert 0 < len(sentencepiece.SentencePieceProcessor(model_file=str(file))) < 100_000
    with pytest.raises(TokenizerError, match=r"cut\.model .*it ends after \d+ pieces"):
        build(file=str(file))


def test_model_with_a_piece_missing_is_refused(shared_data: Path, tmp_path: Path) -> None:
    whole = (shared_data / "vocab" / "t5_v1_1_spiece.model").read_bytes()
    at = 0
    for _ in range(10):
        at += 2 + whole[at + 1]
    file = tmp_path / "less.model"
    file.write_bytes(whole[:at] + whole[at + 2 + whole[at + 1] :])
    with pytest.raises(TokenizerError, match="holds 31999 pieces and says that it has 32000"):
        build(file=str(file))


@pytest.mark.parametrize("data", [b"", b"\x00" * 50, b"not a model at all", b"\x0a\xff\xff\xff"])
def test_what_is_no_model_is_refused(tmp_path: Path, data: bytes) -> None:
    file = tmp_path / "x.model"
    file.write_bytes(data)
    with pytest.raises(TokenizerError, match=r"x\.model .*not a whole sentencepiece model"):
        build(file=str(file))


def test_model_without_mask_is_refused(shared_data: Path) -> None:
    file = shared_data / "vocab" / "t5_v1_1_spiece.model"
    with pytest.raises(
        TokenizerError, match=r"t5_v1_1_spiece\.model \(32000 pieces\) lacks .*\[CLS\] or <cls>"
    ):
        build(file=str(file))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("<pad>\t0\n<unk>\t0\nno score\n", r"line 3: 'no score', expected piece<TAB>log"),
        ("<pad>\t0\n<unk>\tnan\n", r"line 2"),
        ("<pad>\t0\n<unk>\t0\n<pad>\t1\n", r"line 3: token '<pad>' stands on line 1"),
        ("<pad>\t0\n<unk>\t0\n[CLS]\t0\n[SEP]\t0\na\t-1\n", r"\[MASK\] or <mask>"),
    ],
)
def test_bad_scores_file(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "x.vocab"
    file.write_text(text)
    with pytest.raises(TokenizerError, match=message):
        build(file=str(file))


def test_parameters_are_checked() -> None:
    with pytest.raises(TokenizerError, match="kind is 'word'"):
        build(kind="word")
    with pytest.raises(TokenizerError, match="normalization is 'nfc'"):
        build(normalization="nfc")
    with pytest.raises(TokenizerError, match="lowercase cannot be set"):
        build(file="x.model", lowercase=True)


def test_long_lines_are_cut_and_not_passed_over() -> None:
    """The trainer leaves out lines of more than 4192 bytes; "zebra" stands in such a line only."""
    t = build(["the fox and " * 400 + "zebra zebra " * 400], size=60, coverage=1.0)
    assert t.training["cut_lines"] > 0
    assert t.vocab.unk not in t.encode("zebra").ids


def test_lines_with_tabs_are_not_passed_over() -> None:
    t = build(["the fox and\tzebra " * 30], size=60, coverage=1.0)
    assert t.vocab.unk not in t.encode("zebra").ids


def test_lowercase_model_folds_case() -> None:
    t = build(TEXTS, size=80, lowercase=True, kind="bpe")
    assert t.encode("THE FOX").ids.tolist() == t.encode("the fox").ids.tolist()


def test_albert_normalization_of_a_trained_model() -> None:
    t = build(TEXTS, size=80, normalization="albert", coverage=1.0)
    assert not any(c.isupper() for piece in t.tokens[5:] for c in piece)
    assert t.encode("Thé FÖX").ids.tolist() == t.encode("the fox").ids.tolist()
    assert restore(t.files()).fingerprint == t.fingerprint
