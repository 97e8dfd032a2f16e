"""Sentence-order prediction."""

from __future__ import annotations

from bert_variants.objectives.row_labels import labelled_rows
from bert_variants.registry import register
from bert_variants.types import Corrupted, Outputs, Terms


@register("objective", reads={"pair_logits_BC": 2}, needs=("labels.swapped",))
def sop(outputs: Outputs, batch: Corrupted) -> Terms:
    """Cross-entropy of "are the two segments swapped" over rows; label 0: in order, 1: swapped.

    google-research/albert:run_pretraining.py. Rows that are all padding or have label -1 do not
    count.
    """
    return labelled_rows(outputs.pair_logits_BC, batch.labels["swapped"], batch.valid_BT)
