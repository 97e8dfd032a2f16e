"""Masked language modelling."""

from __future__ import annotations

from bert_variants.ops import losses
from bert_variants.registry import register
from bert_variants.types import Corrupted, Outputs, Terms


@register("objective", reads={"token_logits_BPV": 0}, needs=())
def mlm(outputs: Outputs, batch: Corrupted) -> Terms:
    """Cross-entropy of the original tokens at the predicted positions, in nats a token.

    The mean is over all predicted tokens of the global batch, not over sequences
    (google-research/bert:run_pretraining.py, there per replica and with 1e-5 in the denominator).

    Every predicted position counts, so with a corruption that also moves tokens (``moved_BT``) the
    moved ones do too. ``word_order`` is the same mean and reports the two apart: take one of them.
    """
    nats_BP = losses.cross_entropy(outputs.token_logits_BPV, batch.targets_BP)
    right_BP = losses.correct(outputs.token_logits_BPV, batch.targets_BP)
    return Terms(
        loss=losses.weighted(nats_BP, batch.weights_BP),
        metrics={"accuracy": losses.weighted(right_BP, batch.weights_BP)},
    )
