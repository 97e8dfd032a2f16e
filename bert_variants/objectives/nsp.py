"""Next-sentence prediction."""

from __future__ import annotations

from bert_variants.objectives.row_labels import labelled_rows
from bert_variants.registry import register
from bert_variants.types import Corrupted, Outputs, Terms


@register("objective", reads={"pair_logits_BC": 2}, needs=("labels.next_sentence",))
def nsp(outputs: Outputs, batch: Corrupted) -> Terms:
    """Cross-entropy of "does B follow A" over rows; label 0: it follows, 1: it is random.

    google-research/bert:run_pretraining.py. Rows that are all padding or have label -1 do not
    count.
    """
    return labelled_rows(outputs.pair_logits_BC, batch.labels["next_sentence"], batch.valid_BT)
