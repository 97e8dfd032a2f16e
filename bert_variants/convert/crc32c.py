"""CRC-32C (Castagnoli), as TensorFlow's files have it, with numpy alone.

A register of 32 bits takes in a word of four bytes by ``s = advance(s ^ word)``, where ``advance``
is linear over bits: it is what 32 shifts of the register do. So words need not be taken one after
the other. The message is laid out in rows of W words, and W registers walk down the columns, each
advancing by W words at a time (two table look-ups, for the lower and the upper half of the
register). What they hold in the end is a message of W words with the same checksum, to which the
same is done with fewer columns, until a plain loop does the rest.

Polynomial and masking as in google/leveldb:util/crc32c.{h,cc}.
"""

from __future__ import annotations

import functools
import sys

import numpy as np

_POLYNOMIAL = 0x82F63B78  # bits reversed
_ALL = 0xFFFFFFFF
_WIDE, _NARROW = 4096, 64  # columns
_MASK_DELTA = 0xA282EAD8


def crc32c(data: np.ndarray, before: int = 0) -> int:
    """The checksum of bytes, or of ``before``'s bytes followed by these.

    Args:
        data: uint8, contiguous.
        before: the checksum of what stands in front.

    A worked value: of the nine bytes ``123456789`` it is 0xE3069283.
    """
    s = before ^ _ALL
    # what does not fill whole rows is taken first, so that the rest ends with the message
    first = data.size % (4 * _NARROW)
    second = data.size % (4 * _WIDE)
    table = _bytes_table()
    for byte in data[:first].tolist():
        s = table[(s ^ byte) & 0xFF] ^ (s >> 8)
    s = _rows(s, data[first:second], _NARROW)
    return _rows(s, data[second:], _WIDE) ^ _ALL


def masked(crc: int) -> int:
    """A checksum as it is stored: rotated, so that checksums of checksums are no trouble."""
    return (((crc >> 15) | (crc << 17)) + _MASK_DELTA) & _ALL


def _rows(s: int, data: np.ndarray, columns: int) -> int:
    """The register after a whole number of rows."""
    if not data.size:
        return s
    words = data.view(np.uint32).reshape(-1, columns)
    words = words.byteswap() if sys.byteorder == "big" else words
    registers = words[0].copy()
    registers[0] ^= np.uint32(s)
    low, high = _tables(columns)
    halves, index = np.empty(columns, np.uint32), np.empty(columns, np.intp)
    for row in words[1:]:
        np.bitwise_and(registers, 0xFFFF, out=index, casting="unsafe")
        np.take(low, index, out=halves, mode="clip")
        np.right_shift(registers, 16, out=index, casting="unsafe")
        np.take(high, index, out=registers, mode="clip")
        np.bitwise_xor(registers, halves, out=registers)
        np.bitwise_xor(registers, row, out=registers)
    if columns > _NARROW:
        return _rows(0, registers.view(np.uint8), _NARROW)
    s, (low, high) = 0, _lists()
    for word in registers.tolist():
        s ^= word
        s = low[s & 0xFFFF] ^ high[s >> 16]
    return s


@functools.cache
def _bytes_table() -> list[int]:
    """What a register of one byte becomes in eight shifts."""
    return [_shifted(byte, 8) for byte in range(256)]


@functools.cache
def _tables(words: int) -> tuple[np.ndarray, np.ndarray]:
    """Advancing by ``words`` words: of the lower and of the upper 16 bits, to be xored."""
    images = [_shifted(1 << bit, 32) for bit in range(32)]
    # squared and multiplied; applying a linear map to its own images composes it with itself
    result = [1 << bit for bit in range(32)]
    while words:
        if words & 1:
            result = [_applied(images, x) for x in result]
        images = [_applied(images, x) for x in images]
        words >>= 1
    tables = []
    for half in (result[:16], result[16:]):
        table = np.zeros(1, np.uint32)
        for image in half:
            table = np.concatenate([table, table ^ np.uint32(image)])
        tables.append(table)
    return tables[0], tables[1]


@functools.cache
def _lists() -> tuple[list[int], list[int]]:
    low, high = _tables(1)
    return low.tolist(), high.tolist()


def _shifted(s: int, times: int) -> int:
    for _ in range(times):
        s = (s >> 1) ^ (_POLYNOMIAL if s & 1 else 0)
    return s


def _applied(images: list[int], x: int) -> int:
    """The linear map of which ``images`` are those of single bits."""
    result = 0
    for bit, image in enumerate(images):
        if x >> bit & 1:
            result ^= image
    return result
