"""ALBERT's two savings: layers that share parameters, and narrow embedding tables.

Run: bert-variants ablate configs/ablations/albert.py --steps 3000
"""

import dataclasses

from bert_variants.ablate.grid import Grid
from bert_variants.configs.ablations._base import base

MODEL = (
    "albert(layers=4, width=128, heads=2, ffn=512, embedding=128, sharing='none', dropout=0.0, "
    "attention_dropout=0.0)"
)


def get_grid(steps: int = 3000) -> Grid:
    """Four layers of width 128, nothing shared and tables as wide as the model, as the baseline."""
    experiment = dataclasses.replace(base("albert", steps), model=MODEL)
    return Grid(
        name="albert",
        base=experiment,
        arms={
            "none-128": {},
            "attention-128": {"model.sharing": "attention"},
            "ffn-128": {"model.sharing": "ffn"},
            "all-128": {"model.sharing": "all"},
            "none-32": {"model.embedding": 32},
            "all-32": {"model.sharing": "all", "model.embedding": 32},
        },
        baseline="none-128",
        claim=(
            "ALBERT (Lan et al. 2019, arXiv 1909.11942, tables 3 and 4): sharing the attention "
            "costs nothing, sharing the feed-forward part costs most of what sharing all costs; "
            "with all shared, an embedding of 128 is best."
        ),
        number=(
            "mean of five tasks at E=768: not shared 82.3, attention 81.6, feed-forward 79.5, "
            "all 79.8; at E=128: 81.6, 81.7, 80.2, 80.1"
        ),
        compares=(
            "pseudo-log-likelihood and fixed masks on held-out text after equal tokens and nearly "
            "equal FLOPs, with very unequal numbers of parameters, which stand beside the results."
        ),
    )
