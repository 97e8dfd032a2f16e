"""TensorFlow checkpoints (``PREFIX.index`` and ``PREFIX.data-00000-of-00001``) without TensorFlow.

This is the V2 format, of TensorFlow 1 and 2: the one that BERT, ALBERT, ELECTRA and XLNet were
published in. The index is a table (``bundle_table``) from a tensor's name to a message that says
where it lies (``bundle_messages``); the data files are the tensors' bytes, with checksums in the
index. ``PREFIX.meta``, the graph, is not needed.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np

from bert_variants.convert import bundle_messages as messages
from bert_variants.convert.bundle_table import MOST_ENTRIES, MOST_KEY, read_table, table_bytes
from bert_variants.convert.crc32c import crc32c, masked
from bert_variants.convert.errors import ConvertError, check
from bert_variants.convert.files import Source, check_absent, check_room, make_folder, staged
from bert_variants.convert.paths import inside, plain
from bert_variants.convert.tensors import (
    DTYPES,
    Stored,
    Tensors,
    as_bytes,
    in_file,
    shape_problem,
)

INDEX = ".index"
MOST_SHARDS = 99_999  # they are numbered with five digits
# Entries that are no weights: name -> what it is. They are left out.
NO_WEIGHTS = {"_CHECKPOINTABLE_OBJECT_GRAPH": "which Python objects a checkpoint was made of"}


def read_bundle(prefix: str | Path) -> dict[str, Stored]:
    """The tensors of a checkpoint, sorted by name.

    Only the index is read. A tensor's checksum is compared when it is loaded.

    Args:
        prefix: ``DIR/bert_model.ckpt``; or one of its files; or a directory that holds one
            checkpoint.

    Raises:
        ConvertError: no such checkpoint; it is damaged, of a newer version, or was written on a
            machine that puts the most significant byte first; or it holds what is no tensor of
            numbers, or tensors that are stored in parts. Lists all of them.
    """
    prefix = find_bundle(prefix)
    index = inside(prefix.parent, prefix.name + INDEX)
    table = read_table(Source.of(index))
    header = _header(table, index)
    entries, problems = _entries(table)
    shards = _Shards(prefix, header.shards)
    for name, entry in entries.items():
        problems += [f"{name} {wrong}." for wrong in _problems(entry, shards)]
    problems += [f"{error}" for error in shards.missing()]
    problems = problems or _overlaps(entries)
    check(f"{index} describes a checkpoint that cannot be read", problems)
    return {
        name: in_file(
            shards.look(entry.shard),
            entry.offset,
            name,
            entry.shape,
            messages.DTYPES[entry.dtype],
            _same_checksum(name, entry, index),
        )
        for name, entry in entries.items()
    }


def find_bundle(path: str | Path) -> Path:
    """The prefix of the checkpoint that ``path`` is, is a file of, or is a directory of.

    Raises:
        ConvertError: there is none there, or there are several.
    """
    path = Path(path)
    if path.is_dir():
        found = sorted(file.name for file in path.glob(f"*{INDEX}"))
        if len(found) != 1:
            said = f"several checkpoints: {', '.join(found[:20])}" if found else "no checkpoint"
            raise ConvertError(f"{path} holds {said}. Name DIR/PREFIX, without {INDEX}.")
        return path / found[0].removesuffix(INDEX)
    name = re.sub(r"\.(index|meta|data-\d{5}-of-\d{5})$", "", path.name)
    if not (path.parent / (name + INDEX)).exists():
        raise ConvertError(f"there is no checkpoint {path.parent / name}: no {name}{INDEX}.")
    return path.parent / name


# ---- reading


class _Shards:
    """The data files, each looked at once."""

    def __init__(self, prefix: Path, count: int) -> None:
        self.prefix, self.count = prefix, count
        self._known: dict[int, Source | ConvertError] = {}

    def look(self, shard: int) -> Source | None:
        """A data file; None if it is missing."""
        if shard not in self._known:
            name = _data_name(self.prefix.name, shard, self.count)
            try:
                path = inside(self.prefix.parent, name, self.prefix.name + INDEX)
                self._known[shard] = Source.of(path)
            except ConvertError as error:
                self._known[shard] = error
        known = self._known[shard]
        return None if isinstance(known, ConvertError) else known

    def missing(self) -> list[ConvertError]:
        """What is wrong with those that were looked at."""
        return [x for _, x in sorted(self._known.items()) if isinstance(x, ConvertError)]


def _data_name(prefix: str, shard: int, count: int) -> str:
    return f"{prefix}.data-{shard:05}-of-{count:05}"


def _header(table: dict[bytes, bytes], index: Path) -> messages.Header:
    if b"" not in table:
        raise ConvertError(f"{index} is no index of a checkpoint: it has no header.")
    try:
        header = messages.read_header(table[b""])
    except ConvertError as error:
        raise ConvertError(f"{index}: the header is damaged: {error}.") from None
    version = messages.VERSION
    if header.min_consumer > version or version in header.bad_consumers:
        raise ConvertError(f"{index} is of a newer version than {version}.")
    if header.big_endian:
        raise ConvertError(f"{index}: the most significant byte is first, expected last.")
    if not 1 <= header.shards <= MOST_SHARDS:
        raise ConvertError(f"{index} says that there are {header.shards} data files.")
    return header


def _entries(table: dict[bytes, bytes]) -> tuple[dict[str, messages.Entry], list[str]]:
    """name -> entry, without what is no weight; and what is wrong with the others."""
    entries, parts, problems = {}, 0, []
    for key, data in table.items():
        if key.startswith(b"\0"):  # part of a tensor, whose own entry tells of it
            parts += 1
        elif key:
            try:
                name, entry = key.decode(), messages.read_entry(data)
            except (UnicodeDecodeError, ConvertError) as error:
                problems.append(f"{key[:100]!r} cannot be read: {error}.")
                continue
            if name not in NO_WEIGHTS:
                entries[name] = entry
    if parts and not any(entry.sliced for entry in entries.values()):
        problems.append(f"{parts} parts belong to no tensor.")
    return entries, problems


def _problems(entry: messages.Entry, shards: _Shards) -> list[str]:
    """What is wrong with one entry."""
    if entry.sliced:
        return ["is stored in parts (a partitioned variable): save it whole with TensorFlow"]
    if entry.dtype not in messages.DTYPES:
        known = messages.OTHER_DTYPES
        kind = known[entry.dtype] if entry.dtype in known else f"number {entry.dtype}"
        return [f"is of the type {kind}, which no weight has"]
    wrong = shape_problem(entry.shape)
    if wrong:
        return [f"has no shape: {wrong}"]
    dtype = messages.DTYPES[entry.dtype]
    needed = math.prod(entry.shape) * DTYPES[dtype].itemsize
    if entry.size != needed:
        return [f"has {entry.size:,} bytes, {dtype}{list(entry.shape)} needs {needed:,}"]
    if not 0 <= entry.shard < shards.count:
        return [f"lies in data file {entry.shard} of {shards.count}"]
    source = shards.look(entry.shard)
    if source is not None and not 0 <= entry.offset <= source.size - entry.size:
        end = entry.offset + entry.size
        return [f"ends at byte {end:,} of {source.path.name}, which has {source.size:,}"]
    return []


def _overlaps(entries: dict[str, messages.Entry]) -> list[str]:
    """Tensors that share bytes. No writer makes them."""
    placed = sorted((e.shard, e.offset, e.offset + e.size, name) for name, e in entries.items())
    problems, shard, end, before = [], -1, 0, ""
    for at, begin, stop, name in placed:
        if at == shard and begin < end and stop > begin:
            problems.append(f"{name} shares bytes with {before}.")
        shard, end, before = (at, stop, name) if at != shard or stop > end else (at, end, before)
    return problems


def _same_checksum(name: str, entry: messages.Entry, index: Path) -> Callable[[np.ndarray], None]:
    def compare(data: np.ndarray) -> None:
        found = masked(crc32c(data))
        if found != entry.crc:
            raise ConvertError(
                f"{name} is damaged: {index.name} says that its checksum is {entry.crc:#010x}, "
                f"what was read has {found:#010x}."
            )

    return compare


# ---- writing


def write_bundle(prefix: str | Path, tensors: Tensors) -> list[Path]:
    """Write a checkpoint that TensorFlow reads.

    One tensor is in memory at a time. The same tensors give the same bytes. Both files appear when
    both are whole, the index last.

    Args:
        prefix: ``DIR/bert_model.ckpt``; the directory is made if it is not there.
        tensors: name -> tensor; the name in the mapping is the one that is written.

    Returns:
        The data file and the index.

    Raises:
        ConvertError: the files are there already, there is no room, a name that the format does
            not have, or a tensor that is not what it says.
    """
    prefix = Path(prefix)
    _check_writable(prefix, tensors)
    paths = [prefix.with_name(_data_name(prefix.name, 0, 1)), prefix.with_name(prefix.name + INDEX)]
    make_folder(prefix.parent)
    check_absent(paths)
    check_room(prefix.parent, sum(tensor.nbytes for tensor in tensors.values()))
    table = {b"": messages.header_bytes(messages.Header(shards=1))}
    with staged() as stage:
        with stage.new(paths[0]) as file:
            offset = 0
            for name in sorted(tensors, key=str.encode):
                data = as_bytes(tensors[name])
                file.write(data)
                entry = messages.Entry(
                    dtype=messages.NUMBERS[tensors[name].dtype],
                    shape=tensors[name].shape,
                    shard=0,
                    offset=offset,
                    size=data.size,
                    crc=masked(crc32c(data)),
                )
                table[name.encode()] = messages.entry_bytes(entry)
                offset += data.size
        with stage.new(paths[1]) as file:
            file.write(table_bytes(table))
    return paths


def _check_writable(prefix: Path, tensors: Tensors) -> None:
    problems = []
    if plain(prefix.name) or "\n" in prefix.name:
        problems.append(f"the prefix {prefix.name!r} is no name of a file.")
    if len(tensors) >= MOST_ENTRIES:
        problems.append(f"there are {len(tensors):,} tensors, expected fewer than {MOST_ENTRIES:,}")
    for name in tensors:
        try:
            encoded = name.encode()
        except UnicodeEncodeError:
            problems.append(f"{name!r} is half a character.")
            continue
        if not encoded or encoded[0] == 0 or len(encoded) > MOST_KEY or name in NO_WEIGHTS:
            problems.append(f"{name[:100]!r} is no name of a tensor there.")
    check(f"{prefix} cannot be written as a checkpoint", problems)
