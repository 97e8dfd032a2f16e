"""XLNet (Yang et al. 2019, arXiv 1906.08237; zihangdai/xlnet:modeling.py)."""

from __future__ import annotations

from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from bert_variants.models import recurrence
from bert_variants.models.bert import RESERVED
from bert_variants.models.heads import ClassHead, Pooler, tied_logits
from bert_variants.models.layers import INITIALISERS, Dropout, Shape, Table
from bert_variants.models.recurrence import Memory
from bert_variants.models.relative import Around, RelativeEncoder, Stream
from bert_variants.ops import permutation, relative
from bert_variants.ops.placement import keep_rows, place
from bert_variants.ops.precision import PRECISIONS
from bert_variants.registry import register
from bert_variants.types import Batch, Corrupted, Leaf, Outputs

# Everything that both models of distances have; see ``layers.RULES``.
RULES: tuple[tuple[str, PartitionSpec], ...] = (
    (r"layers/.*(query|key|value|relative|wide)/kernel$", PartitionSpec(None, "fsdp", "tensor")),
    (r"layers/.*wide/bias$", PartitionSpec(None, "tensor")),
    (r"layers/.*(out|narrow)/kernel$", PartitionSpec(None, "tensor", "fsdp")),
    (r"layers/.*narrow/bias$", PartitionSpec()),
    (r"norm/(scale|bias)$", PartitionSpec()),
    (r"query_(content|position|segment)$", PartitionSpec()),
    (r"(word|table)/embedding$", PartitionSpec("tensor", "fsdp")),
    (r"heads/tokens/bias$", PartitionSpec("tensor")),
)


@register(
    "model",
    name="xlnet",
    outputs=(
        "hidden_BTD",
        "layers",
        "scores",
        "pooled_BD",
        "token_logits_BPV",
        "pair_logits_BC",
    ),
    reads=("order_BT",),
    recurrent=True,
    reserved=RESERVED,
    rules=(
        *RULES,
        (r"layers/attention/segments$", PartitionSpec()),
        (r"(^|/)start$", PartitionSpec()),
        (r"heads/pooler/dense/kernel$", PartitionSpec("fsdp", "tensor")),
        (r"heads/pooler/dense/bias$", PartitionSpec("tensor")),
        (r"heads/pair/output/kernel$", PartitionSpec("fsdp", None)),
        (r"heads/pair/output/bias$", PartitionSpec()),
    ),
)
class XLNet(nn.Module):
    """Two streams that share all weights: states of the tokens, and predictions of some of them.

    The content stream starts from the word table alone (no positions, segments or LayerNorm: those
    are distances and "same segment or not" within the attention). The query stream starts from one
    learned vector at each position to predict and reads the content stream; it exists only where
    token logits are wanted. Who reads whom follows from ``order_BT`` (see ``ops/permutation.py``);
    without one every token reads all, and a prediction all but its own position; see ``masked``.

    The official code scatters the P queries to T positions, attends, and gathers P again; here P
    queries attend, with the same numbers.

    A row's vector is that of its last token: [CLS] stands at the end, and rows for classification
    are padded in front (zihangdai/xlnet:classifier_utils.py); here padding may be on either side.

    A row whose label ``backward`` is 1 holds its text in reverse order; its distances are negated,
    so that a token to the left is one that stands later in the text (``bi_data``).

    Memory: see ``recurrence``. It counts as segment 0. It starts empty; the released code starts
    with zeros, to which the first rows attend.

    Attributes:
        layers, width, heads, ffn: L, D, N, F; ffn 0 is 4 * width.
        positions: the longest row that a run may have; nothing in the model depends on it.
        memory: M, how many positions are remembered; 0: none.
        reuse: the first so many positions of a row are remembered; 0: all.
        clamp: distances beyond it count as it; 0: none does.
        untie: whether u, v and s are each layer's own.
        masked: where the rows have no order, whether what stands at predicted positions is ``read``
            by the other tokens, as [MASK] is in a denoising model, or ``hidden`` from all of them,
            as it is in a permuted order. One that was trained on orders has never seen a [MASK]:
            the masks that judge every model alike want ``hidden`` then.
        dropout, attention_dropout: rates.
        inner_dropout: behind the activation of the feed-forward layers. The paper's table has none
            there, its code the common rate.
        eps: of the LayerNorms.
        activation: gelu_tanh in the released models; relu is the code's default.
        tied: as ``Bert``'s.
        initialiser: of everything but biases of dense layers (0), scales (1) and the query
            stream's start (Glorot's): normal of deviation 0.02.
        vocab_size, wanted, precision, unroll, remat: set by the project.
    """

    layers: int = 12
    width: int = 768
    heads: int = 12
    ffn: int = 0
    positions: int = 512
    memory: int = 384
    reuse: int = 0
    clamp: int = 0
    untie: bool = True
    masked: Literal["read", "hidden"] = "read"
    dropout: float = 0.1
    attention_dropout: float = 0.1
    inner_dropout: float = 0.1
    eps: float = 1e-12
    activation: str = "gelu_tanh"
    tied: bool = True
    initialiser: Literal["truncated_normal", "normal"] = "normal"
    vocab_size: int = 0
    wanted: tuple[tuple[str, int], ...] = ()
    precision: str = "float32"
    unroll: int = 1
    remat: bool = False

    @nn.nowrap
    def carry(self, rows: int) -> dict[str, Leaf] | None:
        """The memory of ``rows`` rows before anything was read; see ``recurrence``."""
        return recurrence.empty(rows, self.layers, self.memory, self.width, self.precision)

    @nn.nowrap
    def shape(self) -> Shape:
        """What the layers have in common."""
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
        )

    @nn.compact
    def __call__(self, batch: Batch | Corrupted, *, train: bool = False) -> Outputs:
        """Outputs for rows of any length."""
        shape, wanted = self.shape(), dict(self.wanted)
        drop = Dropout(self.dropout, name="input_dropout")
        word = Table(self.vocab_size, self.width, "tensor", shape.initialiser, name="word")
        active = PRECISIONS[self.precision].activations
        xs = (keep_rows(drop(word(batch.inputs_BT).astype(active), train=train)),)
        predicts = "token_logits_BPV" in wanted and batch.at_BP is not None
        if "token_logits_BPV" in wanted:
            start = self.param("start", nn.initializers.glorot_uniform(), (1, 1, self.width))
        if predicts:
            queries = (*batch.at_BP.shape, self.width)
            start_BPD = jnp.broadcast_to(start.astype(active), queries)
            xs = (*xs, keep_rows(drop(start_BPD, train=train)))
        memory = recurrence.recall(batch, self.reuse)
        length = batch.inputs_BT.shape[1]
        keys = length if memory is None else length + memory.states_BLMD.shape[2]
        table_RD = relative.sinusoids(relative.distances(length, keys), self.width, self.clamp)
        around = Around(
            place(drop(table_RD.astype(active), train=train)),
            _streams(batch, memory, predicts, self.masked == "hidden"),
            backward_B=batch.labels["backward"] != 0 if "backward" in batch.labels else None,
        )
        encoder = RelativeEncoder(
            self.layers,
            (shape, True, self.inner_dropout),
            tied=not self.untie,
            reuse=self.reuse,
            unroll=self.unroll,
            remat=self.remat,
            name="encoder",
        )
        tops, (each_LBTD, scores, states) = encoder(xs, memory, around, train=train)
        out = Dropout(self.dropout, name="output_dropout")
        last_BD = out(last_token(tops[0], batch.valid_BT), train=train)
        read_BPD = out(tops[1], train=train) if predicts else None
        added = XLNetHeads(self.wanted, shape, self.vocab_size, self.tied, name="heads")(
            last_BD, read_BPD, word.weights()
        )
        return Outputs(
            hidden_BTD=tops[0],
            layers=(xs[0], *each_LBTD) if "layers" in wanted else None,
            scores=scores,
            carry=recurrence.carry_of(memory, states),
            **added,
        )


def _streams(
    batch: Batch | Corrupted, memory: Memory | None, predicts: bool, hidden: bool
) -> tuple[Stream, ...]:
    """How the content stream, and the query stream if there is one, read the keys."""
    order_BT = batch.order_BT if isinstance(batch, Corrupted) else None
    if hidden and order_BT is None and batch.at_BP is not None:
        length = batch.inputs_BT.shape[1]
        order_BT = permutation.predicted_last(batch.at_BP, batch.weights_BP, length)
    segments_BK = batch.segments_BT
    if memory is not None:
        size = memory.states_BLMD.shape[2]
        segments_BK = jnp.pad(segments_BK, [(0, 0), (size, 0)])  # of segment 0

    def stream(visible_BQT: Leaf, segments_BQ: Leaf, at_BP: Leaf = None) -> Stream:
        other_BQK = segments_BQ[:, :, None] != segments_BK[:, None, :]
        return Stream(recurrence.with_memory(visible_BQT, memory), other_BQK, at_BP)

    content = permutation.content_visible(batch.valid_BT, order_BT, batch.packs_BT)
    streams = (stream(content, batch.segments_BT),)
    if predicts:
        at_BP = batch.at_BP
        query = permutation.query_visible(at_BP, batch.valid_BT, order_BT, batch.packs_BT)
        segments_BP = jnp.take_along_axis(batch.segments_BT, at_BP, axis=1)
        streams = (*streams, stream(query, segments_BP, at_BP))
    return streams


def last_token(hidden_BTD: Leaf, valid_BT: Leaf) -> jax.Array:
    """The state of each row's last token [B, D]; of a row of padding, of its first position."""
    column_T = jnp.arange(valid_BT.shape[1], dtype=jnp.int32)
    last_B = jnp.max(jnp.where(valid_BT, column_T[None, :], 0), axis=1)
    return jnp.take_along_axis(hidden_BTD, last_B[:, None, None], axis=1)[:, 0]


class OutputBias(nn.Module):
    """Logits by the rows of a table and a bias, without a layer in between.

    Attributes:
        vocab_size: V.
        precision: see ops/precision.py.
        own: how a table of its own starts; None: the table of words is used.
    """

    vocab_size: int
    precision: str
    own: Any = None

    @nn.compact
    def __call__(self, x_BPD: Leaf, table_VD: Leaf) -> jax.Array:
        """float32 [B, P, V]."""
        if self.own is not None:
            table = Table(*table_VD.shape, "tensor", initialiser=self.own, name="table")
            table_VD = table.weights()
        bias = self.param("bias", nn.initializers.zeros, (self.vocab_size,), jnp.float32)
        return tied_logits(x_BPD, table_VD, bias, self.precision)


class XLNetHeads(nn.Module):
    """The heads that the objectives ask for, and no others."""

    wanted: tuple[tuple[str, int], ...]
    shape: Shape
    vocab_size: int
    tied: bool = True

    def setup(self) -> None:
        wanted = dict(self.wanted)
        if "token_logits_BPV" in wanted:
            own = None if self.tied else self.shape.initialiser
            self.tokens = OutputBias(self.vocab_size, self.shape.precision, own)
        if "pooled_BD" in wanted or "pair_logits_BC" in wanted:
            self.pooler = Pooler(self.shape)
        if "pair_logits_BC" in wanted:
            self.pair = ClassHead(self.shape, wanted["pair_logits_BC"])

    def __call__(self, last_BD: Leaf, read_BPD: Leaf, table_VD: Leaf) -> dict[str, jax.Array]:
        """Outputs by name; token logits where there is a query stream."""
        wanted, added = dict(self.wanted), {}
        if "token_logits_BPV" in wanted:
            if read_BPD is not None:
                added["token_logits_BPV"] = self.tokens(read_BPD, table_VD)
            elif self.is_initializing():  # the parameters are made, whatever the rows hold
                self.tokens(last_BD[:, None], table_VD)
        if "pooled_BD" in wanted or "pair_logits_BC" in wanted:
            added["pooled_BD"] = self.pooler(last_BD[:, None])
        if "pair_logits_BC" in wanted:
            added["pair_logits_BC"] = self.pair(added["pooled_BD"])
        return added
