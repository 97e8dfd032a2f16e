"""RoBERTa's SENTENCE-PAIR: two single sentences, and whether the second really follows the first.

Source: Liu et al. 2019 (arXiv 1907.11692), section 4.2. The released code has no builder of it, so
what the paper leaves open is a choice of this file.
"""

from __future__ import annotations

import numpy as np

from bert_variants.registry import register
from bert_variants.text.pairing import (
    NEXT,
    RANDOM,
    SKIPPED,
    UNBALANCED,
    Balance,
    Draw,
    another,
    budget_of,
    pair_plan,
    uniforms,
)
from bert_variants.text.plan import Plan, Window
from bert_variants.types import Vocab


@register("example", labels=("next_sentence",), reserved=("length",))
def sentence_pairs(
    window: Window,
    rng: np.random.Generator,
    vocab: Vocab,
    *,
    length: int,
    separators: int = 2,
) -> Plan:
    """Pairs of single sentences, half of them random. Label 1: B is random; 0: B follows A.

    Going through a document, A is the next unused sentence. B is the one behind it, which is used
    up too, or a sentence of another document. The last sentence of a document, if it is left
    alone, can only have a random B; other pairs make up for it (see ``pairing.Balance``). In a
    text of one document it is left out and counted. Rows are short, much shorter than ``length``:
    the paper makes the batch larger, so that it has as many tokens as those of other layouts. A
    pair over the row loses tokens as in ``nsp_pairs``.

    A worked row, sentences "a b c" and "d e": ``<s> a b c </s></s> d e </s>``.

    Raises:
        ConfigError: ``length`` below ``separators + 4``, or ``separators`` not 1 or 2.
    """
    budget = budget_of("sentence_pairs", length, separators)
    draw = uniforms(rng)
    balance = Balance(draw, (NEXT, RANDOM) if len(window.documents) > 2 else (NEXT,))
    pairs, skipped = _pairs(window, draw, balance)
    return pair_plan(
        pairs,
        {"next_sentence": pairs[:, 4] == RANDOM},
        rng,
        vocab,
        budget=budget,
        separators=separators,
        dropped={SKIPPED: skipped},
        altered={UNBALANCED: len(balance.owed)},
    )


def _pairs(window: Window, draw: Draw, balance: Balance) -> tuple[np.ndarray, int]:
    """The untruncated pairs, and how many tokens were skipped."""
    documents, borders = window.documents.tolist(), window.sentences.tolist()
    count = len(documents) - 1
    skipped = 0
    found: list[int] = []
    add = found.extend
    for d in range(count):
        i, last = documents[d], documents[d + 1]
        while i < last:
            begin, middle = borders[i], borders[i + 1]
            alone = i + 1 == last
            if alone and count == 1:
                skipped += middle - begin
                break
            if (balance.bound() if alone else balance.free()) == NEXT:
                add((begin, middle, middle, borders[i + 2], NEXT))
                i += 2
                continue
            other = another(draw, d, count)
            b = documents[other] + int(draw() * (documents[other + 1] - documents[other]))
            add((begin, middle, borders[b], borders[b + 1], RANDOM))
            i += 1
    return np.asarray(found, np.int64).reshape(-1, 5), skipped
