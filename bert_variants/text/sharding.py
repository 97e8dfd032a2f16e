"""From pieces in the order of the source to the shards of a store.

Documents are put in the order of their digests: a shuffle that depends on nothing but the text.
So every shard is a fair sample of the corpus, exact duplicates lie side by side, and the store is
the same whatever the number of workers, and however the source was cut into parts.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections import Counter
from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np

from bert_variants.text.encoding import DIGEST, write_file
from bert_variants.text.index import OPTIONAL, FileRecord, Shard, Split, token_type

SHARD_TOKENS = 1 << 22  # about 8 MB of tokens
DUPLICATE = "duplicate document"
ALSO_HELD_OUT = "document that is also held out"


@dataclasses.dataclass(frozen=True)
class Documents:
    """Where the documents of some pieces lie. All arrays have one entry a document.

    Attributes:
        prefixes: of the pieces' files.
        piece: which of the pieces.
        sentence, token: where it begins in its piece.
        sentences, tokens: how many it has.
        digests: uint8 [n, 16].
        part: uint8 [n], which source of a mix it is from.
    """

    prefixes: Sequence[str]
    piece: np.ndarray
    sentence: np.ndarray
    sentences: np.ndarray
    token: np.ndarray
    tokens: np.ndarray
    digests: np.ndarray
    part: np.ndarray

    def __len__(self) -> int:
        return len(self.piece)

    def take(self, which: np.ndarray) -> Documents:
        """Some of the documents, in the order of ``which``."""
        names = ("piece", "sentence", "sentences", "token", "tokens", "digests", "part")
        return dataclasses.replace(self, **{k: getattr(self, k)[which] for k in names})


def find_documents(prefixes: Sequence[str]) -> Documents:
    """All documents of these pieces."""
    none = np.zeros(0, np.int64)
    no_digests, no_parts = np.zeros((0, DIGEST), np.uint8), np.zeros(0, np.uint8)
    columns = [(none, none, none, none, none, no_digests, no_parts)]
    for n, prefix in enumerate(prefixes):
        sentences = np.fromfile(f"{prefix}.documents", "<u4").astype(np.int64)
        lengths = np.fromfile(f"{prefix}.sentences", "<u4")
        borders = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
        end = np.cumsum(sentences)
        digests = np.fromfile(f"{prefix}.digests", np.uint8).reshape(-1, DIGEST)
        token = borders[end - sentences]
        columns.append(
            (
                np.full(len(sentences), n),
                end - sentences,
                sentences,
                token,
                borders[end] - token,
                digests,
                np.fromfile(f"{prefix}.parts", np.uint8),
            )
        )
    piece, sentence, sentences, token, tokens, digests, part = (
        np.concatenate(c) for c in zip(*columns, strict=True)
    )
    return Documents(prefixes, piece, sentence, sentences, token, tokens, digests, part)


def shuffled(documents: Documents, dropped: Counter[str]) -> Documents:
    """In the order of their digests; of equal ones the first in the source is kept."""
    high, low = _as_numbers(documents.digests)
    order = np.lexsort((low, high))  # stable
    high, low = high[order], low[order]
    first = np.ones(len(order), bool)
    first[1:] = (high[1:] != high[:-1]) | (low[1:] != low[:-1])
    if not first.all():
        dropped[DUPLICATE] += int((~first).sum())
    return documents.take(order[first])


def is_held_out(digests: np.ndarray, share: float) -> np.ndarray:
    """bool [n]: which of these different documents are held out, by their content.

    A share above 0 of at least two documents holds out at least one and leaves at least one.
    """
    _, low = _as_numbers(digests)  # the order uses the high half first
    held = low < np.uint64(share * 2.0**64)
    if share > 0 and len(low) > 1:
        held[low.argmin()] = True
        if held.all():
            held[low.argmax()] = False
    return held


def without(documents: Documents, others: Documents, dropped: Counter[str]) -> Documents:
    """Those documents that are not among ``others``."""
    also = np.isin(_as_keys(documents.digests), _as_keys(others.digests))
    if also.any():
        dropped[ALSO_HELD_OUT] += int(also.sum())
    return documents.take(np.flatnonzero(~also))


def write_split(
    name: str, documents: Documents, folder: Path, optional: Collection[str], vocabulary: int
) -> tuple[Split, np.ndarray]:
    """Write the shards of a split, of about equal numbers of tokens.

    ``optional`` says which of the columns units, parts and roles the store has.

    Returns:
        the split, and int64 [V], how often each id occurs in it.
    """
    counts = np.zeros(vocabulary, np.int64)
    total = int(documents.tokens.sum())
    number = max(1, -(-total // SHARD_TOKENS))
    begin = np.cumsum(documents.tokens) - documents.tokens
    of = begin * number // max(total, 1)
    reader = _PieceReader(documents.prefixes, token_type(vocabulary), optional)
    shards = []
    for n in np.unique(of):
        chosen = documents.take(np.flatnonzero(of == n))
        columns = reader.gather(chosen)
        if "parts" in optional:
            columns["parts"] = chosen.part
        counts += np.bincount(columns["tokens"], minlength=vocabulary)
        shards.append(_write_shard(f"{name}-{len(shards):05d}", chosen, columns, folder))
    identity = hashlib.sha256(documents.digests.tobytes()).hexdigest()
    return Split(tuple(shards), identity), counts


class _PieceReader:
    def __init__(self, prefixes: Sequence[str], tokens: str, optional: Collection[str]) -> None:
        types = {"tokens": tokens, "words": "u1", "sentences": "<u4"}
        for column in {"units", "roles"} & set(optional):
            types[column] = "u1"
        self._columns = {
            column: [_mapped(f"{prefix}.{column}", kind) for prefix in prefixes]
            for column, kind in types.items()
        }

    def gather(self, documents: Documents) -> dict[str, np.ndarray]:
        """The columns of these documents, one document after another."""
        found: dict[str, list[np.ndarray]] = {column: [] for column in self._columns}
        rows = zip(
            documents.piece.tolist(),
            documents.sentence.tolist(),
            documents.sentences.tolist(),
            documents.token.tolist(),
            documents.tokens.tolist(),
            strict=True,
        )
        for piece, sentence, sentences, token, tokens in rows:
            for column, pieces in self._columns.items():
                of_sentence = column in ("sentences", "roles")
                start, size = (sentence, sentences) if of_sentence else (token, tokens)
                found[column].append(pieces[piece][start : start + size])
        return {column: np.concatenate(arrays) for column, arrays in found.items()}


def _write_shard(
    name: str, documents: Documents, columns: dict[str, np.ndarray], folder: Path
) -> Shard:
    words = int(columns["words"].sum())
    files = {
        "tokens": columns["tokens"],
        "words": np.packbits(columns["words"], bitorder="little"),
        "sentences": _offsets(columns["sentences"]),
        "documents": _offsets(documents.sentences),
    }
    for column in OPTIONAL & set(columns):
        files[column] = columns[column]
    for column, data in files.items():
        write_file(folder / f"{name}.{column}", data.tobytes())
    return Shard(
        name=name,
        documents=len(documents),
        sentences=len(columns["sentences"]),
        tokens=len(columns["tokens"]),
        words=words,
        files={column: FileRecord.of(data) for column, data in files.items()},
    )


def _offsets(lengths: np.ndarray) -> np.ndarray:
    ends = np.cumsum(lengths, dtype=np.int64)
    if len(ends) and ends[-1] >= 1 << 32:
        raise ValueError(f"a shard of {ends[-1]} tokens: one document is over four billion tokens.")
    return np.concatenate([[0], ends]).astype("<u4")


def _mapped(path: str, kind: str) -> np.ndarray:
    if Path(path).stat().st_size == 0:  # an empty file cannot be mapped
        return np.zeros(0, kind)
    return np.memmap(path, kind, "r")


def _as_numbers(digests: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    both = np.ascontiguousarray(digests).view(">u8").astype(np.uint64)
    return both[:, 0], both[:, 1]


def _as_keys(digests: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(digests).view(f"S{DIGEST}")[:, 0]
