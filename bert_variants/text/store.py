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
    held_out-00000...

Everything is little-endian. Sizes are verified when a store is opened, contents (sha256) when a
shard is first touched, or all at once with ``verify="full"``.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import threading
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np

from bert_variants import registry
from bert_variants.text.plan import Window
from bert_variants.text.tokenizer import Tokenizer
from bert_variants.types import Vocab

FORMAT = 1
BLOCK = 1 << 20  # bytes; a checksum for each says where in a file the damage is
INDEX, COUNTS, TOKENIZER = "index.json", "counts.int64", "tokenizer"
SPLITS = ("train", "held_out")


class StoreError(ValueError):
    """Prepared data that is missing, damaged, or not what its index says."""


@dataclasses.dataclass(frozen=True)
class FileRecord:
    """A file of the store: its size, sha256, and a CRC-32 for each block of 1 MiB."""

    bytes: int
    sha256: str
    blocks: tuple[int, ...]

    @classmethod
    def of(cls, data: bytes | np.ndarray) -> FileRecord:
        """The record of these contents."""
        view = memoryview(data).cast("B") if len(data) else memoryview(b"")
        blocks = (zlib.crc32(view[i : i + BLOCK]) for i in range(0, len(view), BLOCK))
        return cls(len(view), hashlib.sha256(view).hexdigest(), tuple(blocks))


@dataclasses.dataclass(frozen=True)
class Shard:
    """A shard as the index describes it: its counts and its files by column."""

    name: str
    documents: int
    sentences: int
    tokens: int
    words: int
    files: Mapping[str, FileRecord]


@dataclasses.dataclass(frozen=True)
class Split:
    """The train or the held-out part.

    Attributes:
        shards: in their order.
        documents_sha256: over the identities of the documents, in their order.
    """

    shards: tuple[Shard, ...]
    documents_sha256: str

    @property
    def documents(self) -> int:
        return sum(s.documents for s in self.shards)

    @property
    def sentences(self) -> int:
        return sum(s.sentences for s in self.shards)

    @property
    def tokens(self) -> int:
        return sum(s.tokens for s in self.shards)

    @property
    def words(self) -> int:
        return sum(s.words for s in self.shards)


@dataclasses.dataclass(frozen=True)
class Index:
    """Everything that ``index.json`` says.

    Attributes:
        origin: what the text was prepared from: call-strings, source fingerprints, settings.
        tokenizer: call-string, kind, fingerprint, and sha256 of the files.
        trained_on: the sample that the tokenizer was trained on; empty if it was loaded.
        vocab: size and special ids.
        units: the call-string of the units, empty if there are none.
        counts: the record of ``counts.int64``.
        splits: by name.
        dropped: reason -> how many documents (or characters, where it says so) were left out.
        altered: reason -> how often text was taken otherwise than it stood.
    """

    origin: Mapping[str, Any]
    tokenizer: Mapping[str, Any]
    trained_on: Mapping[str, int]
    vocab: Mapping[str, Any]
    units: str
    counts: FileRecord
    splits: Mapping[str, Split]
    dropped: Mapping[str, int]
    altered: Mapping[str, int]

    @property
    def fingerprint(self) -> str:
        """sha256 over what a reader gets: format, tokenizer, units, and every shard in its order.

        Where the text came from is not part of it: the same text prepared elsewhere is equal.
        """
        content = {
            "format": FORMAT,
            "tokenizer": self.tokenizer["fingerprint"],
            "units": self.units,
            "splits": {
                name: [
                    [shard.name, {column: f.sha256 for column, f in sorted(shard.files.items())}]
                    for shard in split.shards
                ]
                for name, split in sorted(self.splits.items())
            },
        }
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    def write(self) -> bytes:
        """As JSON, the same bytes for the same index."""
        values = {"format": FORMAT, "fingerprint": self.fingerprint, **dataclasses.asdict(self)}
        return json.dumps(values, indent=1, sort_keys=True, ensure_ascii=False).encode()


def token_type(vocabulary: int) -> str:
    """The smallest unsigned integer that holds every id of a vocabulary of this size."""
    return "<u2" if vocabulary <= 1 << 16 else "<u4"


def columns(shard: Shard, kind: str, units: bool) -> dict[str, int]:
    """The files of a shard with these counts, and how many bytes each has."""
    tokens, sentences, documents = shard.tokens, shard.sentences, shard.documents
    sizes = {
        "tokens": tokens * np.dtype(kind).itemsize,
        "words": math.ceil(tokens / 8),
        "sentences": 4 * (sentences + 1),
        "documents": 4 * (documents + 1),
    }
    return {**sizes, "units": tokens} if units else sizes


def read_index(path: Path) -> Index:
    """Read and check ``index.json``.

    Raises:
        StoreError: missing, not JSON, of another format, a field missing, or edited.
    """
    if not path.is_file():
        raise StoreError(f"{path} does not exist: {path.parent} is no prepared data. Prepare it.")
    try:
        values = json.loads(path.read_bytes())
        if values["format"] != FORMAT:
            raise StoreError(
                f"{path}: format {values['format']}, this version reads {FORMAT}. Prepare again."
            )
        said = values.pop("fingerprint")
        del values["format"]
        values["counts"] = _file_record(values["counts"])
        values["splits"] = {k: _split(v) for k, v in values["splits"].items()}
        index = Index(**values)
        found = index.fingerprint
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        if isinstance(error, StoreError):
            raise
        raise StoreError(f"{path} is damaged ({type(error).__name__}: {error}).") from None
    if found != said:
        raise StoreError(
            f"{path}: its list of shards has fingerprint {found[:12]}, it says {said[:12]}: shards "
            "were added, removed, renamed or reordered by hand. Prepare the data again."
        )
    return index


def _file_record(values: Mapping[str, Any]) -> FileRecord:
    return FileRecord(**{**values, "blocks": tuple(values["blocks"])})


def _split(values: Mapping[str, Any]) -> Split:
    shards = (
        Shard(**{**s, "files": {k: _file_record(f) for k, f in s["files"].items()}})
        for s in values["shards"]
    )
    return Split(tuple(shards), values["documents_sha256"])


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
            name: self._read(f"{TOKENIZER}/{name}", _file_record(record))
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
        units = np.concatenate([p["units"] for p in parts]) if self.index.units else None
        return Window(
            documents=_chained([p["documents"] for p in parts]),
            sentences=_chained([p["sentences"] for p in parts]),
            tokens=np.concatenate([p["tokens"] for p in parts]),
            word_starts=np.concatenate([p["words"] for p in parts]),
            units=units,
        )

    @property
    def _token_type(self) -> str:
        return token_type(self.index.vocab["size"])

    def _columns(self, shard: Shard) -> dict[str, np.ndarray]:
        self._verify(shard)
        types = {"tokens": self._token_type, "sentences": "<u4", "documents": "<u4"}
        raw = {
            column: np.memmap(self.folder / f"{shard.name}.{column}", types.get(column, "u1"), "r")
            for column in shard.files
        }
        bits = np.unpackbits(raw["words"], count=shard.tokens, bitorder="little")
        return {**raw, "words": bits.view(bool)}

    def _check_sizes(self) -> None:
        for split in self.index.splits.values():
            for shard in split.shards:
                wanted = columns(shard, self._token_type, bool(self.index.units))
                said = {column: f.bytes for column, f in shard.files.items()}
                if said != wanted:
                    raise StoreError(
                        f"{self.folder / INDEX}: shard {shard.name} says {said}, its counts make "
                        f"{wanted}. The index is damaged; prepare the data again."
                    )
                for column, size in wanted.items():
                    _check_size(self.folder / f"{shard.name}.{column}", size)
        _check_size(self.folder / COUNTS, self.index.counts.bytes)

    def _verify(self, shard: Shard) -> None:
        with self._lock:
            if shard.name in self._verified:
                return
            for column, record in shard.files.items():
                self._read(f"{shard.name}.{column}", record)
            self._verified.add(shard.name)

    def _read(self, name: str, record: FileRecord) -> bytes:
        path = self.folder / name
        _check_size(path, record.bytes)
        data = path.read_bytes()
        check_content(path, data, record)
        return data


def check_content(path: Path, data: bytes, record: FileRecord) -> None:
    """Compare a file's contents with its record.

    Raises:
        StoreError: they differ; names the file and the range of bytes where the damage is.
    """
    found = FileRecord.of(data)
    if found.sha256 == record.sha256:
        return
    bad = [i for i, (a, b) in enumerate(zip(found.blocks, record.blocks, strict=False)) if a != b]
    if len(bad) == len(record.blocks) > 1:
        place = "in every block, as if another file stood in its place"
    elif bad:
        place = f"first between byte {bad[0] * BLOCK} and {min((bad[0] + 1) * BLOCK, len(data))}"
    else:
        place = "in a place that its checksums do not show"
    raise StoreError(
        f"{path} is damaged: sha256 {found.sha256[:12]}, the index says {record.sha256[:12]}; it "
        f"differs {place}. Restore the file or prepare the data again."
    )


def _check_size(path: Path, size: int) -> None:
    if not path.is_file():
        raise StoreError(f"{path} is missing. Restore it or prepare the data again.")
    found = path.stat().st_size
    if found != size:
        raise StoreError(
            f"{path} is {'cut off' if found < size else 'too long'}: it ends at byte {found}, the "
            f"index says {size}. Restore it or prepare the data again."
        )


def _chained(offsets: list[np.ndarray]) -> np.ndarray:
    """Offsets of several shards as offsets into their concatenation."""
    joined, base = [np.zeros(1, np.int64)], 0
    for o in offsets:
        joined.append(o[1:].astype(np.int64) + base)
        base += int(o[-1])
    return np.concatenate(joined)
