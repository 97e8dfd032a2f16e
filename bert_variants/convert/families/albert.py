"""ALBERT: narrow tables, and groups of layers that share their parameters.

transformers has a dense layer behind the tables even where they are as wide as the layers. Ours has
none there, as in google-research/albert: it is written as the identity, and read only if it is.
"""

from __future__ import annotations

from bert_variants import registry
from bert_variants.convert.families import bert
from bert_variants.convert.family import Family
from bert_variants.convert.fields import ACTIVATIONS, Field
from bert_variants.convert.rules import Constant, Table

AT = "encoder/layers"
GROUP = "albert.encoder.albert_layer_groups.{layer}.albert_layers.0"
WIDEN = "albert.encoder.embedding_hidden_mapping_in"


def _table(call: registry.Call) -> Table:
    width, narrow = call.argument("width"), call.argument("embedding")
    constants = bert.one_segment("albert.embeddings", call, narrow)
    if width == narrow:
        why = "A layer between tables and layers of one width cannot be had."
        constants = (
            *constants,
            Constant(f"{WIDEN}.weight", (width, width), why, identity=True),
            Constant(f"{WIDEN}.bias", (width,), why),
        )
    return Table(
        rules=(
            *bert.embeddings(
                "embeddings", "albert.embeddings", *bert.tied(call, "predictions.decoder.weight")
            ),
            *(bert.dense("widen", WIDEN) if width != narrow else ()),
            *bert.dense(f"{AT}/attention/query", f"{GROUP}.attention.query"),
            *bert.dense(f"{AT}/attention/key", f"{GROUP}.attention.key"),
            *bert.dense(f"{AT}/attention/value", f"{GROUP}.attention.value"),
            *bert.dense(f"{AT}/attention/out", f"{GROUP}.attention.dense"),
            *bert.norm(f"{AT}/attention_norm", f"{GROUP}.attention.LayerNorm"),
            *bert.dense(f"{AT}/ffn/wide", f"{GROUP}.ffn"),
            *bert.dense(f"{AT}/ffn/narrow", f"{GROUP}.ffn_output"),
            *bert.norm(f"{AT}/ffn_norm", f"{GROUP}.full_layer_layer_norm"),
            *bert.dense("heads/pooler/dense", "albert.pooler", spare=bert.NO_POOLER),
            *bert.dense("heads/tokens/dense", "predictions.dense"),
            *bert.norm("heads/tokens/norm", "predictions.LayerNorm"),
            *bert.projection(call, "predictions"),
            *bert.dense("heads/pair/output", "sop_classifier.classifier", spare=bert.NO_PAIR),
        ),
        ignored=(bert.BUFFERS, bert.TASKS),
        constants=constants,
        prefix="albert.",
    )


def _groups(call: registry.Call) -> int:
    """How many groups are written: layers that share nothing are groups of one."""
    shared = call.argument("sharing") == "all"
    return call.argument("groups") if shared else call.argument("layers")


def _fits(call: registry.Call, heads: frozenset[str]) -> str:
    del heads
    if bert.plain(call):
        return bert.plain(call)
    if call.argument("sharing") in ("attention", "ffn"):
        return (
            f"its layers share their {call.argument('sharing')} alone, and transformers' layers "
            "share all or nothing."
        )
    layers, groups = call.argument("layers"), _groups(call)
    theirs = [int(layer / (layers / groups)) for layer in range(layers)]
    if theirs != [layer * groups // layers for layer in range(layers)]:
        return f"transformers deals {layers} layers out to {groups} groups in another way."
    return ""


FAMILIES = (
    Family(
        model_type="albert",
        model="albert",
        config="albert",
        fields=(
            Field("num_hidden_layers", "layers", 12),
            Field("hidden_size", "width", 4096),
            Field("num_attention_heads", "heads", 64),
            Field("intermediate_size", "ffn", 16384),
            Field("embedding_size", "embedding", 128),
            Field("num_hidden_groups", "groups", 1),
            Field("hidden_dropout_prob", "dropout", 0.0),
            Field("attention_probs_dropout_prob", "attention_dropout", 0.0),
            Field("layer_norm_eps", "eps", 1e-12),
            Field("hidden_act", "activation", "gelu_new", ACTIVATIONS),
            *bert.TABLES,
            bert.TIED,
        ),
        fixed={
            "inner_group_num": (1,),
            "position_embedding_type": ("absolute",),
        },
        # of an older transformers, which never read them
        known=("down_scale_factor", "gap_size", "net_structure_type", "num_memory_blocks"),
        table=_table,
        architectures=bert.architectures("Albert")[:2] + bert.architectures("Albert")[3:],
        objectives=(("heads/tokens/bias", "mlm"), ("heads/pair/output/kernel", "sop")),
        settings=lambda call, vocab: {
            **bert.segments(call),
            "num_hidden_groups": _groups(call),
            "bos_token_id": vocab.cls,
            "eos_token_id": vocab.sep,
        },
        fits=_fits,
    ),
)
