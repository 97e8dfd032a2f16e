"""The index file of a TensorFlow checkpoint: a table of sorted keys in blocks (LevelDB's format).

::

    blocks      entries, then uint32 offsets of those entries whose key stands there whole, then
                uint32 how many these are; behind it a byte (0: not compressed) and the masked
                checksum of block and byte
    footer      48 bytes: place of a block that nobody reads, place of the index block, zeros, and
                8 bytes that say what this is

    entry       varints: bytes shared with the key before, bytes of the rest, bytes of the value;
                then the rest of the key, then the value
    place       varints: offset and size of a block, without its last 5 bytes

The index block has, for each block, a key that is not below its last one, and its place. From
tensorflow/tensorflow:tensorflow/core/lib/io/{format.h,block_builder.cc,table_builder.cc}.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from bert_variants.convert.bundle_messages import read_varint, varint
from bert_variants.convert.crc32c import crc32c, masked
from bert_variants.convert.errors import ConvertError
from bert_variants.convert.files import Source

MAGIC = 0xDB4775248B80FB57.to_bytes(8, "little")
FOOTER, TRAILER = 48, 5
BLOCK, RESTART = 262_144, 16  # bytes of a block, and entries after which a key stands whole
# A checkpoint of BERT-large with its optimizer has 1,200 entries in 100 kB.
MOST_BYTES, MOST_ENTRIES, MOST_KEY = 16 << 20, 100_000, 4096


def read_table(source: Source) -> dict[bytes, bytes]:
    """All keys and values, in order; every block is checked.

    Raises:
        ConvertError: this is no such table, or it is damaged.
    """
    if source.size > MOST_BYTES:
        raise ConvertError(f"{source.path} has {source.size:,} bytes, expected {MOST_BYTES:,}.")
    data = source.read(0, source.size)
    try:
        return _entries(data)
    except ConvertError as error:
        raise ConvertError(f"{source.path} is no index of a checkpoint: {error}.") from None


def table_bytes(entries: Mapping[bytes, bytes]) -> bytes:
    """A table of ``entries``, whose keys are sorted here."""
    out = bytearray()
    index: list[tuple[bytes, bytes]] = []
    block: list[tuple[bytes, bytes]] = []
    keys = sorted(entries)
    size = 0
    for i, key in enumerate(keys):
        block.append((key, entries[key]))
        size += len(key) + len(entries[key])
        last = i + 1 == len(keys)
        if size >= BLOCK or last:
            between = _successor(key) if last else _separator(key, keys[i + 1])
            index.append((between, _placed(out, _block(block, RESTART))))
            block, size = [], 0
    unread = _placed(out, _block([], RESTART))
    footer = unread + _placed(out, _block(index, 1))
    return bytes(out + footer.ljust(FOOTER - len(MAGIC), b"\0") + MAGIC)


# ---- reading


def _entries(data: np.ndarray) -> dict[bytes, bytes]:
    if data.size < FOOTER or data[-8:].tobytes() != MAGIC:
        raise ConvertError("it does not end as one does")
    footer = data[-FOOTER:].tobytes()
    at = 0
    for _ in range(2):  # the place that nobody reads
        _, at = read_varint(footer, at)
    offset, at = read_varint(footer, at)
    size, at = read_varint(footer, at)
    found: dict[bytes, bytes] = {}
    last: bytes | None = None
    end = 0
    for _, place in _read_block(data, offset, size):
        offset, at = read_varint(place, 0)
        size, at = read_varint(place, at)
        if offset < end:  # else a small file could name one block many times
            raise ConvertError("its blocks are not one after another")
        end = offset + size
        for key, value in _read_block(data, offset, size):
            if last is not None and key <= last:
                raise ConvertError(f"the key {key[:100]!r} is not above the one before")
            found[key] = value
            last = key
            if len(found) > MOST_ENTRIES:
                raise ConvertError(f"it has more than {MOST_ENTRIES:,} entries")
    return found


def _read_block(data: np.ndarray, offset: int, size: int) -> list[tuple[bytes, bytes]]:
    """The entries of a block whose checksum is right."""
    if offset + size + TRAILER > data.size - FOOTER:
        raise ConvertError(f"a block at byte {offset:,} of {size:,} bytes goes beyond its end")
    end = offset + size
    said = int.from_bytes(data[end + 1 : end + TRAILER].tobytes(), "little")
    if masked(crc32c(data[offset : end + 1])) != said:
        raise ConvertError(f"the block at byte {offset:,} is damaged: its checksum is another")
    if data[end] != 0:
        raise ConvertError(
            f"the block at byte {offset:,} is compressed (kind {data[end]}), which TensorFlow "
            "never writes. Load and save the checkpoint with TensorFlow"
        )
    return _block_entries(data[offset:end].tobytes())


def _block_entries(block: bytes) -> list[tuple[bytes, bytes]]:
    whole = int.from_bytes(block[-4:], "little")  # how many keys stand whole
    end = len(block) - 4 - 4 * whole
    if len(block) < 4 or end < 0:
        raise ConvertError("a block is shorter than it says")
    found, key, at = [], b"", 0
    while at < end:
        shared, at = read_varint(block, at)
        rest, at = read_varint(block, at)
        length, at = read_varint(block, at)
        if shared > len(key) or shared + rest > MOST_KEY or at + rest + length > end:
            raise ConvertError("an entry does not fit into its block")
        key = key[:shared] + block[at : at + rest]
        found.append((key, block[at + rest : at + rest + length]))
        at += rest + length
        if len(found) > MOST_ENTRIES:
            raise ConvertError(f"it has more than {MOST_ENTRIES:,} entries")
    return found


# ---- writing


def _block(entries: list[tuple[bytes, bytes]], restart: int) -> bytes:
    """A block; every ``restart`` entries a key stands whole."""
    out, before, whole = bytearray(), b"", [0]
    for i, (key, value) in enumerate(entries):
        shared = 0
        if i % restart:
            most = min(len(before), len(key))
            while shared < most and before[shared] == key[shared]:
                shared += 1
        elif i:
            whole.append(len(out))
        out += varint(shared) + varint(len(key) - shared) + varint(len(value))
        out += key[shared:] + value
        before = key
    return bytes(out) + b"".join(n.to_bytes(4, "little") for n in (*whole, len(whole)))


def _placed(out: bytearray, block: bytes) -> bytes:
    """Append a block with its trailer, and say where it is."""
    place = varint(len(out)) + varint(len(block))
    crc = masked(crc32c(np.frombuffer(block + b"\0", np.uint8)))
    out += block + b"\0" + crc.to_bytes(4, "little")
    return place


def _successor(key: bytes) -> bytes:
    """A short key that is not below ``key``: ``bert/x`` gives ``c``."""
    for i, byte in enumerate(key):
        if byte != 0xFF:
            return key[:i] + bytes([byte + 1])
    return key


def _separator(key: bytes, limit: bytes) -> bytes:
    """A short key that is not below ``key`` and below ``limit``, which is above it."""
    at = next((i for i, (a, b) in enumerate(zip(key, limit, strict=False)) if a != b), None)
    if at is None or key[at] + 1 >= limit[at]:
        return key
    return key[:at] + bytes([key[at] + 1])
