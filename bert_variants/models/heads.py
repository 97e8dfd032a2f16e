"""Heads: what turns hidden states into the outputs that objectives read."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp

from bert_variants.models.layers import Dense, Norm, Shape
from bert_variants.ops.activations import activation
from bert_variants.ops.placement import keep_rows
from bert_variants.ops.precision import add_bias, einsum
from bert_variants.types import Leaf


def take_positions(hidden_BTD: Leaf, at_BP: Leaf) -> jax.Array:
    """The hidden states at the positions to predict: [B, P, D].

    The vocabulary projection runs on these alone: P is about T / 7.
    """
    return jnp.take_along_axis(hidden_BTD, at_BP[:, :, None], axis=1)


class TokenHead(nn.Module):
    """BERT's head for masked tokens: dense, activation, LayerNorm, tied table, own bias.

    Attributes:
        shape: of the encoder.
        width: of the embedding table (E, where it differs from D).
    """

    shape: Shape
    width: int

    @nn.compact
    def __call__(self, hidden_BPD: Leaf, table_VE: Leaf) -> jax.Array:
        """float32 logits [B, P, V]."""
        shape = self.shape
        dense = Dense(self.width, shape.precision, initialiser=shape.initialiser, name="dense")
        x_BPE = activation(shape.activation, dense(hidden_BPD))
        x_BPE = Norm(shape.eps, name="norm")(x_BPE)
        flat = einsum("me,ve->mv", x_BPE.reshape(-1, self.width), table_VE, shape.precision)
        bias = self.param("bias", nn.initializers.zeros, (table_VE.shape[0],), jnp.float32)
        flat = add_bias(flat.astype(jnp.float32), bias, shape.precision)
        return flat.reshape(*hidden_BPD.shape[:2], table_VE.shape[0])


class Pooler(nn.Module):
    """tanh of a dense layer on the first token."""

    shape: Shape

    @nn.compact
    def __call__(self, hidden_BTD: Leaf) -> jax.Array:
        shape = self.shape
        dense = Dense(shape.width, shape.precision, initialiser=shape.initialiser, name="dense")
        return keep_rows(jnp.tanh(dense(keep_rows(hidden_BTD[:, 0]))))


class ClassHead(nn.Module):
    """Logits over ``classes`` from a row's vector, float32."""

    shape: Shape
    classes: int

    @nn.compact
    def __call__(self, pooled_BD: Leaf) -> jax.Array:
        dense = Dense(self.classes, "float32", initialiser=self.shape.initialiser, name="output")
        return dense(pooled_BD.astype(jnp.float32))
