"""The frozen borders between text, corruption, model, objective and step: the glossary.

Shape letters, used as name suffixes everywhere:

====== ==========================================================================
B      rows of a batch
T      tokens of a row (the sequence length)
D      model width (hidden size)
F      feed-forward width
N      attention heads
H      width of one head
V      vocabulary
P      predicted positions of a row (static, at most the masking budget)
L      layers
C      classes
====== ==========================================================================

``Rows -> Batch`` is what the host produces, ``Corrupted`` what a corruption makes of it on the
device, ``Outputs`` what a model returns, ``Terms`` what an objective returns. All are registered
pytrees of arrays, frozen; an absent array is ``None``. Fields are not type-checked, because a
pytree is also mapped to shapes, shardings and booleans; the suffix states the shape.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import jax
import numpy as np

Leaf = Any  # jax.Array, np.ndarray, ShapeDtypeStruct, Sharding, ... or None where absent
T_ = TypeVar("T_")


def pytree(cls: type[T_]) -> type[T_]:
    """Frozen keyword-only dataclass whose every field is pytree data."""
    cls = dataclasses.dataclass(frozen=True, kw_only=True)(cls)
    names = [f.name for f in dataclasses.fields(cls)]
    return jax.tree_util.register_dataclass(cls, data_fields=names, meta_fields=[])


def _row_fields(value: Any) -> dict[str, Any]:
    return {f.name: getattr(value, f.name) for f in dataclasses.fields(Rows)}


@pytree
class Rows:
    """What is true of a row whatever is done to its text. Base of Batch and Corrupted.

    A worked row, T=10, A = "the cat ##s", B = "ran" (vocabulary with "##" continuation pieces)::

        tokens    [CLS] the cat ##s [SEP] ran [SEP] [PAD] [PAD] [PAD]
        segments    0    0   0   0    0    1    1     0     0     0
        positions   0    1   2   3    4    5    6     7     8     9
        valid       1    1   1   1    1    1    1     0     0     0
        maskable    0    1   1   1    0    1    0     0     0     0
        words      -1    0   1   1   -1    2   -1    -1    -1    -1
        units      -1   -1  -1  -1   -1   -1   -1    -1    -1    -1   (no lexicon)

    Attributes:
        tokens_BT: int32, the original ids.
        segments_BT: int32, 0 or 1 (more for some layouts); 0 at padding.
        positions_BT: int32, the position id of each token; restarts in packed rows.
        valid_BT: bool, True where there is a token (special or not), False at padding.
        maskable_BT: bool, True where a corruption may touch the token.
        words_BT: int32, index of the word that a token belongs to, counted within the row; -1
            where there is none.
        units_BT: int32, index of the phrase or entity, likewise; -1 where there is none.
        unit_kinds_BT: int8 or None, which kind of phrase or entity that is, as ``data.units``
            numbers them; -1 where there is none. None where no units were prepared.
        example_id_B: uint32, identity of the row within its visit (epoch).
        visit_B: uint32, which visit (epoch) this is.
        packs_BT: int32 or None: 1, 2, ... for the sequences packed into one row, 0 at padding.
            None means one sequence a row.
        labels: name -> array with leading B, such as ``next_sentence`` int32 [B]. Of streams
            ``continues``: 1 where a row goes on from the one that stood at its place in the batch
            before (so what is remembered of that row is its own), else 0.
        extras: name -> array with leading B, knowledge or anything that a model asks for by name.
        step: int32 scalar, the training step; None outside training.
        carry: recurrent state with leading B (segment recurrence), or None.
        teacher: the teacher's Outputs, under stop-gradient, or None.
    """

    tokens_BT: Leaf
    segments_BT: Leaf
    positions_BT: Leaf
    valid_BT: Leaf
    maskable_BT: Leaf
    words_BT: Leaf
    units_BT: Leaf
    example_id_B: Leaf
    visit_B: Leaf
    unit_kinds_BT: Leaf = None
    packs_BT: Leaf = None
    labels: Mapping[str, Leaf] = dataclasses.field(default_factory=dict)
    extras: Mapping[str, Leaf] = dataclasses.field(default_factory=dict)
    step: Leaf = None
    carry: Leaf = None
    teacher: Leaf = None

    def replace(self: T_, **changes: Any) -> T_:
        """A copy with some fields changed."""
        return dataclasses.replace(self, **changes)


@pytree
class Batch(Rows):
    """Uncorrupted rows. A model given a Batch reads the text itself and predicts no position."""

    @property
    def inputs_BT(self) -> Leaf:
        """What the model reads: the original tokens."""
        return self.tokens_BT

    @property
    def at_BP(self) -> None:
        """No positions are to be predicted."""
        return None


@pytree
class Corrupted(Rows):
    """Rows after a corruption.

    Attributes:
        inputs_BT: int32, what the model reads.
        at_BP: int32, positions to predict, ascending; 0 in unused slots.
        targets_BP: int32, the ids to predict; 0 in unused slots.
        weights_BP: float32, 0 for an unused slot; 1 for a used one, or how often it counts.
        left_BP, right_BP: int32, the visible tokens just outside the span of ``at_BP``; -1 where
            there is none. None unless the corruption chooses spans.
        offset_BP: int32, index of ``at_BP`` within its span, from 0. None likewise.
        order_BT: int32, in which order tokens may be read (ops/permutation.py), or None:
            all at once. Only models that declare to read it keep to it.
        moved_BT: bool, tokens that were moved by shuffling, or None.
    """

    inputs_BT: Leaf
    at_BP: Leaf
    targets_BP: Leaf
    weights_BP: Leaf
    left_BP: Leaf = None
    right_BP: Leaf = None
    offset_BP: Leaf = None
    order_BT: Leaf = None
    moved_BT: Leaf = None

    @classmethod
    def of(cls, batch: Batch, **fields: Any) -> Corrupted:
        """The rows of ``batch`` with the corruption's ``fields`` added."""
        return cls(**_row_fields(batch), **fields)


@pytree
class Outputs:
    """What a model returns. Absent arrays are None; XLA removes what nobody reads.

    Attributes:
        hidden_BTD: the top layer.
        layers: tuple of L + 1 arrays [B, T, D], embeddings first, or None if not asked for.
        scores: pre-softmax attention scores [L, B, N, T, T], or None if not asked for.
        pooled_BD: a row's vector.
        token_logits_BPV: logits at ``at_BP``.
        span_logits_BPV: logits from span boundaries at ``at_BP``.
        pair_logits_BC: logits of the sentence-pair head.
        replaced_logits_BT: logits of "this token was replaced".
        replaced_BT: bool, which tokens a generator really replaced.
        corrected_logits_BPV: logits of the original token at ``at_BP``, read off text in which a
            generator replaced tokens.
        all_logits_BTV: the same at every position.
        copy_logits_BT: logits of "the token that was read here is the original one".
        carry: recurrent state to hand to the next call, or None.
        extras: name -> array, for what only one model has.
    """

    hidden_BTD: Leaf = None
    layers: Leaf = None
    scores: Leaf = None
    pooled_BD: Leaf = None
    token_logits_BPV: Leaf = None
    span_logits_BPV: Leaf = None
    pair_logits_BC: Leaf = None
    replaced_logits_BT: Leaf = None
    replaced_BT: Leaf = None
    corrected_logits_BPV: Leaf = None
    all_logits_BTV: Leaf = None
    copy_logits_BT: Leaf = None
    carry: Leaf = None
    extras: Mapping[str, Leaf] = dataclasses.field(default_factory=dict)


@pytree
class Mean:
    """A weighted sum and its weight. Addition merges; the division happens once, at the end."""

    total: Leaf
    weight: Leaf

    def __add__(self, other: Mean) -> Mean:
        return Mean(total=self.total + other.total, weight=self.weight + other.weight)

    def value(self) -> Leaf:
        """total / weight, and 0 where the weight is 0."""
        return self.total / jax.numpy.where(self.weight == 0, 1, self.weight)


@pytree
class Terms:
    """What an objective returns: ``loss`` to minimise and ``metrics`` to report, all unreduced.

    Both weights depend on the batch alone and never on the parameters, so that the denominators
    of a global batch are known before it is split.
    """

    loss: Mean
    metrics: Mapping[str, Mean] = dataclasses.field(default_factory=dict)

    def __add__(self, other: Terms) -> Terms:
        return jax.tree.map(lambda a, b: a + b, self, other)


@dataclasses.dataclass(frozen=True)
class Vocab:
    """The ids that the device side needs to know of a tokenizer. Static, not a pytree.

    Attributes:
        size: V, including any padding rows.
        pad, unk, cls, sep, mask: special ids.
        specials: every id that is not text.
        counts_V: int64 [V], how often each id occurs in the prepared corpus, or None.
    """

    size: int
    pad: int
    unk: int
    cls: int
    sep: int
    mask: int
    specials: tuple[int, ...] = ()
    counts_V: np.ndarray | None = dataclasses.field(default=None, compare=False, repr=False)


Corruption = Callable[[Leaf, Batch, Vocab], Corrupted]  # (keys_B, batch, vocab)
Objective = Callable[[Outputs, Corrupted], Terms]
Teacher = Callable[[Corrupted], Outputs]
