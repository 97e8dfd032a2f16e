"""Transformer-XL: a causal language model with a memory and with distances for positions.

Paper: Dai et al. 2019, arXiv 1901.02860. Code: kimiyoung/transformer-xl.

Run on a laptop:    bert-variants train configs/transformer_xl.py --size tiny
Run as published:   bert-variants train configs/transformer_xl.py --size base \\
                        --data.source 'text("enwik8.txt")'
Read with a longer memory, as the published evaluation does:
                    --model.memory 2100 --model.clamp 820 --model.same_length True

The sizes and recipes are those of the enwik8 scripts: 12 layers, 400,000 steps of 22 rows of 512
symbols, no warm-up, and 24 layers, 64 rows of 768 symbols (784 in the paper), warm-up of 4,000;
Adam at 2.5e-4 with a cosine down to 0, gradients clipped at 0.25, no weight decay. They reach 1.06
and 0.99 bits a symbol (the paper's tables 2 and 3; not reproduced here).

Where it differs: the published symbols are the bytes of the text, here they are the pieces of any
vocabulary (bits a piece are not bits a byte). The word-level models want an adaptive softmax, which
is not here. Rows share a token: the last one of a row is only predicted, and is read as the first
one of the next; so a row of 512 predicts 511 tokens and remembers 511.
"""

import dataclasses
from typing import Literal

from bert_variants.config import Experiment
from bert_variants.configs import bert

# layers, width, heads, feed-forward width; tokens a row, rows, warm-up; dropout, on attention
SIZES = {
    "tiny": (2, 128, 2, 512, 128, 32, 150, 0.1, 0.0),
    "base": (12, 512, 8, 2048, 512, 22, 0, 0.1, 0.0),
    "large": (24, 1024, 8, 3072, 768, 64, 4_000, 0.15, 0.15),
}
Size = Literal["tiny", "base", "large"]


def get_config(size: Size = "base", length: int = 0) -> Experiment:
    """Transformer-XL on a stream of text; tiny trains on a laptop with a shorter schedule.

    ``length``: of a row, which is also what is remembered; 0: as published.
    """
    layers, width, heads, ffn, usual, rows, warmup, dropout, on_attention = SIZES[size]
    length = length or usual
    parent = bert.get_config("tiny" if size == "tiny" else "base")
    return dataclasses.replace(
        parent,
        name=f"transformer-xl-{size}",
        data=dataclasses.replace(parent.data, example="stream(reuse=1)", length=length, copies=0),
        corruption="causal()",
        model=(
            f"transformer_xl(layers={layers}, width={width}, heads={heads}, ffn={ffn}, "
            f"positions={max(length, 512)}, memory={length}, reuse={length - 1}, "
            f"dropout={dropout}, attention_dropout={on_attention})"
        ),
        objectives="mlm",
        optim=dataclasses.replace(
            parent.optim,
            optimizer="adamw(bias_correction=True, b1=0.9, b2=0.999, eps=1e-8)",
            schedule="cosine()",
            lr=1e-3 if size == "tiny" else 2.5e-4,
            warmup=warmup,
            weight_decay=0.0,
            clip=0.25,
        ),
        run=dataclasses.replace(
            parent.run,
            dir=f"runs/transformer-xl-{size}",
            steps=parent.run.steps if size == "tiny" else 400_000,
            batch=rows,
        ),
    )
