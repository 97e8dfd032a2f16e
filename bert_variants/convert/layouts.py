"""Which special tokens stand around texts, family by family."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Literal

from bert_variants.convert.errors import ConvertError
from bert_variants.registry import nearest
from bert_variants.types import Vocab

Part = tuple[str, int]  # "cls", "sep", "A" or "B", and its segment id


@dataclasses.dataclass(frozen=True)
class Layout:
    """How one text, or a pair, becomes a row.

    Two worked rows, BERT and XLNet, for the texts "a b" and "c"::

        BERT    [CLS] a b [SEP] c [SEP]        segments  0 0 0 0 1 1
        XLNet   a b <sep> c <sep> <cls>        segments  0 0 0 1 1 2, padded on the left with 3

    Attributes:
        single: what stands in the row of one text, in order, with segment ids.
        pair: likewise for a pair.
        padding_side: where padding stands.
        padding_segment: its segment id.
        segments: whether the model is given segment ids at all.
    """

    single: tuple[Part, ...]
    pair: tuple[Part, ...]
    padding_side: Literal["left", "right"] = "right"
    padding_segment: int = 0
    segments: bool = True

    def row(
        self, vocab: Vocab, first: Sequence[int], second: Sequence[int] | None = None
    ) -> tuple[list[int], list[int]]:
        """The ids and segment ids of a row, special tokens included, without padding.

        Args:
            vocab: tells the ids of the special tokens.
            first, second: ids of the texts; None: there is no second one.
        """
        texts = {"A": list(first), "B": [] if second is None else list(second)}
        named = {"cls": [vocab.cls], "sep": [vocab.sep]}
        ids: list[int] = []
        segments: list[int] = []
        for part, segment in self.single if second is None else self.pair:
            added = texts[part] if part in texts else named[part]
            ids += added
            segments += [segment] * len(added)
        return ids, segments


_CLS, _A, _SEP = ("cls", 0), ("A", 0), ("sep", 0)
_BERT = Layout(single=(_CLS, _A, _SEP), pair=(_CLS, _A, _SEP, ("B", 1), ("sep", 1)))
_ROBERTA_PAIR = (_CLS, _A, _SEP, _SEP, ("B", 0), _SEP)
_LAYOUTS = {
    "bert": _BERT,
    "distilbert": dataclasses.replace(_BERT, segments=False),
    "electra": _BERT,
    "ernie": _BERT,
    "albert": _BERT,
    "roberta": Layout(single=(_CLS, _A, _SEP), pair=_ROBERTA_PAIR, segments=False),
    "deberta": _BERT,
    "deberta-v2": _BERT,
    "xlnet": Layout(
        single=(_A, _SEP, ("cls", 2)),
        pair=(_A, _SEP, ("B", 1), ("sep", 1), ("cls", 2)),
        padding_side="left",
        padding_segment=3,
    ),
}
# The families, by the names that "model_type" has in a config.json.
FAMILIES = tuple(_LAYOUTS)


def layout(family: str) -> Layout:
    """The layout of a family, by the name that ``model_type`` has in a config.json.

    Raises:
        ConvertError: an unknown family; names the nearest.
    """
    if family not in _LAYOUTS:
        raise ConvertError(f"unknown family {family!r}.{nearest(family, list(FAMILIES))}")
    return _LAYOUTS[family]
