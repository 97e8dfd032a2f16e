"""ELECTRA: a small generator fills in masked tokens, and the model tells which were replaced.

Paper: Clark et al. 2020, arXiv 2003.10555. Code: google-research/electra.

Run on a laptop:    bert-variants train configs/electra.py --size tiny
Run as published:   bert-variants train configs/electra.py --size base \\
                        --data.source 'text("wiki/*.txt")'
The paper's ablations (its section 3.4):
                    --variant electra_15 (replace_mlm, all_tokens)
In two stages:      --stage generator, then --stage discriminator, which starts from it
Without tying:      --model.tying none (all)
Simple generators:  --model.generator unigram --run.output_bias unigram --objectives replaced_token

small is the paper's, with a generator of a quarter of the width and 1,000,000 steps; small++ is the
released model of that name: a generator as wide as the discriminator and 4,000,000 steps
(google-research/electra, issue 39). base and large are the released ones; the paper's ELECTRA-400K
is large with --run.steps 400000. Generators are narrow and as deep as the discriminator. large
masks 25 %, because its generator is right so often (issue 71).

Tokens to predict are distinct, as the author recommends; the published runs drew them with
replacement: --corruption.selection with_replacement. GLUE averages of the paper: small 79.9, base
85.1, large 89.0 after 400,000 steps and 89.5 after 1,750,000; of the ablations, at base size:
ELECTRA 85.0, all tokens 84.3, replaced MLM 82.4, 15 % 82.4, BERT 82.2 (none reproduced here).
"""

import dataclasses
from typing import Literal

from bert_variants import registry
from bert_variants.config import Experiment
from bert_variants.configs import bert

# layers, width, heads, width of the tables, width of the generator; feed-forward: 4 * width
SIZES = {
    "tiny": (2, 128, 2, 64, 32),
    "small": (12, 256, 4, 128, 64),
    "small++": (12, 256, 4, 128, 256),
    "base": (12, 768, 12, 768, 256),
    "large": (24, 1024, 16, 1024, 256),
}
# tokens a row, share predicted, rows a step, learning rate, steps; tiny has BERT-tiny's
RECIPES = {
    "tiny": (128, 0.15, 32, 2e-3, 3_000),
    "small": (128, 0.15, 128, 5e-4, 1_000_000),
    "small++": (128, 0.15, 128, 5e-4, 4_000_000),
    "base": (512, 0.15, 256, 2e-4, 766_000),
    "large": (512, 0.25, 2048, 2e-4, 1_750_000),
}
# 50 is published; for the two that are not about replaced tokens the paper gives no weight
VARIANTS = {
    "electra": "mlm + 50*replaced_token",
    "electra_15": "mlm + 50*replaced_token(on='predicted')",
    "replace_mlm": "mlm + corrected",
    "all_tokens": "mlm + all_tokens",
}
Size = Literal["tiny", "small", "small++", "base", "large"]
Variant = Literal["electra", "electra_15", "replace_mlm", "all_tokens"]
Stage = Literal["joint", "generator", "discriminator"]


def get_config(
    size: Size = "base", variant: Variant = "electra", stage: Stage = "joint"
) -> Experiment:
    """ELECTRA as published; tiny trains on a laptop with a shorter schedule."""
    layers, width, heads, embedding, generator = SIZES[size]
    length, rate, rows, lr, steps = RECIPES[size]
    parent = bert.get_config("tiny" if size == "tiny" else "base")
    name = f"electra-{size}" + ("" if variant == "electra" else f"-{variant}")
    joint = dataclasses.replace(
        parent,
        name=name,
        data=dataclasses.replace(parent.data, example="electra_pairs()", length=length, copies=0),
        corruption=(
            f"tokens(rate={rate}, mask=0.85, random=0.0, max_predictions={most(length, rate)})"
        ),
        model=(
            f"electra(layers={layers}, width={width}, heads={heads}, ffn={4 * width}, "
            f"embedding={embedding}, generator_width={generator})"
        ),
        objectives=VARIANTS[variant],
        optim=dataclasses.replace(parent.optim, schedule="product()", lr=lr),
        run=dataclasses.replace(
            parent.run,
            dir=f"runs/{name}",
            steps=steps,
            batch=rows,
            microbatches=8 if size == "large" else 1,
        ),
    )
    return joint if stage == "joint" else two_stages(joint, stage, width, heads)


def most(length: int, rate: float) -> int:
    """How many tokens of a row are predicted at most: 19 of 128, 79 of 512, 130 of 512 at 25 %."""
    return int((rate + 0.005) * length)


def two_stages(joint: Experiment, stage: Stage, width: int, heads: int) -> Experiment:
    """The paper's two-stage training: a generator of the discriminator's size by ``mlm``, then the
    discriminator, from the generator's parameters and with its samples; n steps each.

    Tables are not tied, so that the generator stays as it is, and as wide as the networks.
    """
    name = f"{joint.name}-{stage}"
    model = registry.edit(
        joint.model, embedding=width, generator_width=width, generator_heads=heads, tying="none"
    )
    staged = dataclasses.replace(
        joint, name=name, model=model, run=dataclasses.replace(joint.run, dir=f"runs/{name}")
    )
    if stage == "generator":
        return dataclasses.replace(
            staged,
            objectives="mlm",
            optim=dataclasses.replace(joint.optim, freeze=("^discriminator/", "^embeddings/")),
        )
    return dataclasses.replace(
        staged,
        objectives=joint.objectives.removeprefix("mlm + "),
        optim=dataclasses.replace(
            joint.optim, freeze=("^generator/", "^generator_embeddings/", "^heads/tokens/")
        ),
        run=dataclasses.replace(
            staged.run,
            init_from=f"runs/{joint.name}-generator",
            init_map=(
                "^embeddings/ <- generator_embeddings/",
                "^discriminator/ <- generator/",
                "^heads/(?!tokens/)",
            ),
        ),
    )
