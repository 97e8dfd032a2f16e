"""Transformer-XL (Dai et al. 2019, arXiv 1901.02860; kimiyoung/transformer-xl:pytorch)."""

from __future__ import annotations

import math
from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from bert_variants.models import recurrence
from bert_variants.models.bert import RESERVED
from bert_variants.models.heads import take_positions
from bert_variants.models.layers import INITIALISERS, Dropout, Shape, Table
from bert_variants.models.recurrence import Memory
from bert_variants.models.relative import Around, RelativeEncoder, Stream
from bert_variants.models.xlnet import RULES, OutputBias
from bert_variants.ops import permutation, relative
from bert_variants.ops.placement import keep_rows, place
from bert_variants.ops.precision import PRECISIONS
from bert_variants.registry import register
from bert_variants.types import Batch, Corrupted, Leaf, Outputs


@register(
    "model",
    name="transformer_xl",
    outputs=("hidden_BTD", "layers", "scores", "token_logits_BPV"),
    reads=("order_BT",),
    recurrent=True,
    reserved=RESERVED,
    rules=RULES,
)
class TransformerXL(nn.Module):
    """A causal language model that reads a text row by row, with a memory of the rows before.

    Every token reads itself, what is left of it, and the memory. The prediction of a position is
    read from the token before it (``at_BP`` are positions to predict, as everywhere); that of a
    row's first position from the output bias alone. So a row's first token is only read: where
    every token shall be predicted, let a row begin with the last token of the one before and
    ``reuse`` leave it out of the memory: ``stream(reuse=1)`` with ``reuse`` one less than the row.
    ``order_BT`` is not looked at: no order can make it see what it predicts.

    Left out: adaptive embeddings and the adaptive softmax of the word-level corpora. The output
    layer is the word table and a bias; tables of 30,000 subwords need no more.

    Attributes:
        layers, width, heads, ffn: L, D, N, F; ffn 0 is 4 * width.
        positions: the longest row that a run may have; nothing in the model depends on it.
        memory, reuse: as ``XLNet``'s. The memory starts empty, as in the PyTorch code.
        same_length: every token reads the last ``memory`` positions and no more.
        clamp: distances beyond it count as it; 0: none does. A longer memory in evaluation than in
            training wants it.
        untie: whether u and v are each layer's own; else all layers share them.
        norm_first: LayerNorm in front of each half; see ``RelativeBlock``.
        dropout: on words, distances, sub-layers, behind the activation, and on the top.
        attention_dropout: on attention probabilities.
        eps, activation: of the LayerNorms, of the feed-forward layers.
        initialiser: of everything but biases (0) and scales (1): normal of deviation 0.02. (The
            PyTorch code draws the scales too, around 1.)
        vocab_size, wanted, precision, unroll, remat: set by the project.
    """

    layers: int = 12
    width: int = 512
    heads: int = 8
    ffn: int = 0
    positions: int = 512
    memory: int = 512
    reuse: int = 0
    same_length: bool = False
    clamp: int = 0
    untie: bool = False
    norm_first: bool = False
    dropout: float = 0.1
    attention_dropout: float = 0.0
    eps: float = 1e-5
    activation: str = "relu"
    initialiser: Literal["truncated_normal", "normal"] = "normal"
    vocab_size: int = 0
    wanted: tuple[tuple[str, int], ...] = ()
    precision: str = "float32"
    unroll: int = 1
    remat: bool = False

    @nn.nowrap
    def carry(self, rows: int) -> dict[str, Leaf] | None:
        """The memory of ``rows`` rows before anything was read; see ``recurrence``."""
        return recurrence.empty(rows, self.layers, self.memory, self.width, self.precision)

    @nn.nowrap
    def shape(self) -> Shape:
        """What the layers have in common."""
        return Shape(
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
        )

    @nn.compact
    def __call__(self, batch: Batch | Corrupted, *, train: bool = False) -> Outputs:
        """Outputs for rows of any length.

        Raises:
            ValueError: ``same_length`` without a memory.
        """
        if self.same_length and not self.memory:
            raise ValueError("same_length counts in memories: set memory, or same_length=False.")
        shape, wanted = self.shape(), dict(self.wanted)
        drop = Dropout(self.dropout, name="input_dropout")
        word = Table(self.vocab_size, self.width, "tensor", shape.initialiser, name="word")
        active = PRECISIONS[self.precision].activations
        first_BTD = (word(batch.inputs_BT) * math.sqrt(self.width)).astype(active)
        first_BTD = keep_rows(drop(first_BTD, train=train))
        memory = recurrence.recall(batch, self.reuse)
        visible_BTK = self._visible(batch, memory)
        queries, keys = visible_BTK.shape[1:]
        rows = relative.distances(queries, keys, both_ways=False)
        table_RD = relative.sinusoids(rows, self.width, self.clamp)
        around = Around(place(drop(table_RD.astype(active), train=train)), (Stream(visible_BTK),))
        encoder = RelativeEncoder(
            self.layers,
            (shape, False, self.dropout, self.norm_first),
            tied=not self.untie,
            reuse=self.reuse,
            unroll=self.unroll,
            remat=self.remat,
            name="encoder",
        )
        (top_BTD,), (each_LBTD, scores, states) = encoder((first_BTD,), memory, around, train=train)
        read_BTD = Dropout(self.dropout, name="output_dropout")(top_BTD, train=train)
        heads = LanguageHeads(self.wanted, self.vocab_size, self.precision, name="heads")
        return Outputs(
            hidden_BTD=top_BTD,
            layers=(first_BTD, *each_LBTD) if "layers" in wanted else None,
            scores=scores,
            token_logits_BPV=heads(read_BTD, batch.at_BP, word.weights()),
            carry=recurrence.carry_of(memory, states),
        )

    @nn.nowrap
    def _visible(self, batch: Batch | Corrupted, memory: Memory | None) -> jax.Array:
        """bool [B, T, K]: not to the right; with ``same_length`` not too far to the left either."""
        row_BTT = permutation.content_visible(batch.valid_BT, None, batch.packs_BT)
        visible_BTK = recurrence.with_memory(row_BTT, memory)
        queries, keys = batch.valid_BT.shape[1], visible_BTK.shape[2]
        place_T = jnp.arange(keys - queries, keys)
        distance_TK = place_T[:, None] - jnp.arange(keys)[None, :]
        left_TK = distance_TK >= 0
        if self.same_length:
            left_TK = left_TK & (distance_TK < self.memory)
        return visible_BTK & left_TK[None]


class LanguageHeads(nn.Module):
    """Logits of the next token, where objectives ask for them."""

    wanted: tuple[tuple[str, int], ...]
    vocab_size: int
    precision: str

    def setup(self) -> None:
        if "token_logits_BPV" in dict(self.wanted):
            self.tokens = OutputBias(self.vocab_size, self.precision)

    def __call__(self, read_BTD: Leaf, at_BP: Leaf, table_VD: Leaf) -> jax.Array | None:
        """float32 [B, P, V], each from the state before its position; nothing stands before 0."""
        if "token_logits_BPV" not in dict(self.wanted):
            return None
        if at_BP is None:
            if self.is_initializing():  # the parameters are made, whatever the rows hold
                self.tokens(read_BTD[:, :1], table_VD)
            return None
        before_BPD = take_positions(read_BTD, jnp.maximum(at_BP - 1, 0))
        before_BPD = jnp.where((at_BP > 0)[:, :, None], before_BPD, 0)
        return self.tokens(before_BPD, table_VD)
