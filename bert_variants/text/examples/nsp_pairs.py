"""BERT's sentence pairs: [CLS] A [SEP] B [SEP], and whether B really follows A.

Sources: google-research/bert:create_pretraining_data.py (``create_instances_from_document``); for
RoBERTa's name and separators Liu et al. 2019 (arXiv 1907.11692), section 4.2, and
facebookresearch/fairseq:fairseq/data/legacy/block_pair_dataset.py.
"""

from __future__ import annotations

import numpy as np

from bert_variants.registry import register
from bert_variants.text.pairing import (
    NEXT,
    RANDOM,
    budget_of,
    chunk_pairs,
    pair_plan,
    uniforms,
)
from bert_variants.text.plan import Plan, Window
from bert_variants.types import Vocab


@register("example", labels=("next_sentence",), reserved=("length",))
def nsp_pairs(
    window: Window, rng: np.random.Generator, vocab: Vocab, *, length: int, short: float = 0.1
) -> Plan:
    """Pairs of segments for next-sentence prediction. Label 1: B is random; 0: B follows A.

    The polarity is Google's; Baidu's ERNIE and fairseq write 1 for a true next in their files.

    A document's sentences are taken until ``length - 3`` tokens are reached, with probability
    ``short`` a smaller target (see ``pairing.chunk_pairs``). A is the first 1 .. n-1 of them (the
    only one if n = 1). With probability one half, and always if n = 1, B is random: another
    document (in a corpus of one document the same), from a uniform sentence on; the sentences
    that A left are used again. Else B is the rest. A pair over ``length - 3`` loses tokens one by
    one from the longer side (B if equal), at the front or at the back with equal chance.

    A worked row, ``length=10``, A of 3 tokens and B of 2: segments 0 0 0 0 0 1 1 1 0 0.

    Raises:
        ConfigError: ``length`` below 5 (two tokens, three specials), or ``short`` not in 0 .. 1.
    """
    budget = budget_of("nsp_pairs", length, 1, short)
    return _plan(window, rng, vocab, budget=budget, short=short, separators=1)


@register("example", labels=("next_sentence",), reserved=("length",))
def segment_pairs(
    window: Window,
    rng: np.random.Generator,
    vocab: Vocab,
    *,
    length: int,
    short: float = 0.1,
    separators: int = 2,
) -> Plan:
    """RoBERTa's SEGMENT-PAIR: the pairs of ``nsp_pairs`` as ``<s> A </s></s> B </s>``.

    The polarity of the label is that of ``nsp_pairs``. ``separators`` is how many stand between A
    and B; they belong to segment 0 (RoBERTa has no segments).

    Raises:
        ConfigError: as ``nsp_pairs``, or ``separators`` not 1 or 2.
    """
    budget = budget_of("segment_pairs", length, separators, short)
    return _plan(window, rng, vocab, budget=budget, short=short, separators=separators)


def _plan(
    window: Window,
    rng: np.random.Generator,
    vocab: Vocab,
    *,
    budget: int,
    short: float,
    separators: int,
) -> Plan:
    draw = uniforms(rng)

    def choose(sentences: int) -> int:
        return RANDOM if sentences == 1 or draw() < 0.5 else NEXT

    pairs, _ = chunk_pairs(window, draw, budget, short, choose)
    return pair_plan(
        pairs,
        {"next_sentence": pairs[:, 4] == RANDOM},
        rng,
        vocab,
        budget=budget,
        separators=separators,
        dropped={},
        altered={},
    )
