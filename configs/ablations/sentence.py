"""The second objective about sentences: next sentence, sentence order, three-way, or none.

Run: bert-variants ablate configs/ablations/sentence.py --steps 3000

Each objective comes with rows of its own kind. So that what the rows do is not taken for what the
objective does, the rows of NSP and of SOP are also trained with MLM alone.
"""

from bert_variants.ablate.grid import Grid
from bert_variants.configs.ablations._base import base

ARMS = {
    "none": {},
    "nsp": {"data.example": "nsp_pairs()", "objectives": "mlm + nsp"},
    "nsp-rows": {"data.example": "nsp_pairs()"},
    "sop": {"data.example": "sop_pairs()", "objectives": "mlm + sop"},
    "sop-rows": {"data.example": "sop_pairs()"},
    "three-way": {"data.example": "three_way_pairs()", "objectives": "mlm + sentence_structure"},
}


def get_grid(steps: int = 3000) -> Grid:
    """Single sequences with MLM alone as the baseline."""
    return Grid(
        name="sentence",
        base=base("sentence", steps),
        arms=ARMS,
        baseline="none",
        claim=(
            "ALBERT (Lan et al. 2019, arXiv 1909.11942, table 5): sentence-order prediction helps "
            "downstream tasks, next-sentence prediction hardly does."
        ),
        number="mean of five tasks: none 79.0, NSP 79.2, SOP 80.1",
        compares=(
            "pseudo-log-likelihood and fixed masks on single held-out sequences after equal "
            "tokens: what the second objective costs or gives the language model. Arms trained on "
            "pairs are judged on another kind of row than they saw. Whether representations of "
            "pairs are better shows in fine-tuning alone."
        ),
    )
