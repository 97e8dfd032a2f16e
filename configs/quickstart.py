"""The quickstart: BERT-tiny on the English that every Python installation holds.

Run: bert-variants quickstart --minutes 5   (or: bert-variants train configs/quickstart.py)

What differs from bert --size tiny is what a run of minutes needs: no dropout (it never sees enough
text to overfit), Adam with bias correction and a shorter memory, a cosine schedule over exactly the
steps that there is time for, and an output bias that starts at the unigram frequencies.
"""

import dataclasses

from bert_variants import registry
from bert_variants.config import Experiment
from bert_variants.configs import bert

STEPS_PER_MINUTE = 600  # what two cores of a laptop do; a constant, so that a run can be repeated


def get_config(minutes: float = 5.0) -> Experiment:
    """A run whose length in steps is a constant times ``minutes``."""
    steps = max(20, round(STEPS_PER_MINUTE * minutes))
    tiny = bert.get_config("tiny")
    return dataclasses.replace(
        tiny,
        name="quickstart",
        model=registry.edit(tiny.model, dropout=0.0, attention_dropout=0.0),
        optim=dataclasses.replace(
            tiny.optim,
            optimizer="adamw(b2=0.98)",
            schedule="cosine()",
            lr=2e-3,
            warmup=max(1, steps // 20),
        ),
        run=dataclasses.replace(
            tiny.run,
            dir="runs/quickstart",
            steps=steps,
            output_bias="unigram",
            eval_every=max(10, steps // 6),
            save_every=max(10, steps // 6),
        ),
    )
