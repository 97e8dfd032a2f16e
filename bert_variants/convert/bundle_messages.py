"""The messages in the index of a TensorFlow checkpoint: protocol buffers, read and written by hand.

Three messages with a dozen fields do not need a library. On the wire a field is a varint
``number << 3 | kind`` and a value: a varint (kind 0), 8 bytes (1), bytes with their length in front
(2) or 4 bytes (5). A field that is absent is 0. From tensorflow/tensorflow:
tensorflow/core/protobuf/tensor_bundle.proto, .../framework/{tensor_shape,types,versions}.proto::

    BundleHeaderProto  num_shards 1, endianness 2 (0 little, 1 big), version 3
    VersionDef         producer 1, min_consumer 2, bad_consumers 3
    BundleEntryProto   dtype 1, shape 2, shard_id 3, offset 4, size 5, crc32c 6 (4 bytes), slices 7
    TensorShapeProto   dim 2 (size 1, name 2), unknown_rank 3
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

from bert_variants.convert.errors import ConvertError

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
VERSION = 1  # of the format; readers of this version read what we write

# Numbers of tensorflow.DataType.
DTYPES = {
    1: "float32",
    2: "float64",
    3: "int32",
    4: "uint8",
    5: "int16",
    6: "int8",
    9: "int64",
    10: "bool",
    14: "bfloat16",
    17: "uint16",
    19: "float16",
    22: "uint32",
    23: "uint64",
}
NUMBERS = {name: number for number, name in DTYPES.items()}
# Those that are no weights, to name them in messages.
OTHER_DTYPES = {7: "string", 8: "complex64", 18: "complex128", 20: "resource", 21: "variant"}


@dataclasses.dataclass(frozen=True)
class Header:
    """How many data files there are, and whether numbers stand most significant byte first."""

    shards: int
    big_endian: bool = False
    min_consumer: int = 0
    bad_consumers: tuple[int, ...] = ()


@dataclasses.dataclass(frozen=True)
class Entry:
    """Where a tensor lies, and what it is.

    Attributes:
        dtype: the number of its type.
        shape: a size of -1 is unknown.
        shard: number of the data file.
        offset, size: bytes in that file.
        crc: masked checksum of them.
        sliced: the tensor is stored in parts, each under a key of its own.
    """

    dtype: int
    shape: tuple[int, ...]
    shard: int
    offset: int
    size: int
    crc: int
    sliced: bool = False


def read_header(data: bytes) -> Header:
    """BundleHeaderProto.

    Raises:
        ConvertError: these bytes are no such message.
    """
    values = _values(data, {1: VARINT, 2: VARINT, 3: BYTES})
    version = _values(_last(values, 3, b""), {1: VARINT, 2: VARINT, 3: None})
    bad: list[int] = []
    for value in version.get(3, []):  # packed, or one by one
        bad += _varints(value) if isinstance(value, bytes) else [value]
    return Header(
        _signed(_last(values, 1, 0)),
        bool(_last(values, 2, 0)),
        _signed(_last(version, 2, 0)),
        tuple(bad),
    )


def read_entry(data: bytes) -> Entry:
    """BundleEntryProto.

    Raises:
        ConvertError: these bytes are no such message.
    """
    kinds = {1: VARINT, 2: BYTES, 3: VARINT, 4: VARINT, 5: VARINT, 6: FIXED32, 7: BYTES}
    values = _values(data, kinds)
    shape = _values(_last(values, 2, b""), {2: BYTES, 3: VARINT})
    sizes = [_last(_values(dim, {1: VARINT, 2: BYTES}), 1, 0) for dim in shape.get(2, [])]
    unknown = bool(_last(shape, 3, 0))
    return Entry(
        dtype=_last(values, 1, 0),
        shape=(-1,) if unknown else tuple(map(_signed, sizes)),
        shard=_signed(_last(values, 3, 0)),
        offset=_signed(_last(values, 4, 0)),
        size=_signed(_last(values, 5, 0)),
        crc=_last(values, 6, 0),
        sliced=7 in values,
    )


def header_bytes(header: Header) -> bytes:
    """BundleHeaderProto, of our version."""
    return _varint_field(1, header.shards) + _bytes_field(3, _varint_field(1, VERSION))


def entry_bytes(entry: Entry) -> bytes:
    """BundleEntryProto of a tensor that is stored whole."""
    shape = b"".join(_bytes_field(2, _varint_field(1, size)) for size in entry.shape)
    crc = varint(6 << 3 | FIXED32) + entry.crc.to_bytes(4, "little") if entry.crc else b""
    return b"".join(
        [
            _varint_field(1, entry.dtype),
            _bytes_field(2, shape),
            _varint_field(3, entry.shard),
            _varint_field(4, entry.offset),
            _varint_field(5, entry.size),
            crc,
        ]
    )


# ---- the wire


def varint(value: int) -> bytes:
    """Seven bits a byte, least significant first; the top bit says that more follow. 300: AC 02."""
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def read_varint(data: bytes, at: int) -> tuple[int, int]:
    """The number that begins at byte ``at``, and where the next thing begins.

    Raises:
        ConvertError: the bytes end within it, or it does not fit into 64 bits.
    """
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(data):
            raise ConvertError("it ends within a number")
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            if value >> 64:
                break
            return value, at
    raise ConvertError("a number has more than 64 bits")


def _varint_field(number: int, value: int) -> bytes:
    return varint(number << 3 | VARINT) + varint(value) if value else b""


def _bytes_field(number: int, value: bytes) -> bytes:
    return varint(number << 3 | BYTES) + varint(len(value)) + value


def _fields(data: bytes) -> Iterator[tuple[int, int, int | bytes]]:
    """(number, kind, value) of each field."""
    at = 0
    while at < len(data):
        tag, at = read_varint(data, at)
        number, kind = tag >> 3, tag & 7
        if kind == VARINT:
            value, at = read_varint(data, at)
            yield number, kind, value
            continue
        if kind not in (FIXED64, BYTES, FIXED32):
            raise ConvertError(f"field {number} is of the unknown kind {kind}")
        size = 8 if kind == FIXED64 else 4
        if kind == BYTES:
            size, at = read_varint(data, at)
        if size > len(data) - at:
            raise ConvertError(f"it ends within field {number}")
        raw = data[at : at + size]
        yield number, kind, raw if kind == BYTES else int.from_bytes(raw, "little")
        at += size


def _values(data: bytes, kinds: dict[int, int | None]) -> dict[int, list]:
    """number -> its values, of the fields in ``kinds``; a kind of None is any. Others are new."""
    values: dict[int, list] = {}
    for number, kind, value in _fields(data):
        if number in kinds:
            if kinds[number] not in (None, kind):
                raise ConvertError(f"field {number} is of kind {kind}, expected {kinds[number]}")
            values.setdefault(number, []).append(value)
    return values


def _last(values: dict[int, list], number: int, absent: int | bytes) -> int | bytes:
    """Of a field that stands more than once the last one counts."""
    return values[number][-1] if number in values else absent


def _varints(data: bytes) -> list[int]:
    found, at = [], 0
    while at < len(data):
        value, at = read_varint(data, at)
        found.append(value)
    return found


def _signed(value: int) -> int:
    """A negative number is written as its complement in 64 bits."""
    return value - (1 << 64) if value >> 63 else value
