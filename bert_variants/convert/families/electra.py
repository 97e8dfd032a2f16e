"""ELECTRA: a generator and a discriminator, each a directory of its own.

Our ``electra`` holds both and is written as two folders, ``generator`` and ``discriminator``, and
read from two such folders. One directory alone is our ``electra`` too: a discriminator without a
generator to draw from (``generator='uniform'``), or a generator that is its own discriminator
(``tying='all'``, trained by ``mlm`` alone).
"""

from __future__ import annotations

import dataclasses
import re

from bert_variants import config, registry
from bert_variants.convert.errors import ConvertError
from bert_variants.convert.families import bert
from bert_variants.convert.family import Architecture, Family, Part, resolved
from bert_variants.convert.fields import Field, Settings
from bert_variants.convert.rules import Rule, Table
from bert_variants.convert.tensors import Tensors

GENERATOR, DISCRIMINATOR = "generator", "discriminator"
DETECTION = "50*replaced_token"  # the published weight
OF_GENERATOR = ("token_logits_BPV", "span_logits_BPV")
SIZES = ("layers", "width", "heads", "ffn", "embedding")
# Arguments that say what a network is beside its sizes; they are of both.
COMMON = (
    *("positions", "first_position", "segments", "dropout", "attention_dropout", "eps"),
    *("activation", "initialiser", "relative"),
)


def _table(call: registry.Call) -> Table:
    return Table(
        rules=(
            *bert.embeddings("embeddings", "electra.embeddings", "generator_lm_head.weight"),
            *bert.dense("discriminator/project", "electra.embeddings_project"),
            *bert.layers("discriminator/encoder/layers", "electra.encoder.layer.{layer}"),
            *bert.dense("heads/tokens/dense", "generator_predictions.dense"),
            *bert.norm("heads/tokens/norm", "generator_predictions.LayerNorm"),
            Rule("heads/tokens/bias", "generator_lm_head.bias"),
            *bert.dense("heads/replaced/dense", "discriminator_predictions.dense"),
            *bert.dense("heads/replaced/output", "discriminator_predictions.dense_prediction"),
        ),
        ignored=(bert.BUFFERS, bert.TASKS),
        constants=bert.one_segment("electra.embeddings", call, call.argument("embedding")),
        prefix="electra.",
    )


def _arguments(settings: Settings, found: Tensors) -> dict[str, str]:
    """Which of the two it is: a generator has a head for tokens."""
    if not any(name.startswith("generator_predictions.") for name in found):
        return {"generator": "uniform"}
    if settings.said_or("hidden_act", "gelu") not in ("gelu", "gelu_python"):
        raise ConvertError(
            f"{settings.where}: hidden_act is {settings.values['hidden_act']!r}, and the head of a "
            "generator is always gelu; ours has one activation."
        )
    return {"tying": "all"}


def _fits(call: registry.Call, heads: frozenset[str]) -> str:
    if bert.plain(call):
        return bert.plain(call)
    if call.argument("generator") == "unigram":
        return "its generator is a unigram distribution, which is no network."
    if "tokens" in heads and call.argument("activation") != "gelu_erf":
        return f"its activation is {call.argument('activation')}; the head of a generator is gelu."
    return ""


def _pair(experiment: config.Experiment) -> dict[str, Part]:
    """The two parts of a model with a generator of its own."""
    call = resolved(registry.lookup("model", experiment.model))
    if call.argument("generator") != "network" or call.argument("tying") == "all":
        return {}
    common = {name: call.argument(name) for name in COMMON}
    sizes = {name: call.argument(name) for name in SIZES}
    terms = config.objective_terms(experiment.objectives)
    rest = [f"{weight}*{o}" for weight, o in terms if not _of_generator(o)]
    drawn = [f"{weight}*{o}" for weight, o in terms if _of_generator(o)]
    writer = _writer(call)
    return {
        DISCRIMINATOR: Part(
            _changed(experiment, {**sizes, **common, "generator": "uniform"}, rest),
            lambda path: (path,),
        ),
        GENERATOR: Part(
            _changed(experiment, {**writer, **common, "tying": "all"}, drawn or ["mlm"]),
            lambda path: (_in_the_whole(path, call.argument("tying")),),
        ),
    }


def _of_generator(objective: str) -> bool:
    reads = registry.lookup("objective", objective).traits["reads"]
    return all(output in OF_GENERATOR for output in reads)


def _in_the_whole(path: str, tying: str) -> str:
    """The name in the whole model of a parameter of the generator."""
    if path.startswith("embeddings/"):
        return path if tying == "embeddings" else f"generator_{path}"
    return re.sub("^discriminator/", "generator/", path)


def _writer(call: registry.Call) -> dict[str, int]:
    """The generator's sizes: as ``Electra`` fills in what is left out."""
    width = call.argument("generator_width") or max(1, round(call.argument("width") / 4))
    tied = call.argument("tying") == "embeddings"
    return {
        "layers": call.argument("generator_layers") or call.argument("layers"),
        "width": width,
        "heads": call.argument("generator_heads") or max(1, width // 64),
        "ffn": call.argument("generator_ffn") or 4 * width,
        "embedding": call.argument("embedding") if tied else width,
    }


def _changed(
    experiment: config.Experiment, arguments: dict[str, object], objectives: list[str]
) -> config.Experiment:
    return dataclasses.replace(
        experiment,
        model=registry.write("electra", arguments),
        objectives=" + ".join(objectives),
    )


def _joined(parts: dict[str, config.Experiment], tied: bool) -> config.Experiment:
    """The experiment of both, from those of two directories."""
    reader = resolved(registry.lookup("model", parts[DISCRIMINATOR].model))
    writer = resolved(registry.lookup("model", parts[GENERATOR].model))
    problems = [
        f"{name} is {writer.argument(name)!r} of the generator and {reader.argument(name)!r} of "
        "the discriminator."
        for name in COMMON
        if writer.argument(name) != reader.argument(name)
    ]
    if reader.argument("generator") != "uniform" or writer.argument("tying") != "all":
        problems.append("generator/ must hold a generator, discriminator/ a discriminator.")
    if not tied and writer.argument("embedding") != writer.argument("width"):
        problems.append(
            f"their tables differ, and the generator's are {writer.argument('embedding')} wide, "
            f"its layers {writer.argument('width')}: ours has tables of its own as wide as layers."
        )
    if problems:
        raise ConvertError.of("these two cannot be one model", problems)
    sizes = {f"generator_{n}": writer.argument(n) for n in ("width", "layers", "heads", "ffn")}
    arguments = {n: reader.argument(n) for n in (*SIZES, *COMMON)}
    arguments |= sizes | {"generator": "network", "tying": "embeddings" if tied else "none"}
    found = [p.objectives for p in (parts[GENERATOR], parts[DISCRIMINATOR]) if p.objectives]
    return _changed(parts[DISCRIMINATOR], arguments, found)


FAMILIES = (
    Family(
        model_type="electra",
        model="electra",
        config="electra",
        fields=(
            Field("num_hidden_layers", "layers", 12),
            Field("hidden_size", "width", 256),
            Field("num_attention_heads", "heads", 4),
            Field("intermediate_size", "ffn", 1024),
            Field("embedding_size", "embedding", 128),
            *bert.FIELDS[4:],
            *bert.TABLES,
        ),
        fixed=bert.FIXED | {"tie_word_embeddings": (True,)},
        known=(
            *("summary_type", "summary_use_proj", "summary_activation", "summary_last_dropout"),
            "generator_size",  # of an older form of these files, which says it of the other one
        ),
        arguments=_arguments,
        table=_table,
        architectures=(
            Architecture("ElectraForMaskedLM", frozenset({"tokens"})),
            Architecture("ElectraForPreTraining", frozenset({"replaced"})),
            Architecture("ElectraModel", frozenset(), frozenset()),
        ),
        objectives=(("heads/tokens/bias", "mlm"), ("heads/replaced/dense/kernel", DETECTION)),
        settings=lambda call, vocab: bert.segments(call),
        fits=_fits,
        split=_pair,
        join=_joined,
    ),
)
