"""ELECTRA's original checkpoints: what their variables, and ``hparams.json``, say of a model."""

from __future__ import annotations

import dataclasses
import re
from typing import Any

from bert_variants import registry
from bert_variants.convert import tensorflow_names as names
from bert_variants.convert.errors import check
from bert_variants.convert.family import Architecture, Family
from bert_variants.convert.fields import Settings
from bert_variants.convert.tensorflow_names import plain
from bert_variants.convert.tensors import Tensors
from bert_variants.types import Vocab

# "gelu" is exact here, the tanh approximation in the code of BERT, ALBERT and XLNet.
ACTIVATIONS = {"gelu": "gelu_erf", "relu": "relu", "tanh": "tanh"}
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
_OVERRIDES = (
    *("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size"),
    *("max_position_embeddings", "type_vocab_size", "vocab_size", "hidden_act"),
    *("hidden_dropout_prob", "attention_probs_dropout_prob"),
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


# What its code has where hparams.json says nothing (google-research/electra:model/modeling.py).
UNSAID = {
    "hidden_dropout_prob": 0.1,
    "attention_probs_dropout_prob": 0.1,
    "hidden_act": "gelu",
}


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
    (_, embedding), (positions, _), (segments, _) = (found[f"{at}/{n}"].shape for n in named)
    overrides, problems = _overrides(settings)
    said = UNSAID | {"num_attention_heads": heads_of(judge.width)} | overrides
    made = {
        "layers": judge.layers,
        "width": judge.width,
        "ffn": judge.ffn,
        "heads": said["num_attention_heads"],
        "embedding": embedding,
        "positions": positions,
        "segments": segments,
        "dropout": float(said["hidden_dropout_prob"]),
        "attention_dropout": float(said["attention_probs_dropout_prob"]),
        "activation": ACTIVATIONS[said["hidden_act"]],
        "temperature": settings.said_or("temperature", 1.0),
        "disallow_correct": settings.said_or("disallow_correct", False),
    }
    if writer is not None:
        made |= _writer_arguments(writer, "generator/embeddings/word_embeddings" in found)
    elif "generator_predictions/output_bias" in found:
        made["tying"] = "all"
    else:
        made["generator"] = "uniform"
    problems += _contradictions(settings, overrides, judge, embedding)
    check(f"{settings.where} describes a model that cannot be read", problems)
    return made


def _overrides(settings: Settings) -> tuple[dict[str, Any], list[str]]:
    """``model_hparam_overrides`` without what is no size, and what is wrong with it."""
    said = settings.said_or("model_hparam_overrides", {})
    if not isinstance(said, dict):
        return {}, [f"model_hparam_overrides is {said!r}, expected an object."]
    problems, fine = [], {}
    for name, value in said.items():
        rate = name.endswith("_prob")
        number = isinstance(value, (int, float) if rate else int) and not isinstance(value, bool)
        if name == "initializer_range":
            continue
        if name not in _OVERRIDES:
            problems.append(f"model_hparam_overrides has a field of unknown meaning: {name!r}.")
        elif name == "hidden_act" and value not in ACTIVATIONS:
            problems.append(f"hidden_act is {value!r}, expected one of {', '.join(ACTIVATIONS)}.")
        elif name != "hidden_act" and not number:
            problems.append(f"{name} is {value!r}, expected a number.")
        else:
            fine[name] = value
    return fine, problems


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


def _contradictions(
    settings: Settings, overrides: dict[str, Any], judge: _Network, embedding: int
) -> list[str]:
    """Where hparams.json says another size than the variables have."""
    size = settings.said_or("model_size", None)
    if size is None:
        return []
    if size not in _SIZES:
        return [f"model_size is {size!r}, expected small, base or large."]
    width, layers = _SIZES[size]
    said = {"hidden_size": width, "num_hidden_layers": layers} | overrides
    width = said["hidden_size"]
    said = {"intermediate_size": 4 * width} | said
    usual = 128 if size == "small" else width
    pairs = (
        ("hidden_size", width, judge.width),
        ("num_hidden_layers", said["num_hidden_layers"], judge.layers),
        ("intermediate_size", said["intermediate_size"], judge.ffn),
        ("embedding_size", settings.said_or("embedding_size", None) or usual, embedding),
    )
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
            "intermediate_size": call.argument("ffn"),
            "max_position_embeddings": call.argument("positions"),
            "type_vocab_size": call.argument("segments"),
            "hidden_dropout_prob": call.argument("dropout"),
            "attention_probs_dropout_prob": call.argument("attention_dropout"),
            "hidden_act": {v: k for k, v in ACTIVATIONS.items()}[call.argument("activation")],
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
    if plain(call):
        return plain(call)
    if call.argument("activation") not in ACTIVATIONS.values():
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


FAMILY = Family(
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
