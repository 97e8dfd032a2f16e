"""What holds for every tokenizer and any text, and that files bring a tokenizer back."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bert_variants import registry
from bert_variants.text import tokenizers
from bert_variants.text.tokenizer import Tokenizer, TokenizerError

TEXTS = [
    "The quick brown fox jumps over the lazy dog, in 2010, and 1,000 foxes didn't.",
    "naïve café — “quoted” 中文 中国 文中 ﬁne ½ 👨\u200d👩 שלום",
] * 5
CALLS = {
    "wordpiece": "wordpiece(size=200)",
    "wordpiece_cased": "wordpiece(size=200, lowercase=False)",
    "wordpiece_accents": "wordpiece(size=200, strip_accents=False)",
    "byte_bpe": "byte_bpe(size=300)",
    "byte_bpe_plain": "byte_bpe(size=300, clean=False, prefix_space=True)",
    "unigram": "sentencepiece(size=90)",
    "bpe": "sentencepiece(size=90, kind='bpe')",
    "albert": "sentencepiece(size=90, normalization='albert')",
}


@pytest.fixture(scope="module")
def built() -> dict[str, Tokenizer]:
    return {name: registry.lookup("tokenizer", c)().build(TEXTS) for name, c in CALLS.items()}


AWKWARD = st.sampled_from(
    [
        *("\x00", "\x1f", "\x85", "\u2028", "\u2029", "\ufeff", "\ufffd", "\ud800", "\udfff"),
        *("\u200d", "\u200f", "\u0301", "\u0323", "\u0130", "ß", "ﬁ", "½", "①", "中", "𠀀"),
        *("가", "ﷺ", "👨🏽", "▁", "Ġ", "##", "[MASK]", "<s>", "<pad>", "``", "''", "1,", ", "),
        *("\r\n", "\t", "\n", "  ", "...", "the", "fox", "2010,", "x" * 101),
    ]
)
TEXT = st.lists(AWKWARD | st.text(max_size=4), max_size=12).map("".join)


@pytest.mark.parametrize("name", CALLS)
@settings(max_examples=150, deadline=None)
@given(text=TEXT)
def test_any_text(built: dict[str, Tokenizer], name: str, text: str) -> None:
    t = built[name]
    e = t.encode(text)
    n = len(e)
    assert e.ids.shape == e.words.shape == (n,)
    assert e.offsets.shape == (n, 2)
    assert {e.ids.dtype, e.words.dtype, e.offsets.dtype} == {np.dtype(np.int32)}
    start, end = e.offsets[:, 0], e.offsets[:, 1]
    assert ((start >= 0) & (start <= end) & (end <= len(text))).all()
    assert (np.diff(start) >= 0).all()
    assert (np.diff(end) >= 0).all()
    assert not n or e.words[0] == 0
    assert np.isin(np.diff(e.words), [0, 1]).all()
    assert ((e.ids >= 0) & (e.ids < t.vocab.size)).all()
    assert set(e.ids.tolist()) & set(t.vocab.specials) <= {t.vocab.unk}
    # A token that is made of characters of the text is made of those that it points at.
    for i, (a, b) in zip(e.ids.tolist(), e.offsets.tolist(), strict=True):
        piece = t.tokens[i].removeprefix("##").lstrip("▁Ġ")
        if piece.isascii() and piece.isalpha() and a < b and text[a:b].isascii():
            assert piece.lower() == text[a:b].lower()
    t.decode(e.ids).encode()
    batch = t.encode_batch([text, "the fox", text])
    assert [x.ids.tolist() for x in batch[::2]] == [e.ids.tolist()] * 2


@pytest.mark.parametrize("name", CALLS)
@settings(max_examples=60, deadline=None)
@given(words=st.lists(st.text("thefoxjumpsdog", min_size=1, max_size=8), max_size=8))
def test_decoding_gives_plain_text_back(
    built: dict[str, Tokenizer], name: str, words: list[str]
) -> None:
    text = " ".join(words)
    assert built[name].decode(built[name].encode(text).ids).strip() == text


@pytest.mark.parametrize("name", CALLS)
def test_files_bring_it_back(built: dict[str, Tokenizer], name: str, tmp_path: Path) -> None:
    t = built[name]
    t.save(tmp_path)
    (tmp_path / "other.txt").write_text("left alone")
    for again in (tokenizers.restore(t.files()), tokenizers.load(tmp_path)):
        assert again.fingerprint == t.fingerprint
        assert again.kind == t.kind
        assert again.tokens == t.tokens
        assert again.vocab == t.vocab
        for text in [*TEXTS, "ÇA [MASK] \x00 1,000, 中文\ud800"]:
            one, two = t.encode(text), again.encode(text)
            assert one.ids.tolist() == two.ids.tolist()
            assert one.words.tolist() == two.words.tolist()
            assert one.offsets.tolist() == two.offsets.tolist()


def test_fingerprints_tell_tokenizers_apart(built: dict[str, Tokenizer]) -> None:
    assert len({t.fingerprint for t in built.values()}) == len(CALLS)


def test_training_account_is_not_part_of_the_identity(built: dict[str, Tokenizer]) -> None:
    t = built["wordpiece"]
    assert t.training["words"] > 0
    again = tokenizers.restore(t.files())
    assert again.training == {}


def test_damaged_settings_are_named(built: dict[str, Tokenizer], tmp_path: Path) -> None:
    name = "tokenizer_settings.json"
    files = dict(built["wordpiece"].files())
    record = json.loads(files[name])

    def changed(**fields: object) -> dict[str, bytes]:
        return {**files, name: json.dumps({**record, **fields}).encode()}

    with pytest.raises(TokenizerError, match=f"{name} is absent; found: vocab.txt"):
        tokenizers.restore({"vocab.txt": files["vocab.txt"]})
    with pytest.raises(TokenizerError, match="kind is 'words', expected one of: byte_bpe"):
        tokenizers.restore(changed(kind="words"))
    with pytest.raises(TokenizerError, match="is not JSON"):
        tokenizers.restore({**files, name: b"{"})
    stripped = {k: v for k, v in record.items() if k != "lowercase"}
    with pytest.raises(TokenizerError, match="lacks the field 'lowercase'"):
        tokenizers.restore({**files, name: json.dumps(stripped).encode()})
    with pytest.raises(TokenizerError, match=r"names the file vocab\.txt, which is absent"):
        tokenizers.restore({name: files[name]})
    with pytest.raises(TokenizerError, match=f"it holds no {name}"):
        tokenizers.load(tmp_path)
    (tmp_path / name).write_bytes(changed(files=["../vocab.txt"])[name])
    with pytest.raises(TokenizerError, match="expected a list of plain file names"):
        tokenizers.load(tmp_path)
    (tmp_path / name).write_bytes(files[name])
    with pytest.raises(TokenizerError, match=r"names the file vocab\.txt, which .* does not hold"):
        tokenizers.load(tmp_path)


def test_importing_tokenizers_imports_no_library() -> None:
    program = (
        "import sys; from bert_variants import registry; registry.names('tokenizer');"
        "print([m for m in ('tokenizers', 'sentencepiece', 'transformers') if m in sys.modules])"
    )
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "[]"
