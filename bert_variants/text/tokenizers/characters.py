"""Characters as tokenizers see them: what is cleaned away, and what is a word of its own."""

from __future__ import annotations

import functools
import itertools
import re
import unicodedata
from collections.abc import Callable, Sequence

import numpy as np

_SURROGATE = re.compile("[\ud800-\udfff]")
# Cc without tab, line feed and carriage return, and the replacement character: BERT's cleaner
# drops them. It drops format characters (Cf) too; they carry meaning in Persian, Indic scripts and
# emoji, so tokenizers that are not BERT's keep them.
_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ufffd]")
_ASCII_MARKS = frozenset("!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~")
# Blocks of CJK ideographs, google-research/bert:tokenization.py (_is_chinese_char).
_CJK = (
    (0x4E00, 0x9FFF),
    (0x3400, 0x4DBF),
    (0x20000, 0x2A6DF),
    (0x2A700, 0x2B73F),
    (0x2B740, 0x2B81F),
    (0x2B820, 0x2CEAF),
    (0xF900, 0xFAFF),
    (0x2F800, 0x2FA1F),
)


def without_surrogates(text: str) -> str:
    """Lone surrogates, which UTF-8 cannot hold, replaced one by one by U+FFFD."""
    return text if text.isascii() else _SURROGATE.sub("\ufffd", text)


def without_controls(text: str) -> tuple[str, np.ndarray | None]:
    """Text without control characters, and where each kept character stood.

    Returns:
        The text and int32 [len + 1], the place in the raw text of each kept character and of the
        end; None where nothing was dropped. ``"a\\0b"`` gives ``("ab", [0, 2, 3])``.
    """
    gone = [match.start() for match in _CONTROL.finditer(text)]
    if not gone:
        return text, None
    return _CONTROL.sub("", text), np.delete(np.arange(len(text) + 1, dtype=np.int32), gone)


def raw_offsets(offsets: np.ndarray, places: np.ndarray | None) -> np.ndarray:
    """Offsets [n, 2] into a changed text, turned into offsets into the text it was made from.

    ``places[i]`` is where character i of the changed text stood; None means the same place. A
    token ends behind its last character, whatever was dropped after that.
    """
    if places is None or not len(offsets):
        return offsets
    start = places[offsets[:, 0]]
    last = places[np.maximum(offsets[:, 1] - 1, 0)] + 1
    end = np.where(offsets[:, 1] > offsets[:, 0], last, start)
    return np.stack([start, end], axis=1).astype(np.int32)


def code_points(text: str) -> np.ndarray:
    """uint32 [len]."""
    return np.frombuffer(text.encode("utf-32-le"), np.uint32)


def offsets_array(offsets: Sequence[tuple[int, int]]) -> np.ndarray:
    """Pairs as int32 [n, 2]."""
    flat = itertools.chain.from_iterable(offsets)
    return np.fromiter(flat, np.int32, 2 * len(offsets)).reshape(-1, 2)


def trimmed(points: np.ndarray, offsets: np.ndarray, *, only_blanks: bool = False) -> np.ndarray:
    """Offsets [n, 2] without the white space that a token begins with; all of it may be that.

    Args:
        points: of the text.
        offsets: of its tokens.
        only_blanks: leave out U+0020 and no other white space.
    """
    blank = points == 0x20
    if not only_blanks:
        blank = _table(str.isspace)[np.minimum(points, _TABLE - 1)]
    start, end = offsets[:, 0].copy(), offsets[:, 1]
    at = np.flatnonzero(start < end)
    while len(at := at[blank[start[at]]]):
        start[at] += 1
        at = at[start[at] < end[at]]
    return np.stack([start, end], axis=1)


def is_mark(character: str) -> bool:
    """Whether the character is punctuation, as BERT and DeBERTa see it: all ASCII signs too."""
    return character in _ASCII_MARKS or unicodedata.category(character).startswith("P")


def alone(points: np.ndarray) -> np.ndarray:
    """bool: which characters are words of their own (``stands_alone``)."""
    return _table(stands_alone)[np.minimum(points, _TABLE - 1)]


_TABLE = 0x32400  # behind the last ideograph; what lies higher is neither blank nor mark


@functools.cache
def _table(test: Callable[[str], bool]) -> np.ndarray:
    return np.fromiter(map(test, map(chr, range(_TABLE))), bool, _TABLE)


def is_cjk(character: str) -> bool:
    """Whether BERT's tokenizer treats the character as a Chinese character."""
    point = ord(character)
    return point >= 0x3400 and any(first <= point <= last for first, last in _CJK)


def stands_alone(character: str) -> bool:
    """Whether the character is a word of its own: punctuation or a Chinese character."""
    return is_mark(character) or is_cjk(character)
