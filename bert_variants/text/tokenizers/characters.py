"""Characters as tokenizers see them: what is cleaned away, and what is a word of its own."""

from __future__ import annotations

import re
import unicodedata

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


def is_cjk(character: str) -> bool:
    """Whether BERT's tokenizer treats the character as a Chinese character."""
    point = ord(character)
    return point >= 0x3400 and any(first <= point <= last for first, last in _CJK)


def stands_alone(character: str) -> bool:
    """Whether the character is a word of its own: punctuation or a Chinese character."""
    if character in _ASCII_MARKS or is_cjk(character):
        return True
    return unicodedata.category(character).startswith("P")
