"""ERNIE's dialogue objective: is the conversation as it was held?"""

from __future__ import annotations

import jax.numpy as jnp

from bert_variants.objectives.row_labels import labelled_rows
from bert_variants.registry import register
from bert_variants.types import Corrupted, Outputs, Terms


@register("objective", reads={"pair_logits_BC": 2}, needs=("labels.real",))
def real_fake(outputs: Outputs, batch: Corrupted) -> Terms:
    """Cross-entropy of "was a turn replaced" over rows; label 1: it is real, 0: fake.

    Sun et al. 2019 (arXiv 1904.09223), section 3.3. Class 0 of the head is "real", class 1 "fake",
    the label's opposite: so the one head that ``nsp + real_fake`` trains says the same of pairs
    and of dialogues, "this belongs together" or not. Rows that are all padding or have label -1 do
    not count.
    """
    real_B = batch.labels["real"]
    fake_B = jnp.where(real_B < 0, -1, 1 - real_B)
    return labelled_rows(outputs.pair_logits_BC, fake_B, batch.valid_BT)
