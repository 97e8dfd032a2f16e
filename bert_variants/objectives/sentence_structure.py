"""StructBERT's sentence objective: next, previous, or of another document."""

from __future__ import annotations

from bert_variants.objectives.row_labels import labelled_rows
from bert_variants.registry import register
from bert_variants.types import Corrupted, Outputs, Terms


@register("objective", reads={"pair_logits_BC": 3}, needs=("labels.sentence_order",))
def sentence_structure(outputs: Outputs, batch: Corrupted) -> Terms:
    """Cross-entropy over rows of three classes: B follows A (0), precedes it (1), is random (2).

    Wang et al. 2019 (arXiv 1908.04577), section 2.3. Guessing costs log 3 = 1.0986 nats. Rows that
    are all padding or have label -1 do not count.
    """
    return labelled_rows(outputs.pair_logits_BC, batch.labels["sentence_order"], batch.valid_BT)
