"""Rows of several corpora in turns: a batch holds rows of one corpus alone.

ERNIE 1.0 trains its dialogue model alternately with masked language modelling (Sun et al. 2019,
arXiv 1904.09223, section 4.2; not in the released code).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from bert_variants.registry import register
from bert_variants.text.examples.by_part import in_random_order, mixed
from bert_variants.text.plan import Plan, Window
from bert_variants.types import Vocab


@register(
    "example", reserved=("length",), calls=("examples",), check=in_random_order, order="batches"
)
def alternating(
    window: Window,
    rng: np.random.Generator,
    vocab: Vocab,
    *,
    length: int,
    examples: Sequence[str] = ("single()",),
    weights: Sequence[float] = (),
) -> Plan:
    """``by_part`` in whole batches: a step sees rows of one part, the next perhaps of another.

    Which part comes when is random; over a visit part k has ``weights[k] / sum(weights)`` of the
    batches, or without weights as many as its rows fill. So with ``weights=(1.0, 1.0)`` every other
    batch, on average, is of dialogues::

        alternating(examples=("nsp_pairs()", "dialogue()"), weights=(1.0, 1.0))

    Rows that fill no batch are left out of a visit in training, others each time, and counted; of
    a part that has fewer rows than a batch all are, and a warning says so. An objective whose label
    the rows of a batch do not have is 0 in that step; over the steps between two lines of the log
    it is a mean over its own rows as ever.

    Args:
        window, rng, vocab, length, examples, weights: as ``by_part``'s.

    Raises:
        ConfigError: as ``by_part``.
    """
    return mixed(window, rng, vocab, length, examples, weights)
