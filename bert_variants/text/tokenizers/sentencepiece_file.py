"""Read a sentencepiece ``.model`` far enough to know that it is whole.

The sentencepiece library loads a file that was cut off in the middle without a word, with the
pieces that were left. A model is a protocol buffer with the pieces first and the settings of
trainer and normaliser behind them (google/sentencepiece:src/sentencepiece_model.proto); so a file
is whole if it parses to its last byte, holds both settings, and as many pieces as the trainer says.
"""

from __future__ import annotations

import dataclasses
import math
import struct
from collections.abc import Iterator, Set

from bert_variants.text.tokenizer import TokenizerError

_PIECES, _TRAINER, _NORMALIZER = 1, 2, 3  # fields of ModelProto
_SPELLING, _SCORE, _TYPE = 1, 2, 3  # fields of SentencePiece
# Fields of TrainerSpec; the limit is hard unless it says otherwise.
_VOCAB_SIZE, _HARD_LIMIT = 4, 33
# Types. A user-defined piece is found in raw text, a control piece is not.
_UNKNOWN, _CONTROL, _USER_DEFINED = 2, 3, 4
_WIDTHS = {1: 8, 2: 0, 5: 4}  # bytes of a field by its wire type; type 2 gives its length


@dataclasses.dataclass(frozen=True)
class ModelFile:
    """A checked model: its bytes, its pieces by id, and the ids that stand for no text."""

    data: bytes
    pieces: tuple[str, ...]
    controls: tuple[int, ...]


def read_model(data: bytes, name: str) -> ModelFile:
    """Check the bytes of a ``.model``.

    Raises:
        TokenizerError: empty, not a model, cut off, or without all of its pieces.
    """
    values: list[bytes] = []
    found: dict[int, bytes] = {}
    try:
        for field, value in fields(data):
            if isinstance(value, int):
                raise ValueError("it holds a number where a message should be")
            if field == _PIECES:
                values.append(value)
            else:
                found[field] = value
        pieces, controls = _read_pieces(values)
        if _TRAINER not in found or _NORMALIZER not in found:
            raise ValueError(f"it ends after {len(pieces)} pieces, its settings are absent")
        trainer = dict(fields(found[_TRAINER]))
        size, hard = trainer.get(_VOCAB_SIZE, 8000), trainer.get(_HARD_LIMIT, 1)
        if len(pieces) > size or (hard and len(pieces) != size):
            raise ValueError(f"it holds {len(pieces)} pieces and says that it has {size}")
        if len(set(pieces)) != len(pieces):
            raise ValueError("a piece stands in it twice")
    except (ValueError, TypeError, AttributeError, struct.error) as error:
        raise TokenizerError(
            f"{name} ({len(data)} bytes) is not a whole sentencepiece model: {error}. "
            "Copy it again."
        ) from None
    return ModelFile(data, tuple(pieces), tuple(controls))


def with_controls(model: ModelFile, specials: Set[str]) -> bytes:
    """The bytes of the model with its user-defined ``specials`` made control pieces.

    A user-defined "[MASK]" would be found in raw text; a control piece never is.
    """
    names = [special.encode() for special in specials]
    out = bytearray()
    for field, value in fields(model.data):
        if field == _PIECES and any(name in value for name in names):
            parts = dict(fields(value))
            if parts.get(_TYPE) == _USER_DEFINED and parts[_SPELLING] in names:
                value = value + varint(_TYPE << 3) + varint(_CONTROL)  # the last one counts
        out += varint(field << 3 | 2) + varint(len(value)) + value
    return bytes(out)


def _read_pieces(values: list[bytes]) -> tuple[list[str], list[int]]:
    """Spellings of all pieces, and the ids of those that stand for no text."""
    pieces, controls = [], []
    for value in values:
        parts = dict(fields(value))
        if parts.get(_TYPE) in (_UNKNOWN, _CONTROL):
            controls.append(len(pieces))
        score = struct.pack("<I", parts.get(_SCORE, 0))
        if not math.isfinite(struct.unpack("<f", score)[0]):
            raise ValueError(f"piece {len(pieces)} has a score that is no number")
        if _SPELLING not in parts:
            raise ValueError(f"piece {len(pieces)} has no spelling")
        pieces.append(parts[_SPELLING].decode("utf-8"))
    return pieces, controls


def fields(data: bytes) -> Iterator[tuple[int, bytes | int]]:
    """Fields of a message in order; ValueError where it does not parse to its last byte."""
    at = 0
    while at < len(data):
        key, at = _read_varint(data, at) if data[at] > 127 else (data[at], at + 1)
        field, wire = key >> 3, key & 7
        if wire == 0:
            value, at = _read_varint(data, at)
        elif wire in _WIDTHS:
            length = _WIDTHS[wire]
            if wire == 2:
                length, at = _read_varint(data, at)
            if at + length > len(data):
                raise ValueError(f"it is cut off at byte {len(data)}")
            value = data[at : at + length]
            at += length
            if wire != 2:
                value = int.from_bytes(value, "little")
        else:
            raise ValueError(f"unknown kind of field {wire} before byte {at}")
        yield field, value


def _read_varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        if at >= len(data) or shift > 63:
            raise ValueError(f"it is cut off or damaged at byte {at}")
        byte = data[at]
        value |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128:
            return value, at


def varint(value: int) -> bytes:
    """A number as a message writes it: seven bits a byte, lowest first."""
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)
