"""BERT (Devlin et al. 2018; google-research/bert:modeling.py)."""

from __future__ import annotations

from typing import Literal

import flax.linen as nn

from bert_variants.models.encoder import Encoder
from bert_variants.models.heads import HEADS, Heads
from bert_variants.models.layers import INITIALISERS, RULES, Embeddings, Shape
from bert_variants.ops import disentangled
from bert_variants.ops.attention import visible
from bert_variants.registry import Call, register
from bert_variants.types import Batch, Corrupted, Outputs

# Fields that the project sets: from the tokenizer, the objectives, and the run.
RESERVED = ("vocab_size", "wanted", "precision", "unroll", "remat", "parent", "name")


def check_relative(call: Call) -> None:
    """Refuse a ``relative`` that cannot be read."""
    disentangled.read(call.argument("relative"))


@register(
    "model",
    name="bert",
    outputs=("hidden_BTD", "layers", "scores", *HEADS),
    reserved=RESERVED,
    check=check_relative,
    rules=RULES,
)
class Bert(nn.Module):
    """Token, segment and position embeddings, a post-LN encoder, and the heads that are wanted.

    Attributes:
        layers, width, heads, ffn: L, D, N, F; ffn 0 is 4 * width.
        positions: rows of the position table, the longest sequence.
        first_position: the row of the position table that the first token takes. RoBERTa's is 2:
            the table has that many rows more, of which padding takes the one before.
        segments: rows of the segment table; 0: no table.
        dropout, attention_dropout: rates.
        eps: of the LayerNorms.
        activation: gelu_tanh, gelu_erf, relu.
        initialiser: of kernels and tables: normal of deviation 0.02, as it is or truncated.
        relative: DeBERTa's attention, that knows distances, beside the table of positions:
            ``deberta_v1``, ``deberta_v2(buckets=32)``; see ``ops.disentangled.read``. Empty: none.
        tied: whether the head for masked tokens has the table of the embeddings, or its own.
        vocab_size, wanted, precision, unroll, remat: set by the project.
    """

    layers: int = 12
    width: int = 768
    heads: int = 12
    ffn: int = 0
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
            initialiser=INITIALISERS[self.initialiser],
            relative=disentangled.read(self.relative),
        )
        embeddings = Embeddings(
            self.vocab_size,
            self.positions,
            self.segments,
            shape,
            self.first_position,
            name="embeddings",
        )
        first_BTD = embeddings(batch, train=train)
        encoder = Encoder(self.layers, shape, self.unroll, self.remat, name="encoder")
        top_BTD, (each_LBTD, scores) = encoder(
            first_BTD, visible(batch.valid_BT, batch.packs_BT), train=train
        )
        layers = (first_BTD, *each_LBTD) if "layers" in dict(self.wanted) else None
        plain = Outputs(hidden_BTD=top_BTD, layers=layers, scores=scores)
        return Heads(self.wanted, shape, self.width, tied=self.tied, name="heads")(
            plain, batch, embeddings.word.weights()
        )
