"""BERT-wwm: all tokens of a word are hidden together, in English or in Chinese.

Paper: Cui et al. 2019, arXiv 1906.08101. Code: google-research/bert (English); the Chinese recipe
is told in ymcui/Chinese-BERT-wwm's issue 13.

Run on a laptop:    bert-variants train configs/bert_wwm.py --size tiny
in Chinese:         bert-variants train configs/bert_wwm.py --size tiny --recipe wwm \\
                        --data.source 'text("wiki_zh/*.txt")'
Run as published:   bert-variants train configs/bert_wwm.py --size base --recipe wwm \\
                        --vocab_file vocab.txt --data.source 'text("wiki_zh/*.txt")'
and then the same with --phase 2 --run.init_from runs/wwm-base-1

Chinese words are those of a segmenter and stand beside the tokens, which stay single characters:
the "##" twins of Chinese characters that the published vocabulary holds never occur. The authors
segmented with LTP. Text that was segmented before, with spaces between its words, is read with
``--data.units 'words()'``.

=============== ========================================= ========= =======================
recipe          steps x rows of tokens                    optimizer begun from
=============== ========================================= ========= =======================
english         BERT's own                                AdamW     nothing
wwm             100k x 2560 of 128, 100k x 384 of 512     LAMB      Google's Chinese BERT
wwm-ext         1M x 2560 of 128, 400k x 384 of 512       LAMB      Google's Chinese BERT
roberta-wwm-ext 1M x 384 of 512; large: 2M x 512 of 512   AdamW     the same; large: nothing
=============== ========================================= ========= =======================

wwm read 0.4 billion tokens of Wikipedia, -ext 5.4 billion. RoBERTa-wwm-ext drops next-sentence
prediction and keeps BERT's architecture and static masks; how its rows were built and which AdamW
it was is not said: FULL-SENTENCES and BERT's are this file's choice. So are 10 % of warm-up for all
Chinese recipes, which is said of wwm alone. Of the small models (rbt3, rbt6: 3 and 6 layers of
base; rbtl3: 3 of large) only the shapes are here; the authors begin them from a large one's layers.

On CMRC 2018's test set F1 is 87.0 for Google's Chinese BERT, 87.4 for wwm, 87.7 for wwm-ext, 89.4
and 90.6 for RoBERTa-wwm-ext base and large (ymcui/Chinese-BERT-wwm's README; not reproduced here).
"""

import dataclasses
from typing import Literal

from bert_variants.config import ConfigError, Experiment
from bert_variants.configs import bert

# layers, width, heads; the feed-forward width is 4 * width
SIZES = {
    "tiny": (2, 128, 2),
    "rbt3": (3, 768, 12),
    "rbt6": (6, 768, 12),
    "rbtl3": (3, 1024, 16),
    "base": (12, 768, 12),
    "large": (24, 1024, 16),
}
# the phases of a recipe: tokens a row, steps, rows a batch, parts of a batch
PHASES = {
    "english": ((128, 1_000_000, 256, 1),),
    "wwm": ((128, 100_000, 2560, 10), (512, 100_000, 384, 6)),
    "wwm-ext": ((128, 1_000_000, 2560, 10), (512, 400_000, 384, 6)),
    "roberta-wwm-ext": ((512, 1_000_000, 384, 6),),
}
LARGE = ((512, 2_000_000, 512, 8),)  # roberta-wwm-ext's
Size = Literal["tiny", "rbt3", "rbt6", "rbtl3", "base", "large"]
Recipe = Literal["english", "wwm", "wwm-ext", "roberta-wwm-ext"]


def get_config(
    size: Size = "base", recipe: Recipe = "english", phase: int = 1, vocab_file: str = ""
) -> Experiment:
    """Whole-word masking.

    Args:
        size: of the model.
        recipe: see above; all but ``english`` are Chinese.
        phase: which phase of the recipe, from 1.
        vocab_file: the Chinese vocabulary to load, such as Google's of 21,128 tokens; empty:
            one is trained.

    Raises:
        ConfigError: a phase that the recipe does not have.
    """
    layers, width, heads = SIZES[size]
    phases = LARGE if (recipe, size) == ("roberta-wwm-ext", "large") else PHASES[recipe]
    if not 1 <= phase <= len(phases):
        raise ConfigError(f"phase is {phase}, expected 1 .. {len(phases)} of recipe '{recipe}'.")
    parent = bert.get_config("tiny" if size == "tiny" else "base")
    english = dataclasses.replace(
        parent,
        name=f"bert-wwm-{size}",
        corruption="whole_words(rate=0.15)",
        model=f"bert(layers={layers}, width={width}, heads={heads}, ffn={4 * width})",
        run=dataclasses.replace(parent.run, dir=f"runs/bert-wwm-{size}"),
    )
    if recipe == "english":
        return english
    variant = _chinese(english, recipe, f"{recipe}-{size}-{phase}", vocab_file)
    if size == "tiny":
        lr = variant.optim.lr if recipe == "roberta-wwm-ext" else 1e-2  # LAMB's, as ALBERT-tiny's
        return dataclasses.replace(variant, optim=dataclasses.replace(variant.optim, lr=lr))
    length, steps, batch, microbatches = phases[phase - 1]
    return dataclasses.replace(
        variant,
        data=dataclasses.replace(variant.data, length=length),
        optim=dataclasses.replace(variant.optim, warmup=steps // 10),
        run=dataclasses.replace(variant.run, steps=steps, batch=batch, microbatches=microbatches),
    )


def _chinese(parent: Experiment, recipe: Recipe, name: str, vocab_file: str) -> Experiment:
    """What all sizes of a Chinese recipe have in common."""
    roberta = recipe == "roberta-wwm-ext"
    return dataclasses.replace(
        parent,
        name=name,
        data=dataclasses.replace(
            parent.data,
            tokenizer=f"wordpiece(file={vocab_file!r})" if vocab_file else "wordpiece(size=21128)",
            units="chinese_words()",
            example="full_sentences()" if roberta else parent.data.example,
        ),
        corruption="whole_units(rate=0.15)",
        objectives="mlm" if roberta else parent.objectives,
        optim=dataclasses.replace(
            parent.optim,
            optimizer=parent.optim.optimizer if roberta else "lamb(bias_correction=False)",
        ),
        run=dataclasses.replace(parent.run, dir=f"runs/{name}"),
        evals=dataclasses.replace(
            parent.evals, masks=(*parent.evals.masks, "whole_units(rate=0.15)")
        ),
    )
