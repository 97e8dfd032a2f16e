"""Ids, offsets and rows against transformers' own tokenizers, differences told one by one."""

from __future__ import annotations

import json
import lzma
import unicodedata
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import nasty
import pytest

from bert_variants import registry
from bert_variants.convert import tokenizers
from bert_variants.convert.layouts import layout
from bert_variants.text.tokenizer import Encoded, Tokenizer
from bert_variants.text.tokenizers.sentencepiece_backends import read_scores

pytestmark = pytest.mark.oracle

# The same as ``nasty.DIFFERENT`` for what ``write`` wrote.
DIFFERENT_WHEN_WRITTEN: Mapping[str, Mapping[str, str]] = {
    "albert": {**nasty.SPELLED, **nasty.COMPOSED},
    "albert_cased": {**nasty.SPELLED, **nasty.SPELLED_IN_BRACKETS, **nasty.COMPOSED},
    "xlnet": {**nasty.SPELLED, **nasty.COMPOSED},
    "deberta-v2": {**nasty.SPELLED_IN_BRACKETS, **nasty.COMPOSED},
    "deberta-v2_plain": nasty.SPELLED_IN_BRACKETS,
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    base = tmp_path_factory.mktemp("published")
    return {name: make(base / name) for name, make in nasty.PUBLISHED.items()}


def theirs_of(folder: Path) -> Any:
    transformers = pytest.importorskip("transformers")
    return transformers.AutoTokenizer.from_pretrained(folder)


def family_of(folder: Path) -> str:
    return json.loads((folder / "config.json").read_bytes())["model_type"]


def written(tokenizer: Tokenizer, folder: Path, family: str, **more: Any) -> Path:
    tokenizers.write(tokenizer, folder, family=family, **more)
    (folder / "config.json").write_text(json.dumps({"model_type": family}))
    return folder


def differing(ours: Tokenizer, theirs: Any, texts: Mapping[str, str]) -> dict[str, str]:
    """The names of texts whose ids or offsets differ."""
    found = {}
    encoded: list[Encoded] = ours.encode_batch(list(texts.values()))
    for (name, text), mine in zip(texts.items(), encoded, strict=True):
        other = theirs(
            text,
            add_special_tokens=False,
            return_offsets_mapping=True,
            split_special_tokens=True,
        )
        ids = list(other["input_ids"])
        if ids != mine.ids.tolist():
            found[name] = "ids"
        elif nasty.spans(ours, text, ids, mine.offsets.tolist()) != nasty.spans(
            ours, text, ids, other["offset_mapping"]
        ):
            found[name] = "offsets"
    return found


@pytest.mark.parametrize("name", nasty.PUBLISHED)
def test_what_others_publish(name: str, folders: dict[str, Path]) -> None:
    ours, theirs = tokenizers.read(folders[name]), theirs_of(folders[name])
    assert differing(ours, theirs, nasty.NASTY) == dict(nasty.DIFFERENT.get(name, {}))


@pytest.mark.parametrize("name", nasty.PUBLISHED)
def test_what_is_written(name: str, folders: dict[str, Path], tmp_path: Path) -> None:
    ours, family = tokenizers.read(folders[name]), family_of(folders[name])
    theirs = theirs_of(written(ours, tmp_path / "out", family, length=77))
    found = differing(ours, theirs, nasty.NASTY)
    assert found == dict(DIFFERENT_WHEN_WRITTEN.get(name, {}))
    v = ours.vocab
    named = (theirs.pad_token_id, theirs.unk_token_id, theirs.cls_token_id)
    assert (*named, theirs.sep_token_id, theirs.mask_token_id) == (
        v.pad,
        v.unk,
        v.cls,
        v.sep,
        v.mask,
    )
    assert sorted(theirs.all_special_ids) == list(v.specials)
    assert (len(theirs), theirs.model_max_length) == (v.size, 77)


@pytest.mark.parametrize("name", nasty.PUBLISHED)
def test_rows(name: str, folders: dict[str, Path], tmp_path: Path) -> None:
    ours, family = tokenizers.read(folders[name]), family_of(folders[name])
    around = tokenizers.read_layout(folders[name])
    assert around == layout(family)
    out = written(ours, tmp_path / "out", family)
    first, second = (ours.encode(text).ids.tolist() for text in ("the fox", "a dog ran"))
    for place in (folders[name], out):
        theirs = theirs_of(place)
        for texts, row in (
            (("the fox",), around.row(ours.vocab, first)),
            (("the fox", "a dog ran"), around.row(ours.vocab, first, second)),
        ):
            found = theirs(*texts, return_token_type_ids=True)
            if family == "deberta" and len(texts) == 2 and place != out:
                # The class builds RoBERTa's pairs; DeBERTa's authors do not.
                assert list(found["input_ids"]) == [
                    *row[0][: len(first) + 2],
                    ours.vocab.sep,
                    *row[0][len(first) + 2 :],
                ]
                continue
            assert list(found["input_ids"]) == row[0]
            if around.segments:
                assert list(found["token_type_ids"]) == row[1]
        assert theirs.padding_side == around.padding_side
        assert ("token_type_ids" in theirs("the fox")) == around.segments or place != out
        padded = theirs(["the fox", "a dog ran over"], padding=True)["input_ids"][0]
        missing = len(padded) - len(first) - 2
        at = slice(0, missing) if around.padding_side == "left" else slice(-missing, None)
        assert padded[at] == [ours.vocab.pad] * missing


@pytest.mark.parametrize("name", nasty.PUBLISHED)
def test_special_tokens_in_text(name: str, folders: dict[str, Path]) -> None:
    """They parse them, ours never do."""
    ours, theirs = tokenizers.read(folders[name]), theirs_of(folders[name])
    text = f"a {ours.tokens[ours.vocab.mask]} b"
    assert ours.vocab.mask in theirs(text, add_special_tokens=False)["input_ids"]
    assert not set(ours.encode(text).ids.tolist()) & (set(ours.vocab.specials) - {ours.vocab.unk})


# Real text and real vocabularies.


def real_folder(name: str, path: Path, data: Path) -> Path:
    """A directory with a published vocabulary, or with one trained on real text."""
    vocab = data / "vocab"
    if name.startswith("bert"):
        files = {"vocab.txt": (vocab / f"{name}_vocab.txt").read_bytes()}
        return nasty.folder_of(path, "bert", files, do_lower_case=name != "bert_base_cased")
    if name == "roberta":
        files = {"vocab.json": (vocab / "roberta_vocab.json").read_bytes()}
        files["merges.txt"] = (vocab / "gpt2_vocab.bpe").read_bytes()
        return nasty.folder_of(path, "roberta", files)
    if name == "cluecorpussmall":
        files = {"spm.model": (vocab / "cluecorpussmall_spm.model").read_bytes()}
        return nasty.folder_of(path, "deberta-v2", files)
    texts = tuple(articles(data, 300))
    rule = "identity" if name == "deberta-v2" else "nmt_nfkc"
    model = nasty.spm_model(
        name, 2000, texts, normalization_rule_name=rule, character_coverage=0.9995
    )
    said = {"do_lower_case": False} if name == "albert" else {}
    file = "spm.model" if name == "deberta-v2" else "spiece.model"
    return nasty.folder_of(path, name, {file: model}, **said)


def articles(data: Path, many: int) -> list[str]:
    """Paragraphs of English and of Chinese Wikipedia."""
    found = []
    for name in ("wikipedia_en/valid.jsonl.xz", "wikipedia_zh/valid.jsonl.xz"):
        with lzma.open(data / name, "rt", encoding="utf-8", newline="\n") as file:
            texts = [json.loads(line)["text"] for line in file]
        found += [p for text in texts for p in text.split("\n") if p][:many]
    return found


REAL = ("bert_base_uncased", "bert_base_cased", "bert_base_chinese", "roberta")
PIECES = ("albert", "xlnet", "deberta-v2", "cluecorpussmall")


@pytest.mark.parametrize("name", [*REAL, *PIECES])
def test_real_text(name: str, shared_data: Path, tmp_path: Path) -> None:
    folder = real_folder(name, tmp_path / "in", shared_data)
    ours, theirs = tokenizers.read(folder), theirs_of(folder)
    texts = {text: text for text in articles(shared_data, 200)}
    assert len(texts) > 300
    again = theirs_of(written(ours, tmp_path / "out", family_of(folder)))
    assert differing(ours, again, texts) == {}
    found = differing(ours, theirs, texts)
    # DeBERTa's class leaves the model's table out, which makes plain forms of full-width ones.
    table = name == "cluecorpussmall"
    assert {
        text for text in found if not table or unicodedata.normalize("NFKC", text) == text
    } == set()
    assert (len(found) > 0) == table


def test_alberts_own_vocabulary(shared_data: Path, tmp_path: Path) -> None:
    """Its pieces and scores are published without the model that they came from."""
    transformers = pytest.importorskip("transformers")
    file = shared_data / "vocab" / "albert_30k-clean.vocab"
    call = registry.write("sentencepiece", {"file": str(file)})
    ours = registry.lookup("tokenizer", call)().build([])
    texts = {text: text for text in articles(shared_data, 200)} | dict(nasty.NASTY)
    theirs = theirs_of(written(ours, tmp_path / "out", "albert"))
    # A number before a comma is cut in two, as ALBERT does.
    assert "▁2010," in ours.tokens
    assert theirs.tokenize("in 2010, he") == ["▁in", "▁2010", ",", "▁he"]
    found = differing(ours, theirs, texts)
    assert found == dict.fromkeys(ALBERT_DIFFERS, "ids")
    assert tokenizers.read(tmp_path / "out").fingerprint == ours.fingerprint

    # What transformers saves is a tokenizer.json alone; its class does not cut numbers.
    scores = read_scores(file.read_bytes(), file.name)
    saved = tmp_path / "saved"
    transformers.AlbertTokenizer(vocab=list(zip(*scores, strict=True))).save_pretrained(saved)
    nasty.folder_of(saved, "albert", {})
    read = tokenizers.read(saved)
    assert sorted(p.name for p in saved.iterdir()) == [
        *("config.json", "tokenizer.json", "tokenizer_config.json")
    ]
    assert read.tokens == ours.tokens
    assert differing(read, theirs, texts).keys() <= set(ALBERT_DIFFERS)


# Special tokens that text spells.
ALBERT_DIFFERS = ("sentence_marks",)


def test_pieces_that_users_define(tmp_path: Path) -> None:
    """XLNet's model has marks that are found in text first; the rest of the word goes on behind.

    Out of the model alone, transformers' class begins a word behind each of them.
    """
    control = ["<cls>", "<sep>", "<pad>", "<mask>", "<eod>"]
    defined = ["<eop>", ".", "(", ")", "-", "–", "£", "€"]
    model = nasty.spm_model("xlnet", control_symbols=control, user_defined_symbols=defined)
    folder = nasty.folder_of(tmp_path / "in", "xlnet", {"spiece.model": model})
    ours = tokenizers.read(folder)
    text = "a.b <eop>"
    assert [ours.tokens[i] for i in ours.encode(text).ids] == ["▁a", ".", "b", "▁", "<eop>"]
    assert theirs_of(folder).tokenize(text)[:3] == ["▁a", ".", "▁b"]
    theirs = theirs_of(written(ours, tmp_path / "out", "xlnet"))
    assert differing(ours, theirs, nasty.NASTY) == {**nasty.SPELLED, **nasty.COMPOSED}
    # Named as a special token, it is no text.
    said = {"additional_special_tokens": ["<eop>", "<eod>"]}
    named = nasty.folder_of(tmp_path / "named", "xlnet", {"spiece.model": model}, **said)
    special = tokenizers.read(named)
    eop = ours.tokens.index("<eop>")
    assert eop in special.vocab.specials
    assert eop not in special.encode(text).ids
