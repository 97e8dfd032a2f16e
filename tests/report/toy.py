"""A toy tokenizer and a corrupted row whose every number is known."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from bert_variants.text.tokenizer import Encoded, Tokenizer
from bert_variants.types import Batch, Corrupted, Vocab

TOKENS = (
    "[PAD]",
    "[UNK]",
    "[CLS]",
    "[SEP]",
    "[MASK]",
    "the",
    "cat",
    "##s",
    "ran",
    "<b>&",
    "\x1b[31m",
)
VOCAB = Vocab(size=12, pad=0, unk=1, cls=2, sep=3, mask=4, specials=(0, 1, 2, 3, 4, 11))


class Toy(Tokenizer):
    """Ids and spellings, nothing else."""

    kind = "toy"
    tokens: Sequence[str] = TOKENS
    vocab = VOCAB

    def encode_batch(self, texts: Sequence[str]) -> list[Encoded]:
        raise NotImplementedError

    def decode(self, ids: Iterable[int | np.integer]) -> str:
        return " ".join(TOKENS[i] for i in ids)

    def files(self) -> Mapping[str, bytes]:
        return {}


def rows() -> Corrupted:
    """Row 0: "the cats ran <b>& ESC the" with three kinds of replacement; row 1: nothing chosen.

    ::

        tokens  [CLS] the cat ##s ran <b>& ESC the [SEP] [PAD]
        inputs  [CLS] the [M] [M] the <b>& ESC the [SEP] [PAD]
        at                 2   3   4         6               one of five slots unused
    """
    tokens = np.array([[2, 5, 6, 7, 8, 9, 10, 5, 3, 0], [2, 6, 7, 3, 0, 0, 0, 0, 0, 0]], np.int32)
    inputs = tokens.copy()
    inputs[0, [2, 3, 4]] = 4, 4, 5
    none = np.full((2, 10), -1, np.int32)
    words = none.copy()
    words[0, 1:8] = 0, 1, 1, 2, 3, 4, 5
    words[1, 1:3] = 0, 0
    batch = Batch(
        tokens_BT=tokens,
        segments_BT=np.zeros((2, 10), np.int32),
        positions_BT=np.broadcast_to(np.arange(10, dtype=np.int32), (2, 10)),
        valid_BT=tokens != 0,
        maskable_BT=tokens > 4,
        words_BT=words,
        units_BT=none,
        example_id_B=np.array([4711, 12], np.uint32),
        visit_B=np.zeros(2, np.uint32),
        labels={"next_sentence": np.array([1, 0], np.int32)},
    )
    return Corrupted.of(
        batch,
        inputs_BT=inputs,
        at_BP=np.array([[2, 3, 4, 6, 0], [0] * 5], np.int32),
        targets_BP=np.array([[6, 7, 8, 10, 0], [0] * 5], np.int32),
        weights_BP=np.array([[1, 1, 1, 1, 0], [0] * 5], np.float32),
    )
