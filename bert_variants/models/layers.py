"""The parts of a transformer, as small linen modules over ``ops/``.

Parameters are float32 whatever the precision. Paths end in names that the tables of the optimizer
and of the sharding know: ``kernel``, ``bias``, ``scale``, ``embedding``.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from bert_variants.ops import disentangled
from bert_variants.ops.activations import activation
from bert_variants.ops.attention import attend, sees_itself
from bert_variants.ops.dropout import dropout
from bert_variants.ops.placement import keep_rows, place
from bert_variants.ops.precision import PRECISIONS, einsum
from bert_variants.types import Batch, Corrupted, Leaf

# Google's initialiser: normal of standard deviation 0.02 cut at two of them, so really 0.0176.
truncated_normal = nn.initializers.truncated_normal(stddev=0.02)
INITIALISERS = {
    "truncated_normal": truncated_normal,
    "normal": nn.initializers.normal(stddev=0.02),  # fairseq's
}


@dataclasses.dataclass(frozen=True)
class Shape:
    """What the layers of an encoder have in common.

    Attributes:
        width: D.
        heads: N, dividing D.
        ffn: F.
        dropout: on every sub-layer's output.
        attention_dropout: on attention probabilities.
        eps: of the LayerNorms.
        activation: of the feed-forward layer.
        precision: see ops/precision.py.
        scores: whether attention scores are kept.
        initialiser: of kernels and embeddings.
        key_bias: whether the dense layer of the keys has a bias.
        relative: how attention reads distances between tokens, or None.
    """

    width: int
    heads: int
    ffn: int
    dropout: float
    attention_dropout: float
    eps: float
    activation: str
    precision: str
    scores: bool = False
    initialiser: Any = truncated_normal
    key_bias: bool = True
    relative: disentangled.Relative | None = None

    def __post_init__(self) -> None:
        if self.width % self.heads:
            raise ValueError(f"width {self.width} is not divisible by heads {self.heads}.")


class Dense(nn.Module):
    """x W + b over the last axis."""

    features: int
    precision: str = "float32"
    bias: bool = True
    initialiser: Any = truncated_normal

    @nn.compact
    def __call__(self, x: Leaf) -> jax.Array:
        kernel = self.param("kernel", self.initialiser, (x.shape[-1], self.features), jnp.float32)
        # one flat product: XLA's CPU and GPU kernels are faster on [B*T, D] than on [B, T, D]
        flat = einsum("md,df->mf", x.reshape(-1, x.shape[-1]), kernel, self.precision)
        if self.bias:
            bias = self.param("bias", nn.initializers.zeros, (self.features,), jnp.float32)
            flat = flat + bias.astype(flat.dtype)[None]
        return flat.reshape(*x.shape[:-1], self.features)


class Norm(nn.Module):
    """LayerNorm over the last axis, in float32, with scale and bias."""

    eps: float

    @nn.compact
    def __call__(self, x: Leaf) -> jax.Array:
        shape = (1,) * (x.ndim - 1) + (x.shape[-1],)
        scale = self.param("scale", nn.initializers.ones, (x.shape[-1],), jnp.float32)
        bias = self.param("bias", nn.initializers.zeros, (x.shape[-1],), jnp.float32)
        wide = x.astype(jnp.float32)
        centred = wide - jnp.mean(wide, axis=-1, keepdims=True)
        spread = jnp.mean(jnp.square(centred), axis=-1, keepdims=True)
        normal = centred * jax.lax.rsqrt(spread + self.eps)
        return (normal * scale.reshape(shape) + bias.reshape(shape)).astype(x.dtype)


class Dropout(nn.Module):
    """Hash dropout on the stream ``dropout``; nothing at rate 0 or outside training."""

    rate: float

    @nn.compact
    def __call__(self, x: Leaf, *, train: bool) -> jax.Array:
        return dropout(x, self.rate, self.make_rng("dropout")) if train and self.rate else x


class Table(nn.Module):
    """An embedding table. Calling it looks ids up; ``weights()`` gives the table, for tying.

    Attributes:
        rows, width: of the table.
        axis: the mesh axis that its rows are split over while it is used, or None.
    """

    rows: int
    width: int
    axis: str | None = None
    initialiser: Any = truncated_normal

    def setup(self) -> None:
        self.embedding = self.param(
            "embedding", self.initialiser, (self.rows, self.width), jnp.float32
        )

    def __call__(self, ids: Leaf) -> jax.Array:
        return keep_rows(jnp.take(self.weights(), ids, axis=0, mode="clip"))

    def weights(self) -> jax.Array:
        """float32 [rows, width], its width gathered from the devices that store parts of it."""
        return place(self.embedding, self.axis)


class Attention(nn.Module):
    """Multi-head self-attention with its output projection, without residual."""

    shape: Shape

    @nn.compact
    def __call__(
        self,
        x_BTD: Leaf,
        visible_BNTT: Leaf,
        relative_RD: Leaf | None = None,
        queries_BTD: Leaf | None = None,
        *,
        train: bool,
    ) -> tuple[jax.Array, jax.Array | None]:
        """What each position reads of ``x_BTD``, and the scores if they are asked for.

        Args:
            x_BTD: what keys and values are made of.
            visible_BNTT: see ``ops.attention.visible``.
            relative_RD: from ``RelativeTable``, where the shape has one.
            queries_BTD: what queries are made of; None: ``x_BTD``.
            train: whether to drop.
        """
        shape = self.shape

        def split(x: Leaf) -> jax.Array:
            return x.reshape(*x.shape[:-1], shape.heads, shape.width // shape.heads)

        query, key, value = (
            self.dense(name, shape.key_bias or name != "key") for name in ("query", "key", "value")
        )
        q_BTNH = split(query(x_BTD if queries_BTD is None else queries_BTD))
        k_BTNH, v_BTNH = split(key(x_BTD)), split(value(x_BTD))
        scale = bias_BNTT = None
        if shape.relative is not None:
            drop = Dropout(shape.dropout, name="relative_dropout")
            table_RD = drop(relative_RD, train=train)
            to_key, to_query = self.relative_projections(key, query)
            bias_BNTT = disentangled.scores(
                q_BTNH,
                k_BTNH,
                split(to_key(table_RD)) if "c2p" in shape.relative.terms else None,
                split(to_query(table_RD)) if "p2c" in shape.relative.terms else None,
                shape.relative,
                shape.precision,
            )
            # in float32: in bfloat16 the factor would be rounded, for all scores alike
            scale = 1.0
            wide_BTNH = q_BTNH.astype(jnp.float32) * shape.relative.scale(q_BTNH.shape[-1])
            q_BTNH = wide_BTNH.astype(q_BTNH.dtype)
        dropout_key = self.make_rng("dropout") if train and shape.attention_dropout else None
        context_BTNH, scores = attend(
            q_BTNH,
            k_BTNH,
            v_BTNH,
            visible_BNTT,
            precision=shape.precision,
            bias_BNTT=bias_BNTT,
            scale=scale,
            rate=shape.attention_dropout,
            key=dropout_key,
            scores=shape.scores,
        )
        if shape.relative is not None:
            # padding reads nothing, as in DeBERTa's code; elsewhere it reads the text
            seen_BT = sees_itself(visible_BNTT)
            context_BTNH = jnp.where(seen_BT[:, :, None, None], context_BTNH, 0)
        return self.dense("out")(context_BTNH.reshape(x_BTD.shape)), scores

    def dense(self, name: str, bias: bool = True) -> Dense:
        """A dense layer from D to D."""
        shape = self.shape
        return Dense(shape.width, shape.precision, bias, shape.initialiser, name=name)

    def relative_projections(self, key: Dense, query: Dense) -> tuple[Dense, Dense]:
        """The layers that make keys and queries of the table of distances."""
        if self.shape.relative.projections == "shared":
            return key, query
        return self.dense("relative_key", bias=False), self.dense("relative_query")


class FeedForward(nn.Module):
    """Two dense layers around an activation, without residual."""

    shape: Shape

    @nn.compact
    def __call__(self, x: Leaf) -> jax.Array:
        shape = self.shape
        wide = Dense(shape.ffn, shape.precision, initialiser=shape.initialiser, name="wide")(x)
        wide = activation(shape.activation, wide)
        return Dense(shape.width, shape.precision, initialiser=shape.initialiser, name="narrow")(
            wide
        )


class Block(nn.Module):
    """Post-LN transformer layer: x = norm(x + dropout(attention(x))), then the same for the FFN."""

    shape: Shape

    @nn.compact
    def __call__(
        self,
        x_BTD: Leaf,
        visible_BNTT: Leaf,
        relative_RD: Leaf | None = None,
        queries_BTD: Leaf | None = None,
        *,
        train: bool,
    ) -> tuple[jax.Array, jax.Array | None]:
        """The layer's output for arguments as ``Attention``'s; the residual is the queries'."""
        shape = self.shape
        attention = Attention(shape, name="attention")
        update, scores = attention(x_BTD, visible_BNTT, relative_RD, queries_BTD, train=train)
        x_BTD = x_BTD if queries_BTD is None else queries_BTD
        update = Dropout(shape.dropout, name="attention_dropout")(update, train=train)
        x_BTD = keep_rows(Norm(shape.eps, name="attention_norm")(x_BTD + update))
        update = FeedForward(shape, name="ffn")(x_BTD)
        update = Dropout(shape.dropout, name="ffn_dropout")(update, train=train)
        return keep_rows(Norm(shape.eps, name="ffn_norm")(x_BTD + update)), scores


class RelativeTable(nn.Module):
    """One row for each distance, or bucket of distances: one table for all layers of an encoder."""

    shape: Shape

    @nn.compact
    def __call__(self, length: int) -> jax.Array:
        """The rows that a text of ``length`` tokens uses: float32 [R, D]."""
        relative = self.shape.relative
        size = (relative.size, self.shape.width)
        table_RD = self.param("embedding", self.shape.initialiser, size, jnp.float32)
        rows = relative.rows(length)
        table_RD = table_RD[rows[0] : rows[-1] + 1]
        return Norm(self.shape.eps, name="norm")(table_RD) if relative.norm else table_RD


class Embeddings(nn.Module):
    """Token + segment + position, LayerNorm, dropout.

    Attributes:
        vocab_size, positions, segments: rows of the tables; no segments, no table of them.
        shape: of the encoder; ``width`` is that of the tables.
        first_position: see ``Bert``.
    """

    vocab_size: int
    positions: int
    segments: int
    shape: Shape
    first_position: int = 0

    def setup(self) -> None:
        def table(rows: int, axis: str | None = None) -> Table:
            return Table(rows, self.shape.width, axis, self.shape.initialiser)

        self.word = table(self.vocab_size, "tensor")
        self.position = table(self.first_position + self.positions)
        if self.segments:
            self.segment = table(self.segments)
        self.norm = Norm(self.shape.eps)
        self.drop = Dropout(self.shape.dropout)

    def __call__(self, batch: Batch | Corrupted, *, train: bool) -> jax.Array:
        """[B, T, width] in the format of the activations."""
        positions_BT = batch.positions_BT + self.first_position
        if self.first_position:
            positions_BT = jnp.where(batch.valid_BT, positions_BT, self.first_position - 1)
        x_BTE = self.word(batch.inputs_BT) + self.position(positions_BT)
        if self.segments:
            x_BTE = x_BTE + self.segment(batch.segments_BT)
        x_BTE = self.drop(self.norm(x_BTE), train=train)
        return keep_rows(x_BTE.astype(PRECISIONS[self.shape.precision].activations))


# Regular expression on a parameter's path -> its PartitionSpec; exactly one matches. Paths are like
# "encoder/layers/attention/query/kernel"; everything under "layers" has a leading axis of layers.
# Matrices are split over both axes, so that "fsdp" shards storage and "tensor" the arithmetic.
# A part that only some configurations have stands with another one of its shape.
RULES: tuple[tuple[str, PartitionSpec], ...] = (
    (r"(layers/.*(query|key|value|wide)|conv)/kernel$", PartitionSpec(None, "fsdp", "tensor")),
    (r"(layers/.*(query|key|value|wide)|conv)/bias$", PartitionSpec(None, "tensor")),
    (r"layers/.*(out|narrow)/kernel$", PartitionSpec(None, "tensor", "fsdp")),
    (r"layers/.*(out|narrow)/bias$", PartitionSpec()),
    (r"norm/(scale|bias)$", PartitionSpec()),
    (r"(word|table)/embedding$", PartitionSpec("tensor", "fsdp")),
    (r"(position|segment|relative)/embedding$", PartitionSpec()),
    (r"(heads/[^/]+/(\w+_)?dense|embeddings/widen)/kernel$", PartitionSpec("fsdp", "tensor")),
    (r"heads/[^/]+/(\w+_)?dense/bias$", PartitionSpec("tensor")),
    (r"heads/[^/]+/place/embedding$", PartitionSpec()),
    (r"heads/[^/]+/output/kernel$", PartitionSpec("fsdp", None)),
    (r"heads/[^/]+/output/bias$", PartitionSpec()),
    (r"heads/[^/]+/bias$", PartitionSpec("tensor")),
)
