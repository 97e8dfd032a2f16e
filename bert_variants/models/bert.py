"""BERT (Devlin et al. 2018; google-research/bert:modeling.py)."""

from __future__ import annotations

import flax.linen as nn
import jax.numpy as jnp

from bert_variants.models.encoder import Encoder
from bert_variants.models.heads import ClassHead, Pooler, TokenHead, take_positions
from bert_variants.models.layers import RULES, Embeddings, Shape
from bert_variants.ops.attention import visible
from bert_variants.registry import register
from bert_variants.types import Batch, Corrupted, Outputs

# Fields that the project sets: from the tokenizer, the objectives, and the run.
RESERVED = ("vocab_size", "wanted", "precision", "unroll", "remat", "parent", "name")


class Heads(nn.Module):
    """The heads that the objectives ask for, and no others.

    Attributes:
        wanted: (output, classes), from ``config.wanted_outputs``.
        shape: of the encoder.
    """

    wanted: tuple[tuple[str, int], ...]
    shape: Shape

    def setup(self) -> None:
        wanted = dict(self.wanted)
        if "token_logits_BPV" in wanted:
            self.tokens = TokenHead(self.shape, self.shape.width)
        if "pooled_BD" in wanted or "pair_logits_BC" in wanted:
            self.pooler = Pooler(self.shape)
        if "pair_logits_BC" in wanted:
            self.pair = ClassHead(self.shape, wanted["pair_logits_BC"])

    def __call__(self, outputs: Outputs, batch: Batch | Corrupted, table_VD: object) -> Outputs:
        """``outputs`` with the wanted heads' outputs added."""
        wanted = dict(self.wanted)
        added = {}
        # a plain Batch has nothing to predict, but init must still make the parameters
        if "token_logits_BPV" in wanted and (batch.at_BP is not None or self.is_initializing()):
            at_BP = jnp.zeros_like(batch.inputs_BT[:, :1]) if batch.at_BP is None else batch.at_BP
            at_BPD = take_positions(outputs.hidden_BTD, at_BP)
            added["token_logits_BPV"] = self.tokens(at_BPD, table_VD)
        if "pooled_BD" in wanted or "pair_logits_BC" in wanted:
            added["pooled_BD"] = self.pooler(outputs.hidden_BTD)
        if "pair_logits_BC" in wanted:
            added["pair_logits_BC"] = self.pair(added["pooled_BD"])
        return Outputs(
            hidden_BTD=outputs.hidden_BTD, layers=outputs.layers, scores=outputs.scores, **added
        )


@register(
    "model",
    name="bert",
    outputs=(
        "hidden_BTD",
        "layers",
        "scores",
        "pooled_BD",
        "token_logits_BPV",
        "pair_logits_BC",
    ),
    reserved=RESERVED,
    rules=RULES,
)
class Bert(nn.Module):
    """Token, segment and position embeddings, a post-LN encoder, and the heads that are wanted.

    Attributes:
        layers, width, heads, ffn: L, D, N, F; ffn 0 is 4 * width.
        positions: rows of the position table, the longest sequence.
        segments: rows of the segment table; 0: no table.
        dropout, attention_dropout: rates.
        eps: of the LayerNorms.
        activation: gelu_tanh, gelu_erf, relu.
        vocab_size, wanted, precision, unroll, remat: set by the project.
    """

    layers: int = 12
    width: int = 768
    heads: int = 12
    ffn: int = 0
    positions: int = 512
    segments: int = 2
    dropout: float = 0.1
    attention_dropout: float = 0.1
    eps: float = 1e-12
    activation: str = "gelu_tanh"
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
        )
        embeddings = Embeddings(
            self.vocab_size, self.positions, self.segments, shape, name="embeddings"
        )
        first_BTD = embeddings(batch.inputs_BT, batch.positions_BT, batch.segments_BT, train=train)
        encoder = Encoder(self.layers, shape, self.unroll, self.remat, name="encoder")
        top_BTD, (each_LBTD, scores) = encoder(
            first_BTD, visible(batch.valid_BT, batch.packs_BT), train=train
        )
        layers = (first_BTD, *each_LBTD) if "layers" in dict(self.wanted) else None
        plain = Outputs(hidden_BTD=top_BTD, layers=layers, scores=scores)
        return Heads(self.wanted, shape, name="heads")(plain, batch, embeddings.word.weights())
