"""ELECTRA against BERT, and what its two networks share, after equal FLOPs.

Run: bert-variants ablate configs/ablations/replaced_token.py --steps 3000
Then: python -m benchmarks.transfer runs/ablations/replaced-token

The steps are the baseline's; an arm whose step takes more operations makes fewer of them.
"""

import dataclasses

from bert_variants import registry
from bert_variants.ablate.grid import Grid
from bert_variants.configs import bert
from bert_variants.configs.ablations._base import base

MASKS = "tokens(rate=0.15, mask=0.85, random=0.0)"
OBJECTIVES = "mlm + 50*replaced_token"


def get_grid(steps: int = 3000, width: int = 128, heads: int = 2) -> Grid:
    """BERT as the baseline; ELECTRA as published; and a generator as wide as the discriminator.

    The paper compares ways of sharing with networks of one size, since only such can share all.
    """
    layers, *_ = bert.SIZES["tiny"]
    sizes = {"layers": layers, "width": width, "heads": heads, "ffn": 4 * width}
    none = {"dropout": 0.0, "attention_dropout": 0.0}
    small = {"model": registry.write("electra", {**sizes, **none})}
    equal = {**sizes, **none, "generator_width": width, "generator_heads": heads}
    as_wide = {
        "as-wide-none": {"model": registry.write("electra", {**equal, "tying": "none"})},
        "as-wide-tables": {"model": registry.write("electra", equal)},
        "as-wide-all": {"model": registry.write("electra", {**sizes, **none, "tying": "all"})},
    }
    both = {"corruption": MASKS, "objectives": OBJECTIVES}
    experiment = base("replaced-token", steps)
    return Grid(
        name="replaced-token",
        base=dataclasses.replace(experiment, model=registry.write("bert", {**sizes, **none})),
        arms={
            "bert": {},
            "electra": {**small, **both},
            **{name: {**model, **both} for name, model in as_wide.items()},
        },
        baseline="bert",
        claim=(
            "ELECTRA (Clark et al. 2020, arXiv 2003.10555, sections 3.2 and 3.3): better than "
            "masked language modelling at the same compute, most of all for small models; tied "
            "embeddings are better than none, and tying all gives little more."
        ),
        number=(
            "GLUE after equal steps, generator as large as the discriminator: nothing tied 83.6, "
            "tables 84.3, all 84.4; ELECTRA-small 79.9 against BERT-small 75.1"
        ),
        compares=(
            "the masks of the probes judge the arms as masked language models, that is, their "
            "generators, which for ELECTRA is a small network that is thrown away: no more than "
            "that they learn can be read off them. What its paper claims is about the "
            "discriminators: benchmarks.transfer judges those."
        ),
        equal="flops",
    )
