"""Text files: plain, gzip, xz or bzip2; one document a file, a block, a line or a JSON line.

Everything is cut at the byte b"\\n" and nowhere else: CRLF is a newline with a CR in front, and
U+2028, U+0085, form feeds and lone CRs never end a document or a line.

No document is longer than about ``LONGEST`` bytes: a longer one is handed on in pieces, each a
document of its own, cut at a newline, else at a space, else between code points, near every
multiple of ``LONGEST``. So one line of any size is read in bounded memory, and a large plain file
can be read by several processes, with the same documents for any number of them.
"""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
import json
from codecs import BOM_UTF8
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from bert_variants.registry import register
from bert_variants.text.sources import (
    EMPTY,
    REVISION,
    Document,
    Part,
    Reading,
    Source,
    SourceError,
    clean,
    files,
    pieces,
)
from bert_variants.text.sources.files import Stream
from bert_variants.text.sources.pieces import CUT, LONGEST, Piece

MODES = ("auto", "file", "blank_line", "line", "json_lines")
PART = 16 * LONGEST  # bytes of a plain file that make one part
LONGEST_JSON = 1 << 28  # bytes of one JSON line
_JSON_SUFFIXES = {".jsonl", ".ndjson", ".json"}
_COMPRESSIONS = {".gz", ".xz", ".bz2"}
REPLACEMENT = "\ufffd".encode()


@register("source")
def text(pattern: str, *, field: str = "text", by: str = "auto", strict: bool = False) -> Source:
    """Documents from the files that match ``pattern``, such as "wiki/**/*.txt.gz".

    Args:
        pattern: files, with the wildcards of ``glob`` and "**" for any number of folders.
        field: JSON lines only: the member that holds the text.
        by: what a document is. "file": a file. "blank_line": consecutive lines that are not
            blank. "line": a line. "json_lines": a line that is a JSON object. "auto":
            "json_lines" where the name ends in .jsonl, .ndjson or .json (before .gz and so on);
            else "blank_line" if a single file matches and "file" if several do.
        strict: stop at bytes that are not UTF-8 instead of replacing them by U+FFFD.

    Raises:
        SourceError: nothing matches, a match is no text file, or an unknown ``by``.
    """
    if by not in MODES:
        raise SourceError(f"text({pattern!r}, by={by!r}): by is one of {', '.join(MODES)}.")
    root, names = files.find(pattern)
    return TextFiles(str(root), tuple(names), field, by, strict)


@dataclasses.dataclass(frozen=True)
class TextFiles(Source):
    """The files ``names`` below ``root``. See ``text``."""

    root: str
    names: tuple[str, ...]
    field: str
    by: str
    strict: bool

    def __str__(self) -> str:
        return f"text: {len(self.names)} files below {self.root}"

    def mode(self, name: str) -> str:
        """What a document is in this file: ``by``, or what "auto" makes of it."""
        if self.by != "auto":
            return self.by
        suffixes = [s for s in Path(name).suffixes if s not in _COMPRESSIONS]
        if suffixes and suffixes[-1] in _JSON_SUFFIXES:
            return "json_lines"
        return "blank_line" if len(self.names) == 1 else "file"

    def parts(self) -> list[Part]:
        parts = []
        for name in self.names:
            size = files.size(Path(self.root) / name)
            if files.is_compressed(Path(name)):
                parts.append(Part(name, 0, -1, size))
                continue
            for start in range(0, max(size, 1), PART):
                stop = min(start + PART, size)
                parts.append(Part(name, start, stop, stop - start))
        return parts

    def fingerprint(self) -> str:
        digest = hashlib.sha256(f"{REVISION} text {self.field!r} {self.strict}".encode())
        for name in self.names:
            content = files.content_hash(Path(self.root) / name)
            digest.update(f"\0{name}\0{self.mode(name)}\0{content}".encode())
        return digest.hexdigest()

    def read(self, part: Part) -> Reading:
        return Reading(lambda dropped: self._documents(part, dropped))

    def _documents(self, part: Part, dropped: Counter[str]) -> Iterator[Document]:
        path = Path(self.root) / part.name
        mode = self.mode(part.name)
        behind = int(part.start > 0 and mode != "file")  # is the byte in front a newline?
        found = False
        with Stream(path, part.start - behind) as stream:
            for at, string, first in self._texts(stream, path, part, mode, dropped):
                found = True
                string = clean(string, dropped)
                if not first:
                    dropped[CUT] += 1
                if string.strip():
                    yield Document(part.name if at == "0" else f"{part.name}@{at}", string)
                else:
                    dropped[EMPTY] += 1
        if not found and part.start == 0:
            dropped["empty file"] += 1

    def _texts(
        self, stream: Stream, path: Path, part: Part, mode: str, dropped: Counter[str]
    ) -> Iterator[tuple[str, str, bool]]:
        """(where in the file, text, is not what follows a cut)."""
        if mode == "json_lines":
            yield from self._members(stream, path, part, dropped)
            return
        if mode == "file":
            found = pieces.whole_file(stream.read, part.start, part.stop)
        else:
            split = pieces.blocks if mode == "blank_line" else pieces.single_lines
            found = split(stream.readline, part.start, part.stop)
        for piece in found:
            yield str(piece.offset), self._decode(path, piece, dropped), piece.first

    def _decode(self, path: Path, piece: Piece, dropped: Counter[str]) -> str:
        bom = len(BOM_UTF8) if piece.offset == 0 and piece.data.startswith(BOM_UTF8) else 0
        data = piece.data[bom:]
        try:
            return data.decode("utf-8")
        except UnicodeDecodeError as error:
            if self.strict:
                raise SourceError(
                    f"{path}: byte {piece.offset + bom + error.start} ({data[error.start]:#04x}) "
                    f"is not UTF-8 ({error.reason}). Convert the file, or read it with "
                    "strict=False to have such bytes replaced."
                ) from None
        string = data.decode("utf-8", errors="replace")
        name = path.relative_to(self.root).as_posix()
        dropped[f"not UTF-8, replaced: {name}"] += string.count("\ufffd") - data.count(REPLACEMENT)
        return string

    def _members(
        self, stream: Stream, path: Path, part: Part, dropped: Counter[str]
    ) -> Iterator[tuple[str, str, bool]]:
        for offset, line in pieces.lines(stream.readline, part.start, LONGEST_JSON):
            if offset >= part.stop >= 0:
                return
            if not line.strip():
                dropped["blank line"] += 1
                continue
            string = self._decode(path, Piece(offset, line, True), dropped)
            try:
                text = _member(string, self.field)
            except SourceError as error:
                raise SourceError(f"{path}:{_line_number(path, offset)}: {error}") from None
            for k, piece in enumerate(pieces.cut_text(clean(text, dropped))):
                yield f"{offset}+{k}" if k else f"{offset}", piece, k == 0


def _member(line: str, field: str) -> str:
    """The text in a JSON line; "" for null."""
    if len(line) >= LONGEST_JSON:
        raise SourceError(f"a line of {LONGEST_JSON} bytes or more. Split it.")
    try:
        found = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise SourceError(f"not JSON ({error}). Expected one object a line.") from None
    if not isinstance(found, dict):
        kind = type(found).__name__
        raise SourceError(f"a JSON {kind}, expected one object a line, with a member {field!r}.")
    if field not in found:
        close = difflib.get_close_matches(field, found, n=1, cutoff=0.5)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        raise SourceError(f"no member {field!r}.{hint} Found: {', '.join(found) or 'none'}.")
    text = found[field]
    if text is not None and not isinstance(text, str):
        raise SourceError(f"member {field!r} is a {type(text).__name__}, expected a string.")
    return text or ""


def _line_number(path: Path, offset: int) -> int:
    """The number, from 1, of the line that begins at ``offset``. Reads the file again."""
    number, left = 1, offset
    with Stream(path) as stream:
        while left and (data := stream.read(min(left, 1 << 16))):
            number += data.count(b"\n")
            left -= len(data)
    return number
