"""Disentangled attention: scores from what a token is and from how far off the other one stands.

He et al. 2020 (arXiv 2006.03654), section 3.1; microsoft/DeBERTa:DeBERTa/deberta/
disentangled_attention.py and da_utils.py. With i a query, j a key and r = i - j::

    score(i, j) = (q_i k_j + q_i key_r + query_r k_j) / sqrt(3 H)

where key_r and query_r are projections of row r of a table of distances. The third term takes the
row of i - j as the second does, as in every version of the code; the paper prints j - i.
"""

from __future__ import annotations

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np

from bert_variants import registry
from bert_variants.ops.precision import PRECISIONS, product
from bert_variants.types import Leaf

TERMS = ("c2p+p2c", "c2p", "p2c")
PROJECTIONS = ("own", "shared")


@dataclasses.dataclass(frozen=True)
class Relative:
    """How the attention of an encoder reads distances between tokens.

    Attributes:
        reach: distances at or beyond it are as good as one less.
        buckets: 0: each distance has a row of its own, in all 2 * reach. Else the table has
            2 * buckets rows: one for each distance up to buckets / 2, and beyond that more and more
            distances share one; see ``bucket``.
        terms: content to position, position to content, or both.
        projections: ``own`` dense layers for the table, one without bias for keys and one with it
            for queries; or those of the content, ``shared``.
        norm: whether the table passes a LayerNorm.
    """

    reach: int = 512
    buckets: int = 0
    terms: str = "c2p+p2c"
    projections: str = "own"
    norm: bool = False

    def __post_init__(self) -> None:
        for name, value, known in (
            ("terms", self.terms, TERMS),
            ("projections", self.projections, PROJECTIONS),
        ):
            if value not in known:
                raise registry.RegistryError(
                    f"relative: {name} is {value!r}.{registry.nearest(str(value), list(known))}"
                )
        if self.reach < 2:
            raise registry.RegistryError(f"relative: reach is {self.reach}, expected at least 2.")
        if self.buckets and not 4 <= self.buckets < 2 * (self.reach - 1):
            raise registry.RegistryError(
                f"relative: buckets is {self.buckets}, expected 0, or 4 .. {2 * self.reach - 3}: "
                f"half of it must be less than the largest distance of a reach of {self.reach}."
            )

    @property
    def size(self) -> int:
        """Rows of the table."""
        return 2 * (self.buckets or self.reach)

    def scale(self, width: int) -> float:
        """1 / sqrt(H * terms), for the content's term too."""
        return (width * (1 + len(self.terms.split("+")))) ** -0.5

    def rows(self, length: int) -> np.ndarray:
        """The row of each distance -(T - 1) .. T - 1 of a text of T tokens: int64 [2T - 1].

        They ascend, so the rows in use are those from the first to the last.
        """
        distances = np.arange(1 - length, length)
        if self.buckets:
            distances = bucket(distances, self.buckets, self.reach)
        return np.clip(distances + self.size // 2, 0, self.size - 1)


# What the field ``relative`` of a model may name. DeBERTa v3 is as v2.
PRESETS = {
    "deberta_v1": Relative(),
    "deberta_v2": Relative(buckets=256, projections="shared", norm=True),
}


def read(call: str) -> Relative | None:
    """The field ``relative`` of a model: a preset, perhaps with other values; empty: None.

    ``deberta_v2(buckets=32, reach=128)`` is DeBERTa v2's with a table of 64 rows.

    Raises:
        RegistryError: neither a preset nor its fields, or values that do not fit.
    """
    if not call:
        return None
    name, args, kwargs = registry.parse(call)
    if name not in PRESETS:
        raise registry.RegistryError(
            f"relative is {call!r}, but '{name}' is unknown.{registry.nearest(name, list(PRESETS))}"
        )
    known = {field.name: field.type for field in dataclasses.fields(Relative)}
    if args:
        raise registry.RegistryError(f"relative {call!r}: name its values: {', '.join(known)}.")
    for key, value in kwargs.items():
        if key not in known:
            hint = registry.nearest(key, list(known))
            raise registry.RegistryError(f"relative {call!r} has no '{key}'.{hint}")
        if type(value).__name__ != known[key]:
            raise registry.RegistryError(
                f"relative {call!r}: {key} is {value!r}, expected {known[key]}."
            )
    return dataclasses.replace(PRESETS[name], **kwargs)


def bucket(distances: np.ndarray, buckets: int, reach: int) -> np.ndarray:
    """Distances up to m = buckets / 2 as they are; farther ones by their logarithm.

    ``sign(r) (m + ceil(ln(|r| / m) / ln((reach - 1) / m) (m - 1)))``, r first cut to reach - 1. For
    256 buckets and a reach of 512: 129 -> 129, 200 -> 169, 256 -> 192, 400 -> 233, 511 -> 255.
    """
    distances = np.clip(distances, 1 - reach, reach - 1)
    middle = buckets // 2
    far = np.maximum(np.abs(distances), middle) / middle
    steps = np.log(far) / np.log((reach - 1) / middle) * (middle - 1)
    steps = np.ceil(np.round(steps, 9)).astype(np.int64)  # 3.0000000000000004 is 3
    return np.where(np.abs(distances) <= middle, distances, np.sign(distances) * (middle + steps))


def scores(
    q_BTNH: Leaf,
    k_BTNH: Leaf,
    keys_RNH: Leaf | None,
    queries_RNH: Leaf | None,
    relative: Relative,
    precision: str,
) -> jax.Array:
    """The terms of the scores that know distances: float32 [B, N, T, T], scaled.

    Args:
        q_BTNH, k_BTNH: queries and keys of the content, not scaled.
        keys_RNH, queries_RNH: projected rows of the table, from the first to the last that a text
            of T tokens uses; None where the term is not wanted.
        relative: which rows those are.
        precision: see ops/precision.py; whatever it is, scores are summed and kept in float32, as
            in the published code.
    """
    scale = relative.scale(q_BTNH.shape[-1])
    rows = relative.rows(q_BTNH.shape[1])
    used = rows - rows[0]

    def spread(table_RNH: Leaf) -> Leaf:
        """A row for each distance -(T - 1) .. T - 1, scaled."""
        # in float32: 1 / sqrt(3 H) rounded to bfloat16 would be wrong for all scores alike
        table_RNH = (table_RNH.astype(jnp.float32) * scale).astype(table_RNH.dtype)
        if np.array_equal(used, np.arange(table_RNH.shape[0])):
            return table_RNH
        return jnp.take(table_RNH, used, axis=0, mode="clip")

    found_NBTT = []
    if keys_RNH is not None:
        found_NBTT.append(_sliding(q_BTNH, spread(keys_RNH)[::-1], precision))
    if queries_RNH is not None:
        # from the key's side: [j, i], whose distance ascends with i
        found_NBTT.append(_sliding(k_BTNH, spread(queries_RNH), precision).swapaxes(2, 3))
    return sum(found_NBTT).swapaxes(0, 1)


# The published code multiplies with all rows of the table and gathers [B, N, T, T] of the products,
# a number at a time; the gradient of that is a scatter. Here a row of the table stands for each
# distance before the product. In the product a token's wanted entries then lie side by side and
# begin one column earlier for each next token: a slice of the flat array, cut into rows that are
# one shorter. Its gradient is the same backwards, with zeros around.
#
# A text of T tokens has 2T - 1 distances, but C tokens in a row have only T + C - 1. So tokens come
# in ``groups`` of a quarter of the text, each with its own part of the table: 5/8 of the products,
# and of the numbers that are stored and slid. (Eighths save little more, and are more products to
# compile.)
@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _sliding(x_BTNH: Leaf, table_WNH: Leaf, precision: str) -> jax.Array:
    """x[t] table[T - 1 - t + s] for all t and s: float32 [N, B, T, T]. W = 2T - 1."""
    return _forward(x_BTNH, table_WNH, precision)[0]


GROUPS = 4
LEAST = 16  # tokens; shorter texts are one group


def groups(length: int) -> list[slice]:
    """The tokens of each group; one group where they do not go into ``GROUPS``."""
    count = 1 if length % GROUPS or length < LEAST else GROUPS
    size = length // count
    return [slice(i * size, (i + 1) * size) for i in range(count)]


def _used(group: slice, length: int) -> slice:
    """The rows of the table, of 2T, for the distances of a group's tokens: T + C of them."""
    return slice(length - group.stop, 2 * length - group.start)


def _forward(x_BTNH: Leaf, table_WNH: Leaf, precision: str) -> tuple[jax.Array, tuple[Leaf, Leaf]]:
    batch, length, heads, _ = x_BTNH.shape
    table_WNH = jnp.pad(table_WNH, ((0, 1), (0, 0), (0, 0)))  # T + C columns suit kernels better
    found = []
    for group in groups(length):
        x_BCNH, rows_WNH = x_BTNH[:, group], table_WNH[_used(group, length)]
        size = x_BCNH.shape[1]
        x_MNH = x_BCNH.reshape(batch * size, heads, -1)
        wide_NMW = product("mnh,wnh->nmw", x_MNH, rows_WNH, precision)
        found.append(slide(wide_NMW.reshape(heads, batch, size, length + size)))
    return jnp.concatenate(found, axis=2), (x_BTNH, table_WNH)


def _backward(precision: str, saved: tuple[Leaf, Leaf], out_NBTT: Leaf) -> tuple[Leaf, Leaf]:
    x_BTNH, table_WNH = saved
    heads, batch, length, _ = out_NBTT.shape
    to_x, to_table = [], jnp.zeros(table_WNH.shape, jnp.float32)
    for group in groups(length):
        x_BCNH, used = x_BTNH[:, group], _used(group, length)
        size = x_BCNH.shape[1]
        wide_NMW = slide_back(out_NBTT[:, :, group]).reshape(heads, batch * size, -1)
        wide_NMW = wide_NMW.astype(PRECISIONS[precision].products)
        to_group = product("nmw,wnh->mnh", wide_NMW, table_WNH[used], precision)
        to_x.append(to_group.reshape(batch, size, heads, -1).astype(x_BTNH.dtype))
        x_MNH = x_BCNH.reshape(batch * size, heads, -1)
        to_rows = product("nmw,mnh->wnh", wide_NMW, x_MNH, precision).astype(jnp.float32)
        around = (used.start, 2 * length - used.stop)
        to_table += jnp.pad(to_rows, (around, (0, 0), (0, 0)))
    return jnp.concatenate(to_x, axis=1), to_table[:-1].astype(table_WNH.dtype)


_sliding.defvjp(_forward, _backward)


def slide(wide_xCW: Leaf) -> jax.Array:
    """``out[c, s] = wide[c, C - 1 - c + s]``: [..., C, T + C] -> [..., C, T].

    A worked case, C = T = 3, "." for what nobody reads::

        . . a b c .        a b c
        . d e f . .   ->   d e f
        g h i . . .        g h i
    """
    *batch, size, width = wide_xCW.shape
    flat = wide_xCW.reshape(*batch, size * width)
    flat = jax.lax.slice_in_dim(flat, size - 1, size * width - 1, axis=-1)
    return flat.reshape(*batch, size, width - 1)[..., : width - size]


def slide_back(out_xCT: Leaf) -> jax.Array:
    """The transpose of ``slide``: the same with zeros for what nobody reads.

    Zeros in front of each row make all rows begin where the next longer ones do; those behind a row
    are in front of the next one.
    """
    *batch, size, length = out_xCT.shape
    before = [(0, 0)] * len(batch)
    flat = jnp.pad(out_xCT, [*before, (0, 1), (size - 1, 0)]).reshape(*batch, -1)
    width = length + size
    return flat[..., : size * width].reshape(*batch, size, width)
