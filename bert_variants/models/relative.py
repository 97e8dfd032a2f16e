"""Layers that know tokens by their distance, for one stream of states or two that share weights."""

from __future__ import annotations

from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from bert_variants.models.layers import Dense, Dropout, Norm, Shape
from bert_variants.models.recurrence import Memory, keep
from bert_variants.ops import relative
from bert_variants.ops.activations import activation
from bert_variants.ops.placement import keep_rows
from bert_variants.ops.precision import einsum
from bert_variants.types import Leaf


class Stream(NamedTuple):
    """How the queries of one stream read the keys.

    Attributes:
        visible_BQK: bool; Q may be 1: the same for every query.
        other_BQK: bool, which keys are of another segment; None: segments play no part.
        at_BP: int32, the positions of the queries; None: those of the row, T of them.
    """

    visible_BQK: Leaf
    other_BQK: Leaf = None
    at_BP: Leaf = None


class Around(NamedTuple):
    """What all layers read besides the states.

    Attributes:
        table_RD: of distances, see ``ops/relative.py``.
        streams: the first one is that of the content, whose states are the keys and the memory.
        backward_B: bool, rows whose text stands in reverse order; None: no row's does.
        offsets: see ``offsets_of``, where all layers share them; else None.
    """

    table_RD: Leaf
    streams: tuple[Stream, ...]
    backward_B: Leaf = None
    offsets: Any = None


# not named biases: the released code decays them, and "bias$" is what is not decayed
CONTENT, POSITION, SEGMENT = "query_content", "query_position", "query_segment"


def offsets_of(module: nn.Module, shape: Shape, segments: bool) -> dict[str, Leaf]:
    """What is added to the queries in each term of the scores (u, v and s): [N, H] each."""
    names = (CONTENT, POSITION, SEGMENT) if segments else (CONTENT, POSITION)
    size = (shape.heads, shape.width // shape.heads)
    return {name: module.param(name, shape.initialiser, size, jnp.float32) for name in names}


class RelativeAttention(nn.Module):
    """Attention by content, distance and segment, with its output projection, without residual.

    score(i, j) = ((q_i + u) k_j + (q_i + v) W R_(i-j) + (q_i + s) E[segments differ]) / sqrt(H).
    All streams share every weight; keys and values are those of the memory and the first stream.
    No projection has a bias.

    Attributes:
        shape: of the encoder.
        segments: whether there is a segment term.
    """

    shape: Shape
    segments: bool = False

    @nn.compact
    def __call__(
        self, xs: tuple[Leaf, ...], context_BKD: Leaf, around: Around, *, train: bool
    ) -> tuple[tuple[jax.Array, ...], jax.Array | None]:
        """Each stream's update, and the scores of the first one [B, N, T, K] or None."""
        shape = self.shape
        width = shape.width // shape.heads

        def dense(name: str) -> Dense:
            return Dense(shape.width, shape.precision, False, shape.initialiser, name=name)

        def heads(x: Leaf) -> jax.Array:
            return x.reshape(*x.shape[:-1], shape.heads, width)

        query, out = dense("query"), dense("out")
        k_BKNH, v_BKNH = heads(dense("key")(context_BKD)), heads(dense("value")(context_BKD))
        rows = self._distances(dense("relative"), around, heads)
        offsets = around.offsets or offsets_of(self, shape, self.segments)
        table_SNH = None
        if self.segments:
            size = (2, shape.heads, width)
            table_SNH = self.param("segments", shape.initialiser, size, jnp.float32)
        updates, kept = [], None
        for number, (x, stream) in enumerate(zip(xs, around.streams, strict=True)):
            scores = _scores(
                heads(query(x)), k_BKNH, rows, table_SNH, offsets, stream, xs[0], shape
            )
            key = self.make_rng("dropout") if train and shape.attention_dropout else None
            context = relative.mix(
                scores,
                stream.visible_BQK,
                v_BKNH,
                precision=shape.precision,
                rate=shape.attention_dropout,
                key=key,
            )
            updates.append(out(context.reshape(x.shape)))
            kept = scores if shape.scores and number == 0 else kept
        return tuple(updates), kept

    def _distances(self, project: Dense, around: Around, heads: Any) -> jax.Array:
        """The table in heads: [R, N, H], or [B, R, N, H] where rows differ in their direction."""
        rows_RNH = heads(project(around.table_RD))
        if around.backward_B is None:
            return rows_RNH
        back_RNH = heads(project(relative.mirrored(around.table_RD)))
        return jnp.where(around.backward_B[:, None, None, None], back_RNH[None], rows_RNH[None])


def _scores(
    q_BQNH: Leaf,
    k_BKNH: Leaf,
    rows: Leaf,
    table_SNH: Leaf,
    offsets: dict[str, Leaf],
    stream: Stream,
    x_BTD: Leaf,
    shape: Shape,
) -> jax.Array:
    """float32 [B, N, Q, K], scaled. ``x_BTD`` tells T."""
    queries, keys = x_BTD.shape[1], k_BKNH.shape[1]

    def moved(name: str) -> jax.Array:
        # in float32: in bfloat16 the factor would be rounded, for all scores alike
        sum_BQNH = q_BQNH.astype(jnp.float32) + offsets[name][None, None]
        return (sum_BQNH * q_BQNH.shape[-1] ** -0.5).astype(q_BQNH.dtype)

    scores = einsum("bqnh,bknh->bnqk", moved(CONTENT), k_BKNH, shape.precision)
    spec = "bqnh,rnh->bnqr" if rows.ndim == 3 else "bqnh,brnh->bnqr"
    by_row = einsum(spec, moved(POSITION), rows, shape.precision)
    if stream.at_BP is None:
        by_key = relative.shift(by_row, keys)
    else:
        by_key = relative.shift_at(by_row, stream.at_BP, queries, keys)
    scores = scores.astype(jnp.float32) + by_key.astype(jnp.float32)
    if stream.other_BQK is None or table_SNH is None:
        return scores
    of_segment = jnp.einsum(
        "bqnh,snh->bnqs", moved(SEGMENT).astype(jnp.float32), table_SNH
    )  # two columns: no product worth rounding for
    same, other = of_segment[..., :1], of_segment[..., 1:]
    return scores + jnp.where(stream.other_BQK[:, None], other, same)


class RelativeBlock(nn.Module):
    """A layer: attention and feed-forward, each with residual and LayerNorm.

    Attributes:
        shape: of the encoder.
        segments: see ``RelativeAttention``.
        inner_dropout: behind the activation of the feed-forward layer.
        norm_first: LayerNorm in front of each half instead of behind its residual; none at the end.
    """

    shape: Shape
    segments: bool = False
    inner_dropout: float = 0.0
    norm_first: bool = False

    @nn.compact
    def __call__(
        self, xs: tuple[Leaf, ...], memory_BMD: Leaf, around: Around, *, train: bool
    ) -> tuple[tuple[jax.Array, ...], jax.Array | None]:
        """Each stream's states, and the scores of the first or None."""
        shape = self.shape
        attention = RelativeAttention(shape, self.segments, name="attention")
        attention_norm = Norm(shape.eps, name="attention_norm")
        attention_dropout = Dropout(shape.dropout, name="attention_dropout")
        context = xs[0]
        if memory_BMD is not None:
            context = jnp.concatenate([memory_BMD.astype(context.dtype), context], axis=1)
        before = attention_norm if self.norm_first else _as_it_is
        behind = _as_it_is if self.norm_first else attention_norm
        updates, scores = attention(
            tuple(before(x) for x in xs), before(context), around, train=train
        )
        updates = [attention_dropout(update, train=train) for update in updates]
        xs = tuple(keep_rows(behind(x + u)) for x, u in zip(xs, updates, strict=True))
        ffn = RelativeFeedForward(shape, self.inner_dropout, name="ffn")
        ffn_norm = Norm(shape.eps, name="ffn_norm")
        ffn_dropout = Dropout(shape.dropout, name="ffn_dropout")
        before = ffn_norm if self.norm_first else _as_it_is
        behind = _as_it_is if self.norm_first else ffn_norm
        updates = [ffn_dropout(ffn(before(x), train=train), train=train) for x in xs]
        xs = tuple(keep_rows(behind(x + u)) for x, u in zip(xs, updates, strict=True))
        return xs, scores


def _as_it_is(x: Leaf) -> Leaf:
    return x


class RelativeFeedForward(nn.Module):
    """Two dense layers around an activation and a dropout, without residual."""

    shape: Shape
    inner_dropout: float

    @nn.compact
    def __call__(self, x: Leaf, *, train: bool) -> jax.Array:
        shape = self.shape
        wide = Dense(shape.ffn, shape.precision, initialiser=shape.initialiser, name="wide")
        narrow = Dense(shape.width, shape.precision, initialiser=shape.initialiser, name="narrow")
        inner = Dropout(self.inner_dropout, name="inner_dropout")
        return narrow(inner(activation(shape.activation, wide(x)), train=train))


class RelativeEncoder(nn.Module):
    """``layers`` equal blocks with their memory; compiled once and looped over, or unrolled.

    Attributes:
        layers: L.
        block: a ``RelativeBlock``'s arguments.
        tied: whether all layers share what is added to the queries (u, v, s).
        reuse: see ``recurrence.recall``.
        unroll, remat: as ``Encoder``'s.
    """

    layers: int
    block: tuple[Any, ...]
    tied: bool = False
    reuse: int = 0
    unroll: int = 1
    remat: bool = False

    @nn.compact
    def __call__(
        self, xs: tuple[Leaf, ...], memory: Memory | None, around: Around, *, train: bool
    ) -> tuple[tuple[jax.Array, ...], tuple[jax.Array, jax.Array | None, jax.Array | None]]:
        """Each stream's top; of the first one every layer's output [L, B, T, D] and scores; and the
        states to keep [B, L, M, D]."""
        shape, segments = self.block[:2]
        if self.tied:
            around = around._replace(offsets=offsets_of(self, shape, segments))
        taken_B = None if memory is None else memory.taken_B

        def a_layer(block: nn.Module, xs: Any, memory_BMD: Leaf, shared: Any) -> Any:
            around, taken_B = shared
            kept = None
            if memory_BMD is not None:
                kept = keep(memory_BMD, xs[0], taken_B, self.reuse)
            xs, scores = block(xs, memory_BMD, around, train=train)
            return xs, (xs[0], scores, kept)

        if self.remat:
            a_layer = nn.remat(a_layer, prevent_cse=self.unroll >= self.layers)
        stack = nn.scan(
            a_layer,
            variable_axes={"params": 0},
            split_rngs={"params": True, "dropout": True},
            in_axes=(1, nn.broadcast),
            out_axes=(0, 0, 1),
            length=self.layers,
            unroll=min(self.unroll, self.layers),
        )
        states_BLMD = None if memory is None else memory.states_BLMD
        block = RelativeBlock(*self.block, name="layers")
        return stack(block, xs, states_BLMD, (around, taken_B))
