"""DeBERTa: attention that reads what a token is and how far off it stands as two things.

Papers: He et al. 2020, arXiv 2006.03654 (v1, v2); He et al. 2021, arXiv 2111.09543 (v3).
Code: microsoft/DeBERTa.

Run on a laptop:    bert-variants train configs/deberta.py --size tiny          (or --version v1)
Run as published:   bert-variants train configs/deberta.py --size base --version v3 \\
                        --data.source 'text("wiki/*.txt")'
Embedding sharing:  --model.sharing es (nes)                                    (v3)

v1 and v2 predict masked tokens; positions enter in a decoder of two passes. v2 shares projections
between content and distances, counts far distances by their logarithm, has 128,000 pieces, and a
convolution beside its lowest layer. v3 is v2 without the convolution, trained to find the tokens
that a generator half as deep replaced; the generator reads [MASK] at every chosen position. The
weight of finding them is 10, as in the code; the paper's text says 50. With Adam and one loss for
each parameter a weight matters through the clipping of gradients alone.

The published recipe of v1 is 1,000,000 steps of 2,048 rows of 512 tokens at 2e-4, that of
v2-xxlarge the same at 1.5e-4 (the repository's script for v2-xlarge is a demonstration of 32 rows
at 1e-4). Those of v3 are of the repository's script, whose small model goes on from a trained one.
DeBERTa-base (v1) then has an accuracy of 88.8 on MNLI's dev set, v2-xxlarge 91.7, v3-base 90.6 and
v3-large 91.8 (microsoft/DeBERTa's README; not reproduced here).

The script cuts one stream of all text into rows; here a row ends with its sentence and document.
"""

import dataclasses
from typing import Literal

from bert_variants.config import ConfigError, Experiment
from bert_variants.configs import bert

# layers, width, heads; the feed-forward width is 4 * width
SIZES = {
    "v1": {"base": (12, 768, 12), "large": (24, 1024, 16), "xlarge": (48, 1024, 16)},
    "v2": {"xlarge": (24, 1536, 24), "xxlarge": (48, 1536, 24)},
    "v3": {
        "xsmall": (12, 384, 6),
        "small": (6, 768, 12),
        "base": (12, 768, 12),
        "large": (24, 1024, 16),
    },
}
# the attention, the objectives, which tokens are chosen
VERSIONS = {
    "v1": (
        "deberta({sizes}, relative='deberta_v1', key_bias=False)",
        "mlm",
        "windows(rate=0.15, max_ngram=3, max_predictions=80)",
    ),
    "v2": (
        "deberta({sizes}, relative='deberta_v2', convolution=3)",
        "mlm",
        "windows(rate=0.15, max_ngram=3, max_predictions=80)",
    ),
    "v3": (
        "deberta_rtd({sizes}, relative='deberta_v2', sharing='gdes')",
        "mlm + 10*replaced_token",
        "windows(rate=0.15, mask=1.0, random=0.0, max_predictions=80)",
    ),
}
# rows, peak of the learning rate, steps, microbatches; 10,000 steps of warm-up
RECIPES = {
    ("v1", "base"): (2048, 2e-4, 1_000_000, 8),
    ("v1", "large"): (2048, 2e-4, 1_000_000, 8),
    ("v1", "xlarge"): (2048, 2e-4, 1_000_000, 16),
    ("v2", "xlarge"): (2048, 1.5e-4, 1_000_000, 16),
    ("v2", "xxlarge"): (2048, 1.5e-4, 1_000_000, 32),
    ("v3", "xsmall"): (64, 3e-4, 1_000_000, 1),
    ("v3", "small"): (256, 5e-5, 100_000, 1),
    ("v3", "base"): (256, 1e-4, 1_000_000, 1),
    ("v3", "large"): (256, 1e-4, 1_000_000, 2),
}
Size = Literal["tiny", "xsmall", "small", "base", "large", "xlarge", "xxlarge"]
Version = Literal["newest", "v1", "v2", "v3"]


def get_config(size: Size = "base", version: Version = "newest") -> Experiment:
    """DeBERTa as published; tiny trains on a laptop with BERT-tiny's shorter schedule.

    Raises:
        ConfigError: a size that the version does not have.
    """
    if version == "newest":
        version = "v3" if size == "tiny" or size in SIZES["v3"] else "v2"
    if size != "tiny" and size not in SIZES[version]:
        raise ConfigError(
            f"size is {size!r}, but DeBERTa {version} has tiny, {', '.join(SIZES[version])}."
        )
    layers, width, heads = (2, 128, 2) if size == "tiny" else SIZES[version][size]
    model, objectives, corruption = VERSIONS[version]
    sizes = f"layers={layers}, width={width}, heads={heads}, ffn={4 * width}"
    name = f"deberta-{version}-{size}"
    parent = bert.get_config("tiny" if size == "tiny" else "base")
    tokenizer = "byte_bpe(size=8192)" if version == "v1" else "sentencepiece(size=8192)"
    ours = dataclasses.replace(
        parent,
        name=name,
        data=dataclasses.replace(parent.data, tokenizer=tokenizer, example="single()", copies=0),
        corruption=corruption,
        model=model.format(sizes=sizes),
        objectives=objectives,
        run=dataclasses.replace(parent.run, dir=f"runs/{name}"),
    )
    if size == "tiny":
        return ours
    rows, lr, steps, microbatches = RECIPES[version, size]
    tokenizer = "byte_bpe(size=50265)" if version == "v1" else "sentencepiece(size=128000)"
    return dataclasses.replace(
        ours,
        data=dataclasses.replace(ours.data, tokenizer=tokenizer, length=512),
        optim=dataclasses.replace(ours.optim, lr=lr, warmup=10_000),
        run=dataclasses.replace(ours.run, steps=steps, batch=rows, microbatches=microbatches),
    )
