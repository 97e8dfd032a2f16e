"""Tokenizers of Hugging Face directories: stored ids, round trips, and what must be refused."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import nasty
import numpy as np
import pytest

from bert_variants import registry
from bert_variants.convert import tokenizers
from bert_variants.convert.errors import ConvertError
from bert_variants.convert.layouts import FAMILIES, layout
from bert_variants.text.tokenizer import Tokenizer

GOLDEN = Path(__file__).parent.parent / "golden" / "convert" / "tokenizers.npz"
with np.load(GOLDEN) as _stored:
    STORED: Mapping[str, np.ndarray] = dict(_stored)
NAMES = sorted({key.split("/")[0] for key in STORED})
OWN = {
    "wordpiece": "wordpiece(size=200)",
    "wordpiece_cased": "wordpiece(size=200, lowercase=False, strip_accents=True)",
    "byte_bpe": "byte_bpe(size=300)",
    "byte_bpe_prefix": "byte_bpe(size=300, clean=False, prefix_space=True)",
    "sentencepiece": "sentencepiece(size=120)",
    "albert": "sentencepiece(size=120, normalization='albert')",
    "xlnet": "sentencepiece(size=120, normalization='xlnet_with_accents')",
    "lower": "sentencepiece(size=120, normalization='lower')",
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    base = tmp_path_factory.mktemp("published")
    return {name: make(base / name) for name, make in nasty.PUBLISHED.items()}


@pytest.fixture(scope="module")
def own() -> dict[str, Tokenizer]:
    return {name: nasty.trained(call) for name, call in OWN.items()}


def written(tokenizer: Tokenizer, folder: Path, family: str) -> Path:
    tokenizers.write(tokenizer, folder, family=family, length=64)
    (folder / "config.json").write_text(json.dumps({"model_type": family}))
    return folder


def change(folder: Path, **said: Any) -> Path:
    """The directory with other settings in its tokenizer_config.json."""
    path = folder / "tokenizer_config.json"
    old = json.loads(path.read_bytes()) if path.exists() else {}
    path.write_text(json.dumps({**old, **said}))
    return folder


def encodings(tokenizer: Tokenizer) -> list[list[Any]]:
    return [
        [one.ids.tolist(), one.offsets.tolist(), one.words.tolist()]
        for one in tokenizer.encode_batch(list(nasty.NASTY.values()))
    ]


@pytest.mark.parametrize("name", NAMES)
def test_stored_ids_and_offsets(name: str, folders: dict[str, Path]) -> None:
    """The ids of transformers' own tokenizers, but for the texts that are known to differ."""
    ours = tokenizers.read(folders[name])
    assert nasty.digest(ours.tokens) == str(STORED[f"{name}/tokens"]), (
        "the vocabulary is trained otherwise than when the ids were stored: run "
        "tests/golden/make_convert_tokenizers.py"
    )
    texts = [(n, text) for n, text in nasty.NASTY.items() if n != "long_word"]
    ids, offsets = STORED[f"{name}/ids"], STORED[f"{name}/offsets"]
    starts = [0, *STORED[f"{name}/ends"].tolist()]
    found = {}
    for (text_name, text), a, b in zip(texts, starts, starts[1:], strict=False):
        mine = ours.encode(text)
        if mine.ids.tolist() != ids[a:b].tolist():
            found[text_name] = "ids"
        elif nasty.spans(ours, text, ids[a:b].tolist(), mine.offsets.tolist()) != nasty.spans(
            ours, text, ids[a:b].tolist(), offsets[a:b].tolist()
        ):
            found[text_name] = "offsets"
    assert found == dict(nasty.DIFFERENT.get(name, {}))


@pytest.mark.parametrize("name", NAMES)
def test_stored_rows(name: str, folders: dict[str, Path]) -> None:
    ours, around = tokenizers.read(folders[name]), tokenizers.read_layout(folders[name])
    first, second = (ours.encode(text).ids.tolist() for text in ("the fox", "a dog ran"))
    assert around.row(ours.vocab, first)[0] == STORED[f"{name}/single"].tolist()
    ids, segments = around.row(ours.vocab, first, second)
    stored, stored_segments = STORED[f"{name}/pair"].tolist(), STORED[f"{name}/segments"].tolist()
    if name == "deberta":  # whose class puts two [SEP] between the texts; its authors put one
        assert stored.pop(len(first) + 2) == ours.vocab.sep
    elif around.segments:
        assert segments == stored_segments
    assert ids == stored


def test_a_row_of_each_layout() -> None:
    """The rows of the docstring."""
    vocab = nasty.trained("wordpiece(size=200)").vocab
    c, s = vocab.cls, vocab.sep
    assert layout("bert").row(vocab, [7, 8], [9]) == ([c, 7, 8, s, 9, s], [0, 0, 0, 0, 1, 1])
    assert layout("xlnet").row(vocab, [7, 8], [9]) == ([7, 8, s, 9, s, c], [0, 0, 0, 1, 1, 2])
    assert layout("xlnet").row(vocab, [7])[0] == [7, s, c]
    assert layout("roberta").row(vocab, [7, 8], [9])[0] == [c, 7, 8, s, s, 9, s]
    assert layout("albert").row(vocab, [], [])[0] == [c, s, s]
    with pytest.raises(ConvertError, match=r"unknown family 'robert'\. Did you mean 'roberta'"):
        layout("robert")


@pytest.mark.parametrize("name", nasty.PUBLISHED)
def test_what_is_written_is_read_again(name: str, folders: dict[str, Path], tmp_path: Path) -> None:
    ours, around = tokenizers.read(folders[name]), tokenizers.read_layout(folders[name])
    family = json.loads((folders[name] / "config.json").read_bytes())["model_type"]
    out = written(ours, tmp_path / "out", family)
    again = tokenizers.read(out)
    assert again.fingerprint == ours.fingerprint
    assert tokenizers.read_layout(out) == around
    bytes_of = {path.name: path.read_bytes() for path in out.iterdir()}
    written(again, tmp_path / "twice", family)
    assert {path.name: path.read_bytes() for path in (tmp_path / "twice").iterdir()} == bytes_of
    # The same out of tokenizer.json, without our settings.
    for path in out.iterdir():
        if path.name not in ("tokenizer.json", "config.json", "tokenizer_config.json"):
            path.unlink()
    settings = json.loads((out / "tokenizer_config.json").read_bytes())
    del settings["bert_variants"]
    (out / "tokenizer_config.json").write_text(json.dumps(settings))
    alone = tokenizers.read(out)
    assert alone.vocab == ours.vocab
    assert encodings(alone) == encodings(ours)


@pytest.mark.parametrize("name", OWN)
@pytest.mark.parametrize("family", ["bert", "roberta", "albert", "xlnet", "deberta-v2"])
def test_any_kind_in_any_family(
    name: str, family: str, own: dict[str, Tokenizer], tmp_path: Path
) -> None:
    """A model of any family may have been trained with a tokenizer of any kind."""
    out = written(own[name], tmp_path / "out", family)
    assert tokenizers.read(out).fingerprint == own[name].fingerprint
    assert tokenizers.read_layout(out) == layout(family)
    said = json.loads((out / "tokenizer_config.json").read_bytes())
    assert said["model_max_length"] == 64
    own_class = {("bert", "wordpiece"): "BertTokenizer", ("albert", "wordpiece"): "BertTokenizer"}
    own_class |= {("roberta", "byte_bpe_prefix"): "RobertaTokenizer"}
    kind = "wordpiece" if name == "wordpiece_cased" else name
    bert_like = kind == "wordpiece" and layout(family) == layout("bert")
    expected = "BertTokenizer" if bert_like else own_class.get((family, kind))
    assert said["tokenizer_class"] == (expected or "PreTrainedTokenizerFast")


def test_a_model_of_merged_pairs_cannot_be_written(tmp_path: Path) -> None:
    pairs = nasty.trained("sentencepiece(size=120, kind='bpe')")
    with pytest.raises(ConvertError, match="model type 2, not unigram"):
        tokenizers.write(pairs, tmp_path, family="albert")
    assert not list(tmp_path.iterdir())


def test_a_folder_of_another_tokenizer_is_left_alone(
    own: dict[str, Tokenizer], tmp_path: Path
) -> None:
    (tmp_path / "added_tokens.json").write_text("{}")
    with pytest.raises(ConvertError, match=r"holds added_tokens\.json of another tokenizer"):
        tokenizers.write(own["wordpiece"], tmp_path, family="bert")
    with pytest.raises(ConvertError, match="unknown family 'brt'"):
        tokenizers.write(own["wordpiece"], tmp_path, family="brt")


# Added tokens.


def test_a_mask_beyond_the_pieces(folders: dict[str, Path], tmp_path: Path) -> None:
    """DeBERTa's [MASK] is no piece: it follows them, with or without a file that says so."""
    plain = tokenizers.read(folders["deberta-v2"])
    assert plain.tokens[-1] == "[MASK]"
    assert plain.vocab.mask == plain.vocab.size - 1
    model = (folders["deberta-v2"] / "spm.model").read_bytes()
    last = plain.vocab.size - 1
    one = nasty.folder_of(tmp_path / "one", "deberta-v2", {"spm.model": model})
    (one / "added_tokens.json").write_text(json.dumps({"[MASK]": last}))
    assert tokenizers.read(one).fingerprint == plain.fingerprint
    (one / "added_tokens.json").write_text(json.dumps({"[MASK]": last + 1}))
    with pytest.raises(ConvertError, match=rf"'\[MASK\]' has the id {last + 1}, expected {last}"):
        tokenizers.read(one)
    (one / "added_tokens.json").write_text(json.dumps({"[MASK]": last, "<e1>": last + 1}))
    with pytest.raises(ConvertError, match=r"'<e1>' .* is found in raw text before all else"):
        tokenizers.read(one)
    change(one, additional_special_tokens=["<e1>"])
    more = tokenizers.read(one)
    assert more.tokens[-2:] == ("[MASK]", "<e1>")
    assert more.vocab.specials[-2:] == (last, last + 1)
    assert last + 1 not in more.encode("<e1> is text").ids
    again = written(more, tmp_path / "again", "deberta-v2")
    assert tokenizers.read(again).fingerprint == more.fingerprint


@pytest.mark.parametrize(("name", "file"), [("bert", "vocab.txt"), ("roberta", "vocab.json")])
def test_added_special_tokens(
    name: str, file: str, folders: dict[str, Path], tmp_path: Path
) -> None:
    plain = tokenizers.read(folders[name])
    names = [file, "merges.txt"] if name == "roberta" else [file]
    data = {n: (folders[name] / n).read_bytes() for n in names}
    folder = nasty.folder_of(
        tmp_path, name, data, additional_special_tokens=["ENTITY", {"content": "<e>"}]
    )
    with pytest.raises(ConvertError, match="the special token ENTITY has no id"):
        tokenizers.read(folder)
    size = plain.vocab.size
    (folder / "added_tokens.json").write_text(json.dumps({"ENTITY": size, "<e>": size + 1}))
    more = tokenizers.read(folder)
    assert more.tokens == (*plain.tokens, "ENTITY", "<e>")
    assert more.vocab.specials[-2:] == (size, size + 1)
    assert not {size, size + 1} & set(more.encode("ENTITY <e> entity").ids.tolist())
    assert encodings(more) == encodings(plain)


# Directories that must be refused, each with all that is wrong.


def refused(folder: Path, *parts: str) -> None:
    with pytest.raises(ConvertError) as caught:
        tokenizers.read(folder)
    assert not [part for part in parts if part not in str(caught.value)], str(caught.value)


def test_no_tokenizer(tmp_path: Path) -> None:
    refused(tmp_path / "no", "there is no directory")
    refused(tmp_path, "does not say what its tokenizer is", "BertTokenizer")
    refused(nasty.folder_of(tmp_path / "a", "bert", {}), "neither tokenizer.json nor vocab.txt")
    only = nasty.folder_of(tmp_path / "b", "roberta", {"vocab.json": b'{"a": 0}'})
    refused(only, "holds no merges.txt, and no tokenizer.json")
    refused(nasty.folder_of(tmp_path / "c", "brt", {}), "model_type is 'brt'. Did you mean 'bert'")
    other = nasty.folder_of(tmp_path / "d", "bert", {}, tokenizer_class="BertJapaneseTokenizer")
    refused(other, "tokenizer_class is 'BertJapaneseTokenizer'", "Did you mean 'BertTokenizer'")


def test_settings_that_ours_cannot_have(folders: dict[str, Path], tmp_path: Path) -> None:
    data = {"vocab.txt": (folders["bert"] / "vocab.txt").read_bytes()}
    folder = nasty.folder_of(tmp_path, "bert", data, do_basic_tokenize=False, never_split=["x"])
    (folder / "special_tokens_map.json").write_text(json.dumps({"pad_token": "<p>"}))
    change(folder, pad_token="[PAD]", mask_token=3)
    refused(
        folder,
        *("do_basic_tokenize is False, ours are True only", "never_split is ['x']"),
        *("pad_token is", "the files disagree", "mask_token is", "expected a token"),
    )
    folder = nasty.folder_of(tmp_path / "b", "bert", data, do_lower_case="yes")
    refused(folder, "do_lower_case is 'yes', expected true or false")
    folder = nasty.folder_of(tmp_path / "c", "bert", data, unk_token="<u>", sep_token="<s>")
    refused(folder, "the special tokens <u> <s> have no ids")


def test_files_that_disagree(own: dict[str, Tokenizer], tmp_path: Path) -> None:
    out = written(own["wordpiece"], tmp_path / "out", "bert")
    (out / "special_tokens_map.json").unlink()
    change(out, do_lower_case=False, cls_token="[SEP]")
    refused(
        out,
        *("was changed and does not agree with itself", "do_lower_case is False"),
        *("bert_variants says True", "cls_token is '[SEP]', bert_variants says '[CLS]'"),
    )
    other = written(own["wordpiece"], tmp_path / "other", "bert")
    tokens = list(own["wordpiece"].tokens)
    tokens[9], tokens[10] = tokens[10], tokens[9]
    (other / "vocab.txt").write_bytes(nasty.vocab_txt(tokens))
    refused(other, f"id 9 is {tokens[9]!r}, in tokenizer.json it is {tokens[10]!r}", "id 10 is")
    # The same without our own settings beside them.
    said = json.loads((other / "tokenizer_config.json").read_bytes())
    del said["bert_variants"]
    (other / "tokenizer_config.json").write_text(json.dumps(said))
    refused(other, "the tokenizer files of", "id 9 is")


def edited(own: Tokenizer, folder: Path, family: str, **changes: Any) -> Path:
    """tokenizer.json alone, with fields by their dotted path changed."""
    written(own, folder / "whole", family)
    fast = json.loads((folder / "whole" / "tokenizer.json").read_bytes())
    for path, value in changes.items():
        *way, last = path.split("__")
        at = fast
        for part in way:
            at = at[part]
        at[last] = value
    alone = nasty.folder_of(folder / "alone", family, {})
    (alone / "tokenizer.json").write_text(json.dumps(fast))
    return alone


def test_a_wordpiece_that_is_not_ours(own: dict[str, Tokenizer], tmp_path: Path) -> None:
    folder = edited(
        own["wordpiece"],
        tmp_path,
        "bert",
        model__max_input_chars_per_word=50,
        model__continuing_subword_prefix="@@",
        normalizer__clean_text=False,
        normalizer__lowercase=None,
        pre_tokenizer={"type": "Whitespace"},
    )
    refused(
        folder,
        *("is no WordPiece of ours", "model.max_input_chars_per_word is 50, ours is 100"),
        *("model.continuing_subword_prefix is \"@@\", ours is '##'", "normalizer.clean_text"),
        *('pre_tokenizer is {"type": "Whitespace"}', "normalizer.lowercase is None"),
    )


def test_bytes_that_are_not_ours(own: dict[str, Tokenizer], tmp_path: Path) -> None:
    folder = edited(
        own["byte_bpe_prefix"],
        tmp_path,
        "roberta",
        model__dropout=0.1,
        model__end_of_word_suffix="</w>",
        normalizer={"type": "NFC"},
        pre_tokenizer__use_regex=False,
    )
    refused(
        folder,
        *("is no byte-level BPE of ours", "model.dropout is 0.1", "model.end_of_word_suffix"),
        *('normalizer is {"type": "NFC"}', "pre_tokenizer.use_regex is False"),
    )


def test_pieces_that_are_not_ours(own: dict[str, Tokenizer], tmp_path: Path) -> None:
    folder = edited(
        own["albert"],
        tmp_path,
        "albert",
        model__byte_fallback=True,
        normalizer={"type": "Sequence", "normalizers": [{"type": "NFC"}, {"type": "Nmt"}]},
        pre_tokenizer={"type": "Metaspace", "replacement": "_", "prepend_scheme": "first"},
    )
    refused(
        folder,
        *("is no SentencePiece of ours", "model.byte_fallback is true", '{"type": "NFC"}'),
        *('{"type": "Nmt"} is nothing that ours do', "replacement is '_'", "is 'first', ours"),
    )
    refused(edited(own["albert"], tmp_path / "b", "albert", model__type="WordLevel"), "WordLevel")
    refused(edited(own["albert"], tmp_path / "c", "bert"), "is a sentencepiece, but the class")


def test_files_of_older_versions(own: dict[str, Tokenizer], tmp_path: Path) -> None:
    """As transformers 4 and earlier wrote them: other steps that do the same."""
    steps = json.loads(
        (written(own["albert"], tmp_path / "x", "albert") / "tokenizer.json").read_bytes()
    )["normalizer"]["normalizers"]
    table = next(step for step in steps if step["type"] == "Precompiled")
    quotes = [{"type": "Replace", "pattern": {"String": q}, "content": '"'} for q in ("``", "''")]
    plain = [{"type": t} for t in ("NFKD", "StripAccents", "Lowercase")]
    once = {"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": " "}
    folder = edited(
        own["albert"],
        tmp_path,
        "albert",
        normalizer={"type": "Sequence", "normalizers": [*quotes, *plain, table, once]},
        pre_tokenizer={
            "type": "Sequence",
            "pretokenizers": [
                {"type": "WhitespaceSplit"},
                {"type": "Metaspace", "replacement": "▁", "add_prefix_space": True},
            ],
        },
    )
    fast = json.loads((folder / "tokenizer.json").read_bytes())
    del fast["model"]["type"], fast["model"]["byte_fallback"]
    (folder / "tokenizer.json").write_text(json.dumps(fast))
    change(folder, pad_token="[PAD]", unk_token="[UNK]")
    assert encodings(tokenizers.read(folder)) == encodings(own["albert"])
    folder = edited(own["albert"], tmp_path / "b", "albert", model__vocab=[["[UNK]", 1e35]])
    refused(folder, "a score that is no number of 32 bits")


def test_other_rows_are_pointed_out(own: dict[str, Tokenizer], tmp_path: Path) -> None:
    out = written(own["albert"], tmp_path, "albert")
    fast = json.loads((out / "tokenizer.json").read_bytes())
    fast["post_processor"]["pair"].pop()
    (out / "tokenizer.json").write_text(json.dumps(fast))
    with pytest.raises(ConvertError, match=r"pair: \[CLS\] A \[SEP\] B, segments .* expected"):
        tokenizers.read_layout(out)


def test_hostile_files(own: dict[str, Tokenizer], tmp_path: Path) -> None:
    out = written(own["wordpiece"], tmp_path / "out", "bert")
    secret = tmp_path / "vocab.txt"
    secret.write_bytes((out / "vocab.txt").read_bytes())
    (out / "vocab.txt").unlink()
    (out / "vocab.txt").symlink_to(secret)
    refused(out, "is a link that leads out of its folder")
    (out / "vocab.txt").unlink()
    (out / "tokenizer.json").write_text("[" * 100_000)
    refused(out, "tokenizer.json", "nested deeper")
    for broken in ({"model": 3}, {"model": {"type": "WordPiece", "vocab": {"a": 1}}}, {}):
        (out / "tokenizer.json").write_text(json.dumps({"added_tokens": [], **broken}))
        refused(out, "tokenizer.json")
    (out / "tokenizer.json").write_text(json.dumps({"added_tokens": [{"id": "x"}, 3]}))
    refused(out, "the added token None has the id 'x'", "has the id None")


def test_families_and_classes_know_each_other() -> None:
    from bert_variants.convert.tokenizer_folder import CLASSES, KINDS

    assert set(CLASSES) == set(FAMILIES)
    assert {kind.ours for kind in KINDS.values()} == set(registry.names("tokenizer")) - {"saved"}
