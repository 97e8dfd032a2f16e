"""XLNet (``xlnet`` in transformers).

transformers keeps u, v and s (r_w_bias, r_r_bias, r_s_bias) in every layer; a model of ours whose
layers share them (``untie=False``) is written with a copy in each and ``"untie_r": false``.

"gelu" is the exact function in transformers and the tanh approximation in the code that trained the
released weights (``convert/tensorflow``). A directory is read as transformers reads it.

transformers has no class for Transformer-XL any more, and released weights of that have an adaptive
softmax, which ours has not: there is no form of a ``transformer_xl``.
"""

from __future__ import annotations

from bert_variants import registry
from bert_variants.convert.errors import check
from bert_variants.convert.families.bert import TASKS, TIED, dense, norm, tied
from bert_variants.convert.family import Architecture, Family
from bert_variants.convert.fields import ACTIVATIONS, Field, Settings
from bert_variants.convert.rules import Change, Rule, Shape, Table, reshaped
from bert_variants.convert.tensors import Tensors
from bert_variants.types import Vocab

LAYER, START = "transformer.layer.{layer}", "transformer.mask_emb"
# what is added to the queries: ours -> theirs
OFFSETS = {
    "query_content": "r_w_bias",
    "query_position": "r_r_bias",
    "query_segment": "r_s_bias",
}
PROJECTIONS = {"query": "q", "key": "k", "value": "v", "relative": "r"}
NO_PREDICTIONS = "only predictions start from it, and this model makes none"


def output(heads: int) -> Change:
    """The output projection: ours is [N * H, D], theirs [D, N, H]."""

    def shape(ours: Shape) -> Shape:
        return (ours[1], heads, ours[0] // heads)

    return Change(
        "heads apart, transposed",
        shape,
        lambda x: x.T.reshape(shape(x.shape)),
        lambda x: x.reshape(x.shape[0], -1).T,
    )


def by_heads(call: registry.Call) -> Change:
    """[D, N * H] as [D, N, H]."""
    width, heads = call.argument("width"), call.argument("heads")
    return reshaped((width, width), (width, heads, width // heads))


def offsets(call: registry.Call) -> tuple[Rule, ...]:
    """u, v and s: a stack, or one of each that every layer of theirs repeats."""
    attention = f"{LAYER}.rel_attn"
    if call.argument("untie"):
        at = "encoder/layers/attention"
        return tuple(Rule(f"{at}/{o}", f"{attention}.{t}") for o, t in OFFSETS.items())
    first, *others = (
        attention.replace("{layer}", str(number)) for number in range(call.argument("layers"))
    )
    return tuple(
        Rule(f"encoder/{o}", f"{first}.{t}", copies=tuple(f"{other}.{t}" for other in others))
        for o, t in OFFSETS.items()
    )


def table(call: registry.Call) -> Table:
    """The rules of an XLNet."""
    ours, theirs = "encoder/layers", LAYER
    split = by_heads(call)
    own = () if tied(call, "") else (Rule("heads/tokens/table/embedding", "lm_loss.weight"),)
    return Table(
        rules=(
            Rule(
                "word/embedding",
                "transformer.word_embedding.weight",
                also=tied(call, "lm_loss.weight"),
            ),
            Rule("start", START, spare=NO_PREDICTIONS, blank=(1, 1, call.argument("width"))),
            *(
                Rule(f"{ours}/attention/{o}/kernel", f"{theirs}.rel_attn.{t}", split)
                for o, t in PROJECTIONS.items()
            ),
            Rule(
                f"{ours}/attention/out/kernel",
                f"{theirs}.rel_attn.o",
                output(call.argument("heads")),
            ),
            *offsets(call),
            Rule(f"{ours}/attention/segments", f"{theirs}.rel_attn.seg_embed"),
            *norm(f"{ours}/attention_norm", f"{theirs}.rel_attn.layer_norm"),
            *dense(f"{ours}/ffn/wide", f"{theirs}.ff.layer_1"),
            *dense(f"{ours}/ffn/narrow", f"{theirs}.ff.layer_2"),
            *norm(f"{ours}/ffn_norm", f"{theirs}.ff.layer_norm"),
            *own,
            Rule("heads/tokens/bias", "lm_loss.bias"),
        ),
        ignored=(
            TASKS,
            (r"^logits_proj\.", "the head of a task that this project has no head for"),
            (r"^(start_logits|end_logits|answer_class)\.", "SQuAD's head, a task's"),
        ),
        prefix="transformer.",
    )


# ------------------------------------------------------------- config.json


def unequal_heads(settings: Settings) -> list[str]:
    """What is wrong with ``d_head``: in ours all heads together are as wide as the model."""
    width, heads = settings.said_or("d_model", 1024), settings.said_or("n_head", 16)
    said = settings.said_or("d_head", None)
    if said is None or (isinstance(said, int) and said * heads == width):
        return []
    return [f"d_head is {said!r}, in ours {heads} heads share {width} equally."]


def arguments(settings: Settings, found: Tensors) -> dict[str, object]:
    """What of our model the fields say that mean several of ours, or "none" by null or -1.

    transformers has one rate of dropout for all places; a file that this project wrote says the
    others beside it where they differ.

    Raises:
        ConvertError: lists what ours cannot do.
    """
    problems = unequal_heads(settings)
    made = {"untie": settings.said_or("untie_r", True), "masked": "hidden"}
    if "lm_loss.weight" not in found:
        made["tied"] = True
    for theirs, ours, default in (
        ("mem_len", "memory", 512),
        ("reuse_len", "reuse", None),
        ("clamp_len", "clamp", -1),
    ):
        value = settings.said_or(theirs, default)
        if value is not None and (not isinstance(value, int) or isinstance(value, bool)):
            problems.append(f"{theirs} is {value!r}, expected a whole number or null.")
        else:
            made[ours] = max(0, value or 0)
    common = settings.said_or("dropout", 0.1)
    for theirs in ("attention_dropout", "inner_dropout"):
        made[theirs] = settings.said_or(theirs, common)
    check(f"{settings.where} describes a model that cannot be read", problems)
    return made


def said(call: registry.Call, vocab: Vocab) -> dict[str, object]:
    """Fields of config.json beside those that are one argument each."""
    del vocab
    width, heads = call.argument("width"), call.argument("heads")
    fields: dict[str, object] = {
        "d_inner": call.argument("ffn") or 4 * width,
        "d_head": width // heads,
        "untie_r": call.argument("untie"),
        "mem_len": call.argument("memory") or None,
        "reuse_len": call.argument("reuse") or None,
        "clamp_len": call.argument("clamp") or -1,
    }
    for name in ("attention_dropout", "inner_dropout"):
        if call.argument(name) != call.argument("dropout"):
            fields[name] = call.argument(name)
    return fields


FAMILIES = (
    Family(
        model_type="xlnet",
        model="xlnet",
        config="xlnet",
        fields=(
            Field("n_layer", "layers", 24),
            Field("d_model", "width", 1024),
            Field("n_head", "heads", 16),
            Field("d_inner", "ffn", 4096),
            Field("dropout", "dropout", 0.1),
            Field("layer_norm_eps", "eps", 1e-12),
            Field("ff_activation", "activation", "gelu", ACTIVATIONS),
            TIED,
        ),
        fixed={
            "attn_type": ("bi",),
            "same_length": (False,),
        },
        known=(
            *("d_head", "untie_r", "mem_len", "reuse_len", "clamp_len", "bi_data", "n_token"),
            *("attention_dropout", "inner_dropout", "use_mems_eval", "use_mems_train"),
            # of the heads of tasks, and of beams
            *("summary_type", "summary_use_proj", "summary_activation", "summary_last_dropout"),
            *("start_n_top", "end_n_top"),
        ),
        table=table,
        architectures=(
            Architecture("XLNetLMHeadModel", frozenset({"tokens"})),
            Architecture("XLNetModel", frozenset()),
        ),
        objectives=(("heads/tokens/bias", "mlm"),),
        arguments=arguments,
        settings=said,
    ),
)
