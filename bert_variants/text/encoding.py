"""Documents to tokens: what a worker does with its share of the text.

The result of a job is a *piece*: flat files like those of a shard, in the order of the source, with
a digest for each document, and a JSON record that is written last. A piece whose record is there
and whose sha256 agree is finished and is never computed again.
"""

from __future__ import annotations

import array
import dataclasses
import hashlib
import json
import os
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from bert_variants import registry
from bert_variants.text import sentences
from bert_variants.text.index import StoreError, token_type
from bert_variants.text.sources import Document, Part, Source
from bert_variants.text.tokenizer import Encoded, Tokenizer

BATCH = 1 << 18  # characters that are encoded together
LONGEST = 20_000  # characters of a sentence; no row holds as much
DIGEST = 16  # bytes of sha256 that identify a document
COLUMNS = ("tokens", "words", "units", "sentences", "roles", "documents", "parts", "digests")
# Of these, what a store has only if the text does: a mix, a dialogue.
RARE = ("parts", "roles")
NO_TOKENS = "document without tokens"
CUT = f"sentence over {LONGEST} characters cut"

Units = Callable[[str], Sequence[tuple[int, int, int]]]  # text -> (start, end, kind), ascending


class PrepareError(StoreError):
    """Text from which no store can be made."""


def no_documents(what: str, dropped: Counter[str]) -> PrepareError:
    """The error of a source of which nothing can be used: says what was dropped and why."""
    reasons = ", ".join(f"{n} x {why}" for why, n in sorted(dropped.items()))
    return PrepareError(f"{what} has no usable document: {reasons or 'it is empty'}.")


@dataclasses.dataclass(frozen=True)
class Job:
    """A share of the text: parts that are read one after another, and where the piece goes.

    Attributes:
        source: the call-string of the source that has the parts.
        parts: as the source lists them.
        prefix: path of the piece's files, without their ending.
    """

    source: str
    parts: tuple[Part, ...]
    prefix: str

    @property
    def size(self) -> int:
        """How much work it is, in bytes or a fair guess of them."""
        return sum(part.size for part in self.parts)

    @property
    def name(self) -> str:
        """What it is called in messages."""
        names = list(dict.fromkeys(part.name for part in self.parts))
        more = f" and {len(names) - 1} more" if len(names) > 1 else ""
        return f"{self.source}: {names[0]}{more}"


def digest(text: str) -> bytes:
    """The identity of a document: its words, however they are spaced."""
    words = " ".join(text.split()).encode("utf-8", "surrogatepass")
    return hashlib.sha256(words).digest()[:DIGEST]


def pieces_of(text: str) -> tuple[list[str], int]:
    """The sentences of a document, and how many cuts were made in those that are too long.

    A sentence over 20,000 characters is cut at the last white space before that, or right there.
    """
    spans = sentences.split(text)
    found = [piece for start, stop in spans for piece in _short(text[start:stop])]
    return found, len(found) - len(spans)


def turns_of(text: str, roles: Sequence[int]) -> tuple[list[str], list[int], int]:
    """The turns of a dialogue, a line each, who speaks in each of them, and the number of cuts.

    A turn over 20,000 characters is cut like a sentence, into turns of the same speaker.
    """
    cut = [_short(line) for line in text.split("\n")]
    if len(cut) != len(roles):
        raise ValueError(f"a dialogue has {len(cut)} lines and {len(roles)} roles.")
    spoken = [(piece, role) for pieces, role in zip(cut, roles, strict=True) for piece in pieces]
    found = [piece for piece, _ in spoken]
    return found, [role for _, role in spoken], len(found) - len(cut)


def _short(sentence: str) -> list[str]:
    pieces = []
    while len(sentence) > LONGEST:
        spaces = [m.start() for m in re.finditer(r"\s", sentence[1:LONGEST])]
        middle = 1 + spaces[-1] if spaces else LONGEST
        pieces.append(sentence[:middle])
        sentence = sentence[middle:]
    return [*pieces, sentence]


def encode(
    source: Source,
    job: Job,
    tokenizer: Tokenizer,
    units: Units | None,
    report: Callable[[int, int], None],
) -> dict[str, Any]:
    """Encode the parts of a job into a piece and return its record.

    Args:
        source: reads the parts.
        job: what to read, where to write.
        tokenizer: encodes sentence by sentence.
        units: finds phrases and entities in a sentence, or None.
        report: called with (bytes of text, tokens) done so far in this job.
    """
    piece = _Piece(job.prefix, tokenizer, units)
    with piece:
        for part in job.parts:
            reading = source.read(part)
            for document in reading:
                if piece.add(document):
                    report(piece.bytes, piece.tokens)
            piece.dropped.update(reading.dropped)
        piece.flush()
    report(piece.bytes, piece.tokens)
    return piece.finish()


class _Piece:
    """The files of a piece while they are written. Memory is bounded by ``BATCH``."""

    def __init__(self, prefix: str, tokenizer: Tokenizer, units: Units | None) -> None:
        self._prefix, self._tokenizer, self._units = prefix, tokenizer, units
        self._type = token_type(tokenizer.vocab.size)
        self._names = [c for c in ("tokens", "words", "units") if units or c != "units"]
        self._files: dict[str, BinaryIO] = {}
        self._waiting: list[tuple[int, int, str]] = []  # document, role, sentence
        self._characters = 0
        self._sentences = array.array("I")  # tokens of each sentence
        self._roles = bytearray()  # of each sentence
        self._documents = array.array("I")  # sentences of each document
        self._parts = bytearray()  # of each document
        self._digests = bytearray()
        self.dropped: Counter[str] = Counter()
        self.altered: Counter[str] = Counter()
        self.bytes = self.tokens = 0

    def __enter__(self) -> _Piece:
        self._files = {c: open(f"{self._prefix}.{c}", "wb") for c in self._names}  # noqa: SIM115
        return self

    def __exit__(self, *_: object) -> None:
        for file in self._files.values():
            file.close()

    def add(self, document: Document) -> bool:
        """Take a document. True if something was encoded meanwhile."""
        text = document.text
        self._digests += digest(text)
        self._parts.append(document.part)
        self.bytes += len(text.encode("utf-8", "surrogatepass"))
        self._documents.append(0)
        if document.roles is None:
            found, cuts = pieces_of(text)
            roles = [0] * len(found)
        else:
            found, roles, cuts = turns_of(text, document.roles)
        if cuts:
            self.altered[CUT] += cuts
        flushed = False
        for role, sentence in zip(roles, found, strict=True):
            self._waiting.append((len(self._documents) - 1, role, sentence))
            self._characters += len(sentence)
            if self._characters >= BATCH:
                self.flush()
                flushed = True
        return flushed

    def flush(self) -> None:
        """Encode and write what is waiting."""
        waiting, self._waiting, self._characters = self._waiting, [], 0
        if not waiting:
            return
        texts = [text for _, _, text in waiting]
        encoded = self._tokenizer.encode_batch(texts)
        lengths = [len(e) for e in encoded]
        for (document, role, _), length in zip(waiting, lengths, strict=True):
            if length:
                self._documents[document] += 1
                self._sentences.append(length)
                self._roles.append(role)
        ids = np.concatenate([e.ids for e in encoded])
        self._check_ids(ids)
        words = np.concatenate([e.words for e in encoded])
        starts = np.ones(len(ids), np.uint8)
        starts[1:] = words[1:] != words[:-1]
        begins = np.cumsum(lengths) - lengths
        starts[begins[np.asarray(lengths) > 0]] = 1
        self.tokens += len(ids)
        self._files["tokens"].write(ids.astype(self._type).tobytes())
        self._files["words"].write(starts.tobytes())
        if self._units is not None:
            codes = [unit_codes(e, self._units(t)) for e, t in zip(encoded, texts, strict=True)]
            self._files["units"].write(np.concatenate(codes).tobytes())

    def _check_ids(self, ids: np.ndarray) -> None:
        size = self._tokenizer.vocab.size
        if len(ids) and not 0 <= ids.min() <= ids.max() < size:
            raise ValueError(
                f"the tokenizer gave ids {ids.min()} .. {ids.max()}, its vocabulary has {size}."
            )

    def finish(self) -> dict[str, Any]:
        """Write what belongs to documents, and the record last."""
        counts = np.frombuffer(self._documents, np.uint32)
        kept = counts > 0
        if not kept.all():
            self.dropped[NO_TOKENS] += int((~kept).sum())
        digests = np.frombuffer(bytes(self._digests), np.uint8).reshape(-1, DIGEST)
        write_file(Path(f"{self._prefix}.documents"), counts[kept].astype("<u4").tobytes())
        write_file(Path(f"{self._prefix}.digests"), digests[kept].tobytes())
        lengths = np.frombuffer(self._sentences, np.uint32).astype("<u4")
        write_file(Path(f"{self._prefix}.sentences"), lengths.tobytes())
        parts = np.frombuffer(bytes(self._parts), np.uint8)[kept]
        write_file(Path(f"{self._prefix}.parts"), parts.tobytes())
        write_file(Path(f"{self._prefix}.roles"), bytes(self._roles))
        record = {
            "bytes": self.bytes,
            "tokens": self.tokens,
            "dropped": dict(self.dropped),
            "altered": dict(self.altered),
            "has": [
                c for c, used in zip(RARE, (parts.any(), any(self._roles)), strict=True) if used
            ],
            "sha256": {c: _sha256(f"{self._prefix}.{c}") for c in self._columns},
        }
        write_file(Path(f"{self._prefix}.json"), json.dumps(record).encode())
        return record

    @property
    def _columns(self) -> list[str]:
        return [c for c in COLUMNS if self._units is not None or c != "units"]


def unit_codes(encoded: Encoded, units: Sequence[tuple[int, int, int]]) -> np.ndarray:
    """uint8 [n]: which unit each token lies in, as ``plan.Window.units`` says.

    A token belongs to a unit if all of it lies inside.

    A worked row, kind 0 at characters 0-8::

        tokens     new york is
        offsets    0-3  4-8 9-11
        codes      129   1   0

    Raises:
        ValueError: units that overlap or run backwards, or a kind over 126.
    """
    codes = np.zeros(len(encoded), np.uint8)
    if not len(units) or not len(encoded):
        return codes
    spans = np.asarray(units, np.int64).reshape(-1, 3)
    begins, ends, kinds = spans.T
    if (begins[1:] < ends[:-1]).any() or (ends <= begins).any():
        raise ValueError("units overlap, are empty, or are not in their order in the text.")
    if kinds.min() < 0 or kinds.max() > 126:
        raise ValueError(f"a unit has kind {kinds.max()}, expected 0 .. 126.")
    which = np.searchsorted(begins, encoded.offsets[:, 0], side="right") - 1
    safe = np.maximum(which, 0)
    inside = (which >= 0) & (encoded.offsets[:, 1] <= ends[safe])
    codes[inside] = kinds[safe][inside] + 1
    first = inside.copy()
    first[1:] &= ~inside[:-1] | (which[1:] != which[:-1])
    codes[first] |= 0x80
    return codes


def finished(prefix: str, units: bool) -> dict[str, Any] | None:
    """The record of a piece that is complete and undamaged, else None."""
    path = Path(f"{prefix}.json")
    try:
        record = json.loads(path.read_bytes())
        said = record["sha256"]
        if set(said) != {c for c in COLUMNS if units or c != "units"}:
            return None
        whole = all(_sha256(f"{prefix}.{c}") == sha for c, sha in said.items())
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return record if whole else None


def jobs_of(call: str, folder: Path, label: str, size: int) -> list[Job]:
    """The parts of a source as jobs of about ``size`` bytes, in order; the same ones every time."""
    parts = registry.lookup("source", call)().parts()

    def grouped() -> Iterator[list[Part]]:
        group: list[Part] = []
        for part in parts:
            if group and sum(p.size for p in group) + part.size > size:
                yield group
                group = []
            group.append(part)
        if group:
            yield group

    return [
        Job(call, tuple(group), str(folder / f"{label}-{n:05d}"))
        for n, group in enumerate(grouped())
    ]


def write_file(path: Path, data: bytes) -> None:
    """Write a file so that it is there whole or not at all."""
    temporary = path.with_name(f"{path.name}.tmp")
    with open(temporary, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


def _sha256(path: str) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
