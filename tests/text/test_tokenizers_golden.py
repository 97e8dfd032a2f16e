"""Ids against transformers' tokenizers: stored ones by default, live ones with ``-m oracle``."""

from __future__ import annotations

import importlib.util
import json
import lzma
from pathlib import Path
from types import ModuleType

import pytest

from bert_variants import registry
from bert_variants.text.tokenizer import Tokenizer
from bert_variants.text.tokenizers.sentencepiece_backends import read_scores

GOLDEN = Path(__file__).parent.parent / "golden"
STORED = json.loads((GOLDEN / "tokenizers.json").read_text(encoding="utf-8"))
BERT = sorted(STORED["bert"])


def build(call: str, **arguments: object) -> Tokenizer:
    return registry.lookup("tokenizer", registry.write(call, arguments))().build([])


def wrong(tokenizer: Tokenizer, expected: dict[str, list[int]]) -> dict[str, tuple]:
    """Texts whose ids differ, with found and expected tokens."""
    texts = STORED["texts"]
    encoded = tokenizer.encode_batch(list(texts.values()))
    spell = tokenizer.tokens.__getitem__
    return {
        name: (list(map(spell, e.ids)), list(map(spell, expected[name])))
        for name, e in zip(texts, encoded, strict=True)
        if e.ids.tolist() != expected[name]
    }


@pytest.mark.parametrize("name", BERT)
def test_wordpiece_part(name: str, tmp_path: Path) -> None:
    case = STORED["bert"][name]
    file = tmp_path / "vocab.txt"
    file.write_bytes("".join(token + "\n" for token in case["part"]).encode())
    tokenizer = build("wordpiece", file=str(file), lowercase=case["lowercase"])
    assert wrong(tokenizer, case["part_ids"]) == {}
    # The texts must be able to tell tokenizers apart.
    other = build("wordpiece", file=str(file), lowercase=not case["lowercase"])
    assert wrong(other, case["part_ids"])


@pytest.mark.parametrize("name", BERT)
def test_wordpiece_whole(name: str, shared_data: Path) -> None:
    case = STORED["bert"][name]
    file = shared_data / "vocab" / case["file"]
    tokenizer = build("wordpiece", file=str(file), lowercase=case["lowercase"])
    assert wrong(tokenizer, case["ids"]) == {}


def test_byte_bpe_part(tmp_path: Path) -> None:
    case = STORED["roberta"]
    vocab, merges = tmp_path / "vocab.json", tmp_path / "merges.txt"
    vocab.write_text(json.dumps({token: i for i, token in enumerate(case["part"])}))
    merges.write_text("#version: 0.2\n" + "\n".join(case["merges"]) + "\n", encoding="utf-8")
    tokenizer = build("byte_bpe", vocab=str(vocab), merges=str(merges))
    assert wrong(tokenizer, case["part_ids"]) == {}


def test_byte_bpe_whole(shared_data: Path) -> None:
    folder = shared_data / "vocab"
    tokenizer = build(
        "byte_bpe",
        vocab=str(folder / "roberta_vocab.json"),
        merges=str(folder / "gpt2_vocab.bpe"),
    )
    assert tokenizer.vocab.size == 50265
    v = tokenizer.vocab
    assert (v.cls, v.pad, v.sep, v.unk, v.mask) == (0, 1, 2, 3, 50264)
    assert v.specials == (0, 1, 2, 3, 50264)
    assert wrong(tokenizer, STORED["roberta"]["ids"]) == {}


# Live.


@pytest.fixture(scope="module")
def make() -> ModuleType:
    pytest.importorskip("transformers")
    spec = importlib.util.spec_from_file_location("make_tokenizers", GOLDEN / "make_tokenizers.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def articles(shared_data: Path) -> list[str]:
    """Paragraphs of English and Chinese Wikipedia and reviews with emoji."""
    found = []
    for name in ("wikipedia_en/valid.jsonl.xz", "wikipedia_zh/valid.jsonl.xz"):
        with lzma.open(shared_data / name, "rt", encoding="utf-8", newline="\n") as file:
            texts = [json.loads(line)["text"] for line in file]
        found += [p for text in texts for p in text.split("\n") if p][:600]
    return found


def differing(tokenizer: Tokenizer, oracle: object, make: ModuleType, texts: list[str]) -> list:
    encoded = tokenizer.encode_batch(texts)
    return [
        text
        for text, e in zip(texts, encoded, strict=True)
        if e.ids.tolist() != make.oracle_ids(oracle, text)
    ]


@pytest.mark.oracle
@pytest.mark.parametrize("name", BERT)
def test_bert_live(name: str, shared_data: Path, make: ModuleType, articles: list[str]) -> None:
    case = STORED["bert"][name]
    file = shared_data / "vocab" / case["file"]
    tokenizer = build("wordpiece", file=str(file), lowercase=case["lowercase"])
    oracle = make.bert_oracle(list(tokenizer.tokens), case["lowercase"])
    assert wrong(tokenizer, make.golden(oracle)) == {}
    assert differing(tokenizer, oracle, make, articles) == []
    assert make.golden(oracle) == case["ids"], "the stored ids are stale: run make_tokenizers.py"


@pytest.mark.oracle
def test_roberta_live(shared_data: Path, make: ModuleType, articles: list[str]) -> None:
    files = [str(shared_data / "vocab" / f) for f in ("roberta_vocab.json", "gpt2_vocab.bpe")]
    tokenizer = build("byte_bpe", vocab=files[0], merges=files[1])
    lines = Path(files[1]).read_bytes().decode().removesuffix("\n").split("\n")[1:]
    oracle = make.roberta_oracle(list(tokenizer.tokens), [tuple(x.split(" ")) for x in lines])
    assert wrong(tokenizer, make.golden(oracle)) == {}
    assert differing(tokenizer, oracle, make, articles) == []


@pytest.mark.oracle
def test_albert_live(shared_data: Path, make: ModuleType, articles: list[str]) -> None:
    """Equal but for what ALBERT itself does and transformers does not.

    ALBERT cuts "2010," apart (``comma_splits``); control characters are dropped here.
    """
    file = shared_data / "vocab" / "albert_30k-clean.vocab"
    tokenizer = build("sentencepiece", file=str(file))
    oracle = make.albert_oracle(*read_scores(file.read_bytes(), file.name))
    found = wrong(tokenizer, make.golden(oracle))
    assert set(found) == {"english", "controls", "separators", "replacement"}
    assert "▁3," in found["english"][1]
    texts = [text.replace("\ufeff", "") for text in articles]
    for text in differing(tokenizer, oracle, make, texts):
        spelled = [tokenizer.tokens[i] for i in make.oracle_ids(oracle, text)]
        assert any(piece.endswith(",") and piece[-2:-1].isdigit() for piece in spelled), text
