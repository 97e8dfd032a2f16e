"""ERNIE 1.0 (Baidu): BERT that hides whole phrases and entities, in three stages.

Paper: Sun et al. 2019, arXiv 1904.09223. Code: PaddlePaddle/ERNIE, before its version 2.0.

Run on a laptop:    bert-variants train configs/ernie.py --size tiny --lexicon lexicon.tsv
Run as published:   bert-variants train configs/ernie.py --lexicon lexicon.tsv \\
                        --data.source 'text("zh/*.txt")'

The lexicon has a line "spelling<TAB>phrase" or "spelling<TAB>entity" for each phrase and entity; it
stands for Baidu's own analyser. Single tokens are hidden first, then phrases, then entities; the
lengths of the stages are not published, here each has a third of the run. ReLU, 513 positions,
another eps of the norms and Adam with its own bias correction are what else differs from BERT. The
label of ``nsp_pairs`` is Google's, 1 is random; in ERNIE's files 1 is a true next. The published
model has an accuracy of 78.4 on XNLI's test set (PaddlePaddle/ERNIE's README; not reproduced here).

ERNIE mixes corpora, and makes dialogues of one of them, alternately with the rest (which is not in
the released code). In a config of one's own::

    source = registry.write("mix", {"parts": ("text('wiki/*.txt')", "dialogues('forum/*.txt')")})
    example = 'alternating(examples=("nsp_pairs()", "dialogue()"), weights=(5.0, 1.0))'
    objectives = "mlm + nsp + real_fake"
"""

import dataclasses
from typing import Literal

from bert_variants import registry
from bert_variants.config import Experiment
from bert_variants.configs import bert

Size = Literal["tiny", "base"]

# A lexicon numbers its kinds in the order of their names: entity 0, phrase 1.
STAGES = ("units(chance=0.0)", "units(kinds=(1,))", "units(kinds=(0,))")


def get_config(size: Size = "base", lexicon: str = "lexicon.tsv") -> Experiment:
    """ERNIE 1.0 as published; tiny trains on a laptop with a shorter schedule."""
    parent = bert.get_config(size)
    steps = parent.run.steps
    ours = dataclasses.replace(
        parent,
        name=f"ernie-{size}",
        data=dataclasses.replace(
            parent.data,
            units=registry.write("lexicon", {"file": lexicon}),
            example="nsp_pairs(short=0.0)",
            copies=0,
        ),
        corruption=registry.write(
            "stages", {"parts": STAGES, "until": (steps // 3, 2 * steps // 3)}
        ),
        model=registry.edit(parent.model, positions=513, eps=1e-5, activation="relu"),
        optim=dataclasses.replace(parent.optim, optimizer="adamw(b1=0.9, b2=0.999, eps=1e-8)"),
        run=dataclasses.replace(parent.run, dir=f"runs/ernie-{size}"),
    )
    if size == "tiny":
        return ours
    return dataclasses.replace(
        ours,
        data=dataclasses.replace(ours.data, tokenizer="wordpiece(size=18000)", length=512),
        optim=dataclasses.replace(ours.optim, warmup=5_000),
        run=dataclasses.replace(ours.run, batch=128),  # 8 devices of 8,192 tokens
    )
