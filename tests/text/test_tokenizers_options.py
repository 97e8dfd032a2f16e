"""What published directories set: names of special tokens, reserved and appended ones, texts."""

from __future__ import annotations

import json
from typing import Any

import pytest

from bert_variants import registry
from bert_variants.text import tokenizers
from bert_variants.text.tokenizer import Tokenizer, TokenizerError
from bert_variants.text.tokenizers import settings
from bert_variants.text.tokenizers.albert_text import CHANGES, albert_text
from bert_variants.text.tokenizers.sentencepiece_parts import (
    CONTROL,
    NORMAL,
    UNKNOWN,
    USER_DEFINED,
    Parts,
    model_of,
    parts_of,
)

TEXTS = ("The quick brown fox, in 2010, ran over 1,000 lazy dogs; it's so.", "中文 naïve") * 5


def trained(call: str) -> Tokenizer:
    return registry.lookup("tokenizer", call)().build(TEXTS)


def with_options(tokenizer: Tokenizer, **options: Any) -> Tokenizer:
    """The tokenizer with other settings."""
    files = dict(tokenizer.files())
    record = json.loads(files[settings.NAME]) | options
    return tokenizers.restore({**files, settings.NAME: json.dumps(record).encode()})


def spelled(tokenizer: Tokenizer, text: str) -> list[str]:
    return [tokenizer.tokens[i] for i in tokenizer.encode(text).ids]


@pytest.mark.parametrize("call", ["wordpiece(size=150)", "byte_bpe(size=300)"])
def test_other_names_of_special_tokens(call: str) -> None:
    plain = trained(call)
    fields = ("pad", "unk", "cls", "sep", "mask")
    old = {plain.tokens[getattr(plain.vocab, f)]: f"SPECIAL{f}" for f in fields}
    files = {
        name: data if name == settings.NAME else _renamed(data, old)
        for name, data in plain.files().items()
    }
    record = json.loads(files[settings.NAME]) | {
        "specials": {field: f"SPECIAL{field}" for field in fields}
    }
    named = tokenizers.restore({**files, settings.NAME: json.dumps(record).encode()})
    assert named.vocab == plain.vocab
    assert named.fingerprint != plain.fingerprint
    assert tokenizers.restore(named.files()).fingerprint == named.fingerprint
    # A name without brackets could be a word of the text; it is none.
    for text in (*TEXTS, "SPECIALcls specialmask SPECIALunk"):
        assert named.encode(text).ids.tolist() == plain.encode(text).ids.tolist()
        assert not set(named.encode(text).ids.tolist()) & {named.vocab.cls, named.vocab.mask}
    assert named.decode([named.vocab.cls]).strip() == "SPECIALcls"


def _renamed(data: bytes, names: dict[str, str]) -> bytes:
    for old, new in names.items():
        data = data.replace(old.encode(), new.encode())
    return data


def test_reserved_tokens_are_no_text() -> None:
    plain = trained("wordpiece(size=150)")
    fox = plain.tokens.index("the")
    reserved = with_options(plain, reserved=["the"])
    assert reserved.vocab.specials == (*plain.vocab.specials, fox)
    assert fox in plain.encode("the fox").ids
    assert fox not in reserved.encode("the fox").ids
    with pytest.raises(TokenizerError, match="lacks the special token <eop>"):
        with_options(plain, reserved=["<eop>"])
    with pytest.raises(TokenizerError, match=r"'reserved' is 'the', expected a list"):
        with_options(plain, reserved="the")
    with pytest.raises(TokenizerError, match=r"special tokens are \['cls'\], expected"):
        with_options(plain, specials={"cls": "[CLS]"})


def test_chinese_characters_together() -> None:
    plain = trained("wordpiece(size=150)")
    together = with_options(plain, chinese_chars=False)
    assert plain.encode("中文").words.tolist() == [0, 1]
    assert together.encode("中文").words.tolist() == [0]  # one word, which is unknown
    assert with_options(plain, chinese_chars=True).fingerprint == plain.fingerprint


def test_tokens_after_the_pieces() -> None:
    model = trained("sentencepiece(size=80)")
    more = with_options(model, appended=["<e1>"], reserved=["<e1>"])
    assert more.tokens == (*model.tokens, "<e1>")
    assert more.vocab.specials[-1] == model.vocab.size
    assert spelled(more, "the <e1>") == spelled(model, "the <e1>")
    assert more.decode([more.vocab.size - 1]) == "<e1>"
    with pytest.raises(TokenizerError, match=r"'\[MASK\]' is to follow its pieces and is one"):
        with_options(model, appended=["[MASK]"])


def test_marks_apart() -> None:
    model = with_options(trained("sentencepiece(size=80)"), split_marks=True)
    text = "fox, it's (so) "
    parts = [text[a:b] for a, b in model.encode(text).offsets.tolist() if a < b]
    assert "".join(parts) == "fox,it's(so)"
    # Each part begins as a text does.
    whole = [
        p for part in ("fox", ",", "it", "'", "s", "(", "so", ")") for p in spelled(model, part)
    ]
    assert spelled(model, text) == whole
    assert model.encode("").ids.tolist() == []


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("model", "``Çaİ'' ½"),
        ("lower", "``çai\u0307'' ½"),
        ("albert", '"cai" 1⁄2'),
        ("albert_with_accents", '"çai\u0307" ½'),
        ("xlnet", '"CaI" 1⁄2'),
        ("xlnet_with_accents", '"Çaİ" ½'),
    ],
)
def test_what_is_done_to_a_text(name: str, expected: str) -> None:
    text = "``Çaİ'' ½"
    changed, places = albert_text(text, CHANGES[name])
    assert changed == expected
    if places is None:
        assert changed == text
        return
    assert len(places) == len(changed) + 1
    assert places[-1] == len(text)
    if CHANGES[name].quotes:
        assert places[0] == 1  # of two quotes the second
    assert places[changed.index("a")] == text.index("a")
    assert places[changed.index("½") if "½" in changed else changed.index("⁄")] == text.index("½")


def test_every_part_of_a_character_points_at_it() -> None:
    """The library gives a width to the last part only."""
    model = trained("sentencepiece(size=80)")
    for text in ("½", "x ½ y", "…", "the ﬁ"):
        e = model.encode(text)
        for i, (start, end) in zip(e.ids, e.offsets.tolist(), strict=True):
            assert start < end or model.tokens[i] == "▁", (text, model.tokens[i])
    line_end = trained("sentencepiece(size=80)").encode("a\nb")
    assert line_end.offsets.tolist()[-1] == [2, 3]


def test_line_ends_have_offsets_and_blanks_have_none() -> None:
    """As in transformers: of a token's white space, U+0020 alone is left out."""
    t = trained("byte_bpe(size=300)")
    e = t.encode("a\n b")
    found = dict(zip([t.tokens[i] for i in e.ids], e.offsets.tolist(), strict=True))
    assert found["Ċ"] == [1, 2]
    assert [2, 3] not in e.offsets.tolist()
    prefixed = trained("byte_bpe(size=300, prefix_space=True)").encode("中")
    assert prefixed.offsets.tolist()[0] == [0, 0]


def test_parts_of_a_model_make_it_again() -> None:
    model = trained("sentencepiece(size=80)")
    data = model.files()["spiece.model"]
    parts = parts_of(data, "it")
    assert parts.pieces == model.tokens
    assert (parts.prefix, parts.collapse, parts.unlike, parts.model) == (True, True, (), 1)
    assert parts.kinds[:6] == (CONTROL, UNKNOWN, CONTROL, CONTROL, CONTROL, NORMAL)
    assert parts.unk == 1
    assert len(parts.charsmap) > 1000
    made = model_of(parts)
    assert parts_of(made, "made") == parts
    again = tokenizers.restore({**model.files(), "spiece.model": made})
    for text in (*TEXTS, "Ａ ½ \t x"):
        assert again.encode(text).ids.tolist() == model.encode(text).ids.tolist()
    merged = parts_of(trained("sentencepiece(size=80, kind='bpe')").files()["spiece.model"], "b")
    assert merged.model == 2


def test_a_model_needs_one_unknown_piece() -> None:
    parts = Parts(("<unk>", "a", "b"), (0.0, -1.0, -2.0), (UNKNOWN, NORMAL, USER_DEFINED))
    assert parts_of(model_of(parts), "x") == parts
    two = Parts(("<unk>", "a"), (0.0, 0.0), (UNKNOWN, UNKNOWN))
    with pytest.raises(TokenizerError, match="has 2 pieces for what is unknown"):
        parts_of(model_of(two), "x")
