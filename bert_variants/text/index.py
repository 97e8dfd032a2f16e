"""The index of a store: what ``index.json`` says, as frozen values that can check themselves.

The layout of the files is described in ``store.py``.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import zlib
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np

FORMAT = 1
BLOCK = 1 << 20  # bytes; a checksum for each says where in a file the damage is
INDEX, COUNTS, TOKENIZER = "index.json", "counts.int64", "tokenizer"
SPLITS = ("train", "held_out")
# Columns of a shard that only some texts have: uint8 by token, by document, by sentence.
OPTIONAL = frozenset({"units", "parts", "roles"})


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


def columns(shard: Shard, kind: str, optional: Collection[str]) -> dict[str, int]:
    """The files of a shard with these counts and optional columns, and how many bytes each has."""
    tokens, sentences, documents = shard.tokens, shard.sentences, shard.documents
    sizes = {
        "tokens": tokens * np.dtype(kind).itemsize,
        "words": math.ceil(tokens / 8),
        "sentences": 4 * (sentences + 1),
        "documents": 4 * (documents + 1),
    }
    rare = {"units": tokens, "parts": documents, "roles": sentences}
    return sizes | {column: rare[column] for column in optional}


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
        values["counts"] = file_record(values["counts"])
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


def file_record(values: Mapping[str, Any]) -> FileRecord:
    """A record as JSON gives it back."""
    return FileRecord(**{**values, "blocks": tuple(values["blocks"])})


def _split(values: Mapping[str, Any]) -> Split:
    shards = (
        Shard(**{**s, "files": {k: file_record(f) for k, f in s["files"].items()}})
        for s in values["shards"]
    )
    return Split(tuple(shards), values["documents_sha256"])


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


def check_size(path: Path, size: int) -> None:
    """Look whether a file is there and has the size that it should.

    Raises:
        StoreError: it is missing, cut off or too long.
    """
    if not path.is_file():
        raise StoreError(f"{path} is missing. Restore it or prepare the data again.")
    found = path.stat().st_size
    if found != size:
        raise StoreError(
            f"{path} is {'cut off' if found < size else 'too long'}: it ends at byte {found}, the "
            f"index says {size}. Restore it or prepare the data again."
        )
