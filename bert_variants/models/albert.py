"""ALBERT (Lan et al. 2019, arXiv 1909.11942; google-research/albert:modeling.py)."""

from __future__ import annotations

import dataclasses
from typing import Literal

import flax.linen as nn
from jax.sharding import PartitionSpec

from bert_variants.models.bert import RESERVED, check_relative
from bert_variants.models.heads import HEADS, Heads
from bert_variants.models.layers import INITIALISERS, RULES, Dense, Embeddings, Shape
from bert_variants.models.sharing import SharedEncoder, Sharing
from bert_variants.ops import disentangled
from bert_variants.ops.attention import visible
from bert_variants.ops.placement import keep_rows
from bert_variants.registry import register
from bert_variants.types import Batch, Corrupted, Outputs


@register(
    "model",
    name="albert",
    outputs=("hidden_BTD", "layers", "scores", *HEADS),
    reserved=RESERVED,
    check=check_relative,
    rules=(
        *RULES,
        (r"widen/kernel$", PartitionSpec("fsdp", "tensor")),
        (r"widen/bias$", PartitionSpec("tensor")),
    ),
)
class Albert(nn.Module):
    """BERT with narrow embedding tables and with layers that share parameters.

    Tables, their LayerNorm and dropout are E wide; a dense layer with bias then widens E to D (none
    where E = D). The head for masked tokens narrows D to E again, for the tied table.

    The released code shares whole layers, in groups. Sharing of one half alone is the paper's
    (table 4), which does not say to which half a LayerNorm belongs; here to the one before it,
    which gives the published sizes.

    Attributes:
        layers, width, heads, ffn: L, D, N, F; ffn 0 is 4 * width.
        embedding: E.
        sharing, groups: what the layers share; see ``SharedEncoder``.
        positions, first_position, segments, dropout, attention_dropout, eps, activation,
            initialiser, relative, tied: as ``Bert``'s.
        vocab_size, wanted, precision, unroll, remat: set by the project.
    """

    layers: int = 12
    width: int = 768
    heads: int = 12
    ffn: int = 0
    embedding: int = 128
    sharing: Sharing = "all"
    groups: int = 1
    positions: int = 512
    first_position: int = 0
    segments: int = 2
    dropout: float = 0.1
    attention_dropout: float = 0.1
    eps: float = 1e-12
    activation: str = "gelu_tanh"
    initialiser: Literal["truncated_normal", "normal"] = "truncated_normal"
    relative: str = ""
    tied: bool = True
    vocab_size: int = 0
    wanted: tuple[tuple[str, int], ...] = ()
    precision: str = "float32"
    unroll: int = 1
    remat: bool = False

    @nn.compact
    def __call__(self, batch: Batch | Corrupted, *, train: bool = False) -> Outputs:
        """Outputs for rows of any length up to ``positions``."""
        initialiser = INITIALISERS[self.initialiser]
        shape = Shape(
            width=self.width,
            heads=self.heads,
            ffn=self.ffn or 4 * self.width,
            dropout=self.dropout,
            attention_dropout=self.attention_dropout,
            eps=self.eps,
            activation=self.activation,
            precision=self.precision,
            scores="scores" in dict(self.wanted),
            initialiser=initialiser,
            relative=disentangled.read(self.relative),
        )
        embeddings = Embeddings(
            self.vocab_size,
            self.positions,
            self.segments,
            dataclasses.replace(shape, width=self.embedding, heads=1),  # no heads divide E
            self.first_position,
            name="embeddings",
        )
        first_BTD = embeddings(batch, train=train)
        if self.embedding != self.width:
            widen = Dense(self.width, self.precision, initialiser=initialiser, name="widen")
            first_BTD = keep_rows(widen(first_BTD))
        encoder = SharedEncoder(
            self.layers,
            shape,
            self.sharing,
            self.groups,
            self.unroll,
            self.remat,
            name="encoder",
        )
        top_BTD, (each_LBTD, scores) = encoder(
            first_BTD, visible(batch.valid_BT, batch.packs_BT), train=train
        )
        layers = (first_BTD, *each_LBTD) if "layers" in dict(self.wanted) else None
        plain = Outputs(hidden_BTD=top_BTD, layers=layers, scores=scores)
        return Heads(self.wanted, shape, self.embedding, tied=self.tied, name="heads")(
            plain, batch, embeddings.word.weights()
        )
