"""DeBERTa (He et al. 2020, arXiv 2006.03654; microsoft/DeBERTa)."""

from __future__ import annotations

import dataclasses
from typing import Literal

import flax.linen as nn

from bert_variants.models.bert import RESERVED
from bert_variants.models.deberta_layers import (
    Absolute,
    DebertaEmbeddings,
    DebertaEncoder,
    ReplacedFromSum,
)
from bert_variants.models.heads import HEADS, Heads
from bert_variants.models.layers import INITIALISERS, RULES, Shape
from bert_variants.ops import disentangled
from bert_variants.registry import Call, RegistryError, register
from bert_variants.types import Batch, Corrupted, Leaf, Outputs


def check(call: Call) -> None:
    """Refuse fields of a DeBERTa that do not fit each other."""
    disentangled.read(call.argument("relative"))
    width = call.argument("convolution")
    if width < 0 or (width and width % 2 == 0):
        raise RegistryError(
            f"model '{call}': convolution is {width}, expected an odd number of tokens, or 0."
        )


@register(
    "model",
    name="deberta",
    outputs=("hidden_BTD", "layers", "scores", *HEADS, "replaced_logits_BT"),
    reserved=RESERVED,
    check=check,
    rules=RULES,
)
class Deberta(nn.Module):
    """A post-LN encoder whose attention knows distances; positions stand in no token.

    What differs from BERT: the attention (``relative``), no segments, zeros at padding behind the
    tables' LayerNorm, a plain normal start, exact GELU, an eps of 1e-7, and a pooler with GELU.
    Absolute positions enter late: the head for masked tokens reads the Enhanced Mask Decoder, which
    is the last layer applied twice to queries that have them (``DebertaEncoder.decode``).
    ``hidden_BTD`` and ``layers`` are of the plain stack, and so is what other heads read.

    The versions are settings of this one model. v1: ``relative='deberta_v1', key_bias=False``;
    v2 and v3: ``relative='deberta_v2'``, and ``convolution=3`` for v2's two largest. A released v3
    is the discriminator of a ``deberta_rtd`` alone: ``replaced_logits_BT`` is its own head.

    Attributes:
        layers, width, heads, ffn: L, D, N, F; ffn 0 is 4 * width.
        embedding: E; 0 is D. Else a dense layer without bias stands in front of the LayerNorm.
        relative: the attention; see ``ops.disentangled.read``.
        key_bias: whether the keys' dense layer has a bias.
        absolute: where positions counted from the row's start go: to the ``decoder``; to the
            ``input``, as in BERT, and then there is no decoder; or ``none``, which is the form that
            is fine-tuned.
        convolution: how many tokens the convolution beside the lowest layer reads; 0: none.
        positions: rows of the table of absolute positions, the longest row of tokens.
        segments: rows of the segment table; 0: no table.
        dropout, attention_dropout, eps, activation, initialiser, tied: as ``Bert``'s.
        vocab_size, wanted, precision, unroll, remat: set by the project.
    """

    layers: int = 12
    width: int = 768
    heads: int = 12
    ffn: int = 0
    embedding: int = 0
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
    tied: bool = True
    vocab_size: int = 0
    wanted: tuple[tuple[str, int], ...] = ()
    precision: str = "float32"
    unroll: int = 1
    remat: bool = False

    @nn.compact
    def __call__(self, batch: Batch | Corrupted, *, train: bool = False) -> Outputs:
        """Outputs for rows of any length, up to ``positions`` where those enter."""
        wanted = dict(self.wanted)
        shape = shape_of(self)
        embeddings = DebertaEmbeddings(
            self.vocab_size,
            self.positions,
            self.segments,
            shape,
            self.absolute,
            self.embedding or self.width,
            name="embeddings",
        )
        encoder = DebertaEncoder(
            self.layers,
            shape,
            self.absolute == "decoder",
            self.convolution,
            self.unroll,
            self.remat,
            name="encoder",
        )
        first_BTD = embeddings(batch, train=train)
        read = encoder(first_BTD, batch, train=train)
        decoded_BTD = None
        if self.absolute == "decoder":
            positions_BTD = embeddings.position(batch.positions_BT)
            decoded_BTD = encoder.decode(read.below_BTD, positions_BTD, batch, train=train)
        layers = (first_BTD, *read.each_LBTD) if "layers" in wanted else None
        scores = read.scores if "scores" in wanted else None
        plain = Outputs(hidden_BTD=read.top_BTD, layers=layers, scores=scores)
        width = self.embedding or self.width
        heads = DebertaHeads(self.wanted, shape, width, "gelu_erf", self.tied, name="heads")
        return heads(plain, batch, embeddings.word.weights(), decoded_BTD)


class DebertaHeads(Heads):
    """The heads of any encoder, and that of v3's discriminator."""

    def setup(self) -> None:
        super().setup()
        if "replaced_logits_BT" in dict(self.wanted):
            self.replaced = ReplacedFromSum(self.shape)

    def __call__(
        self,
        outputs: Outputs,
        batch: Batch | Corrupted,
        table_VE: object,
        decoded_BTD: Leaf | None = None,
    ) -> Outputs:
        """As ``Heads``; of the text that is read, which of its tokens were replaced."""
        made = super().__call__(outputs, batch, table_VE, decoded_BTD)
        if "replaced_logits_BT" not in dict(self.wanted):
            return made
        logits_BT = self.replaced(outputs.hidden_BTD, batch)
        return dataclasses.replace(made, replaced_logits_BT=logits_BT)


def shape_of(model: nn.Module) -> Shape:
    """What the layers of a model with the fields of ``Deberta`` have in common."""
    return Shape(
        width=model.width,
        heads=model.heads,
        ffn=model.ffn or 4 * model.width,
        dropout=model.dropout,
        attention_dropout=model.attention_dropout,
        eps=model.eps,
        activation=model.activation,
        precision=model.precision,
        scores="scores" in dict(model.wanted),
        initialiser=INITIALISERS[model.initialiser],
        key_bias=model.key_bias,
        relative=disentangled.read(model.relative),
    )
