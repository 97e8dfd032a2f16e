"""ELECTRA (Clark et al. 2020, arXiv 2003.10555; google-research/electra:run_pretraining.py)."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

import flax.linen as nn
import jax
from jax.sharding import PartitionSpec

from bert_variants.models.bert import RESERVED, check_relative
from bert_variants.models.detection import (
    OF_REPLACED,
    DetectionHeads,
    Generator,
    generates,
    glorot,
    replaces,
)
from bert_variants.models.encoder import Encoder
from bert_variants.models.heads import HEADS
from bert_variants.models.layers import INITIALISERS, RULES, Dense, Embeddings, Shape
from bert_variants.models.replacing import replace, with_a_slot
from bert_variants.ops import disentangled
from bert_variants.ops.attention import visible
from bert_variants.ops.placement import keep_rows
from bert_variants.registry import Call, RegistryError, register
from bert_variants.types import Batch, Corrupted, Leaf, Outputs

_GENERATOR_SIZES = ("generator_width", "generator_layers", "generator_heads", "generator_ffn")


def _check(call: Call) -> None:
    check_relative(call)
    temperature, tying = call.argument("temperature"), call.argument("tying")
    if temperature <= 0:
        raise RegistryError(f"model '{call}': temperature is {temperature}, expected above 0.")
    kind = call.argument("generator")
    if kind != "network" and tying != "embeddings":
        raise RegistryError(
            f"model '{call}': tying is {tying!r}, but a {kind} generator has nothing to tie. Leave "
            "it out."
        )
    for name in _GENERATOR_SIZES if kind != "network" or tying == "all" else ():
        if call.argument(name):
            why = "it is the discriminator" if tying == "all" else f"it is a {kind} distribution"
            raise RegistryError(
                f"model '{call}': {name} is {call.argument(name)}, but the generator has no size "
                f"of its own: {why}. Leave it out."
            )


class Reader(nn.Module):
    """A network above its tables: a dense layer from E to D where they differ, and an encoder.

    Attributes:
        layers: L.
        shape: of the encoder.
        unroll, remat: as ``Encoder``'s.
    """

    layers: int
    shape: Shape
    unroll: int = 1
    remat: bool = False

    @nn.compact
    def __call__(
        self, x_BTE: Leaf, visible_BNTT: Leaf, *, train: bool
    ) -> tuple[jax.Array, jax.Array, tuple[jax.Array, jax.Array | None]]:
        """What the lowest layer reads [B, T, D], and the results of ``Encoder``."""
        shape = self.shape
        if x_BTE.shape[-1] != shape.width:
            project = Dense(shape.width, shape.precision, initialiser=glorot, name="project")
            x_BTE = keep_rows(project(x_BTE))
        encoder = Encoder(self.layers, shape, self.unroll, self.remat, name="encoder")
        return x_BTE, *encoder(x_BTE, visible_BNTT, train=train)


@register(
    "model",
    name="electra",
    outputs=("hidden_BTD", "layers", "scores", *HEADS, *OF_REPLACED),
    reserved=RESERVED,
    check=_check,
    rules=(
        *RULES,
        (r"project/kernel$", PartitionSpec("fsdp", "tensor")),
        (r"project/bias$", PartitionSpec("tensor")),
    ),
)
class Electra(nn.Module):
    """A small generator that fills in masked tokens, and a discriminator that reads what it wrote.

    The generator reads the corrupted rows and predicts the hidden tokens (``token_logits_BPV``:
    ``mlm`` trains it). From its distribution one id is drawn for each predicted position and put
    into the *original* text, so that the discriminator sees neither [MASK] nor the corruption's
    other changes. All other outputs are the discriminator's: hidden states, layers, scores, pooled
    vector, and ``replaced_logits_BT``, of which ``replaced_BT`` is the truth. Drawing passes no
    gradient; what the two networks share is trained by both, as published.

    The discriminator reads the rows as they are given where there is nothing to put in (a plain
    Batch), or where no wanted output is about replaced tokens (``mlm + nsp``).

    Both are BERTs without a pooler (one is made if an objective reads it). Where E is not a
    network's width, a dense layer with bias stands between, one for each network.

    Attributes:
        layers, width, heads, ffn: L, D, N, F of the discriminator; ffn 0 is 4 * width.
        embedding: E; 0 is the discriminator's width.
        generator: what draws the samples. ``network``; or without context: ``unigram``, one
            learned bias over the vocabulary, which with ``run.output_bias='unigram'`` starts at
            the corpus's log frequencies and, without ``mlm``, stays there (the paper's unigram
            generator); or ``uniform``, where all ids are alike and nothing is learned.
        generator_width: 0 is a quarter of ``width``, as published for small and large (base has a
            third: 256).
        generator_layers: 0 is ``layers``: the published generators are narrow, not shallow.
        generator_heads: 0 is one for each 64 of its width, at least one.
        generator_ffn: 0 is 4 times its width.
        tying: what the two networks share. ``embeddings``: the tables of words, segments and
            positions, and their LayerNorm; ``none``: the generator has its own, as wide as itself;
            ``all``: they are one network with two heads.
        temperature: of the draws.
        disallow_correct: never draw the original token.
        positions, first_position, segments, dropout, attention_dropout, eps, activation,
            initialiser, relative: as ``Bert``'s, of both. The dense layers behind the tables and
            the one in front of a single logit start as TensorFlow's do (Glorot, uniform).
        vocab_size, wanted, precision, unroll, remat: set by the project.
    """

    layers: int = 12
    width: int = 768
    heads: int = 12
    ffn: int = 0
    embedding: int = 0
    generator: Generator = "network"
    generator_width: int = 0
    generator_layers: int = 0
    generator_heads: int = 0
    generator_ffn: int = 0
    tying: Literal["embeddings", "none", "all"] = "embeddings"
    temperature: float = 1.0
    disallow_correct: bool = False
    positions: int = 512
    first_position: int = 0
    segments: int = 2
    dropout: float = 0.1
    attention_dropout: float = 0.1
    eps: float = 1e-12
    activation: str = "gelu_erf"
    initialiser: Literal["truncated_normal", "normal"] = "truncated_normal"
    relative: str = ""
    vocab_size: int = 0
    wanted: tuple[tuple[str, int], ...] = ()
    precision: str = "float32"
    unroll: int = 1
    remat: bool = False

    @nn.compact
    def __call__(self, batch: Batch | Corrupted, *, train: bool = False) -> Outputs:
        """Outputs for rows of any length up to ``positions``.

        Raises:
            ValueError: predictions from span boundaries are wanted of a generator that reads none.
        """
        if self.is_initializing():
            batch = with_a_slot(batch)
        shape, writer = self._shape(), self._writer()
        embeddings = self._embeddings(self.embedding or self.width, "embeddings")
        discriminator = Reader(self.layers, shape, self.unroll, self.remat, name="discriminator")
        own_tables = self.tying == "none" and self.generator == "network"
        heads = DetectionHeads(
            self.wanted,
            self.vocab_size,
            self.generator,
            writer,
            writer.width if own_tables else self.embedding or self.width,
            shape,
            self.embedding or self.width,
            name="heads",
        )
        seen = visible(batch.valid_BT, batch.packs_BT)
        found: dict[str, Any] = {}
        if batch.at_BP is not None and self._generates():
            hidden_BTD = table_VE = None
            if self.generator == "network":
                tables, network = self._generator(embeddings, discriminator)
                _, hidden_BTD, _ = network(tables(batch, train=train), seen, train=train)
                table_VE = tables.word.weights()
            found = heads.of_generator(hidden_BTD, batch, table_VE)
        if batch.at_BP is not None and replaces(self.wanted):
            batch, found["replaced_BT"] = replace(
                self,
                batch,
                found["token_logits_BPV"],
                self.temperature,
                disallow_correct=self.disallow_correct,
            )
        first_BTD, top_BTD, (each_LBTD, scores) = discriminator(
            embeddings(batch, train=train), seen, train=train
        )
        found |= heads.of_discriminator(top_BTD, batch, embeddings.word.weights())
        layers = (first_BTD, *each_LBTD) if "layers" in dict(self.wanted) else None
        return Outputs(hidden_BTD=top_BTD, layers=layers, scores=scores, **found)

    def _shape(self) -> Shape:
        """Of the discriminator."""
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
            relative=disentangled.read(self.relative),
        )

    def _writer(self) -> Shape:
        """Of the generator."""
        if self.tying == "all":
            return self._shape()
        width = self.generator_width or max(1, round(self.width / 4))
        return dataclasses.replace(
            self._shape(),
            width=width,
            heads=self.generator_heads or max(1, width // 64),
            ffn=self.generator_ffn or 4 * width,
            scores=False,
        )

    def _embeddings(self, width: int, name: str) -> Embeddings:
        shape = dataclasses.replace(self._shape(), width=width, heads=1)  # no heads divide E
        return Embeddings(
            self.vocab_size,
            self.positions,
            self.segments,
            shape,
            self.first_position,
            name=name,
        )

    def _generates(self) -> bool:
        """Whether anything is wanted of the generator."""
        spans = "span_logits_BPV" in dict(self.wanted)
        if spans and self.generator != "network":
            raise ValueError(
                f"span_logits_BPV is wanted, but a {self.generator} generator reads no text: take "
                "generator='network'."
            )
        return generates(self.wanted)

    def _generator(
        self, embeddings: Embeddings, discriminator: Reader
    ) -> tuple[Embeddings, Reader]:
        """The generator's tables and network, which may be the discriminator's."""
        if self.tying == "all":
            return embeddings, discriminator
        writer = self._writer()
        if self.tying == "none":
            embeddings = self._embeddings(writer.width, "generator_embeddings")
        layers = self.generator_layers or self.layers
        return embeddings, Reader(layers, writer, self.unroll, self.remat, name="generator")
