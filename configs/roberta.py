"""RoBERTa: BERT without next-sentence prediction, with fresh masks, full rows and large batches.

Paper: Liu et al. 2019, arXiv 1907.11692. Code: facebookresearch/fairseq (examples/roberta).

Run on a laptop:    bert-variants train configs/roberta.py --size tiny
Run as published:   bert-variants train configs/roberta.py --size base \\
                        --data.source 'text("corpus/*.txt")'
With its own vocabulary:
                    --data.tokenizer 'byte_bpe(vocab="roberta_vocab.json", merges="gpt2_vocab.bpe")'
The paper's tables 1 and 2:
                    --masking static, --layout segment_pair (sentence_pair, doc_sentences)

The published recipe is table 9's: 500,000 steps of 8,192 rows of 512 tokens on 160 GB of text,
learning rate 6e-4 (base) or 4e-4 (large). RoBERTa-base then reaches 87.6 on MNLI's dev set and
RoBERTa-large 90.2 (facebookresearch/fairseq's README; not reproduced here).

Where it differs from fairseq: <s> and </s> are never chosen, where fairseq chooses among all tokens
of a row; random tokens are never <mask>. fairseq keeps the rows of <pad> in both tables at zero;
nothing reads them here either, since padding is hidden from every other token. The pairs of
``layout`` are BERT's rows with their segment table, as in the paper's comparison.
"""

import dataclasses
from typing import Literal

from bert_variants import registry
from bert_variants.config import Experiment
from bert_variants.configs import bert

# table 9: peak of the learning rate, steps of warm-up
PUBLISHED = {"base": (6e-4, 24_000), "large": (4e-4, 30_000)}
# section 4.2: how rows are built
LAYOUTS = {
    "full_sentences": "full_sentences()",
    "doc_sentences": "doc_sentences()",
    "segment_pair": "segment_pairs(short=0.1)",
    "sentence_pair": "sentence_pairs()",
}
Size = Literal["tiny", "base", "large"]
Layout = Literal["full_sentences", "doc_sentences", "segment_pair", "sentence_pair"]


def get_config(
    size: Size = "base",
    layout: Layout = "full_sentences",
    masking: Literal["dynamic", "static"] = "dynamic",
) -> Experiment:
    """RoBERTa; pairs bring back next-sentence prediction, static masks are ten copies."""
    parent = bert.get_config(size)
    pairs = layout in ("segment_pair", "sentence_pair")
    variant = dataclasses.replace(
        parent,
        name=f"roberta-{size}",
        data=dataclasses.replace(
            parent.data,
            tokenizer="byte_bpe(size=8192)",
            example=LAYOUTS[layout],
            copies=10 if masking == "static" else 0,
        ),
        corruption="tokens(rate=0.15, rounding='random', random_ids='text')",
        model=registry.edit(
            parent.model,
            segments=2 if pairs else 0,
            first_position=2,
            activation="gelu_erf",
            eps=1e-5,
            initialiser="normal",
        ),
        objectives="mlm + nsp" if pairs else "mlm",
        optim=dataclasses.replace(
            parent.optim,
            optimizer="adamw(bias_correction=True, b1=0.9, b2=0.98, eps=1e-6)",
            schedule="linear()",
            no_decay=(),
            clip=0.0,
        ),
        run=dataclasses.replace(parent.run, dir=f"runs/roberta-{size}"),
    )
    if size == "tiny":
        return variant
    lr, warmup = PUBLISHED[size]
    return dataclasses.replace(
        variant,
        data=dataclasses.replace(variant.data, tokenizer="byte_bpe(size=50265)", length=512),
        optim=dataclasses.replace(variant.optim, lr=lr, warmup=warmup),
        run=dataclasses.replace(variant.run, steps=500_000, batch=8192, microbatches=32),
    )
