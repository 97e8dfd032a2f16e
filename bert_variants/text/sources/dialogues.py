"""Dialogues: text files in which a line is a turn and a blank line stands between dialogues.

::

    Q: Where were you yesterday?          Who speaks may stand in front, Q or R, query or response,
    R: At home. It rained all day.        in every line of the dialogue or in none.
    Q: Here too.
                                          Without marks turns alternate, the first is a query.
    Have you eaten?
    Not yet.
"""

from __future__ import annotations

import dataclasses
import re
from collections import Counter
from collections.abc import Iterator

from bert_variants.registry import register
from bert_variants.text.sources import Document, Part, Reading, Source, files
from bert_variants.text.sources.text import TextFiles

QUERY, RESPONSE = 0, 1
EMPTY_TURN = "empty turn"
SOME_MARKED = "dialogue of which only some turns are marked, taken as unmarked"

_MARK = re.compile(r"\s*([QR])\s*[:\uff1a]\s*")


@register("source")
def dialogues(pattern: str, *, field: str = "text", strict: bool = False) -> Source:
    """Dialogues from the files that match ``pattern``; a turn is a line, and stays whole.

    In files whose name ends in .jsonl, .ndjson or .json (before .gz and so on) a line is a JSON
    object whose member ``field`` holds a dialogue, a turn a line. The mark "Q:" or "R:" is no part
    of the turn. A dialogue of which only some turns are marked is taken as if none were, and
    counted.

    Raises:
        SourceError: nothing matches, or a match is no text file.
    """
    root, names = files.find(pattern)
    return Dialogues(str(root), tuple(names), field, "auto", strict)


@dataclasses.dataclass(frozen=True)
class Dialogues(TextFiles):
    """The files ``names`` below ``root``. See ``dialogues``."""

    def __str__(self) -> str:
        return f"dialogues: {len(self.names)} files below {self.root}"

    def mode(self, name: str) -> str:
        """JSON lines or blocks between blank lines, whatever the number of files."""
        return "json_lines" if super().mode(name) == "json_lines" else "blank_line"

    def fingerprint(self) -> str:
        return f"dialogues {super().fingerprint()}"

    def read(self, part: Part) -> Reading:
        reading = super().read(part)

        def documents(dropped: Counter[str]) -> Iterator[Document]:
            for document in reading:
                turns, roles = spoken(document.text, dropped)
                if turns:
                    yield Document(document.id, "\n".join(turns), roles=roles)
            dropped.update(reading.dropped)

        return Reading(documents)


def spoken(text: str, dropped: Counter[str]) -> tuple[list[str], tuple[int, ...]]:
    """The turns of a dialogue without their marks, and who speaks in each.

    What was left out is counted in ``dropped``. "Q: a", "Q: b", "R: c" become a, b, c and 0, 0, 1.
    """
    lines = [line.strip() for line in text.split("\n") if line.strip()]
    marks = [_MARK.match(line) for line in lines]
    marked = bool(lines) and all(marks)
    if any(marks) and not marked:
        dropped[SOME_MARKED] += 1
    if not marked:
        return lines, tuple(n % 2 for n in range(len(lines)))
    said = [
        (line[m.end() :], RESPONSE if m[1] == "R" else QUERY)
        for line, m in zip(lines, marks, strict=True)
    ]
    kept = [(turn, role) for turn, role in said if turn]
    if len(kept) < len(said):
        dropped[EMPTY_TURN] += len(said) - len(kept)
    return [turn for turn, _ in kept], tuple(role for _, role in kept)
