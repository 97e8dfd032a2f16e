"""StructBERT's pairs: the next segment, the previous one, or one of another document.

Source: Wang et al. 2019 (arXiv 1908.04577), section 2.3. No pretraining code is public, so what
the paper leaves open is a choice of this file.
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
    UNBALANCED,
    Balance,
    budget_of,
    chunk_pairs,
    pair_plan,
    uniforms,
)
from bert_variants.text.plan import Plan, Window
from bert_variants.types import Vocab


@register("example", labels=("sentence_order",), reserved=("length",))
def three_way_pairs(
    window: Window,
    rng: np.random.Generator,
    vocab: Vocab,
    *,
    length: int,
    short: float = 0.1,
    singles: Literal["random", "skip"] = "random",
) -> Plan:
    """Pairs of three kinds, one third each. The label ``sentence_order`` says where B comes from.

    ====== =======================================================================
    0      B follows A
    1      B precedes A: a contiguous pair, printed in the other order
    2      B is from another document
    ====== =======================================================================

    Chunks and their two parts are those of BERT (see ``pairing.chunk_pairs``). Segments follow
    the printed order. A worked chunk of the sentences "a b c" and "d e"::

        0   [CLS] a b c [SEP] d e [SEP]
        1   [CLS] d e [SEP] a b c [SEP]
        2   [CLS] a b c [SEP] x y ... [SEP]

    A chunk of one sentence can only be of class 2. With ``singles="random"`` it is, and other
    chunks make up for it (see ``pairing.Balance``), so that the classes stay at one third while
    at most about one chunk in three has one sentence; what could not be made up for is counted.
    With ``singles="skip"`` it is left out and counted. In a text of one document there is no
    class 2, and chunks of one sentence are left out.

    Raises:
        ConfigError: ``length`` below 5, or ``short`` not in 0 .. 1.
    """
    budget = budget_of("three_way_pairs", length, 1, short)
    draw = uniforms(rng)
    others = len(window.documents) > 2
    balance = Balance(draw, (NEXT, SWAPPED, RANDOM) if others else (NEXT, SWAPPED))
    skip = singles == "skip" or not others

    def choose(sentences: int) -> int:
        if sentences > 1:
            return balance.free()
        return SKIP if skip else balance.bound()

    pairs, skipped = chunk_pairs(window, draw, budget, short, choose)
    return pair_plan(
        pairs,
        {"sentence_order": pairs[:, 4]},
        rng,
        vocab,
        budget=budget,
        separators=1,
        dropped={SKIPPED: skipped},
        altered={UNBALANCED: len(balance.owed)},
    )
