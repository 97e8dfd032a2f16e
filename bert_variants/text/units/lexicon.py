"""Phrases and entities of a list, found literally, the longest one first.

The list has an entry a line: the spelling and, behind a tab, if one likes, its kind::

    New York<TAB>city
    in spite of<TAB>phrase

Kinds are numbered in the order of their names. A second column that is a number is a frequency
and ignored, as everything behind it is. Files may be compressed.
"""

from __future__ import annotations

import functools
import logging
import re
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

from bert_variants.registry import register
from bert_variants.text.sources.files import Stream, find
from bert_variants.text.units import Unit, UnitsError

LONGEST = 64  # characters of an entry
MAX_KINDS = 127
_LONGEST_LINE = 1 << 16
_NUMBER = re.compile(r"-?\d+(\.\d*)?")
# Scripts in which words stand side by side: Thai, Chinese, Japanese, ... and their punctuation
_SIDE_BY_SIDE = (
    "[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u2e80-\u9fff\uf900-\ufaff\uff00-\uffef"
    "\U00020000-\U0003ffff]"
)
# Between two letters or digits of any other script: no word begins or ends here.
_INSIDE_WORD = re.compile(
    rf"(?<=[^\W_])(?<!{_SIDE_BY_SIDE})(?=[^\W_])(?!{_SIDE_BY_SIDE})",
)

Matches = Callable[[str], Iterator[tuple[int, int]]]


@register("units", files=("file",))
def lexicon(text: str, file: str, *, ignore_case: bool = False) -> list[Unit]:
    """The entries of a list that occur in ``text``, from left to right, each time the longest.

    An entry is literal text, not a pattern. Where words are written apart it matches whole words
    only: "cat" is not found in "concatenate". Where they are not, as in Chinese, it matches
    anywhere: forward maximum matching.

    Args:
        text: where to look.
        file: the list, or several by a pattern such as "names/*.tsv.xz".
        ignore_case: whether "new york" matches "New York".

    Raises:
        UnitsError: a list without entries, with a line longer than can be meant, that is not
            UTF-8, or with more than 127 kinds.
        SourceError: no such file, or one that cannot be read.
    """
    return read_lexicon(file, ignore_case).find(text)


class Lexicon:
    """Entries and a fast way to find them.

    Attributes:
        kinds: the names of the kinds, by number.
        dropped: which lines were left out, and why.
    """

    def __init__(self, entries: dict[str, int], kinds: list[str], dropped: Counter[str]) -> None:
        self.kinds, self.dropped = kinds, dropped
        self._entries = entries
        self._matches = _automaton(entries) or _scan(entries)

    def find(self, text: str) -> list[Unit]:
        """The units of a text whose case is as in the entries."""
        longest: dict[int, int] = {}
        inside = _INSIDE_WORD.match
        for start, stop in self._matches(text):
            if stop > longest.get(start, 0) and not (inside(text, start) or inside(text, stop)):
                longest[start] = stop
        units, free = [], 0
        for start in sorted(longest):
            if start >= free:
                free = longest[start]
                units.append(Unit(start, free, self._entries[text[start:free]]))
        return units


class _IgnoringCase(Lexicon):
    def find(self, text: str) -> list[Unit]:
        return super().find(_lower(text))


@functools.lru_cache(maxsize=4)
def read_lexicon(file: str, ignore_case: bool = False) -> Lexicon:
    """Read a list once. See ``lexicon``."""
    entries: dict[str, str] = {}
    dropped: Counter[str] = Counter()
    root, names = find(file)
    for name in names:
        path = root / name
        for line in _lines(path):
            entry, _, rest = line.partition("\t")
            entry = entry.strip()
            kind = rest.split("\t")[0].strip()
            entry = _lower(entry) if ignore_case else entry
            if len(entry) < 2:
                dropped["empty line" if not entry else "entry of one character"] += 1
            elif len(entry) > LONGEST:
                dropped[f"entry of more than {LONGEST} characters"] += 1
            elif entry in entries:
                dropped["entry that stands twice"] += 1
            else:
                entries[entry] = "" if _NUMBER.fullmatch(kind) else kind
    kinds = sorted(set(entries.values()))
    if not entries:
        raise UnitsError(f"lexicon({file!r}) has no entry of 2 to {LONGEST} characters.")
    if len(kinds) > MAX_KINDS:
        raise UnitsError(
            f"lexicon({file!r}) has {len(kinds)} kinds, such as {kinds[:3]}; at most {MAX_KINDS} "
            "can be kept. The second column holds the kind; leave it out if it is something else."
        )
    if dropped:
        reasons = ", ".join(f"{n} x {why}" for why, n in sorted(dropped.items()))
        logging.getLogger(__name__).warning("lexicon(%r) left out: %s", file, reasons)
    numbered = {entry: kinds.index(kind) for entry, kind in entries.items()}
    return (_IgnoringCase if ignore_case else Lexicon)(numbered, kinds, dropped)


def _lines(path: Path) -> Iterator[str]:
    number = 0
    with Stream(path) as stream:
        while raw := stream.readline(_LONGEST_LINE):
            number += 1
            if len(raw) == _LONGEST_LINE:
                raise UnitsError(f"{path}:{number}: a line of {len(raw)} bytes or more.")
            try:
                line = raw.decode("utf-8").rstrip("\r\n")
            except UnicodeDecodeError as error:
                raise UnitsError(f"{path}:{number}: not UTF-8 ({error.reason}).") from None
            yield line.removeprefix("\ufeff") if number == 1 else line


def _lower(text: str) -> str:
    """Lower case, character by character, so that positions stay."""
    lowered = text.lower()
    if len(lowered) == len(text):
        return lowered
    return "".join(c.lower() if len(c.lower()) == 1 else c for c in text)


def _automaton(entries: dict[str, int]) -> Matches | None:
    try:
        import ahocorasick
    except ImportError:
        return None
    automaton = ahocorasick.Automaton()
    for entry in entries:
        automaton.add_word(entry, len(entry))
    automaton.make_automaton()

    def matches(text: str) -> Iterator[tuple[int, int]]:
        return ((last + 1 - length, last + 1) for last, length in automaton.iter(text))

    return matches


def _scan(entries: dict[str, int]) -> Matches:
    """Without pyahocorasick: by the first two characters, the lengths that are possible."""
    lengths: dict[str, set[int]] = {}
    for entry in entries:
        lengths.setdefault(entry[:2], set()).add(len(entry))

    def matches(text: str) -> Iterator[tuple[int, int]]:
        for start in range(len(text) - 1):
            for length in lengths.get(text[start : start + 2], ()):
                stop = start + length
                if stop <= len(text) and text[start:stop] in entries:
                    yield start, stop

    return matches
