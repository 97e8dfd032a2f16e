"""StructBERT: BERT that also puts shuffled words and sentences back in order.

Paper: Wang et al. 2019, arXiv 1908.04577. Models: alibaba/AliceMind:StructBERT; no pretraining code
is public.

Run on a laptop:    bert-variants train configs/structbert.py --size tiny
Run as published:   bert-variants train configs/structbert.py --size large \\
                        --data.source 'text("wiki/*.txt")'

The architecture is BERT's. Beside 15 % masked tokens, 5 % of the trigrams of visible tokens are
shuffled and each of their tokens is predicted where it belongs; and instead of next-sentence
prediction a pair is told to be in order, swapped or random, one third each. What the paper leaves
open is chosen in ``shuffle``, ``word_order`` and ``three_way_pairs``. Batch and number of steps are
BERT's too (not published); warm-up is the first tenth of the steps. The large one has 86.9 on MNLI
(alibaba/AliceMind's README; not reproduced here).
"""

import dataclasses
from typing import Literal

from bert_variants.config import Experiment
from bert_variants.configs import bert

Size = Literal["tiny", "base", "large"]


def get_config(size: Size = "base") -> Experiment:
    """StructBERT as far as it is published; tiny trains on a laptop with a shorter schedule."""
    parent = bert.get_config(size)
    return dataclasses.replace(
        parent,
        name=f"structbert-{size}",
        data=dataclasses.replace(
            parent.data, example="three_way_pairs(short=0.1)", length=128 if size == "tiny" else 512
        ),
        corruption="shuffle(rate=0.15, trigrams=0.05)",
        objectives="word_order + sentence_structure",
        optim=dataclasses.replace(parent.optim, warmup=parent.run.steps // 10),
        run=dataclasses.replace(parent.run, dir=f"runs/structbert-{size}"),
    )
