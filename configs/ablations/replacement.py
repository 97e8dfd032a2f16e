"""What stands in the chosen places: 80 % [MASK], 10 % random, 10 % unchanged, or other shares.

Run: bert-variants ablate configs/ablations/replacement.py --steps 3000
"""

from bert_variants.ablate.grid import Grid
from bert_variants.configs.ablations._base import base

# mask, random; the rest stays
SHARES = {
    "80-10-10": (0.8, 0.1),
    "all-mask": (1.0, 0.0),
    "80-20-0": (0.8, 0.2),
    "80-0-20": (0.8, 0.0),
    "0-100-0": (0.0, 1.0),
}


def get_grid(steps: int = 3000) -> Grid:
    """One arm for each way of replacing, named by mask-random-unchanged."""
    return Grid(
        name="replacement",
        base=base("replacement", steps),
        arms={
            name: {"corruption.mask": mask, "corruption.random": random}
            for name, (mask, random) in SHARES.items()
        },
        baseline="80-10-10",
        claim=(
            "BERT (Devlin et al. 2018, arXiv 1810.04805, appendix C.2): fine-tuning hardly "
            "depends on the shares; only replacing all by random tokens is much worse."
        ),
        number="MNLI 84.2 (80-10-10), 84.3 (all [MASK]), 83.6 (all random)",
        compares=(
            "pseudo-log-likelihood, which hides behind [MASK] alone and so favours arms that saw "
            "only [MASK]; and fixed 80/10/10 masks, which favour arms that saw all three. What "
            "the shares do to representations without [MASK] shows in fine-tuning alone."
        ),
    )
