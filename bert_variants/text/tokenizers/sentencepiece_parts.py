"""What a sentencepiece ``.model`` is made of, and a ``.model`` made of such parts.

Other libraries keep the same parts in files of their own. Field numbers are those of
google/sentencepiece:src/sentencepiece_model.proto.
"""

from __future__ import annotations

import dataclasses
import struct
from collections.abc import Sequence

from bert_variants.text.tokenizer import TokenizerError
from bert_variants.text.tokenizers.sentencepiece_file import fields, read_model, varint

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6  # types of pieces
UNIGRAM = 1  # of the types of models
_TYPE, _SIZE, _SUFFIX, _HARD_LIMIT, _BYTE_FALLBACK, _UNK = 3, 4, 24, 33, 35, 40  # TrainerSpec
_CHARSMAP, _PREFIX, _COLLAPSE, _ESCAPE = 2, 3, 4, 5  # NormalizerSpec


@dataclasses.dataclass(frozen=True)
class Parts:
    """A model in parts.

    Attributes:
        pieces: by id.
        scores: log probability of each.
        kinds: of each: NORMAL, UNKNOWN, ...
        charsmap: the compiled table of what characters become; empty: they stay.
        prefix: whether a blank is put before the text.
        collapse: whether runs of blanks become one, and those at both ends none.
        model: UNIGRAM, or another number.
        unlike: settings that only sentencepiece itself follows, by name.
    """

    pieces: tuple[str, ...]
    scores: tuple[float, ...]
    kinds: tuple[int, ...]
    charsmap: bytes = b""
    prefix: bool = True
    collapse: bool = True
    model: int = UNIGRAM
    unlike: tuple[str, ...] = ()

    @property
    def unk(self) -> int:
        """The id of the unknown piece."""
        return self.kinds.index(UNKNOWN)


def parts_of(data: bytes, name: str) -> Parts:
    """The parts of a ``.model``.

    Raises:
        TokenizerError: it is not whole, or has no unknown piece.
    """
    pieces = read_model(data, name).pieces
    scores, kinds = [], []
    trainer: dict[int, bytes | int] = {}
    normalizer: dict[int, bytes | int] = {}
    for field, value in fields(data):
        if field == 1:
            piece = dict(fields(value))
            scores.append(
                struct.unpack("<f", struct.pack("<I", piece[2]))[0] if 2 in piece else 0.0
            )
            kinds.append(piece[3] if 3 in piece else NORMAL)
        elif field == 2:
            trainer = dict(fields(value))
        elif field == 3:
            normalizer = dict(fields(value))
    if kinds.count(UNKNOWN) != 1:
        raise TokenizerError(
            f"{name} has {kinds.count(UNKNOWN)} pieces for what is unknown, expected one."
        )
    unlike = [
        said
        for said, is_so in {
            "treat_whitespace_as_suffix": _SUFFIX in trainer and trainer[_SUFFIX],
            "byte_fallback": _BYTE_FALLBACK in trainer and trainer[_BYTE_FALLBACK],
            "escape_whitespaces=false": _ESCAPE in normalizer and not normalizer[_ESCAPE],
            "unused pieces": UNUSED in kinds,
            "byte pieces": BYTE in kinds,
        }.items()
        if is_so
    ]
    return Parts(
        pieces=tuple(pieces),
        scores=tuple(scores),
        kinds=tuple(kinds),
        charsmap=normalizer[_CHARSMAP] if _CHARSMAP in normalizer else b"",
        prefix=bool(normalizer[_PREFIX]) if _PREFIX in normalizer else True,
        collapse=bool(normalizer[_COLLAPSE]) if _COLLAPSE in normalizer else True,
        model=trainer[_TYPE] if _TYPE in trainer else UNIGRAM,
        unlike=tuple(unlike),
    )


def model_of(parts: Parts) -> bytes:
    """The ``.model`` of these parts: the inverse of ``parts_of``, as far as they say."""
    out = bytearray()
    for piece, score, kind in zip(parts.pieces, parts.scores, parts.kinds, strict=True):
        value = _bytes(1, piece.encode()) + b"\x15" + struct.pack("<f", score)
        out += _bytes(1, value if kind == NORMAL else value + _number(3, kind))
    trainer = [(_TYPE, parts.model), (_SIZE, len(parts.pieces)), (_HARD_LIMIT, 1)]
    out += _bytes(2, _numbers([*trainer, (_UNK, parts.unk)]))
    normalizer = _bytes(1, b"identity") if not parts.charsmap else _bytes(_CHARSMAP, parts.charsmap)
    normalizer += _numbers([(_PREFIX, parts.prefix), (_COLLAPSE, parts.collapse), (_ESCAPE, 1)])
    return bytes(out + _bytes(3, normalizer))


def _bytes(field: int, value: bytes) -> bytes:
    return varint(field << 3 | 2) + varint(len(value)) + value


def _number(field: int, value: int) -> bytes:
    return varint(field << 3) + varint(value)


def _numbers(pairs: Sequence[tuple[int, int]]) -> bytes:
    return b"".join(_number(field, int(value)) for field, value in pairs)
