"""Prepared text on disk: flat, memory-mapped shards, an index, and the tokenizer's files.

::

    index.json                  what is here: counts, sha256 of every file, what was dropped and why
    tokenizer/...               everything needed to load the tokenizer again
    counts.int64                int64 [V], how often each id occurs in the train split
    train-00000.tokens          uint16 or uint32 [n_tokens]
    train-00000.words           bits, least significant first: the token begins a word
    train-00000.units           uint8 [n_tokens], as in ``plan.Window``; only if there are units
    train-00000.sentences       uint32 [n_sentences + 1], offsets into the tokens
    train-00000.documents       uint32 [n_documents + 1], offsets into the sentences
    train-00000.parts           uint8 [n_documents], the number of the source; only in a mix
    train-00000.roles           uint8 [n_sentences], who speaks; only if there are dialogues
    held_out-00000...

Everything is little-endian. Sizes are verified when a store is opened, contents (sha256) when a
shard is first touched, or all at once with ``verify="full"``.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

import numpy as np

from bert_variants import registry
from bert_variants.text.index import (
    COUNTS,
    INDEX,
    OPTIONAL,
    TOKENIZER,
    FileRecord,
    Index,
    Shard,
    Split,
    StoreError,
    check_content,
    check_size,
    columns,
    file_record,
    read_index,
    token_type,
)
from bert_variants.text.plan import Window
from bert_variants.text.tokenizer import Tokenizer
from bert_variants.types import Vocab


class Store:
    """Prepared text, opened. Safe to read from several threads."""

    def __init__(self, folder: Path, index: Index) -> None:
        self.folder = folder
        self.index = index
        self._verified: set[str] = set()
        self._lock = threading.Lock()

    @classmethod
    def open(cls, folder: str | Path, *, verify: Literal["touch", "full"] = "touch") -> Store:
        """Open a folder that ``prepare`` wrote.

        Args:
            folder: where ``index.json`` is.
            verify: "touch" checks sizes now and contents of a shard when it is first read;
                "full" checks everything now (about 2 GB/s).

        Raises:
            StoreError: the index or a file is missing, of a wrong size, or (full) damaged.
        """
        folder = Path(folder)
        store = cls(folder, read_index(folder / INDEX))
        store._check_sizes()
        if verify == "full":
            for split in store.index.splits.values():
                for shard in split.shards:
                    store._verify(shard)
        return store

    @property
    def fingerprint(self) -> str:
        """Equal exactly if two stores hold the same text in the same tokens and shards."""
        return self.index.fingerprint

    def split(self, name: str) -> Split:
        """The split of that name.

        Raises:
            StoreError: there is none, or it is empty.
        """
        if name not in self.index.splits:
            raise StoreError(
                f"{self.folder} has no split '{name}', only {sorted(self.index.splits)}."
            )
        split = self.index.splits[name]
        if not split.tokens:
            raise StoreError(
                f"{self.folder}: the split '{name}' is empty. Give more documents, another "
                "data.held_out, or a data.held_out_source."
            )
        return split

    @property
    def counts_V(self) -> np.ndarray:
        """int64 [V], how often each id occurs in the train split."""
        data = self._read(COUNTS, self.index.counts)
        return np.frombuffer(data, "<i8")

    @property
    def vocab(self) -> Vocab:
        """Size and special ids, with ``counts_V``."""
        ids = dict(self.index.vocab)
        return Vocab(**{**ids, "specials": tuple(ids["specials"])}, counts_V=self.counts_V)

    @property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer that the text was prepared with.

        Raises:
            StoreError: its files are damaged.
        """
        said = self.index.tokenizer
        files = {
            name: self._read(f"{TOKENIZER}/{name}", file_record(record))
            for name, record in said["files"].items()
        }
        tokenizer = registry.lookup("tokenizer", said["kind"])().restore(files)
        if tokenizer.fingerprint != said["fingerprint"]:
            raise StoreError(
                f"{self.folder / TOKENIZER}: the tokenizer has fingerprint "
                f"{tokenizer.fingerprint[:12]}, the index says {said['fingerprint'][:12]}."
            )
        return tokenizer

    def window(self, split: str, shards: Iterable[int]) -> Window:
        """The text of some shards, one after another, in memory.

        Raises:
            StoreError: a shard whose contents are not what the index says; names file and offset.
        """
        found = self.split(split).shards
        parts = [self._columns(found[i]) for i in shards]
        optional = {
            column: np.concatenate([p[column] for p in parts])
            for column in sorted(OPTIONAL)
            if column in parts[0]
        }
        return Window(
            documents=_chained([p["documents"] for p in parts]),
            sentences=_chained([p["sentences"] for p in parts]),
            tokens=np.concatenate([p["tokens"] for p in parts]),
            word_starts=np.concatenate([p["words"] for p in parts]),
            **optional,
        )

    @property
    def _token_type(self) -> str:
        return token_type(self.index.vocab["size"])

    def _columns(self, shard: Shard) -> dict[str, np.ndarray]:
        self._verify(shard)
        types = {"tokens": self._token_type, "sentences": "<u4", "documents": "<u4"}
        types |= dict.fromkeys(("words", *OPTIONAL), "u1")
        raw = {
            column: np.memmap(self.folder / f"{shard.name}.{column}", types[column], "r")
            for column in shard.files
        }
        bits = np.unpackbits(raw["words"], count=shard.tokens, bitorder="little")
        return {**raw, "words": bits.view(bool)}

    def _check_sizes(self) -> None:
        for split in self.index.splits.values():
            for shard in split.shards:
                optional = {"parts", "roles"} & set(shard.files)
                optional |= {"units"} if self.index.units else set()
                wanted = columns(shard, self._token_type, optional)
                said = {column: f.bytes for column, f in shard.files.items()}
                if said != wanted:
                    raise StoreError(
                        f"{self.folder / INDEX}: shard {shard.name} says {said}, its counts make "
                        f"{wanted}. The index is damaged; prepare the data again."
                    )
                for column, size in wanted.items():
                    check_size(self.folder / f"{shard.name}.{column}", size)
        check_size(self.folder / COUNTS, self.index.counts.bytes)

    def _verify(self, shard: Shard) -> None:
        with self._lock:
            if shard.name in self._verified:
                return
            for column, record in shard.files.items():
                self._read(f"{shard.name}.{column}", record)
            self._verified.add(shard.name)

    def _read(self, name: str, record: FileRecord) -> bytes:
        path = self.folder / name
        check_size(path, record.bytes)
        data = path.read_bytes()
        check_content(path, data, record)
        return data


def _chained(offsets: list[np.ndarray]) -> np.ndarray:
    """Offsets of several shards as offsets into their concatenation."""
    joined, base = [np.zeros(1, np.int64)], 0
    for o in offsets:
        joined.append(o[1:].astype(np.int64) + base)
        base += int(o[-1])
    return np.concatenate(joined)
