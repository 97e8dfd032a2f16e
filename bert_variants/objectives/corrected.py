"""The masked tokens, predicted from text in which a generator filled them in."""

from __future__ import annotations

from bert_variants.ops import losses
from bert_variants.registry import register
from bert_variants.types import Corrupted, Outputs, Terms


@register("objective", reads={"corrected_logits_BPV": 0}, needs=())
def corrected(outputs: Outputs, batch: Corrupted) -> Terms:
    """Cross-entropy of the original tokens at the predicted positions, in nats a token.

    The paper's ablation "Replace MLM" (Clark et al. 2020, section 3.4): masked language modelling
    whose reader sees the generator's samples in place of [MASK], here ``mlm + corrected``, where
    ``mlm`` trains the generator. The released code has no such objective.
    """
    nats_BP = losses.cross_entropy(outputs.corrected_logits_BPV, batch.targets_BP)
    right_BP = losses.correct(outputs.corrected_logits_BPV, batch.targets_BP)
    return Terms(
        loss=losses.weighted(nats_BP, batch.weights_BP),
        metrics={"accuracy": losses.weighted(right_BP, batch.weights_BP)},
    )
