"""What the objectives over labels of whole rows share."""

from __future__ import annotations

import jax.numpy as jnp

from bert_variants.ops import losses
from bert_variants.types import Leaf, Terms


def labelled_rows(logits_BC: Leaf, labels_B: Leaf, valid_BT: Leaf) -> Terms:
    """Mean cross-entropy over rows, and accuracy.

    A row that is all padding does not count, and neither does one whose label is below 0: it is
    of another kind than those that the label speaks of (see ``text/examples/by_part.py``).

    Args:
        logits_BC: of the C classes.
        labels_B: int32, 0 .. C-1, or -1.
        valid_BT: where there are tokens.
    """
    weights_B = (jnp.any(valid_BT, axis=-1) & (labels_B >= 0)).astype(jnp.float32)
    targets_B = jnp.maximum(labels_B, 0)
    return Terms(
        loss=losses.weighted(losses.cross_entropy(logits_BC, targets_B), weights_B),
        metrics={"accuracy": losses.weighted(losses.correct(logits_BC, targets_B), weights_B)},
    )
