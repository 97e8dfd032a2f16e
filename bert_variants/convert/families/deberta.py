"""DeBERTa v1 (``deberta`` in transformers), v2 and v3 (``deberta-v2``).

Released files hold the head for masked tokens as ``lm_predictions.lm_head``, which transformers reads
where config.json says ``"legacy": false``; ``cls.predictions`` is its older spelling. Neither class
of transformers has the Enhanced Mask Decoder: hidden states, attention and other heads are equal on
both sides, token logits where ``absolute`` is not ``decoder``. The table of positions, which only the
decoder reads, stands in the file all the same; transformers passes it over.

Of a released v3 (a discriminator) this reads the encoder. Its head for replaced tokens belongs to a
``deberta_rtd``: see ``families/deberta_rtd.py``.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from bert_variants import registry
from bert_variants.convert.errors import check
from bert_variants.convert.families.bert import BUFFERS, FIELDS, TASKS, dense, norm
from bert_variants.convert.family import Architecture, Family
from bert_variants.convert.fields import Field, Settings
from bert_variants.convert.rules import TRANSPOSED, Change, Rule, Shape, Table
from bert_variants.convert.tensors import Tensors
from bert_variants.ops import disentangled
from bert_variants.types import Vocab

TRUNK = "deberta."
LAYERS = f"{TRUNK}encoder.layer.{{layer}}."
HEAD, OLD_HEAD = "lm_predictions.lm_head", "cls.predictions"
REPLACED = (
    r"^mask_predictions\.",
    "the head for replaced tokens, which a deberta_rtd has",
)
POOLER = (r"^pooler\.", "fine-tuning begins with a pooler of its own")
# A vector that is added to every distance's key adds the same to all scores of a query, which a
# softmax does not see; so ours has none.
KEY_OF_DISTANCE = (
    r"\.attention\.self\.pos_key_proj\.bias$",
    "it adds the same number to all scores of a query, which changes nothing",
)


# ------------------------------------------------------------- rules


def fused(heads: int) -> Change:
    """v1's one projection: the rows of query, key and value of the first head, of the second, ...

    Ours are three kernels [in, out]; theirs is [3 * out, in].
    """

    def out(*ours: np.ndarray) -> np.ndarray:
        width, _ = ours[0].shape
        parts = [kernel.T.reshape(heads, -1, width) for kernel in ours]
        return np.stack(parts, axis=1).reshape(-1, width)

    def back(theirs: np.ndarray) -> tuple[np.ndarray, ...]:
        width = theirs.shape[1]
        parts = theirs.reshape(heads, 3, -1, width)
        return tuple(parts[:, i].reshape(-1, width).T for i in range(3))

    def shape(query: Shape, *_: Shape) -> Shape:
        return (3 * query[1], query[0])

    return Change("joined head by head", shape, out, back)


def _attention_v1(ours: str, theirs: str, call: registry.Call) -> tuple[Rule, ...]:
    kernels = tuple(f"{ours}/{part}/kernel" for part in ("query", "key", "value"))
    return (
        Rule(kernels, f"{theirs}.in_proj.weight", fused(call.argument("heads"))),
        Rule(f"{ours}/query/bias", f"{theirs}.q_bias"),
        Rule(f"{ours}/value/bias", f"{theirs}.v_bias"),
        Rule(f"{ours}/relative_key/kernel", f"{theirs}.pos_proj.weight", TRANSPOSED),
        *dense(f"{ours}/relative_query", f"{theirs}.pos_q_proj"),
    )


def _attention_v2(ours: str, theirs: str, call: registry.Call) -> tuple[Rule, ...]:
    del call
    parts = ("query", "key", "value")
    return (
        *(rule for part in parts for rule in dense(f"{ours}/{part}", f"{theirs}.{part}_proj")),
        Rule(f"{ours}/relative_key/kernel", f"{theirs}.pos_key_proj.weight", TRANSPOSED),
        *dense(f"{ours}/relative_query", f"{theirs}.pos_query_proj"),
    )


ATTENTION = {"deberta": _attention_v1, "deberta-v2": _attention_v2}


def encoder(ours: str, version: str, call: registry.Call) -> tuple[Rule, ...]:
    """The layers, the table of distances and the convolution of an encoder."""
    at, theirs = f"{ours}/layers", LAYERS
    return (
        *ATTENTION[version](f"{at}/attention", f"{theirs}attention.self", call),
        *dense(f"{at}/attention/out", f"{theirs}attention.output.dense"),
        *norm(f"{at}/attention_norm", f"{theirs}attention.output.LayerNorm"),
        *dense(f"{at}/ffn/wide", f"{theirs}intermediate.dense"),
        *dense(f"{at}/ffn/narrow", f"{theirs}output.dense"),
        *norm(f"{at}/ffn_norm", f"{theirs}output.LayerNorm"),
        Rule(f"{ours}/relative/embedding", f"{TRUNK}encoder.rel_embeddings.weight"),
        *norm(f"{ours}/relative/norm", f"{TRUNK}encoder.LayerNorm"),
        # [K, in, out] and [out, in, K]
        Rule(f"{ours}/conv/kernel", f"{TRUNK}encoder.conv.conv.weight", TRANSPOSED),
        Rule(f"{ours}/conv/bias", f"{TRUNK}encoder.conv.conv.bias"),
        *norm(f"{ours}/conv/norm", f"{TRUNK}encoder.conv.LayerNorm"),
    )


def tables(ours: str) -> tuple[Rule, ...]:
    """The tables of words, positions and segments, and what stands behind them."""
    theirs = f"{TRUNK}embeddings"
    copy = (f"{OLD_HEAD}.decoder.weight",)
    return (
        Rule(f"{ours}/word/embedding", f"{theirs}.word_embeddings.weight", also=copy),
        Rule(f"{ours}/position/embedding", f"{theirs}.position_embeddings.weight"),
        Rule(f"{ours}/segment/embedding", f"{theirs}.token_type_embeddings.weight"),
        Rule(f"{ours}/widen/kernel", f"{theirs}.embed_proj.weight", TRANSPOSED),
        *norm(f"{ours}/norm", f"{theirs}.LayerNorm"),
    )


def token_head(call: registry.Call) -> tuple[Rule, ...]:
    """The head for masked tokens, in the spelling that this model's classes read."""
    new = {"dense": f"{HEAD}.dense", "norm": f"{HEAD}.LayerNorm", "bias": (f"{HEAD}.bias",)}
    old = {
        "dense": f"{OLD_HEAD}.transform.dense",
        "norm": f"{OLD_HEAD}.transform.LayerNorm",
        "bias": (f"{OLD_HEAD}.bias", f"{OLD_HEAD}.decoder.bias"),
    }
    first, second = (old, new) if widens(call) else (new, old)
    at = "heads/tokens"
    pairs = zip(
        (*dense(f"{at}/dense", first["dense"]), *norm(f"{at}/norm", first["norm"])),
        (*dense(f"{at}/dense", second["dense"]), *norm(f"{at}/norm", second["norm"])),
        strict=True,
    )
    both = [dataclasses.replace(a, also=(*a.also, *b.names)) for a, b in pairs]
    (written, *others), rest = first["bias"], second["bias"]
    return (*both, Rule(f"{at}/bias", written, also=(*others, *rest)))


def widens(call: registry.Call) -> bool:
    """Whether a dense layer stands between tables of another width and the encoder.

    Of the two heads of transformers only the older one can be as wide as the tables.
    """
    return call.argument("embedding") not in (0, call.argument("width"))


def table(version: str, call: registry.Call) -> Table:
    """The rules of a ``deberta`` in one of the two forms."""
    return Table(
        rules=(
            *tables("embeddings"),
            *encoder("encoder", version, call),
            *token_head(call),
        ),
        ignored=(BUFFERS, TASKS, POOLER, REPLACED, KEY_OF_DISTANCE),
        prefix=TRUNK,
    )


# ------------------------------------------------------------- config.json


def arguments(settings: Settings, found: Tensors) -> dict[str, object]:
    """What of our model several fields of config.json say together.

    Raises:
        ConvertError: lists what ours cannot do.
    """
    v2 = settings.get("model_type", "deberta-v2") == "deberta-v2"
    problems: list[str] = []
    relative = _relative(settings, v2, problems)
    width = settings.get("hidden_size", 1536 if v2 else 768)
    kernel = settings.get("conv_kernel_size", 0) if v2 else 0
    activation = settings.get("hidden_act", "gelu")
    if kernel and settings.get("conv_act", "tanh") != activation:
        problems.append(
            f"conv_act is {settings.get('conv_act', 'tanh')!r}, hidden_act is {activation!r}: ours "
            "has one activation for both."
        )
    if kernel and kernel % 2 == 0:
        problems.append(f"conv_kernel_size is {kernel}, expected an odd number.")
    heads = settings.get("num_attention_heads", 24 if v2 else 12)
    if settings.get("attention_head_size", width // heads) * heads != width:
        problems.append(
            f"attention_head_size is {settings.get('attention_head_size', 0)}, in ours it is "
            f"hidden_size / num_attention_heads, {width / heads:g}."
        )
    if settings.get("pooler_hidden_size", width) != width:
        problems.append(
            f"pooler_hidden_size is {settings.get('pooler_hidden_size', width)}, expected {width}."
        )
    check(f"{settings.where} describes a model that cannot be read", problems)
    embedding = settings.get("embedding_size", width)
    return {
        "relative": relative,
        "key_bias": v2,
        "embedding": 0 if embedding == width else embedding,
        "absolute": _absolute(settings, found),
        "convolution": kernel,
    }


def _relative(settings: Settings, v2: bool, problems: list[str]) -> str:
    """Our call-string for the attention."""
    said = settings.get("pos_att_type", None) or []
    parts = said.lower().split("|") if isinstance(said, str) else said
    terms = [part.strip() for part in parts]
    if not settings.get("relative_attention", False):
        if terms:
            problems.append(
                f"relative_attention is false, but pos_att_type is {said!r}, which changes the "
                "scale of the scores all the same. Ours has no such form."
            )
        return ""
    if not terms or set(terms) - {"c2p", "p2c"} or len(set(terms)) != len(terms):
        problems.append(f"pos_att_type is {said!r}, ours knows 'c2p', 'p2c' and both.")
        return ""
    reach = settings.get("max_relative_positions", -1)
    values = {
        "reach": reach if reach >= 1 else settings.get("max_position_embeddings", 512),
        "terms": "+".join(term for term in ("c2p", "p2c") if term in terms),
    }
    if v2:
        normed = str(settings.get("norm_rel_ebd", "none")).lower().split("|")
        values |= {
            "buckets": max(0, settings.get("position_buckets", -1)),
            "projections": "shared" if settings.get("share_att_key", False) else "own",
            "norm": "layer_norm" in [part.strip() for part in normed],
        }
    preset = "deberta_v2" if v2 else "deberta_v1"
    usual = disentangled.PRESETS[preset]
    other = {name: value for name, value in values.items() if value != getattr(usual, name)}
    written = registry.write(preset, other) if other else preset
    try:
        disentangled.read(written)
    except registry.RegistryError as error:
        problems.append(str(error))
    return written


def _absolute(settings: Settings, found: Tensors) -> str:
    """Where positions go: a table that does not enter the input is the decoder's."""
    if settings.get("position_biased_input", True):
        return "input"
    decodes = any(name.endswith("embeddings.position_embeddings.weight") for name in found)
    return "decoder" if decodes else "none"


def said(call: registry.Call, vocab: Vocab) -> dict[str, object]:
    """Fields of config.json that say several of our arguments together."""
    del vocab
    relative = disentangled.read(call.argument("relative"))
    width = call.argument("width")
    fields: dict[str, object] = {
        "intermediate_size": call.argument("ffn") or 4 * width,
        "embedding_size": call.argument("embedding") or width,
        "position_biased_input": call.argument("absolute") == "input",
        "relative_attention": relative is not None,
        "pos_att_type": [] if relative is None else relative.terms.split("+"),
        "legacy": widens(call),
        "pooler_hidden_size": width,
        "pooler_dropout": 0,
    }
    if relative is not None:
        fields["max_relative_positions"] = relative.reach
    if not call.argument("key_bias"):
        return fields
    if relative is not None:
        fields |= {
            "position_buckets": relative.buckets or -1,
            "norm_rel_ebd": "layer_norm" if relative.norm else "none",
            "share_att_key": relative.projections == "shared",
        }
    if call.argument("convolution"):
        fields["conv_kernel_size"] = call.argument("convolution")
        fields["conv_act"] = ACTIVATION_OF[call.argument("activation")]
    return fields


ACTIVATION_OF = {"gelu_erf": "gelu", "gelu_tanh": "gelu_new", "relu": "relu", "tanh": "tanh"}


def fits_v1(call: registry.Call, heads: frozenset[str]) -> str:
    """Why a model is no DeBERTa v1; empty if it is one."""
    relative = disentangled.read(call.argument("relative"))
    if call.argument("key_bias"):
        return "its keys have a bias (key_bias=True), v1's have none."
    if call.argument("convolution"):
        return "it has a convolution."
    if relative is not None and (relative.buckets or relative.norm):
        return "its distances share rows or pass a LayerNorm, as v2's do."
    if relative is not None and relative.projections != "own":
        return "its distances share the projections of the content, as v2's do."
    return ""


def fits_v2(call: registry.Call, heads: frozenset[str]) -> str:
    """Why a model is no DeBERTa v2 or v3; empty if it is one."""
    if not call.argument("key_bias"):
        return "its keys have no bias (key_bias=False), v2's have one."
    return ""


KNOWN = (
    *("relative_attention", "pos_att_type", "max_relative_positions", "position_biased_input"),
    *("embedding_size", "legacy", "padding_idx", "pooler_hidden_size", "pooler_dropout"),
    *("cls_dropout", "stable_dropout", "attention_head_size"),
)
KNOWN_V2 = (
    *("position_buckets", "norm_rel_ebd", "share_att_key", "conv_kernel_size", "conv_act"),
)
FIXED = {
    "tie_word_embeddings": (True,),
    "talking_head": (False,),
    "pooler_hidden_act": ("gelu",),
}


def architectures(name: str) -> tuple[Architecture, ...]:
    """The classes, by what their names begin with."""
    return (
        Architecture(f"{name}ForMaskedLM", frozenset({"tokens"})),
        Architecture(f"{name}Model", frozenset()),
    )


def _fields(**defaults: object) -> tuple[Field, ...]:
    usual = {"layer_norm_eps": 1e-7} | defaults
    changed = [
        dataclasses.replace(f, default=usual[f.theirs]) if f.theirs in usual else f for f in FIELDS
    ]
    return (
        *changed,
        Field("max_position_embeddings", "positions", 512),
        Field("type_vocab_size", "segments", 0),
    )


_V2_SIZES = {
    "num_hidden_layers": 24,
    "hidden_size": 1536,
    "num_attention_heads": 24,
    "intermediate_size": 6144,
}
FAMILIES = (
    Family(
        model_type="deberta",
        model="deberta",
        config="deberta",
        fields=_fields(),
        fixed=FIXED,
        known=KNOWN,
        table=lambda call: table("deberta", call),
        architectures=architectures("Deberta"),
        objectives=(("heads/tokens/bias", "mlm"),),
        arguments=arguments,
        settings=said,
        fits=fits_v1,
    ),
    Family(
        model_type="deberta-v2",
        model="deberta",
        config="deberta",
        fields=_fields(**_V2_SIZES),
        fixed=FIXED | {"conv_groups": (1,)},
        known=(*KNOWN, *KNOWN_V2),
        table=lambda call: table("deberta-v2", call),
        architectures=architectures("DebertaV2"),
        objectives=(("heads/tokens/bias", "mlm"),),
        arguments=arguments,
        settings=said,
        fits=fits_v2,
    ),
)
