"""What a store promises of its files: the right text, or an error that says what is wrong where."""

from __future__ import annotations

import itertools
import json
import re
import shutil

import corpora
import numpy as np
import pytest

from bert_variants import registry
from bert_variants.text import sentences
from bert_variants.text.encoding import digest
from bert_variants.text.index import BLOCK, FileRecord, check_content
from bert_variants.text.store import Store, StoreError


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return corpora.small_store(tmp_path_factory.mktemp("store"))


@pytest.fixture
def folder(made, tmp_path):
    """A copy that a test may damage."""
    return shutil.copytree(made.folder, tmp_path / "copy")


def all_shards(store, split="train"):
    return list(range(len(store.split(split).shards)))


def documents_of(store, split):
    window = store.window(split, all_shards(store, split))
    for d in range(len(window.documents) - 1):
        borders = window.sentences[window.documents[d] : window.documents[d + 1] + 1]
        yield [window.tokens[a:b].tolist() for a, b in itertools.pairwise(borders)]


def test_it_holds_every_document_once_sentence_by_sentence(made):
    source = registry.lookup("source", made.index.origin["source"])()
    texts = {digest(d.text): d.text for d in source.documents()}
    expected = [
        [made.tokenizer.encode(text[a:b]).ids.tolist() for a, b in sentences.split(text)]
        for _, text in sorted(texts.items())
    ]
    found = [*documents_of(made, "train"), *documents_of(made, "held_out")]
    assert sorted(found) == sorted(expected)
    assert len(made.split("train").shards) > 3
    train = list(documents_of(made, "train"))
    assert train == [d for d in expected if d in train]  # in the order of the digests


def test_counts_of_the_index_are_those_of_the_text(made):
    for name, split in made.index.splits.items():
        window = made.window(name, all_shards(made, name))
        assert split.tokens == len(window.tokens) == window.sentences[-1]
        assert split.sentences == len(window.sentences) - 1 == window.documents[-1]
        assert split.documents == len(window.documents) - 1
        assert split.words == window.word_starts.sum()
        assert (np.diff(window.sentences) > 0).all()
        assert (np.diff(window.documents) > 0).all()
    train = made.window("train", all_shards(made))
    assert made.counts_V.tolist() == np.bincount(train.tokens, minlength=made.vocab.size).tolist()
    assert made.vocab.size == 120
    assert made.vocab == made.tokenizer.vocab


def test_words_begin_where_the_tokenizer_says(made):
    window = made.window("train", all_shards(made))
    for s in range(0, len(window.sentences) - 1, 7):
        a, b = window.sentences[s : s + 2]
        pieces = [made.tokenizer.tokens[i] for i in window.tokens[a:b]]
        assert window.word_starts[a:b].tolist() == [not p.startswith("##") for p in pieces]


def test_a_window_is_its_shards_one_after_another(made):
    both, first, second = (made.window("train", s) for s in ([2, 0], [2], [0]))
    assert both.tokens.tolist() == [*first.tokens, *second.tokens]
    assert both.sentences.tolist() == [
        *first.sentences,
        *(second.sentences[1:] + len(first.tokens)),
    ]
    assert both.documents.tolist() == [
        *first.documents,
        *(second.documents[1:] + first.documents[-1]),
    ]


def test_it_can_be_moved_and_still_equals_itself(made, folder):
    moved = Store.open(folder, verify="full")
    assert moved.fingerprint == made.fingerprint
    assert moved.tokenizer.fingerprint == made.tokenizer.fingerprint
    assert list(documents_of(moved, "train")) == list(documents_of(made, "train"))


def flip(path, at):
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("column", ["tokens", "words", "sentences", "documents"])
def test_a_flipped_bit_is_found_on_first_touch(folder, column):
    path = folder / f"train-00001.{column}"
    flip(path, path.stat().st_size // 2)
    store = Store.open(folder)
    store.window("train", [0, 2])
    message = f"{re.escape(str(path))} is damaged.*between byte 0 and {path.stat().st_size}"
    with pytest.raises(StoreError, match=message):
        store.window("train", [1])
    with pytest.raises(StoreError, match=message):
        Store.open(folder, verify="full")


def test_an_error_names_the_block_of_a_large_file(tmp_path):
    data = bytes(3 * BLOCK)
    damaged = bytearray(data)
    damaged[2 * BLOCK + 9] = 1
    with pytest.raises(StoreError, match=f"first between byte {2 * BLOCK} and {3 * BLOCK}"):
        check_content(tmp_path / "f", bytes(damaged), FileRecord.of(data))


def test_a_truncated_shard_is_found_at_once(folder):
    path = folder / "train-00001.tokens"
    size = path.stat().st_size
    path.write_bytes(path.read_bytes()[:-2])
    with pytest.raises(StoreError, match=f"tokens is cut off: it ends at byte {size - 2}.*{size}"):
        Store.open(folder)


def test_an_empty_shard_is_found_at_once(folder):
    (folder / "train-00002.sentences").write_bytes(b"")
    with pytest.raises(StoreError, match=r"train-00002\.sentences is cut off: it ends at byte 0"):
        Store.open(folder)


def test_a_shard_that_grew_is_found_at_once(folder):
    with open(folder / "held_out-00000.words", "ab") as file:
        file.write(b"x")
    with pytest.raises(StoreError, match=r"held_out-00000\.words is too long"):
        Store.open(folder)


def test_a_missing_shard_is_found_at_once(folder):
    (folder / "train-00000.documents").unlink()
    with pytest.raises(StoreError, match=r"train-00000\.documents is missing"):
        Store.open(folder)


def test_a_shard_that_vanishes_after_opening_is_an_error_too(folder):
    store = Store.open(folder)
    (folder / "train-00000.tokens").unlink()
    with pytest.raises(StoreError, match=r"train-00000\.tokens is missing"):
        store.window("train", [0])


def test_another_shard_in_its_place_is_found(folder):
    index = json.loads((folder / "index.json").read_bytes())
    shards = index["splits"]["train"]["shards"]
    for column in shards[0]["files"]:
        a, b = (folder / f"train-0000{n}.{column}" for n in (0, 1))
        data = a.read_bytes(), b.read_bytes()
        a.write_bytes((data[1] * 2)[: len(data[0])])  # of the right size
    with pytest.raises(StoreError, match=r"train-00000\.\w+ is damaged"):
        Store.open(folder).window("train", [0])


@pytest.mark.parametrize("change", ["order", "removed", "renamed", "added"])
def test_a_changed_list_of_shards_is_refused(folder, change):
    path = folder / "index.json"
    index = json.loads(path.read_bytes())
    shards = index["splits"]["train"]["shards"]
    if change == "order":
        shards[0], shards[1] = shards[1], shards[0]
    elif change == "removed":
        del shards[1]
    elif change == "renamed":
        shards[0]["name"] = "train-00009"
    else:
        shards.append(shards[0])
    path.write_text(json.dumps(index))
    with pytest.raises(StoreError, match="added, removed, renamed or reordered"):
        Store.open(folder)


def test_counts_that_do_not_fit_the_files_are_refused(folder):
    path = folder / "index.json"
    index = json.loads(path.read_bytes())
    index["splits"]["train"]["shards"][0]["tokens"] += 1
    path.write_text(json.dumps(index))
    with pytest.raises(StoreError, match="index is damaged"):
        Store.open(folder)


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b'{"format": 1}', b"\xff\xfe", b"null"])
def test_a_damaged_index_is_a_clear_error(folder, data):
    (folder / "index.json").write_bytes(data)
    with pytest.raises(StoreError, match=r"index\.json.*damaged"):
        Store.open(folder)


def test_another_format_is_refused(folder):
    path = folder / "index.json"
    path.write_text(json.dumps({**json.loads(path.read_bytes()), "format": 99}))
    with pytest.raises(StoreError, match="format 99, this version reads 1"):
        Store.open(folder)


def test_a_folder_without_an_index_is_no_store(tmp_path):
    with pytest.raises(StoreError, match="is no prepared data"):
        Store.open(tmp_path)


def test_a_damaged_tokenizer_is_found(folder):
    path = folder / "tokenizer" / "vocab.txt"
    flip(path, path.stat().st_size // 2)
    with pytest.raises(StoreError, match=r"vocab\.txt is damaged"):
        _ = Store.open(folder).tokenizer


def test_damaged_counts_are_found(folder):
    flip(folder / "counts.int64", 3)
    with pytest.raises(StoreError, match=r"counts\.int64 is damaged"):
        _ = Store.open(folder).counts_V


def test_unknown_and_empty_splits(made, tmp_path):
    with pytest.raises(StoreError, match=r"no split 'test', only \['held_out', 'train'\]"):
        made.split("test")
    whole = corpora.small_store(tmp_path, held_out=0.0)
    with pytest.raises(StoreError, match=r"'held_out' is empty.*data\.held_out"):
        whole.split("held_out")
