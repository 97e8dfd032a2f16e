"""DeBERTa v3 in training (He et al. 2021, arXiv 2111.09543; microsoft/DeBERTa)."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

import flax.linen as nn
import jax

from bert_variants.models.bert import RESERVED
from bert_variants.models.deberta import check, shape_of
from bert_variants.models.deberta_layers import (
    Absolute,
    DebertaEmbeddings,
    DebertaEncoder,
    ReplacedFromSum,
)
from bert_variants.models.detection import DetectionHeads, generates, replaces
from bert_variants.models.heads import HEADS
from bert_variants.models.layers import RULES, Shape
from bert_variants.models.replacing import replace, with_a_slot
from bert_variants.registry import Call, RegistryError, register
from bert_variants.types import Batch, Corrupted, Outputs

REPLACED = ("replaced_logits_BT", "replaced_BT")


def _check(call: Call) -> None:
    check(call)
    if call.argument("temperature") <= 0:
        raise RegistryError(
            f"model '{call}': temperature is {call.argument('temperature')}, expected above 0."
        )


@register(
    "model",
    name="deberta_rtd",
    outputs=("hidden_BTD", "layers", "scores", *HEADS, *REPLACED),
    reserved=RESERVED,
    check=_check,
    rules=RULES,
)
class DebertaRtd(nn.Module):
    """A generator that fills in masked tokens, and a discriminator that finds what it replaced.

    The generator is a ``deberta`` as wide as the discriminator and half as deep, with its decoder.
    The discriminator is one without a decoder: absolute positions never enter it. It reads the
    original text with one token drawn for each predicted position; ``replaced_logits_BT`` is of the
    sum of a token's and the first token's state. Logits over the vocabulary are the generator's,
    all other outputs are the discriminator's. Where nothing about replaced tokens is wanted, or
    nothing is predicted (a plain Batch), the discriminator reads the rows as they are given.

    Both are trained by one step on the sum of their losses. In the published code that is the
    choice ``decoupled_training=False``; by default it takes two steps a batch, first the
    generator's, then the discriminator's over the tables that have just changed, each with its own
    optimizer and its own clipping of gradients. With ``sharing='gdes'`` no parameter has gradients
    of both losses, so what differs is that clipping, and one step's age of the tables beneath the
    discriminator's. With ``es`` the joint step is the only one in which the discriminator's loss
    reaches the tables at all.

    Attributes:
        layers, width, heads, ffn: of the discriminator; width, heads and ffn of the generator too.
        generator_layers: 0 is half of ``layers``, at least one.
        sharing: of the tables. ``gdes``, gradient-disentangled: the discriminator's are the
            generator's under stop-gradient plus a difference that starts at 0 and is trained (and
            decayed) as any parameter; ``es``: both read and train the same ones; ``nes``: each has
            its own.
        temperature: of the draws.
        absolute: as ``Deberta``'s, of the generator. The discriminator's is ``none``, or ``input``
            where the generator's is.
        embedding, relative, key_bias, convolution, positions, segments, dropout, attention_dropout,
            eps, activation, initialiser: as ``Deberta``'s, of both.
        vocab_size, wanted, precision, unroll, remat: set by the project.
    """

    layers: int = 12
    width: int = 768
    heads: int = 12
    ffn: int = 0
    embedding: int = 0
    generator_layers: int = 0
    sharing: Literal["gdes", "es", "nes"] = "gdes"
    temperature: float = 1.0
    relative: str = "deberta_v2"
    key_bias: bool = True
    absolute: Absolute = "decoder"
    convolution: int = 0
    positions: int = 512
    segments: int = 0
    dropout: float = 0.1
    attention_dropout: float = 0.1
    eps: float = 1e-7
    activation: str = "gelu_erf"
    initialiser: Literal["truncated_normal", "normal"] = "normal"
    vocab_size: int = 0
    wanted: tuple[tuple[str, int], ...] = ()
    precision: str = "float32"
    unroll: int = 1
    remat: bool = False

    @nn.compact
    def __call__(self, batch: Batch | Corrupted, *, train: bool = False) -> Outputs:
        """Outputs for rows of any length up to ``positions``."""
        wanted = dict(self.wanted)
        both = shape_of(self), self.embedding or self.width
        heads = DetectionHeads(
            *(self.wanted, self.vocab_size, "network", *both, *both),
            replaced_head=ReplacedFromSum,
            pooled="gelu_erf",
            name="heads",
        )
        theirs = self._embeddings("generator_embeddings", self.absolute, "own")
        found: dict[str, Any] = {}
        if self.is_initializing():
            batch = with_a_slot(batch)
        if batch.at_BP is not None and generates(self.wanted):
            generated_BTD = self._generate(theirs, batch, train)
            found = heads.of_generator(generated_BTD, batch, theirs.word.weights())
        if batch.at_BP is not None and replaces(self.wanted):
            logits_BPV = found["token_logits_BPV"]
            batch, found["replaced_BT"] = replace(self, batch, logits_BPV, self.temperature)
        tables = {"gdes": "delta", "es": "none", "nes": "own"}[self.sharing]
        absolute = "input" if self.absolute == "input" else "none"
        embeddings = self._embeddings("embeddings", absolute, tables)
        beneath_BTE = None
        if self.sharing != "nes":
            beneath_BTE = theirs.looked_up(batch)
        if self.sharing == "gdes":
            beneath_BTE = jax.lax.stop_gradient(beneath_BTE)
        first_BTD = embeddings(batch, beneath_BTE, train=train)
        encoder = self._encoder("discriminator", self.layers, shape_of(self))
        read = encoder(first_BTD, batch, train=train)
        return Outputs(
            hidden_BTD=read.top_BTD,
            layers=(first_BTD, *read.each_LBTD) if "layers" in wanted else None,
            scores=read.scores if "scores" in wanted else None,
            **found,
            **heads.of_discriminator(read.top_BTD, batch, None),
        )

    def _generate(self, embeddings: DebertaEmbeddings, batch: Corrupted, train: bool) -> jax.Array:
        """The generator's states, from which tokens are predicted: [B, T, D]."""
        decodes = self.absolute == "decoder"
        layers = self.generator_layers or max(1, self.layers // 2)
        shape = dataclasses.replace(shape_of(self), scores=False)
        encoder = self._encoder("generator", layers, shape, decodes)
        read = encoder(embeddings(batch, train=train), batch, train=train)
        if not decodes:
            return read.top_BTD
        positions_BTD = embeddings.position(batch.positions_BT)
        return encoder.decode(read.below_BTD, positions_BTD, batch, train=train)

    def _embeddings(self, name: str, absolute: Absolute, tables: Any) -> DebertaEmbeddings:
        return DebertaEmbeddings(
            self.vocab_size,
            self.positions,
            self.segments,
            shape_of(self),
            absolute,
            self.embedding or self.width,
            tables,
            name=name,
        )

    def _encoder(
        self, name: str, layers: int, shape: Shape, decodes: bool = False
    ) -> DebertaEncoder:
        turns = layers if self.unroll >= self.layers else self.unroll
        return DebertaEncoder(
            layers, shape, decodes, self.convolution, turns, self.remat, name=name
        )
