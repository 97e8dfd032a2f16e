"""ALBERT's sentence order: two consecutive segments, in their order or swapped.

Source: Lan et al. 2019 (arXiv 1909.11942), section 3.1; google-research/albert:
create_pretraining_data.py (``create_instances_from_document``).
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from bert_variants.registry import register
from bert_variants.text.pairing import (
    NEXT,
    RANDOM,
    SKIP,
    SKIPPED,
    SWAPPED,
    budget_of,
    chunk_pairs,
    pair_plan,
    uniforms,
)
from bert_variants.text.plan import Plan, Window
from bert_variants.types import Vocab


@register("example", labels=("swapped",), reserved=("length",))
def sop_pairs(
    window: Window,
    rng: np.random.Generator,
    vocab: Vocab,
    *,
    length: int,
    short: float = 0.1,
    singles: Literal["random", "skip"] = "random",
) -> Plan:
    """Pairs of consecutive segments for sentence-order prediction. Label 1: swapped; 0: in order.

    Chunks and their two parts are those of BERT (see ``pairing.chunk_pairs``); with probability
    one half the later part comes first. Segments follow the printed order.

    A chunk of one sentence has no second part. The released script makes a pair of it with a
    random other document, as BERT does, labelled 1: ``singles="random"``. So the published data
    hold easier negatives, about as many as there are such chunks. ``singles="skip"`` leaves them
    out, counted, and then the two labels have exactly the same words.

    A worked row, sentences "a b c" and "d e", swapped::

        [CLS] d e [SEP] a b c [SEP]     segments 0 0 0 0 1 1 1 1

    Raises:
        ConfigError: ``length`` below 5, or ``short`` not in 0 .. 1.
    """
    budget = budget_of("sop_pairs", length, 1, short)
    draw = uniforms(rng)
    alone = RANDOM if singles == "random" else SKIP

    def choose(sentences: int) -> int:
        if sentences == 1:
            return alone
        return SWAPPED if draw() < 0.5 else NEXT

    pairs, skipped = chunk_pairs(window, draw, budget, short, choose)
    return pair_plan(
        pairs,
        {"swapped": pairs[:, 4] != NEXT},
        rng,
        vocab,
        budget=budget,
        separators=1,
        dropped={SKIPPED: skipped},
        altered={},
    )
