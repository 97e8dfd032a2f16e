"""What DeBERTa's networks are made of, beside the layers that all encoders have.

microsoft/DeBERTa:DeBERTa/deberta/bert.py, and apps/models/masked_language_model.py there.
"""

from __future__ import annotations

import itertools
from typing import Any, Literal, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from bert_variants.models.layers import Block, Dense, Dropout, Norm, RelativeTable, Shape, Table
from bert_variants.models.sharing import ATTENTION, FFN, start_layers
from bert_variants.ops.activations import activation
from bert_variants.ops.attention import visible
from bert_variants.ops.placement import keep_rows
from bert_variants.ops.precision import PRECISIONS, einsum
from bert_variants.types import Batch, Corrupted, Leaf

# Where positions counted from the row's start go: into the decoder's query, to the tokens as in
# BERT, or nowhere.
Absolute = Literal["decoder", "input", "none"]
# The tables of these embeddings: their own; a difference to other ones, that starts at 0; or none.
Tables = Literal["own", "delta", "none"]


class DebertaEmbeddings(nn.Module):
    """Tokens, and segments and positions if they are wanted; LayerNorm; zeros at padding; dropout.

    Where E is not D, a dense layer without bias widens E to D in front of the LayerNorm.

    Attributes:
        vocab_size, positions, segments: rows of the tables; no segments, no table of them.
        shape: of the encoder.
        absolute: where positions go; no table of them where that is nowhere.
        width: E.
        tables: see ``Tables``.
    """

    vocab_size: int
    positions: int
    segments: int
    shape: Shape
    absolute: Absolute
    width: int
    tables: Tables = "own"

    def setup(self) -> None:
        start = nn.initializers.zeros if self.tables == "delta" else self.shape.initialiser
        if self.tables != "none":
            self.word = Table(self.vocab_size, self.width, "tensor", start)
            if self.absolute != "none":
                # the decoder adds them to hidden states
                width = self.width if self.absolute == "input" else self.shape.width
                self.position = Table(self.positions, width, initialiser=start)
            if self.segments:
                self.segment = Table(self.segments, self.width, initialiser=start)
        if self.width != self.shape.width:
            self.widen = Dense(
                self.shape.width, self.shape.precision, False, self.shape.initialiser
            )
        self.norm = Norm(self.shape.eps)
        self.drop = Dropout(self.shape.dropout)

    def looked_up(self, batch: Batch | Corrupted) -> jax.Array:
        """The sum of the tables' rows: float32 [B, T, E]."""
        x_BTE = self.word(batch.inputs_BT)
        if self.absolute == "input":
            x_BTE = x_BTE + self.position(batch.positions_BT)
        if self.segments:
            x_BTE = x_BTE + self.segment(batch.segments_BT)
        return x_BTE

    def __call__(
        self, batch: Batch | Corrupted, beneath_BTE: Leaf | None = None, *, train: bool
    ) -> jax.Array:
        """[B, T, D] in the format of the activations.

        Args:
            batch: the rows.
            beneath_BTE: rows of other tables, to which those of these are added.
            train: whether to drop.
        """
        if self.tables == "none":
            x = beneath_BTE
        else:
            x = self.looked_up(batch)
            x = x if beneath_BTE is None else x + beneath_BTE
        if self.width != self.shape.width:
            x = self.widen(x).astype(jnp.float32)
        x = jnp.where(batch.valid_BT[:, :, None], self.norm(x), 0.0)
        x = self.drop(x, train=train)
        return keep_rows(x.astype(PRECISIONS[self.shape.precision].activations))


class Convolution(nn.Module):
    """What a token's neighbours add to the lowest layer's output (v2's xlarge and xxlarge).

    norm(layer + activation(dropout(convolution of what the lowest layer reads))), zeros at padding.
    It is a sum of products, one for each neighbour; none reaches into another packed sequence.

    Attributes:
        shape: of the encoder.
        width: how many tokens, an odd number.
    """

    shape: Shape
    width: int

    @nn.compact
    def __call__(
        self, first_BTD: Leaf, layer_BTD: Leaf, batch: Batch | Corrupted, *, train: bool
    ) -> jax.Array:
        """The lowest layer's output [B, T, D], with the neighbours.

        Raises:
            ValueError: an even width.
        """
        if self.width % 2 == 0:
            raise ValueError(f"convolution is {self.width} tokens wide, expected an odd number.")
        shape, side = self.shape, self.width // 2
        size = (self.width, shape.width, shape.width)
        kernel = self.param("kernel", shape.initialiser, size, jnp.float32)
        bias = self.param("bias", nn.initializers.zeros, (shape.width,), jnp.float32)
        near_BTKD = jnp.stack(
            [_neighbour(first_BTD, batch, by) for by in range(-side, side + 1)], axis=2
        )
        near = near_BTKD.reshape(-1, self.width * shape.width)
        out_MD = einsum("md,df->mf", near, kernel.reshape(-1, shape.width), shape.precision)
        out_BTD = (out_MD + bias.astype(out_MD.dtype)[None]).reshape(first_BTD.shape)
        valid_BT1 = batch.valid_BT[:, :, None]
        out_BTD = jnp.where(valid_BT1, out_BTD, 0)
        out_BTD = Dropout(shape.dropout, name="drop")(out_BTD, train=train)
        out_BTD = activation(shape.activation, out_BTD)
        return keep_rows(jnp.where(valid_BT1, Norm(shape.eps, name="norm")(layer_BTD + out_BTD), 0))


def _neighbour(x_BTD: Leaf, batch: Batch | Corrupted, by: int) -> jax.Array:
    """``x[t + by]``; 0 beyond the row and in another packed sequence."""
    moved_BTD = _moved(x_BTD, by)
    if batch.packs_BT is None:
        return moved_BTD
    same_BT = _moved(batch.packs_BT, by) == batch.packs_BT
    return jnp.where(same_BT[:, :, None], moved_BTD, 0)


def _moved(x_BTx: Leaf, by: int) -> jax.Array:
    length = x_BTx.shape[1]
    by = max(-length, min(by, length))
    ends = [(0, 0)] * x_BTx.ndim
    ends[1] = (max(-by, 0), max(by, 0))
    return jax.lax.slice_in_dim(jnp.pad(x_BTx, ends), max(by, 0), max(by, 0) + length, axis=1)


class Read(NamedTuple):
    """What an encoder made of a text.

    Attributes:
        top_BTD: the output of the last layer.
        below_BTD: what the last layer read.
        each_LBTD: the outputs of all layers.
        scores: of attention [L, B, N, T, T], or None.
    """

    top_BTD: Leaf
    below_BTD: Leaf
    each_LBTD: Leaf
    scores: Leaf


class DebertaEncoder(nn.Module):
    """``Encoder`` with a convolution beside its lowest layer and a decoder made of its last one.

    Parameters have the paths and the stacked form of ``Encoder``'s.

    Attributes:
        layers: L.
        shape: of the blocks.
        decodes: whether ``decode`` is wanted: the last layer then stands outside of the loop over
            the others, so that its plain output costs nothing where nobody reads it.
        convolution: see ``Convolution``; 0: none.
        unroll, remat: as ``Encoder``'s.
    """

    layers: int
    shape: Shape
    decodes: bool = False
    convolution: int = 0
    unroll: int = 1
    remat: bool = False

    def setup(self) -> None:
        width = self.shape.width
        one_token = jnp.zeros((1, 1, width)), jnp.ones((1, 1, 1, 1), bool), jnp.zeros((1, width))
        numbers = dict.fromkeys((*ATTENTION, *FFN), self.layers)
        block = Block(self.shape, parent=None)
        self.stacked = self.param("layers", start_layers, block, numbers, *one_token)
        if self.shape.relative is not None:
            self.relative = RelativeTable(self.shape)
        if self.convolution:
            self.conv = Convolution(self.shape, self.convolution)

    def __call__(self, first_BTD: Leaf, batch: Batch | Corrupted, *, train: bool) -> Read:
        """Run the layers on ``first_BTD``."""
        a_layer = self._layer(first_BTD, batch, train)
        keys_L = self._keys(self.layers, train)
        borders = {0, self.layers}
        if self.convolution:
            borders.add(1)
        if self.decodes:
            borders.add(self.layers - 1)
        borders = sorted(borders)
        x_BTD, below_BTD, made = first_BTD, first_BTD, []
        for start, stop in itertools.pairwise(borders):
            below_BTD = x_BTD
            of_layers = jax.tree.map(
                lambda x, start=start, stop=stop: x[start:stop], (self.stacked, keys_L)
            )
            count = stop - start
            x_BTD, (each_LBTD, scores) = jax.lax.scan(
                a_layer, x_BTD, of_layers, length=count, unroll=min(self.unroll, count)
            )
            if start == 0 and self.convolution:
                x_BTD = self.conv(first_BTD, x_BTD, batch, train=train)
                each_LBTD = x_BTD[None]
            made.append((each_LBTD, scores))
        each_LBTD, scores = jax.tree.map(
            lambda *parts: parts[0] if len(parts) == 1 else jnp.concatenate(parts), *made
        )
        return Read(x_BTD, below_BTD, each_LBTD, scores)

    def decode(
        self, below_BTD: Leaf, positions_BTD: Leaf, batch: Batch | Corrupted, *, train: bool
    ) -> jax.Array:
        """The Enhanced Mask Decoder: the last layer twice, asked from positions [B, T, D].

        Keys and values are of ``below_BTD``, what the last layer reads, both times. The first query
        is that with the rows of absolute positions added as they are; the second one is what the
        first pass gives. Residuals are the queries'
        (microsoft/DeBERTa:DeBERTa/apps/models/masked_language_model.py).
        """
        a_layer = self._layer(below_BTD, batch, train, below_BTD=below_BTD)
        last = jax.tree.map(lambda x: x[-1], self.stacked)
        x_BTD = keep_rows(below_BTD + positions_BTD.astype(below_BTD.dtype))
        keys = self._keys(2, train)
        for turn in range(2):
            x_BTD, _ = a_layer(x_BTD, (last, None if keys is None else keys[turn]))
        return x_BTD

    def _keys(self, count: int, train: bool) -> jax.Array | None:
        drops = train and (self.shape.dropout or self.shape.attention_dropout)
        return jax.random.split(self.make_rng("dropout"), count) if drops else None

    def _layer(
        self,
        x_BTD: Leaf,
        batch: Batch | Corrupted,
        train: bool,
        below_BTD: Leaf | None = None,
    ) -> Any:
        """``(x, (parameters, key)) -> (x, (x, scores))``; x are queries where keys have a source
        of their own, ``below_BTD``."""
        block = Block(self.shape, parent=None)
        seen = visible(batch.valid_BT, batch.packs_BT)
        table_RD = None if self.shape.relative is None else self.relative(x_BTD.shape[1])

        def a_layer(x_BTD: Leaf, of_layer: Any) -> Any:
            params, key = of_layer
            rngs = {} if key is None else {"dropout": key}
            inputs = (x_BTD, seen, table_RD)
            if below_BTD is not None:
                inputs = (below_BTD, seen, table_RD, x_BTD)
            x_BTD, scores = block.apply({"params": params}, *inputs, train=train, rngs=rngs)
            return x_BTD, (x_BTD, scores)

        if self.remat:
            return jax.checkpoint(a_layer, prevent_cse=self.unroll >= self.layers)
        return a_layer


class ReplacedFromSum(nn.Module):
    """Was this token replaced? LayerNorm, dense, GELU, one logit, of a sum with the first token.

    microsoft/DeBERTa:DeBERTa/apps/models/replaced_token_detection_model.py.
    """

    shape: Shape

    @nn.compact
    def __call__(self, hidden_BTD: Leaf, batch: Batch | Corrupted) -> jax.Array:
        """float32 logits [B, T]."""
        shape = self.shape
        sum_BTD = hidden_BTD + first_of_each(hidden_BTD, batch)
        sum_BTD = Norm(shape.eps, name="norm")(sum_BTD)
        dense = Dense(shape.width, shape.precision, initialiser=shape.initialiser, name="dense")
        x_BTD = activation(shape.activation, dense(sum_BTD))
        output = Dense(1, "float32", initialiser=shape.initialiser, name="output")
        return output(x_BTD.astype(jnp.float32))[..., 0]


def first_of_each(hidden_BTD: Leaf, batch: Batch | Corrupted) -> jax.Array:
    """The state of the first token, that of the own sequence in packed rows: broadcastable."""
    if batch.packs_BT is None:
        return hidden_BTD[:, :1]
    columns_BT = jnp.broadcast_to(jnp.arange(hidden_BTD.shape[1]), batch.packs_BT.shape)
    starts_BT = jnp.diff(batch.packs_BT, axis=1, prepend=-1) != 0
    first_BT = jax.lax.cummax(jnp.where(starts_BT, columns_BT, 0), axis=1)
    return jnp.take_along_axis(hidden_BTD, first_BT[:, :, None], axis=1)
