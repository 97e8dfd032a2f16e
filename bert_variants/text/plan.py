"""What a row builder returns: rows as lists of pieces of the stored text, no token copied yet.

A piece is ``start, length, segment``. ``start >= 0`` is a position in the flat tokens of the shard
window; ``start < 0`` is the literal special token with id ``-start - 1`` and length 1. An NSP row
"[CLS] A [SEP] B [SEP]" is therefore five pieces::

    start     -cls-1   a    -sep-1   b    -sep-1
    length       1    |A|      1    |B|      1
    segment      0     0       0     1       1

Nothing else is needed for any layout (one segment, pairs, ``</s></s>``, packed rows, dialogue
roles), so the assembly of batches is one vectorised function that no builder touches.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Protocol

import numpy as np

from bert_variants.types import Vocab


@dataclasses.dataclass(frozen=True)
class Window:
    """Consecutive documents of the store, as flat arrays, offered to a row builder.

    Attributes:
        documents: int64 [n_documents + 1], offsets into ``sentences``: document d holds the
            sentences documents[d] .. documents[d + 1] - 1. No document is empty.
        sentences: int64 [n_sentences + 1], offsets into the tokens: sentence s is the tokens
            sentences[s] .. sentences[s + 1] - 1. No sentence is empty.
        tokens: uint16 or uint32 [n_tokens], the ids.
        word_starts: bool [n_tokens], True where a token begins a word.
        units: uint8 [n_tokens] or None where no units were prepared: 0 for a token of no unit,
            else the unit's kind + 1, with bit 7 set where a unit begins.
        parts: uint8 [n_documents] or None: which source of a mix a document is from; None where
            the text has one source.
        roles: uint8 [n_sentences] or None: who speaks, 0 a query and 1 a response, where the
            sentences are turns of a dialogue; 0 elsewhere. None where no dialogue was prepared.
    """

    documents: np.ndarray
    sentences: np.ndarray
    tokens: np.ndarray
    word_starts: np.ndarray
    units: np.ndarray | None = None
    parts: np.ndarray | None = None
    roles: np.ndarray | None = None


@dataclasses.dataclass(frozen=True)
class Plan:
    """Rows of one window in one visit.

    Attributes:
        rows: int64 [n_rows + 1], offsets into the pieces.
        start, length, segment: int64, int32, int32 [n_pieces]; see the module's docstring.
        pack: int32 [n_pieces]: which of the sequences packed into a row a piece belongs to, from
            1; None where a row is one sequence.
        backward: bool [n_rows]: rows whose pieces, listed in the order of reading, are each read
            from their last token to their first; None where there are none.
        groups: int [n_rows]: rows that may share a batch, where those of different groups may not;
            None where any rows may meet.
        labels: name -> integer array [n_rows]; -1 where a row has no such label.
        dropped: reason -> how many tokens were left out for it.
        altered: reason -> how many sentences (or rows, where it says so) were not taken as asked.
    """

    rows: np.ndarray
    start: np.ndarray
    length: np.ndarray
    segment: np.ndarray
    pack: np.ndarray | None = None
    backward: np.ndarray | None = None
    groups: np.ndarray | None = None
    labels: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)
    dropped: Mapping[str, int] = dataclasses.field(default_factory=dict)
    altered: Mapping[str, int] = dataclasses.field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.rows) - 1


class Example(Protocol):
    """A registered row builder. ``length`` comes from the config; the rest from the call-string.

    It is registered with ``@register("example", labels=("next_sentence",))``, has the signature
    ``(window, rng, vocab, *, length, ...)`` and is deterministic in the generator. ``length`` is
    declared ``reserved`` because ``data.length`` sets it.
    """

    def __call__(
        self, window: Window, rng: np.random.Generator, vocab: Vocab, *, length: int
    ) -> Plan: ...
