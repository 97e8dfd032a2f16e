"""Where tokens stand: a table of positions, DeBERTa's disentangled distances, or both.

Run: bert-variants ablate configs/ablations/attention.py --steps 3000
"""

import dataclasses

from bert_variants import registry
from bert_variants.ablate.grid import Grid
from bert_variants.configs import bert
from bert_variants.configs.ablations._base import base


def get_grid(steps: int = 3000, width: int = 128, heads: int = 2) -> Grid:
    """BERT's table as the baseline; the same corruption, objective and steps for every arm."""
    layers, *_ = bert.SIZES["tiny"]
    sizes = {"layers": layers, "width": width, "heads": heads, "ffn": 4 * width}
    none = {"dropout": 0.0, "attention_dropout": 0.0}
    v1 = {**sizes, **none, "relative": "deberta_v1", "key_bias": False}
    v2 = {**sizes, **none, "relative": "deberta_v2"}
    experiment = base("attention", steps)
    return Grid(
        name="attention",
        base=dataclasses.replace(experiment, model=registry.write("bert", {**sizes, **none})),
        arms={
            "bert": {},
            "bert-distances": {"model.relative": "deberta_v1"},
            "deberta-v1": {"model": registry.write("deberta", v1)},
            "deberta-v2": {"model": registry.write("deberta", v2)},
        },
        baseline="bert",
        claim=(
            "DeBERTa (He et al. 2020, arXiv 2006.03654, section 5.2): without the decoder of "
            "absolute positions, content-to-position or position-to-content terms the model is "
            "worse on every task; with all three it beats RoBERTa and XLNet of equal training."
        ),
        number=(
            "base models after equal steps, MNLI-m / SQuAD 1.1 F1 / RACE: DeBERTa 86.3 / 92.1 / "
            "71.7, without the decoder 86.1 / 91.8 / 70.3, RoBERTa 84.9 / 91.1 / 66.8"
        ),
        compares=(
            "pseudo-log-likelihood and fixed masks on held-out text after equal steps. An arm with "
            "distances does more work a step, and DeBERTa's decoder runs the last layer twice; "
            "their FLOPs stand beside it."
        ),
    )
