"""XLNet: every token is predicted from those before it in a random order, with a memory.

Paper: Yang et al. 2019, arXiv 1906.08237. Code: zihangdai/xlnet.

Run on a laptop:    bert-variants train configs/xlnet.py --size tiny
Run as published:   bert-variants train configs/xlnet.py --size large \\
                        --data.source 'text("corpus/*.txt")'
With its own vocabulary:
                    --data.tokenizer 'sentencepiece(file="spiece.model")'
On shorter rows:    --length 256 (data.length alone would leave raw part and memory as they are)
The paper's table 6:
  without memory    --memory off
  without backward  --data.example.directions forward
  denoising instead --corruption 'tokens()' --model.masked read

The published recipe is the NeurIPS version's: 500,000 steps of 8,192 rows of 512 tokens on 33
billion pieces, learning rate 4e-4 after 40,000 steps; 5.5 days on 512 TPU v3 for large, which then
has 90.8 on MNLI's dev set (not reproduced here). The recipe of base is not published; it has
large's.

A row is 256 tokens of a stream, then two segments, [SEP] behind each and [CLS] at the end. The
first 256 positions see nothing of the others and are what the memory of 384 keeps. About a sixth of
the tokens is predicted, 85 of 512.

Where it differs from the code: dropout is the paper's 0.1 with none behind the activation (the
command has 0 everywhere); the activation is that of the released models; the memory starts empty;
the vocabulary has no token for the end of a document, so that [SEP] stands there, which is never
predicted.
"""

import dataclasses
from typing import Literal

from bert_variants import registry
from bert_variants.config import Experiment
from bert_variants.configs import bert

Size = Literal["tiny", "base", "large"]


def get_config(
    size: Size = "base", memory: Literal["on", "off"] = "on", length: int = 0
) -> Experiment:
    """XLNet as published; tiny trains on a laptop with BERT-tiny's shorter schedule.

    Without memory every row stands for itself: the tokens of its first half still do not see the
    second. ``length``: of a row, with a raw part, a memory and predictions in proportion; 0: 512,
    and 128 for tiny.
    """
    parent = bert.get_config(size)
    length = length or (parent.data.length if size == "tiny" else 512)
    remembered = length // 2
    sizes = dict(registry.lookup("model", parent.model).kwargs)
    variant = dataclasses.replace(
        parent,
        name=f"xlnet-{size}" + ("" if memory == "on" else "-no-memory"),
        data=dataclasses.replace(
            parent.data,
            tokenizer="sentencepiece(size=8192)",
            example=f"xlnet_stream(reuse={remembered}, directions='both')",
            length=length,
            copies=0,
        ),
        corruption=f"permutation(reuse={remembered}, max_predictions={length // 6})",
        model=registry.write(
            "xlnet",
            sizes
            | {
                "memory": 3 * length // 4 if memory == "on" else 0,
                "reuse": remembered,
                "inner_dropout": 0.0,
                "masked": "hidden",
            },
        ),
        objectives="mlm",
        optim=dataclasses.replace(parent.optim, schedule="linear()"),
        run=dataclasses.replace(parent.run, dir=f"runs/xlnet-{size}"),
    )
    if size == "tiny":
        return variant
    return dataclasses.replace(
        variant,
        data=dataclasses.replace(
            variant.data, tokenizer="sentencepiece(size=32000, coverage=0.99995)"
        ),
        optim=dataclasses.replace(variant.optim, lr=4e-4, warmup=40_000),
        run=dataclasses.replace(variant.run, steps=500_000, batch=8192, microbatches=32),
    )
