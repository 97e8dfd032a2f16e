"""What the shipped grids train when nothing else is said: a BERT-tiny that takes minutes on a CPU.

The size is chosen so that a grid of seven arms and three seeds ends within hours on a laptop; any
field is an option of the command line. What shows at this size need not hold at another: the
papers' numbers come from models and corpora a thousand times as large, and from downstream tasks.
"""

import dataclasses

from bert_variants import registry
from bert_variants.config import Evals, Experiment
from bert_variants.configs import bert

MASKS = ("tokens(rate=0.15)", "whole_words(rate=0.15)", "spans(rate=0.15)")


def base(name: str, steps: int, masks: tuple[str, ...] = MASKS) -> Experiment:
    """BERT-tiny on single sequences with MLM alone, judged six times on fixed probes."""
    tiny = bert.get_config("tiny")
    return dataclasses.replace(
        tiny,
        name=name,
        data=dataclasses.replace(tiny.data, example="single()", copies=0),
        model=registry.edit(tiny.model, dropout=0.0, attention_dropout=0.0),
        objectives="mlm",
        optim=dataclasses.replace(
            tiny.optim,
            optimizer="adamw(b2=0.98)",
            schedule="cosine()",
            lr=2e-3,
            warmup=max(1, steps // 20),
        ),
        run=dataclasses.replace(
            tiny.run,
            dir=f"runs/ablations/{name}",
            steps=steps,
            output_bias="unigram",
            eval_every=max(1, steps // 6),
            save_every=max(1, steps // 2),
            log_every=max(1, steps // 200),
            keep=1,
        ),
        evals=Evals(example="single()", masks=masks, pll=8, rows=256, batch=64),
    )
