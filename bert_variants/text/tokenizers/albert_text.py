"""What ALBERT and XLNet do to text before sentencepiece sees it, and to pieces after.

Source: google-research/albert:tokenization.py (preprocess_text, encode_pieces),
create_pretraining_data.py (_is_start_piece_sp); zihangdai/xlnet:prepro_utils.py, which ALBERT's
code comes from; microsoft/DeBERTa:DeBERTa/deberta/spm_tokenizer.py (split_by_punct).
"""

from __future__ import annotations

import dataclasses
import re
import string
import unicodedata
from collections.abc import Callable, Sequence

import numpy as np

SPACE = "▁"  # U+2581, how sentencepiece writes a blank
_QUOTES = re.compile("``|''")
_NOT_ASCII = re.compile("[^\x00-\x7f]")
_DIGIT_COMMA = re.compile("[0-9],$")
_CONTINUING = frozenset(string.ascii_letters) | frozenset('!"#$%&()*+,-./:;?@[\\]^_`{|}~£€')


@dataclasses.dataclass(frozen=True)
class Change:
    """What is done to a text before the model, whose own normaliser follows.

    Attributes:
        quotes: `` and '' become ", and a piece that ends in a digit and a comma is cut in two.
        strip_accents: NFKD, and combining marks dropped.
        lowercase: lower case.
    """

    quotes: bool = False
    strip_accents: bool = False
    lowercase: bool = False


CHANGES = {
    "model": Change(),
    "lower": Change(lowercase=True),
    "albert": Change(quotes=True, strip_accents=True, lowercase=True),
    "albert_with_accents": Change(quotes=True, lowercase=True),
    "xlnet": Change(quotes=True, strip_accents=True),
    "xlnet_with_accents": Change(quotes=True),
}


class _Characters(dict[int, str]):
    """Code point -> its NFKD without combining marks. Filled as it is asked."""

    def __missing__(self, point: int) -> str:
        parts = unicodedata.normalize("NFKD", chr(point))
        self[point] = "".join(c for c in parts if not unicodedata.combining(c))
        return self[point]


_CHARACTERS = _Characters()


def albert_text(text: str, change: Change = CHANGES["albert"]) -> tuple[str, np.ndarray | None]:
    """The text as ``change`` says; and where each character came from.

    Returns:
        The text and int32 [len + 1], for each character the place of its source in ``text`` (of
        two quotes the second); None if nothing moved. "Ça ½" gives "ca 1⁄2" and
        [0, 1, 2, 3, 3, 3, 4].
    """
    if change == Change():
        return text, None
    changed, places = text, None
    lengths = np.ones(len(text) + 1, np.int32)
    if change.strip_accents:
        changed = text.translate(_CHARACTERS)
        for match in _NOT_ASCII.finditer(text):
            lengths[match.start()] = len(_CHARACTERS[ord(match.group())])
    if change.lowercase:
        # Lower-casing comes last, as a whole (a final sigma has a form of its own). The one letter
        # that it lengthens, U+0130, is decomposed by then if accents are dropped.
        if not change.strip_accents:
            for match in re.finditer("\u0130", text):
                lengths[match.start()] = 2
        changed = changed.lower()
    if (lengths != 1).any():
        places = np.repeat(np.arange(len(text) + 1, dtype=np.int32), lengths)
    first = [match.start() for match in _QUOTES.finditer(changed)] if change.quotes else []
    if first:
        places = np.arange(len(changed) + 1, dtype=np.int32) if places is None else places
        changed, places = _QUOTES.sub('"', changed), np.delete(places, first)
    return changed, places


def starts_word(piece: str) -> bool:
    """Whether a piece begins a word: ``▁``, ``<``, one ASCII mark, or any other script.

    A piece that holds anything but ASCII letters and marks ("'s", "9", "ß", "中") is a word.
    """
    if piece.startswith((SPACE, "<")):
        return True
    return (len(piece) == 1 and not piece.isalpha()) or not _CONTINUING.issuperset(piece)


def splits_comma(piece: str) -> bool:
    """Whether a piece ends in a digit and a comma, so that it is cut in two."""
    return _DIGIT_COMMA.search(piece) is not None


def comma_splits(
    pieces: Sequence[str], encode: Callable[[str], list[int]]
) -> dict[int, tuple[int, ...]]:
    """Pieces that end in a digit and a comma, and the pieces that ALBERT puts in their place.

    "▁2010," becomes "▁2010" and ",", so that a number has one spelling whatever follows it.
    """
    ids = {piece: i for i, piece in enumerate(pieces)}
    splits = {}
    for i, piece in enumerate(pieces):
        if not splits_comma(piece) or "," not in ids:
            continue
        head = encode(piece[:-1].replace(SPACE, ""))
        if not piece.startswith(SPACE) and head and pieces[head[0]].startswith(SPACE):
            bare = pieces[head[0]][1:]
            if bare and bare not in ids:
                continue
            head = [ids[bare], *head[1:]] if bare else head[1:]
        splits[i] = (*head, ids[","])
    return splits
