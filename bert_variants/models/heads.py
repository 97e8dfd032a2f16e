"""Heads: what turns hidden states into the outputs that objectives read."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp

from bert_variants.models.layers import Dense, Norm, Shape, Table
from bert_variants.ops.activations import activation
from bert_variants.ops.placement import keep_rows
from bert_variants.ops.precision import add_bias, einsum
from bert_variants.types import Batch, Corrupted, Leaf, Outputs


def take_positions(hidden_BTD: Leaf, at_BP: Leaf) -> jax.Array:
    """The hidden states at the positions to predict: [B, P, D].

    The vocabulary projection runs on these alone: P is about T / 7.
    """
    return jnp.take_along_axis(hidden_BTD, at_BP[:, :, None], axis=1)


def boundaries_of(batch: Batch | Corrupted) -> tuple[Leaf, Leaf, Leaf] | None:
    """Left and right boundary (0 where there is none: nobody reads that) and place in the span.

    None where the rows have no spans.
    """
    if batch.at_BP is None or batch.left_BP is None:
        return None
    return jnp.maximum(batch.left_BP, 0), jnp.maximum(batch.right_BP, 0), batch.offset_BP


class TokenHead(nn.Module):
    """BERT's head for masked tokens: dense, activation, LayerNorm, tied table, own bias.

    Attributes:
        shape: of the encoder.
        width: of the embedding table (E, where it differs from D).
        tied: whether the table is that of the embeddings; else it has one of its own.
    """

    shape: Shape
    width: int
    tied: bool = True

    @nn.compact
    def __call__(self, hidden_BPD: Leaf, table_VE: Leaf) -> jax.Array:
        """float32 logits [B, P, V]."""
        shape = self.shape
        dense = Dense(self.width, shape.precision, initialiser=shape.initialiser, name="dense")
        x_BPE = activation(shape.activation, dense(hidden_BPD))
        x_BPE = Norm(shape.eps, name="norm")(x_BPE)
        if not self.tied:
            own = Table(*table_VE.shape, "tensor", initialiser=shape.initialiser, name="table")
            table_VE = own.weights()
        bias = self.param("bias", nn.initializers.zeros, (table_VE.shape[0],), jnp.float32)
        return tied_logits(x_BPE, table_VE, bias, shape.precision)


def tied_logits(x_BPE: Leaf, table_VE: Leaf, bias_V: Leaf, precision: str) -> jax.Array:
    """float32 [B, P, V]: products with the rows of the embedding table, and a bias."""
    flat = einsum("me,ve->mv", x_BPE.reshape(-1, x_BPE.shape[-1]), table_VE, precision)
    flat = add_bias(flat.astype(jnp.float32), bias_V, precision)
    return flat.reshape(*x_BPE.shape[:2], table_VE.shape[0])


class SpanHead(nn.Module):
    """SpanBERT's head: a token from the two tokens outside its span and its place within it.

    h0 = [left, right, place]; twice dense, activation, LayerNorm; the tied table, and a bias of its
    own (facebookresearch/SpanBERT:pretraining/fairseq/models/pair_bert.py).

    Attributes:
        shape: of the encoder.
        width: of the embedding table (E, where it differs from D).
        places: rows of the table of places; a place beyond it reads the last row.
        place_width: its width.
    """

    shape: Shape
    width: int
    places: int
    place_width: int = 200

    @nn.compact
    def __call__(
        self, left_BPD: Leaf, right_BPD: Leaf, offset_BP: Leaf, table_VE: Leaf
    ) -> jax.Array:
        """float32 logits [B, P, V]."""
        shape = self.shape
        places = Table(self.places, self.place_width, initialiser=shape.initialiser, name="place")
        place_BPS = places(offset_BP).astype(left_BPD.dtype)
        x = keep_rows(jnp.concatenate([left_BPD, right_BPD, place_BPS], axis=-1))
        for number, width in (("first", shape.width), ("second", self.width)):
            dense = Dense(
                width, shape.precision, initialiser=shape.initialiser, name=f"{number}_dense"
            )
            x = Norm(shape.eps, name=f"{number}_norm")(activation(shape.activation, dense(x)))
        bias = self.param("bias", nn.initializers.zeros, (table_VE.shape[0],), jnp.float32)
        return tied_logits(x, table_VE, bias, shape.precision)


class Pooler(nn.Module):
    """An activation of a dense layer on the first token; BERT's is tanh."""

    shape: Shape
    activation: str = "tanh"

    @nn.compact
    def __call__(self, hidden_BTD: Leaf) -> jax.Array:
        shape = self.shape
        dense = Dense(shape.width, shape.precision, initialiser=shape.initialiser, name="dense")
        return keep_rows(activation(self.activation, dense(keep_rows(hidden_BTD[:, 0]))))


class ClassHead(nn.Module):
    """Logits over ``classes`` from a row's vector, float32."""

    shape: Shape
    classes: int

    @nn.compact
    def __call__(self, pooled_BD: Leaf) -> jax.Array:
        dense = Dense(self.classes, "float32", initialiser=self.shape.initialiser, name="output")
        return dense(pooled_BD.astype(jnp.float32))


# Every output that a head makes; each is built where an objective reads it.
HEADS = ("pooled_BD", "token_logits_BPV", "span_logits_BPV", "pair_logits_BC")


class Heads(nn.Module):
    """The heads that the objectives ask for, and no others.

    Attributes:
        wanted: (output, classes), from ``config.wanted_outputs``.
        shape: of the encoder.
        width: of the embedding table (E, where it differs from D).
        pooling: the activation of the pooler.
        tied: whether the head for masked tokens has the embeddings' table.
    """

    wanted: tuple[tuple[str, int], ...]
    shape: Shape
    width: int
    pooling: str = "tanh"
    tied: bool = True

    def setup(self) -> None:
        wanted = dict(self.wanted)
        if "token_logits_BPV" in wanted:
            self.tokens = TokenHead(self.shape, self.width, self.tied)
        if "span_logits_BPV" in wanted:
            self.spans = SpanHead(self.shape, self.width, wanted["span_logits_BPV"])
        if "pooled_BD" in wanted or "pair_logits_BC" in wanted:
            self.pooler = Pooler(self.shape, self.pooling)
        if "pair_logits_BC" in wanted:
            self.pair = ClassHead(self.shape, wanted["pair_logits_BC"])

    def __call__(
        self,
        outputs: Outputs,
        batch: Batch | Corrupted,
        table_VE: object,
        decoded_BTD: Leaf | None = None,
    ) -> Outputs:
        """``outputs`` with the wanted heads' outputs added.

        Args:
            outputs: ``hidden_BTD`` is what heads read.
            batch: says where.
            table_VE: of embeddings.
            decoded_BTD: what the head for masked tokens reads instead; None: the same.
        """
        wanted = dict(self.wanted)
        added = {}
        hidden_BTD = outputs.hidden_BTD
        at_BP, outside = batch.at_BP, boundaries_of(batch)
        if self.is_initializing():  # the parameters are made, whatever the rows hold
            nothing_BP = jnp.zeros_like(batch.inputs_BT[:, :1])
            at_BP = nothing_BP if at_BP is None else at_BP
            outside = outside or (nothing_BP,) * 3
        if "token_logits_BPV" in wanted and at_BP is not None:
            tokens_BTD = hidden_BTD if decoded_BTD is None else decoded_BTD
            at_BPD = take_positions(tokens_BTD, at_BP)
            added["token_logits_BPV"] = self.tokens(at_BPD, table_VE)
        if "span_logits_BPV" in wanted and outside is not None:
            left_BP, right_BP, offset_BP = outside
            left_BPD = take_positions(hidden_BTD, left_BP)
            right_BPD = take_positions(hidden_BTD, right_BP)
            added["span_logits_BPV"] = self.spans(left_BPD, right_BPD, offset_BP, table_VE)
        if "pooled_BD" in wanted or "pair_logits_BC" in wanted:
            added["pooled_BD"] = self.pooler(hidden_BTD)
        if "pair_logits_BC" in wanted:
            added["pair_logits_BC"] = self.pair(added["pooled_BD"])
        return Outputs(hidden_BTD=hidden_BTD, layers=outputs.layers, scores=outputs.scores, **added)
