"""How much to mask: 5 to 60 % of the tokens, BERT's 15 % as the baseline.

Run: bert-variants ablate configs/ablations/rate.py --steps 3000
"""

from bert_variants.ablate.grid import Grid
from bert_variants.configs.ablations._base import base

RATES = (0.05, 0.15, 0.3, 0.4, 0.5, 0.6)


def get_grid(steps: int = 3000) -> Grid:
    """One arm a rate; everything else is BERT's."""
    return Grid(
        name="rate",
        base=base("rate", steps),
        arms={f"rate-{round(100 * rate)}": {"corruption.rate": rate} for rate in RATES},
        baseline="rate-15",
        claim=(
            "Should You Mask 15% in Masked Language Modeling? (Wettig et al. 2023, arXiv "
            "2202.08005, abstract): for models of BERT-large's size, masking 40 % beats 15 % on "
            "GLUE and SQuAD; 80 % keeps most of the fine-tuning performance."
        ),
        number="40 % is best; at 80 % 95 % of the performance is kept",
        compares=(
            "pseudo-log-likelihood and fixed 15 % masks on held-out text after equal tokens. A "
            "higher rate gives more predictions a row and less to predict them from; the paper "
            "found that larger models bear higher rates, so a tiny one speaks for itself alone."
        ),
    )
