"""Where text comes from: one registered source a file, all behind the same three questions.

A source (family ``source``) is looked up by its call-string and called; what it returns says in
which ``parts`` its text can be read, reads the ``documents`` of a part one at a time in bounded
memory, and has a ``fingerprint`` that changes when its content does::

    source = registry.lookup("source", 'text("wiki/*.txt.gz")')()
    for part in source.parts():            # independent, in a fixed order, picklable
        reading = source.read(part)        # parts may be read in any process and in any order
        for document in reading:           # Document(id, text)
            ...
        reading.dropped                    # Counter: what was left out or repaired, and why

========== =====================================================================================
source     call-string, with its defaults
========== =====================================================================================
dialogues  ``dialogues("chats/*.txt", field="text", strict=False)``
mix        ``mix(parts=("pydocs()", ...))``
pydocs     ``pydocs(min_chars=200)``
text       ``text("wiki/**/*.txt", field="text", by="auto", strict=False)``
tfds       ``tfds("lm1b", split="train", field="text", data_dir="")``
synthetic  ``synthetic(documents=2000, seed=0, language="en")``
========== =====================================================================================

Text is handed on as it was written. Only what no tokenizer wants is repaired here, and counted:
see ``clean``. Spellings such as "[MASK]", "<s>" or "##" are ordinary text.
"""

from __future__ import annotations

import abc
import dataclasses
import re
from collections import Counter
from collections.abc import Callable, Iterator


class SourceError(ValueError):
    """Text that cannot be read. Names the file, line or field, and says what to do."""


@dataclasses.dataclass(frozen=True)
class Document:
    """One document.

    Attributes:
        id: unique within its source, whatever the parts.
        text: as it was written.
        part: which source of a mix it is from.
        roles: of a dialogue, whose turns are the lines of its text: who speaks in each of them, 0
            a query and 1 a response. None: ordinary text, to be cut into sentences.
    """

    id: str
    text: str
    part: int = 0
    roles: tuple[int, ...] | None = None


@dataclasses.dataclass(frozen=True)
class Part:
    """An independent piece of reading.

    Attributes:
        name: the file, package or section, as its source calls it.
        start, stop: what of it: bytes for files, records for the other sources.
        size: how much work it is, in bytes or a fair guess of them. For balance and for ETA.
    """

    name: str
    start: int
    stop: int
    size: int


class Reading(Iterator[Document]):
    """The documents of a part, one at a time, and ``dropped``: what was left out so far, and why.

    ``dropped`` is complete when the iteration has ended.
    """

    def __init__(self, read: Callable[[Counter[str]], Iterator[Document]]) -> None:
        self.dropped: Counter[str] = Counter()
        self._documents = read(self.dropped)

    def __next__(self) -> Document:
        return next(self._documents)


class Source(abc.ABC):
    """A body of documents. Two sources built from one call-string on one machine are equal."""

    @abc.abstractmethod
    def parts(self) -> list[Part]:
        """Independent pieces of work, always the same and in the same order."""

    @abc.abstractmethod
    def read(self, part: Part) -> Reading:
        """The documents of a part, streamed."""

    @abc.abstractmethod
    def fingerprint(self) -> str:
        """sha256 over what defines the content; file contents are hashed, dates are not."""

    def documents(self) -> Reading:
        """The documents of all parts, one after another.

        Raises:
            SourceError: when the end is reached and there was no document.
        """

        def all_parts(dropped: Counter[str]) -> Iterator[Document]:
            empty = True
            for part in self.parts():
                reading = self.read(part)
                for document in reading:
                    empty = False
                    yield document
                dropped.update(reading.dropped)
            if empty:
                reasons = ", ".join(f"{n} x {why}" for why, n in dropped.items()) or "none dropped"
                raise SourceError(f"{self} holds no document ({reasons}).")

        return Reading(all_parts)


REVISION = 1  # part of every fingerprint: raise it when the same input gives other documents

EMPTY = "empty document"
CONTROL = "control character removed"
SURROGATE = "lone surrogate replaced"

_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")
_SURROGATE = re.compile("[\ud800-\udfff]")


def clean(text: str, dropped: Counter[str]) -> str:
    """Repair what no tokenizer wants, and count it in ``dropped``.

    CRLF and lone CR become newlines; control characters (category Cc, NUL included, but for tab
    and newline) are removed, as BERT's cleaner does (``google-research/bert:tokenization.py``,
    ``_clean_text``); lone surrogates, which JSON can spell, become U+FFFD. Nothing else is
    touched: format characters (zero-width joiners), U+2028 and U+00A0 are the tokenizer's matter.
    """
    if "\r" in text:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    for pattern, new, reason in ((_CONTROL, "", CONTROL), (_SURROGATE, "\ufffd", SURROGATE)):
        text, found = pattern.subn(new, text)
        if found:
            dropped[reason] += found
    return text
