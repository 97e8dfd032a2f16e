"""Bytes of a file as documents of bounded size, whatever the length of its lines.

A document is cut near every multiple of ``LONGEST`` bytes counted from its beginning: after the
first newline in the next ``WINDOW`` bytes, else after the first space there, else between two code
points. Where a cut falls depends on the bytes behind it only, so a reader that starts in the
middle of a file finds the same cuts.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import NamedTuple

LONGEST = 1 << 20  # bytes between two cuts
CUT = "long document cut into pieces"  # counted once for every piece but the first
WINDOW = 1 << 16  # bytes in which a newline or a space is looked for
_FRAGMENT = 1 << 16  # bytes read at a time

Read = Callable[[int], bytes]  # at most so many bytes, b"" at the end


class Piece(NamedTuple):
    """A document, or one piece of a long one: its bytes and where in the file they begin."""

    offset: int
    data: bytes
    first: bool  # False for what follows a cut


class Cutter:
    """Takes the bytes of one document after another and gives them back as pieces."""

    def __init__(self) -> None:
        self._begin(0, 0, first=True)

    def _begin(self, offset: int, due: int, *, first: bool) -> None:
        self._buffer = bytearray()
        self._offset = offset  # of the buffer, in the file
        self._due = due + LONGEST  # where the next cut is due, in the buffer
        self._first = first

    @classmethod
    def behind_cut(cls, offset: int, due: int) -> Cutter:
        """A cutter that goes on behind a cut at ``offset`` that was due at ``due``."""
        cutter = cls()
        cutter._begin(offset, due - offset, first=False)
        return cutter

    def add(self, offset: int, data: bytes) -> Iterator[Piece]:
        """More bytes of the document, which stand at ``offset`` in the file."""
        if not self._buffer and self._first:
            self._offset = offset
        self._buffer += data
        while len(self._buffer) >= self._due + WINDOW + 4:
            yield self._cut()

    def end(self) -> Iterator[Piece]:
        """The document is complete; the next bytes belong to another one."""
        while len(self._buffer) > self._due:
            yield self._cut()
        if self._buffer:
            yield Piece(self._offset, bytes(self._buffer), self._first)
        self._begin(0, 0, first=True)

    def _cut(self) -> Piece:
        at = cut(self._buffer, self._due)
        piece = Piece(self._offset, bytes(self._buffer[:at]), self._first)
        del self._buffer[:at]
        self._offset += at
        self._due += LONGEST - at
        self._first = False
        return piece


def cut(data: bytes | bytearray, at: int) -> int:
    """The first good place to cut ``data`` at or after ``at``."""
    for mark in (b"\n", b" "):
        found = data.find(mark, at, at + WINDOW)
        if found >= 0:
            return found + 1
    for place in range(at, min(at + 4, len(data))):
        if data[place] & 0xC0 != 0x80:  # not inside a code point
            return place
    return min(at + 4, len(data))


def cut_text(text: str) -> list[str]:
    """A text that is in memory already, in pieces of bounded size; most often just the one."""
    if 4 * len(text) <= LONGEST:
        return [text]
    data, cutter = text.encode("utf-8"), Cutter()
    return [piece.data.decode("utf-8") for piece in (*cutter.add(0, data), *cutter.end())]


def whole_file(read: Read, start: int, stop: int) -> Iterator[Piece]:
    """The file as one document: its pieces whose first cut was due in ``start .. stop - 1``.

    ``read`` stands at ``start``, a multiple of ``LONGEST``; ``stop`` -1 means to the end.
    """
    for due, piece in zip(itertools.count(start, LONGEST), _from(read, start), strict=False):
        if due >= stop >= 0:
            return
        yield piece


def _from(read: Read, start: int) -> Iterator[Piece]:
    cutter, offset, data = Cutter(), start, b""
    if start:
        while len(data) < WINDOW + 4 and (more := read(_FRAGMENT)):
            data += more
        skipped = cut(data, 0)
        offset, data = start + skipped, data[skipped:]
        cutter = Cutter.behind_cut(offset, start)
    while True:
        yield from cutter.add(offset, data)
        offset += len(data)
        data = read(_FRAGMENT)
        if not data:
            break
    yield from cutter.end()


def lines(read_line: Read, start: int, longest: int) -> Iterator[tuple[int, bytes]]:
    """(offset, bytes) of the lines that begin at or after ``start``.

    A line of more than ``longest`` bytes comes in fragments, of which only the last one ends in
    a newline. ``read_line`` stands at ``max(start - 1, 0)``.
    """
    offset, begins = max(start - 1, 0), start == 0
    while not begins:
        skipped = read_line(_FRAGMENT)
        if not skipped:
            return
        offset += len(skipped)
        begins = skipped.endswith(b"\n")
    while data := read_line(longest):
        yield offset, data
        offset += len(data)


def single_lines(read_line: Read, start: int, stop: int) -> Iterator[Piece]:
    """Every line a document; those that begin in ``start .. stop - 1``. Blank ones come too."""
    cutter, begins = Cutter(), True
    for offset, data in lines(read_line, start, _FRAGMENT):
        if begins and offset >= stop >= 0:
            return
        yield from cutter.add(offset, data)
        begins = data.endswith(b"\n")
        if begins:
            yield from cutter.end()
    yield from cutter.end()


def blocks(read_line: Read, start: int, stop: int) -> Iterator[Piece]:
    """Every run of lines that are not blank a document.

    To a stretch ``start .. stop - 1`` belong the blocks behind the blank lines that begin in it;
    the file is taken to begin with one.
    """
    cutter, begins, mine = Cutter(), True, start == 0
    for offset, data in lines(read_line, start, _FRAGMENT):
        ends = data.endswith(b"\n") or len(data) < _FRAGMENT
        if begins and ends and not data.strip():
            yield from cutter.end()
            mine = True
            if offset >= stop >= 0:
                return
        elif mine:
            yield from cutter.add(offset, data)
        begins = data.endswith(b"\n")
    yield from cutter.end()
