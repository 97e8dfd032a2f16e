"""The settings of the original TensorFlow checkpoints: which file says them, and what they mean.

BERT, ALBERT and XLNet have a JSON file beside the weights. ELECTRA has none: its sizes are those of
its variables and the number of heads follows from the width, as in its code; what its command was
given beyond that (``--hparams``) is read from ``hparams.json`` where there is one, and written so.
"""

from __future__ import annotations

import dataclasses
import re
from typing import Any

from bert_variants import registry
from bert_variants.convert import tensorflow_electra
from bert_variants.convert import tensorflow_names as names
from bert_variants.convert.errors import check
from bert_variants.convert.families.xlnet import unequal_heads
from bert_variants.convert.family import Architecture, Family
from bert_variants.convert.fields import Field, Settings
from bert_variants.convert.tensorflow_names import plain
from bert_variants.convert.tensors import Tensors
from bert_variants.types import Vocab

# "gelu" is the tanh approximation in the code of these three, exact in ELECTRA's.
ACTIVATIONS = {"gelu": "gelu_tanh", "relu": "relu", "tanh": "tanh"}
EPS = 1e-12  # of TensorFlow's LayerNorm, which no file says


@dataclasses.dataclass(frozen=True)
class Form:
    """One kind of original checkpoint.

    Attributes:
        family: fields of its settings, names of its variables, our model.
        variable: one that every checkpoint of the kind has, and no other kind.
        settings_file: that says its sizes.
        needs_settings: whether the file must be there.
        checkpoint: what it is called when it is written.
        normalization: of the text in front of a SentencePiece model; empty: it has none.
    """

    family: Family
    variable: str
    settings_file: str
    needs_settings: bool
    checkpoint: str
    normalization: str = ""


def of_tensors(found: Tensors) -> Form | None:
    """The form that a checkpoint has, by its variables; None for a strange one."""
    for form in FORMS:
        if any(re.search(form.variable, name) for name in found):
            return form
    return None


def of_model(call: registry.Call) -> Form | None:
    """The form that a model of ours is written in; None where it has none."""
    return next((form for form in FORMS if form.family.model == call.name), None)


def settings_of(form: Form, call: registry.Call, vocab: Vocab) -> dict[str, Any]:
    """What the settings file of a model says.

    Args:
        form: how it is written.
        call: our model.
        vocab: ``size`` is the number of rows of the model's table.

    Raises:
        ConvertError: lists every argument of the model that the file, or the code, cannot say.
    """
    family = form.family
    made: dict[str, Any] = {}
    problems = []
    for field in family.fields:
        try:
            made[field.theirs] = field.write(call.argument(field.ours))
        except KeyError:
            problems.append(f"{field.ours} is {call.argument(field.ours)!r}.")
    if call.argument("eps") != EPS:
        problems.append(f"eps is {call.argument('eps')}, TensorFlow's is {EPS} always.")
    why = family.fits(call, frozenset())
    problems += [why] if why else []
    check(f"model '{call}' cannot be said as google-research's code says it", problems)
    return dict(sorted((made | family.settings(call, vocab)).items()))


# ------------------------------------------------------------- BERT, ALBERT


def _table_fields(segments: int) -> tuple[Field, ...]:
    return (
        Field("max_position_embeddings", "positions", 512),
        Field("type_vocab_size", "segments", segments),
    )


def _bert_settings(call: registry.Call, vocab: Vocab) -> dict[str, Any]:
    return {
        "type_vocab_size": max(1, call.argument("segments")),
        "vocab_size": vocab.size,
        "initializer_range": 0.02,
    }


_BERT = Family(
    model_type="bert",
    model="bert",
    config="bert",
    fields=(
        Field("num_hidden_layers", "layers", 12),
        Field("hidden_size", "width", 768),
        Field("num_attention_heads", "heads", 12),
        Field("intermediate_size", "ffn", 3072),
        Field("hidden_dropout_prob", "dropout", 0.1),
        Field("attention_probs_dropout_prob", "attention_dropout", 0.1),
        Field("hidden_act", "activation", "gelu", ACTIVATIONS),
        *_table_fields(16),  # the class's default; the released files say 2
    ),
    table=names.bert,
    architectures=(Architecture("bert", frozenset(), frozenset()),),
    objectives=(("heads/tokens/bias", "mlm"), ("heads/pair/output/kernel", "nsp")),
    settings=_bert_settings,
    fits=plain,
)


def _groups(call: registry.Call) -> int:
    """How many groups are written: layers that share nothing are groups of one."""
    shared = call.argument("sharing") == "all"
    return call.argument("groups") if shared else call.argument("layers")


def _albert_fits(call: registry.Call, heads: frozenset[str]) -> str:
    if plain(call):
        return plain(call)
    if call.argument("sharing") in ("attention", "ffn"):
        return (
            f"its layers share their {call.argument('sharing')} alone; theirs share all or nothing."
        )
    layers, groups = call.argument("layers"), _groups(call)
    theirs = [int(layer / layers * groups) for layer in range(layers)]
    if theirs != [layer * groups // layers for layer in range(layers)]:
        return f"their code deals {layers} layers out to {groups} groups in another way."
    return ""


_ALBERT = Family(
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
        Field("hidden_act", "activation", "gelu", ACTIVATIONS),
        *_table_fields(2),
    ),
    fixed={"inner_group_num": (1,)},
    known=("down_scale_factor", "gap_size", "net_structure_type", "num_memory_blocks"),
    table=names.albert,
    architectures=(Architecture("albert", frozenset(), frozenset()),),
    objectives=(("heads/tokens/bias", "mlm"), ("heads/pair/output/kernel", "sop")),
    settings=lambda call, vocab: {
        **_bert_settings(call, vocab),
        "num_hidden_groups": _groups(call),
        "inner_group_num": 1,
        "down_scale_factor": 1,
        "gap_size": 0,
        "net_structure_type": 0,
        "num_memory_blocks": 0,
    },
    fits=_albert_fits,
)


# ------------------------------------------------------------- XLNet


def _xlnet_arguments(settings: Settings, found: Tensors) -> dict[str, Any]:
    """Memory, reuse and clamping are flags of a run and stand in no file: as published.

    Raises:
        ConvertError: heads of another width than ours have.
    """
    where = f"{settings.where} describes a model that cannot be read"
    check(where, unequal_heads(settings))
    return {
        "untie": settings.said_or("untie_r", False),
        "tied": "model/lm_loss/weight" not in found,
        "memory": 384,
        "reuse": 256,
        "inner_dropout": 0.0,
        "masked": "hidden",
    }


_XLNET = Family(
    model_type="xlnet",
    model="xlnet",
    config="xlnet",
    fields=(
        Field("n_layer", "layers", 24),
        Field("d_model", "width", 1024),
        Field("n_head", "heads", 16),
        Field("d_inner", "ffn", 4096),
        Field("ff_activation", "activation", "relu", ACTIVATIONS),  # the flag's default
    ),
    known=("d_head", "untie_r", "n_token"),
    table=names.xlnet,
    architectures=(Architecture("xlnet", frozenset(), frozenset()),),
    objectives=(("heads/tokens/bias", "mlm"),),
    arguments=_xlnet_arguments,
    settings=lambda call, vocab: {
        "d_head": call.argument("width") // call.argument("heads"),
        "untie_r": call.argument("untie"),
        "n_token": vocab.size,
    },
)


FORMS = (
    Form(
        family=_XLNET,
        variable=r"^model/transformer/word_embedding/lookup_table$",
        settings_file="xlnet_config.json",
        needs_settings=True,
        checkpoint="xlnet_model.ckpt",
        normalization="xlnet",
    ),
    Form(
        family=tensorflow_electra.FAMILY,
        variable=r"^electra/embeddings/word_embeddings$",
        settings_file="hparams.json",
        needs_settings=False,
        checkpoint="electra_model",
    ),
    Form(
        family=_ALBERT,
        variable=r"^bert/encoder/transformer/group_0/",
        settings_file="albert_config.json",
        needs_settings=True,
        checkpoint="model.ckpt-best",
        normalization="albert",
    ),
    Form(
        family=_BERT,
        variable=r"^bert/encoder/layer_0/",
        settings_file="bert_config.json",
        needs_settings=True,
        checkpoint="bert_model.ckpt",
    ),
)
