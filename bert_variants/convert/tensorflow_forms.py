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
from bert_variants.convert import tensorflow_names as names
from bert_variants.convert.errors import check
from bert_variants.convert.family import Architecture, Family
from bert_variants.convert.fields import Field, Settings
from bert_variants.convert.tensors import Tensors
from bert_variants.types import Vocab

# "gelu" is the tanh approximation in the code of BERT, ALBERT and XLNet, exact in ELECTRA's.
ACTIVATIONS = {"gelu": "gelu_tanh", "relu": "relu", "tanh": "tanh"}
EXACT = ACTIVATIONS | {"gelu": "gelu_erf"}
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
        pieces: what its SentencePiece model is called, if it has one.
        normalization: of the text in front of that model.
    """

    family: Family
    variable: str
    settings_file: str
    needs_settings: bool
    checkpoint: str
    pieces: str = ""
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


def _plain(call: registry.Call, heads: frozenset[str] = frozenset()) -> str:
    del heads
    if call.argument("relative"):
        return f"its attention is {call.argument('relative')}, and theirs knows no distances."
    if call.argument("first_position"):
        return f"its positions begin at row {call.argument('first_position')}, theirs at 0."
    return ""


def _ffn(call: registry.Call) -> int:
    return call.argument("ffn") or 4 * call.argument("width")


def _bert_settings(call: registry.Call, vocab: Vocab) -> dict[str, Any]:
    return {
        "intermediate_size": _ffn(call),
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
    fits=_plain,
)


def _groups(call: registry.Call) -> int:
    """How many groups are written: layers that share nothing are groups of one."""
    shared = call.argument("sharing") == "all"
    return call.argument("groups") if shared else call.argument("layers")


def _albert_fits(call: registry.Call, heads: frozenset[str]) -> str:
    if _plain(call):
        return _plain(call)
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
    del found
    width, heads = settings.get("d_model", 1024), settings.get("n_head", 16)
    d_head = settings.get("d_head", width // heads)
    wrong = f"d_head is {d_head}, in ours it is d_model / n_head, {width / heads:g}."
    where = f"{settings.where} describes a model that cannot be read"
    check(where, [wrong] if d_head * heads != width else [])
    return {
        "untie": settings.get("untie_r", False),
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
        "d_inner": _ffn(call),
        "d_head": call.argument("width") // call.argument("heads"),
        "untie_r": call.argument("untie"),
        "n_token": vocab.size,
    },
)


# ------------------------------------------------------------- ELECTRA

# What its command may be given; those of training and of paths change no network.
_HPARAMS = (
    *("model_name", "debug", "do_train", "do_eval", "electra_objective", "gen_weight"),
    *("disc_weight", "mask_prob", "learning_rate", "lr_decay_power", "weight_decay_rate"),
    *("num_warmup_steps", "iterations_per_loop", "save_checkpoints_steps", "num_train_steps"),
    *("num_eval_steps", "model_size", "model_hparam_overrides", "embedding_size"),
    *("do_lower_case", "uniform_generator", "untied_generator_embeddings", "untied_generator"),
    *("generator_layers", "generator_hidden_size", "disallow_correct", "temperature"),
    *("max_seq_length", "train_batch_size", "eval_batch_size", "use_tpu", "num_tpu_cores"),
    *("tpu_job_name", "tpu_name", "tpu_zone", "gcp_project", "pretrain_tfrecords"),
    *("vocab_file", "model_dir", "results_dir", "results_txt", "results_pkl"),
    *("keep_checkpoint_max", "max_predictions_per_seq", "electric_objective"),
    "two_tower_generator",
)
_SIZES = {"small": (256, 12), "base": (768, 12), "large": (1024, 24)}


@dataclasses.dataclass(frozen=True)
class _Network:
    """Sizes of one network, by its variables."""

    layers: int
    width: int
    ffn: int

    @classmethod
    def of(cls, scope: str, found: Tensors) -> _Network | None:
        """None where there is none of that scope."""
        pattern = re.compile(rf"{scope}/encoder/layer_(\d{{1,4}})/")
        matches = filter(None, map(pattern.match, found))
        numbers = {int(match[1]) for match in matches}
        first = f"{scope}/encoder/layer_0"
        query, wide = f"{first}/attention/self/query/kernel", f"{first}/intermediate/dense/kernel"
        if not numbers or query not in found or wide not in found:
            return None
        if len(found[query].shape) != 2 or len(found[wide].shape) != 2:
            return None
        return cls(max(numbers) + 1, found[query].shape[0], found[wide].shape[1])


def heads_of(width: int) -> int:
    """How many heads its code gives a network."""
    return max(1, width // 64)


def _electra_arguments(settings: Settings, found: Tensors) -> dict[str, Any]:
    """Sizes of the variables; heads, rates and choices of sampling from hparams.json.

    Raises:
        ConvertError: variables without which no size is known, or settings that contradict them.
    """
    judge, writer = _Network.of("electra", found), _Network.of("generator", found)
    at = "electra/embeddings"
    named = ("word_embeddings", "position_embeddings", "token_type_embeddings")
    missing = [f"{at}/{n} is missing." for n in named if len(_shape(found, f"{at}/{n}")) != 2]
    if judge is None:
        missing.append("electra/encoder/layer_0 is missing or has strange shapes.")
    check(f"{settings.where} is no checkpoint of ELECTRA", missing)
    said = settings.get("model_hparam_overrides", {})
    (_, embedding), (positions, _), (segments, _) = (found[f"{at}/{n}"].shape for n in named)
    made = {
        "layers": judge.layers,
        "width": judge.width,
        "ffn": judge.ffn,
        "heads": said.get("num_attention_heads", heads_of(judge.width)),
        "embedding": 0 if embedding == judge.width else embedding,
        "positions": positions,
        "segments": segments,
        "temperature": float(settings.get("temperature", 1.0)),
        "disallow_correct": settings.get("disallow_correct", False),
    }
    for theirs, ours in (
        ("hidden_dropout_prob", "dropout"),
        ("attention_probs_dropout_prob", "attention_dropout"),
    ):
        made[ours] = float(said.get(theirs, 0.1))
    activation = said.get("hidden_act", "gelu")
    problems = [] if activation in EXACT else [f"hidden_act is {activation!r}."]
    made["activation"] = EXACT[activation] if activation in EXACT else ""
    if writer is not None:
        made |= _writer_arguments(writer, "generator/embeddings/word_embeddings" in found)
    elif "generator_predictions/output_bias" in found:
        made["tying"] = "all"
    else:
        made["generator"] = "uniform"
    problems += _contradictions(settings, judge, embedding)
    check(f"{settings.where} describes a model that cannot be read", problems)
    return made


def _shape(found: Tensors, name: str) -> tuple[int, ...]:
    return found[name].shape if name in found else ()


def _writer_arguments(writer: _Network, untied: bool) -> dict[str, Any]:
    return {
        "generator_width": writer.width,
        "generator_layers": writer.layers,
        "generator_heads": heads_of(writer.width),
        "generator_ffn": writer.ffn,
        "tying": "none" if untied else "embeddings",
    }


def _contradictions(settings: Settings, judge: _Network, embedding: int) -> list[str]:
    """Where hparams.json says another size than the variables have."""
    if "model_size" not in settings.values:
        return []
    size, said = settings.values["model_size"], settings.get("model_hparam_overrides", {})
    if size not in _SIZES:
        return [f"model_size is {size!r}, expected small, base or large."]
    width, layers = _SIZES[size]
    expected = {"hidden_size": width, "num_hidden_layers": layers} | said
    pairs = [
        ("hidden_size", expected["hidden_size"], judge.width),
        ("num_hidden_layers", expected["num_hidden_layers"], judge.layers),
    ]
    usual = 128 if size == "small" else expected["hidden_size"]
    pairs.append(("embedding_size", settings.get("embedding_size", None) or usual, embedding))
    return [
        f"{name} is {value!r}, but the variables have {there}."
        for name, value, there in pairs
        if value != there
    ]


def _electra_settings(call: registry.Call, vocab: Vocab) -> dict[str, Any]:
    width, layers = call.argument("width"), call.argument("layers")
    made: dict[str, Any] = {
        "model_size": "base",
        "vocab_size": vocab.size,
        "embedding_size": call.argument("embedding") or width,
        "model_hparam_overrides": {
            "hidden_size": width,
            "num_hidden_layers": layers,
            "num_attention_heads": call.argument("heads"),
            "intermediate_size": _ffn(call),
            "max_position_embeddings": call.argument("positions"),
            "type_vocab_size": call.argument("segments"),
            "hidden_dropout_prob": call.argument("dropout"),
            "attention_probs_dropout_prob": call.argument("attention_dropout"),
            "hidden_act": {v: k for k, v in EXACT.items()}[call.argument("activation")],
        },
        "temperature": call.argument("temperature"),
        "disallow_correct": call.argument("disallow_correct"),
        "uniform_generator": call.argument("generator") == "uniform",
        "untied_generator": call.argument("tying") != "all",
        "untied_generator_embeddings": call.argument("tying") == "none",
    }
    if call.argument("generator") == "network" and call.argument("tying") != "all":
        made["generator_hidden_size"] = generator_width(call) / width
        made["generator_layers"] = (call.argument("generator_layers") or layers) / layers
    return made


def generator_width(call: registry.Call) -> int:
    """The generator's width: a quarter of the discriminator's where it is not said."""
    return call.argument("generator_width") or max(1, round(call.argument("width") / 4))


def _electra_fits(call: registry.Call, heads: frozenset[str]) -> str:
    if _plain(call):
        return _plain(call)
    if call.argument("activation") not in EXACT.values():
        return f"its activation is {call.argument('activation')}, theirs the exact GELU."
    if not call.argument("segments"):
        return "it has no table of segments, theirs always has one."
    if call.argument("generator") == "unigram":
        return "its generator is a unigram distribution, which their code has not."
    if call.argument("generator") == "uniform" or call.argument("tying") == "all":
        return ""
    width = generator_width(call)
    if call.argument("generator_ffn") not in (0, 4 * width):
        return f"its generator's ffn is {call.argument('generator_ffn')}, theirs {4 * width}."
    if call.argument("generator_heads") not in (0, heads_of(width)):
        return (
            f"its generator has {call.argument('generator_heads')} heads, theirs "
            f"{heads_of(width)}: one for each 64 of its width."
        )
    return ""


_ELECTRA = Family(
    model_type="electra",
    model="electra",
    config="electra",
    fields=(),
    known=_HPARAMS,
    table=names.electra,
    architectures=(Architecture("electra", frozenset(), frozenset()),),
    objectives=(
        ("heads/tokens/bias", "mlm"),
        ("heads/replaced/dense/kernel", "50*replaced_token"),
    ),
    arguments=_electra_arguments,
    settings=_electra_settings,
    fits=_electra_fits,
)

FORMS = (
    Form(
        family=_XLNET,
        variable=r"^model/transformer/word_embedding/lookup_table$",
        settings_file="xlnet_config.json",
        needs_settings=True,
        checkpoint="xlnet_model.ckpt",
        pieces="spiece.model",
        normalization="xlnet",
    ),
    Form(
        family=_ELECTRA,
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
        pieces="30k-clean.model",
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
