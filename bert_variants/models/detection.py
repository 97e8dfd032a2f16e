"""Heads of a model that holds a generator and a discriminator, and of ELECTRA's ablations."""

from __future__ import annotations

from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from bert_variants.models.heads import (
    ClassHead,
    Pooler,
    SpanHead,
    TokenHead,
    boundaries_of,
    take_positions,
)
from bert_variants.models.layers import Dense, Shape
from bert_variants.ops.activations import activation
from bert_variants.types import Batch, Corrupted, Leaf

Generator = Literal["network", "unigram", "uniform"]

# What is read off text in which the generator replaced tokens.
OF_REPLACED = (
    "replaced_logits_BT",
    "replaced_BT",
    "corrected_logits_BPV",
    "all_logits_BTV",
    "copy_logits_BT",
)

# The framework's default where the published code (TensorFlow) names no initialiser.
glorot = nn.initializers.glorot_uniform()


class ReplacedHead(nn.Module):
    """Was this token replaced? Dense, activation, one logit; no LayerNorm.

    google-research/electra:run_pretraining.py. The last layer starts as TensorFlow's do.
    """

    shape: Shape

    @nn.compact
    def __call__(self, hidden_BTD: Leaf, batch: Batch | Corrupted) -> jax.Array:
        """float32 logits [B, T]."""
        del batch
        shape = self.shape
        dense = Dense(shape.width, shape.precision, initialiser=shape.initialiser, name="dense")
        return one_logit("output", activation(shape.activation, dense(hidden_BTD)))


class CopyHead(nn.Module):
    """Is this token the original one? One logit of a linear layer, float32 [B, T]."""

    @nn.compact
    def __call__(self, hidden_BTD: Leaf) -> jax.Array:
        return one_logit("output", hidden_BTD)


def one_logit(name: str, hidden_BTD: Leaf) -> jax.Array:
    """float32 [B, T] from a linear layer of that name, made in the module that calls this."""
    dense = Dense(1, "float32", initialiser=glorot, name=name)
    return dense(hidden_BTD.astype(jnp.float32))[..., 0]


class UnigramHead(nn.Module):
    """The same logits everywhere: one bias for each id of the vocabulary."""

    vocab_size: int

    @nn.compact
    def __call__(self, at_BP: Leaf) -> jax.Array:
        """float32 logits [B, P, V]."""
        bias_V = self.param("bias", nn.initializers.zeros, (self.vocab_size,), jnp.float32)
        return jnp.broadcast_to(bias_V, (*at_BP.shape, self.vocab_size))


class DetectionHeads(nn.Module):
    """The heads that the objectives ask for, and no others: the generator's, the discriminator's.

    Attributes:
        wanted: (output, classes), from ``config.wanted_outputs``.
        vocab_size: V.
        generator: what draws the samples: a ``network``, a ``unigram`` distribution that is
            learned as one bias, or ``uniform``.
        writer, writer_table: shape of the generator, and the width of its tables.
        reader, reader_table: the same of the discriminator.
        replaced_head: class of the head that says what was replaced, made of ``reader``, called as
            ``(hidden_BTD, batch)``.
        pooled: the pooler's activation.
    """

    wanted: tuple[tuple[str, int], ...]
    vocab_size: int
    generator: Generator
    writer: Shape
    writer_table: int
    reader: Shape
    reader_table: int
    replaced_head: Any = ReplacedHead
    pooled: str = "tanh"

    def setup(self) -> None:
        wanted = dict(self.wanted)
        if draws(self.wanted) and self.generator == "network":
            self.tokens = TokenHead(self.writer, self.writer_table)
        if draws(self.wanted) and self.generator == "unigram":
            self.tokens = UnigramHead(self.vocab_size)
        if "span_logits_BPV" in wanted:
            self.spans = SpanHead(self.writer, self.writer_table, wanted["span_logits_BPV"])
        if "replaced_logits_BT" in wanted:
            self.replaced = self.replaced_head(self.reader)
        if "corrected_logits_BPV" in wanted:
            self.corrected = TokenHead(self.reader, self.reader_table)
        if "all_logits_BTV" in wanted:
            self.every = TokenHead(self.reader, self.reader_table)
        if "copy_logits_BT" in wanted:
            self.gate = CopyHead()
        if "pooled_BD" in wanted or "pair_logits_BC" in wanted:
            self.pooler = Pooler(self.reader, self.pooled)
        if "pair_logits_BC" in wanted:
            self.pair = ClassHead(self.reader, wanted["pair_logits_BC"])

    def of_generator(
        self, hidden_BTD: Leaf | None, batch: Corrupted, table_VE: Leaf | None
    ) -> dict[str, Any]:
        """What the generator predicts at ``batch.at_BP``; no hidden states where it has none."""
        found = {}
        if draws(self.wanted):
            if self.generator == "network":
                logits_BPV = self.tokens(take_positions(hidden_BTD, batch.at_BP), table_VE)
            elif self.generator == "unigram":
                logits_BPV = self.tokens(batch.at_BP)
            else:
                logits_BPV = jnp.zeros((*batch.at_BP.shape, self.vocab_size), jnp.float32)
            found["token_logits_BPV"] = logits_BPV
        outside = boundaries_of(batch)
        if "span_logits_BPV" in dict(self.wanted) and outside is not None:
            left_BP, right_BP, offset_BP = outside
            left_BPD = take_positions(hidden_BTD, left_BP)
            right_BPD = take_positions(hidden_BTD, right_BP)
            found["span_logits_BPV"] = self.spans(left_BPD, right_BPD, offset_BP, table_VE)
        return found

    def of_discriminator(
        self, hidden_BTD: Leaf, batch: Batch | Corrupted, table_VE: Leaf | None
    ) -> dict[str, Any]:
        """What the discriminator says of the text that it read. Its table is needed where it
        predicts tokens.
        """
        wanted = dict(self.wanted)
        found = {}
        if "replaced_logits_BT" in wanted:
            found["replaced_logits_BT"] = self.replaced(hidden_BTD, batch)
        if "corrected_logits_BPV" in wanted and batch.at_BP is not None:
            at_BPD = take_positions(hidden_BTD, batch.at_BP)
            found["corrected_logits_BPV"] = self.corrected(at_BPD, table_VE)
        if "all_logits_BTV" in wanted:
            found["all_logits_BTV"] = self.every(hidden_BTD, table_VE)
        if "copy_logits_BT" in wanted:
            found["copy_logits_BT"] = self.gate(hidden_BTD)
        if "pooled_BD" in wanted or "pair_logits_BC" in wanted:
            found["pooled_BD"] = self.pooler(hidden_BTD)
        if "pair_logits_BC" in wanted:
            found["pair_logits_BC"] = self.pair(found["pooled_BD"])
        return found


def replaces(wanted: tuple[tuple[str, int], ...]) -> bool:
    """Whether any of the wanted outputs is read off text with replaced tokens."""
    return any(output in dict(wanted) for output in OF_REPLACED)


def draws(wanted: tuple[tuple[str, int], ...]) -> bool:
    """Whether the generator's distribution is wanted, for itself or to draw from."""
    return "token_logits_BPV" in dict(wanted) or replaces(wanted)


def generates(wanted: tuple[tuple[str, int], ...]) -> bool:
    """Whether anything is wanted of the generator."""
    return "span_logits_BPV" in dict(wanted) or draws(wanted)
