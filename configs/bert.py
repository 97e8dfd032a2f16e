"""BERT: bidirectional transformers pretrained by masked tokens and next-sentence prediction.

Paper: Devlin et al. 2018, arXiv 1810.04805. Code: google-research/bert.

Run on a laptop:    bert-variants train configs/bert.py --size tiny
Run as published:   bert-variants train configs/bert.py --size base \\
                        --data.source 'text("wiki/*.txt")'

The published recipe is 1,000,000 steps of 256 rows, 90 % of them at 128 tokens and the rest at 512,
learning rate 1e-4 after 10,000 steps of warm-up. BERT-base then has an F1 of 88.4 on SQuAD 1.1's
dev set (google-research/bert's README; not reproduced here).
"""

import dataclasses
from typing import Literal

from bert_variants.config import Data, Evals, Experiment, Optim, Run

# layers, width, heads; the feed-forward width is 4 * width. tiny .. medium are those of the
# repository's README ("Well-Read Students Learn Better").
SIZES = {
    "tiny": (2, 128, 2),
    "mini": (4, 256, 4),
    "small": (4, 512, 8),
    "medium": (8, 512, 8),
    "base": (12, 768, 12),
    "large": (24, 1024, 16),
}
Size = Literal["tiny", "mini", "small", "medium", "base", "large"]


def get_config(size: Size = "base") -> Experiment:
    """BERT as published; sizes below base train on a laptop with a shorter schedule."""
    layers, width, heads = SIZES[size]
    published = Experiment(
        name=f"bert-{size}",
        data=Data(example="nsp_pairs(short=0.1)", length=128, copies=10),
        corruption="tokens(rate=0.15)",
        model=f"bert(layers={layers}, width={width}, heads={heads}, ffn={4 * width})",
        objectives="mlm + nsp",
        optim=Optim(
            optimizer="adamw(bias_correction=False, b1=0.9, b2=0.999, eps=1e-6)",
            schedule="bert_linear()",
            lr=1e-4,
            warmup=10_000,
            weight_decay=0.01,
            clip=1.0,
        ),
        run=Run(dir=f"runs/bert-{size}", steps=1_000_000, batch=256),
        evals=Evals(masks=("tokens(rate=0.15)", "whole_words(rate=0.15)")),
    )
    if size not in ("tiny", "mini"):
        return published
    # What a small model needs to learn in minutes: a larger step, a shorter run, fresh masks.
    return dataclasses.replace(
        published,
        data=dataclasses.replace(published.data, copies=0),
        optim=dataclasses.replace(published.optim, lr=2e-3, warmup=150),
        run=dataclasses.replace(
            published.run, steps=3_000, batch=32, eval_every=500, save_every=500
        ),
    )
