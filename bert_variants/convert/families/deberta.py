"""DeBERTa v1 (``deberta`` in transformers), v2 and v3 (``deberta-v2``).

Released files hold the head for masked tokens as ``lm_predictions.lm_head``, which transformers
reads where config.json says ``"legacy": false``; ``cls.predictions`` is its older spelling. Neither
class of transformers has the Enhanced Mask Decoder: hidden states, attention and other heads are
equal on both sides, token logits where ``absolute`` is not ``decoder``. The table of positions that
only the decoder reads stands in the file all the same; transformers passes it over.

A released v3 is a discriminator, with its head for replaced tokens as ``mask_predictions``. Our
``deberta_rtd`` holds a generator too, and is written as two directories of ``deberta`` (see
``convert/deberta_pairs.py``).
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import numpy as np

from bert_variants import registry
from bert_variants.convert import deberta_pairs
from bert_variants.convert.deberta_fields import (
    KNOWN,
    KNOWN_V2,
    V1,
    V2,
    arguments,
    fits_v1,
    fits_v2,
    older,
    said,
)
from bert_variants.convert.families.bert import (
    BUFFERS,
    FIELDS,
    TASKS,
    TIED,
    dense,
    norm,
    projection,
    tied,
)
from bert_variants.convert.family import Architecture, Family
from bert_variants.convert.fields import Field
from bert_variants.convert.rules import TRANSPOSED, Change, Constant, Rule, Shape, Table
from bert_variants.ops import disentangled

TRUNK = "deberta."
LAYER = f"{TRUNK}encoder.layer.{{layer}}"
HEAD, OLD_HEAD, JUDGE = "lm_predictions.lm_head", "cls.predictions", "mask_predictions"
NOT_REPLACED = "nothing of this model tells which tokens were replaced"
POOLER = (r"^pooler\.", "the pooler of a task, which this project has no head for")
KEY_OF_DISTANCE = "it adds one number to all scores of a query, which changes no attention"


def fused(heads: int) -> Change:
    """v1's one projection: the rows of query, key and value of the first head, of the second, ...

    Ours are three kernels [in, out]; theirs is [3 * out, in].
    """

    def out(*ours: np.ndarray) -> np.ndarray:
        width = ours[0].shape[0]
        parts = [kernel.T.reshape(heads, -1, width) for kernel in ours]
        return np.stack(parts, axis=1).reshape(-1, width)

    def back(theirs: np.ndarray) -> tuple[np.ndarray, ...]:
        width = theirs.shape[1]
        parts = theirs.reshape(heads, 3, -1, width)
        return tuple(parts[:, i].reshape(-1, width).T for i in range(3))

    def shape(query: Shape, *_: Shape) -> Shape:
        return (3 * query[1], query[0])

    return Change("joined head by head", shape, out, back)


def _attention_v1(ours: str, theirs: str, heads: int) -> tuple[Rule, ...]:
    kernels = tuple(f"{ours}/{part}/kernel" for part in ("query", "key", "value"))
    return (
        Rule(kernels, f"{theirs}.in_proj.weight", fused(heads)),
        Rule(f"{ours}/query/bias", f"{theirs}.q_bias"),
        Rule(f"{ours}/value/bias", f"{theirs}.v_bias"),
        Rule(f"{ours}/relative_key/kernel", f"{theirs}.pos_proj.weight", TRANSPOSED),
        *dense(f"{ours}/relative_query", f"{theirs}.pos_q_proj"),
    )


def _attention_v2(ours: str, theirs: str) -> tuple[Rule, ...]:
    parts = ("query", "key", "value")
    return (
        *(rule for part in parts for rule in dense(f"{ours}/{part}", f"{theirs}.{part}_proj")),
        Rule(f"{ours}/relative_key/kernel", f"{theirs}.pos_key_proj.weight", TRANSPOSED),
        *dense(f"{ours}/relative_query", f"{theirs}.pos_query_proj"),
    )


def _keys_of_distances(call: registry.Call) -> tuple[Constant, ...]:
    """The biases of v2's layer for keys of distances, which ours has without one, as v1 has."""
    relative = disentangled.read(call.argument("relative"))
    if relative is None or relative.projections == "shared" or "c2p" not in relative.terms:
        return ()
    name, width = f"{LAYER}.attention.self.pos_key_proj.bias", call.argument("width")
    return tuple(
        Constant(name.replace("{layer}", str(layer)), (width,), "", harmless=KEY_OF_DISTANCE)
        for layer in range(call.argument("layers"))
    )


def _tables(call: registry.Call) -> tuple[Rule, ...]:
    theirs = f"{TRUNK}embeddings"
    copy = tied(call, f"{OLD_HEAD}.decoder.weight")
    return (
        Rule("embeddings/word/embedding", f"{theirs}.word_embeddings.weight", also=copy),
        Rule("embeddings/position/embedding", f"{theirs}.position_embeddings.weight"),
        Rule("embeddings/segment/embedding", f"{theirs}.token_type_embeddings.weight"),
        Rule("embeddings/widen/kernel", f"{theirs}.embed_proj.weight", TRANSPOSED),
        *norm("embeddings/norm", f"{theirs}.LayerNorm"),
    )


def _encoder(version: str, heads: int) -> tuple[Rule, ...]:
    at, theirs, around = "encoder/layers", f"{LAYER}.attention", f"{TRUNK}encoder"
    attention = (
        _attention_v1(f"{at}/attention", f"{theirs}.self", heads)
        if version == V1
        else _attention_v2(f"{at}/attention", f"{theirs}.self")
    )
    return (
        *attention,
        *dense(f"{at}/attention/out", f"{theirs}.output.dense"),
        *norm(f"{at}/attention_norm", f"{theirs}.output.LayerNorm"),
        *dense(f"{at}/ffn/wide", f"{LAYER}.intermediate.dense"),
        *dense(f"{at}/ffn/narrow", f"{LAYER}.output.dense"),
        *norm(f"{at}/ffn_norm", f"{LAYER}.output.LayerNorm"),
        Rule("encoder/relative/embedding", f"{around}.rel_embeddings.weight"),
        *norm("encoder/relative/norm", f"{around}.LayerNorm"),
        # [K, in, out] and [out, in, K]
        Rule("encoder/conv/kernel", f"{around}.conv.conv.weight", TRANSPOSED),
        Rule("encoder/conv/bias", f"{around}.conv.conv.bias"),
        *norm("encoder/conv/norm", f"{around}.conv.LayerNorm"),
    )


def _token_head(call: registry.Call) -> tuple[Rule, ...]:
    """The head for masked tokens: written in one of two spellings, read in both.

    The older one alone may have a table of its own.
    """
    new = _spelled(f"{HEAD}.dense", f"{HEAD}.LayerNorm", f"{HEAD}.bias")
    old = _spelled(
        f"{OLD_HEAD}.transform.dense",
        f"{OLD_HEAD}.transform.LayerNorm",
        f"{OLD_HEAD}.bias",
        f"{OLD_HEAD}.decoder.bias",
    )
    if not call.argument("tied"):
        return (*old[:-1], *projection(call, OLD_HEAD))
    first, second = (old, new) if older(call) else (new, old)
    return tuple(
        dataclasses.replace(a, also=(*a.also, *b.names)) for a, b in zip(first, second, strict=True)
    )


def _spelled(transform: str, layer_norm: str, bias: str, *copies: str) -> tuple[Rule, ...]:
    return (
        *dense("heads/tokens/dense", transform),
        *norm("heads/tokens/norm", layer_norm),
        Rule("heads/tokens/bias", bias, also=copies),
    )


def _judge() -> tuple[Rule, ...]:
    """The head for replaced tokens; the published code once spelled its last layer otherwise."""
    at, output = "heads/replaced", "heads/replaced/output"
    return (
        *norm(f"{at}/norm", f"{JUDGE}.LayerNorm", NOT_REPLACED),
        *dense(f"{at}/dense", f"{JUDGE}.dense", NOT_REPLACED),
        *(
            dataclasses.replace(rule, also=(rule.theirs.replace("classifier", "classifer"),))
            for rule in dense(output, f"{JUDGE}.classifier", NOT_REPLACED)
        ),
    )


def table(version: str, call: registry.Call) -> Table:
    """The rules of a ``deberta``, in the form of v1 or of v2."""
    return Table(
        rules=(
            *_tables(call),
            *_encoder(version, call.argument("heads")),
            *_token_head(call),
            *_judge(),
        ),
        ignored=(BUFFERS, TASKS, POOLER),
        constants=_keys_of_distances(call) if version == V2 else (),
        prefix=TRUNK,
    )


def _fields(**defaults: Any) -> tuple[Field, ...]:
    usual = {"layer_norm_eps": 1e-7} | defaults
    return (
        *(dataclasses.replace(f, default=usual.get(f.theirs, f.default)) for f in FIELDS),
        Field("max_position_embeddings", "positions", 512),
        Field("type_vocab_size", "segments", 0),
        TIED,
    )


_ONE = Family(
    model_type=V1,
    model="deberta",
    config="deberta",
    fields=_fields(),
    fixed={"talking_head": (False,)},
    known=KNOWN,
    table=functools.partial(table, V1),
    architectures=(
        Architecture("DebertaForMaskedLM", frozenset({"tokens"})),
        Architecture("DebertaModel", frozenset()),
    ),
    objectives=deberta_pairs.OBJECTIVES,
    arguments=functools.partial(arguments, V1),
    settings=said,
    fits=fits_v1,
    split=deberta_pairs.split,
    again=deberta_pairs.read_again,
    join=deberta_pairs.joined,
)
_TWO = dataclasses.replace(
    _ONE,
    model_type=V2,
    fields=_fields(
        num_hidden_layers=24, hidden_size=1536, num_attention_heads=24, intermediate_size=6144
    ),
    fixed={"conv_groups": (1,)},
    known=(*KNOWN, *KNOWN_V2),
    table=functools.partial(table, V2),
    architectures=(
        Architecture("DebertaV2ForMaskedLM", frozenset({"tokens"})),
        Architecture("DebertaV2Model", frozenset()),
    ),
    arguments=functools.partial(arguments, V2),
    fits=fits_v2,
)
# No directory is of this type: the model is written as two of the others.
_PAIR = dataclasses.replace(
    _TWO, model_type="deberta-rtd", model="deberta_rtd", fits=lambda call, heads: ""
)
FAMILIES = (_ONE, _TWO, _PAIR)
