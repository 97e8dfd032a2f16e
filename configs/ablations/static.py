"""Masks that are drawn anew on every visit, or repeated: BERT's ten copies, or a single one.

Run: bert-variants ablate configs/ablations/static.py --steps 6000
"""

from bert_variants.ablate.grid import Grid
from bert_variants.configs.ablations._base import base


def get_grid(steps: int = 6000) -> Grid:
    """Dynamic masking as the baseline, static masking with 10 copies and with 1."""
    return Grid(
        name="static",
        base=base("static", steps),
        arms={
            "dynamic": {},
            "static-10": {"data.copies": 10},
            "static-1": {"data.copies": 1},
        },
        baseline="dynamic",
        claim=(
            "RoBERTa (Liu et al. 2019, arXiv 1907.11692, section 4.1): dynamic masking is "
            "comparable to static masking with 10 copies, or slightly better."
        ),
        number="SQuAD 2.0 F1 78.7 against 78.3, MNLI 84.0 against 84.3, SST-2 92.9 against 92.5",
        compares=(
            "held-out probes after equal tokens. Copies repeat rows and masks after so many "
            "visits to the text, so the run must be long enough for many visits: with 10 copies "
            "arms differ by chance alone until the eleventh. On a corpus that is visited once "
            "nothing can show."
        ),
    )
