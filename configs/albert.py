"""ALBERT: narrow tables, layers that share parameters, and the order of sentences to predict.

Paper: Lan et al. 2019, arXiv 1909.11942. Code: google-research/albert.

Run on a laptop:    bert-variants train configs/albert.py --size tiny
Run as published:   bert-variants train configs/albert.py --size base --version v2 \\
                        --data.source 'text("wiki/*.txt")'
With its own vocabulary:
                    --data.tokenizer 'sentencepiece(file="albert_30k-clean.vocab")'
The paper's table 4: --model.sharing attention (ffn, none), --model.embedding 768

The published recipe is 125,000 steps of 4,096 rows of 512 tokens with LAMB at 1.76e-3. Version 2 is
trained longer and without dropout (the largest never had any): 10,000,000 steps for base and
3,000,000 for the others; the best xxlarge of version 1 took 1,500,000. ALBERT-base v2 then reaches
84.6 on MNLI's dev set and xxlarge 90.6 (google-research/albert's README; not reproduced here).

At most 20 positions of a row are predicted, also of 512 tokens: the authors say that more made
hardly a difference (google-research/albert, issue 51). xlarge has 16 heads here, as in some of the
published files; others have 32 (issue 180), with as many parameters.
"""

import dataclasses
from typing import Literal

from bert_variants.config import Experiment
from bert_variants.configs import bert

# layers, width, heads, width of the tables; the feed-forward width is 4 * width
SIZES = {
    "tiny": (2, 128, 2, 64),
    "base": (12, 768, 12, 128),
    "large": (24, 1024, 16, 128),
    "xlarge": (24, 2048, 16, 128),
    "xxlarge": (12, 4096, 64, 128),
}
Size = Literal["tiny", "base", "large", "xlarge", "xxlarge"]


def get_config(size: Size = "base", version: Literal["v1", "v2"] = "v1") -> Experiment:
    """ALBERT as published; tiny trains on a laptop with BERT-tiny's shorter schedule."""
    layers, width, heads, embedding = SIZES[size]
    dropout = 0.0 if version == "v2" or size == "xxlarge" else 0.1
    parent = bert.get_config("tiny" if size == "tiny" else "base")
    variant = dataclasses.replace(
        parent,
        name=f"albert-{size}-{version}",
        data=dataclasses.replace(
            parent.data,
            tokenizer="sentencepiece(size=8192, normalization='albert')",
            example="sop_pairs(short=0.1)",
        ),
        corruption="ngrams(rate=0.15, cap=20)",
        model=(
            f"albert(layers={layers}, width={width}, heads={heads}, ffn={4 * width}, "
            f"embedding={embedding}, dropout={dropout}, attention_dropout={dropout})"
        ),
        objectives="mlm + sop",
        optim=dataclasses.replace(
            parent.optim, optimizer="lamb(bias_correction=False, b1=0.9, b2=0.999, eps=1e-6)"
        ),
        run=dataclasses.replace(parent.run, dir=f"runs/albert-{size}-{version}"),
    )
    if size == "tiny":
        # LAMB's step is a share of the weights' norm: it takes a larger rate than Adam's
        return dataclasses.replace(variant, optim=dataclasses.replace(variant.optim, lr=1e-2))
    longer = 10_000_000 if size == "base" else 3_000_000
    return dataclasses.replace(
        variant,
        data=dataclasses.replace(
            variant.data,
            tokenizer="sentencepiece(size=30000, normalization='albert')",
            length=512,
            copies=40,
        ),
        optim=dataclasses.replace(variant.optim, lr=1.76e-3, warmup=3_125),
        run=dataclasses.replace(
            variant.run,
            steps=longer if version == "v2" else 125_000,
            batch=4096,
            microbatches=16,
        ),
    )
