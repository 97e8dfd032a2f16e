"""SpanBERT: spans of words are hidden, and each is also predicted from its two boundaries.

Paper: Joshi et al. 2020, arXiv 1907.10529. Code: facebookresearch/SpanBERT.

Run on a laptop:    bert-variants train configs/spanbert.py --size tiny
Run as published:   bert-variants train configs/spanbert.py --size large \\
                        --data.source 'text("wiki/*.txt")'

The published recipe is 2,400,000 steps of 256 rows of 512 tokens, one segment of one document each,
learning rate 1e-4; 15 days on 32 V100 for large, which then has an F1 of 94.6 on SQuAD 1.1's test
set, against 91.3 for Google's BERT (facebookresearch/SpanBERT's README; not reproduced here).

Weight decay is that of the published command, 0.01 on all parameters; the paper says 0.1. The
released code divides the loss by the number of targets twice, which leaves its clipping at 1.0
without effect; here the loss is a plain mean, and clipping works.
"""

import dataclasses
from typing import Literal

from bert_variants import registry
from bert_variants.config import Experiment
from bert_variants.configs import bert

Size = Literal["tiny", "base", "large"]


def get_config(size: Size = "base") -> Experiment:
    """SpanBERT as published; tiny trains on a laptop with BERT-tiny's shorter schedule."""
    parent = bert.get_config(size)
    variant = dataclasses.replace(
        parent,
        name=f"spanbert-{size}",
        data=dataclasses.replace(
            parent.data,
            tokenizer="wordpiece(size=8192, lowercase=False)",
            example="single(long='drop')",
            copies=0,
        ),
        corruption="spans(p=0.2, max_words=10)",
        model=registry.edit(parent.model, activation="gelu_erf", initialiser="normal"),
        objectives="mlm + span_boundary",
        optim=dataclasses.replace(
            parent.optim,
            optimizer="adamw(bias_correction=True, b1=0.9, b2=0.999, eps=1e-8)",
            no_decay=(),
        ),
        run=dataclasses.replace(parent.run, dir=f"runs/spanbert-{size}"),
    )
    if size == "tiny":
        return variant
    return dataclasses.replace(
        variant,
        data=dataclasses.replace(
            variant.data, tokenizer="wordpiece(size=28996, lowercase=False)", length=512
        ),
        run=dataclasses.replace(variant.run, steps=2_400_000),
    )
