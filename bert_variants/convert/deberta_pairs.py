"""A ``deberta_rtd`` as two models: its generator and its discriminator, each a ``deberta``.

With ``sharing='gdes'`` the discriminator's tables are stored as differences from the generator's.
The directory of the discriminator has the sums, as published ones have; from a sum and the
generator's table the difference cannot be had to the last bit, so the two are read again as a pair
with tables of their own (``sharing='nes'``), which computes the same.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from bert_variants import config, registry
from bert_variants.convert.errors import check
from bert_variants.convert.family import Part, resolved

GENERATOR, DISCRIMINATOR = "generator", "discriminator"
OBJECTIVES = (
    ("heads/tokens/bias", "mlm"),
    ("heads/replaced/dense/kernel", "10*replaced_token"),  # the weight is the published code's
)
OF_GENERATOR = ("token_logits_BPV", "span_logits_BPV")
# Arguments that both networks have in common.
COMMON = (
    *("width", "heads", "ffn", "embedding", "relative", "key_bias", "convolution", "positions"),
    *("segments", "dropout", "attention_dropout", "eps", "activation", "initialiser"),
)
TABLES = ("word", "position", "segment")


def split(experiment: config.Experiment) -> dict[str, Part]:
    """The two parts of a ``deberta_rtd``; none of a ``deberta``, which is one network."""
    call = registry.lookup("model", experiment.model)
    if call.name != "deberta_rtd":
        return {}
    call = resolved(call)
    common = {name: call.argument(name) for name in COMMON}
    layers, absolute = call.argument("layers"), call.argument("absolute")
    terms = config.objective_terms(experiment.objectives)
    drawn = [f"{weight}*{o}" for weight, o in terms if _of_generator(o)]
    rest = [f"{weight}*{o}" for weight, o in terms if not _of_generator(o)]
    reader = common | {"layers": layers, "absolute": "input" if absolute == "input" else "none"}
    writer = common | {
        "layers": call.argument("generator_layers") or max(1, layers // 2),
        "absolute": absolute,
    }
    sharing = call.argument("sharing")
    return {
        DISCRIMINATOR: Part(
            _single(experiment, reader, rest), lambda path: _of_discriminator(path, sharing)
        ),
        GENERATOR: Part(_single(experiment, writer, drawn or ["mlm"]), _of_writer),
    }


def _of_generator(objective: str) -> bool:
    reads = registry.lookup("objective", objective).traits["reads"]
    return all(output in OF_GENERATOR for output in reads)


def _single(
    experiment: config.Experiment, arguments: dict[str, Any], objectives: list[str]
) -> config.Experiment:
    return dataclasses.replace(
        experiment,
        model=registry.write("deberta", arguments),
        objectives=" + ".join(objectives),
    )


def _of_discriminator(path: str, sharing: str) -> tuple[str, ...]:
    """The parameters of the pair that one of the discriminator is made of."""
    top, _, rest = path.partition("/")
    if top == "encoder":
        return (f"discriminator/{rest}",)
    if top != "embeddings" or rest.split("/")[0] not in TABLES or sharing == "nes":
        return (path,)
    beneath = f"generator_{path}"
    return (beneath,) if sharing == "es" else (beneath, path)


def _of_writer(path: str) -> tuple[str, ...]:
    """The parameter of the pair that one of the generator is."""
    top, _, rest = path.partition("/")
    if top == "encoder":
        return (f"generator/{rest}",)
    return (f"generator_{path}",) if top == "embeddings" else (path,)


def read_again(experiment: config.Experiment) -> config.Experiment:
    """The experiment as which the two directories are read: sums stay sums."""
    call = registry.lookup("model", experiment.model)
    if call.name != "deberta_rtd" or call.argument("sharing") != "gdes":
        return experiment
    return dataclasses.replace(experiment, model=registry.edit(experiment.model, sharing="nes"))


def joined(parts: dict[str, config.Experiment], tied: bool) -> config.Experiment:
    """The experiment of both, from those of two directories.

    Args:
        parts: folder -> experiment.
        tied: whether their tables are the same; each keeps its own all the same.

    Raises:
        ConvertError: two that are no generator and discriminator of one size.
    """
    del tied
    reader, writer = (
        resolved(registry.lookup("model", parts[name].model)) for name in (DISCRIMINATOR, GENERATOR)
    )
    problems = [
        f"{name} is {writer.argument(name)!r} of the generator and {reader.argument(name)!r} of "
        "the discriminator."
        for name in COMMON
        if writer.argument(name) != reader.argument(name)
    ]
    if not writer.argument("tied"):
        problems.append("the generator's head has a table of its own, which a pair's has not.")
    places = {reader.argument("absolute"), writer.argument("absolute")}
    if "input" in places and len(places) > 1:
        problems.append("positions enter one of them with the tokens, the other otherwise.")
    if reader.argument("absolute") == "decoder":
        problems.append("the discriminator has a table of positions, which only a decoder reads.")
    check("these two cannot be one model", problems)
    arguments = {name: reader.argument(name) for name in COMMON} | {
        "layers": reader.argument("layers"),
        "generator_layers": writer.argument("layers"),
        "absolute": writer.argument("absolute"),
        "sharing": "nes",
    }
    said = [parts[name].objectives for name in (GENERATOR, DISCRIMINATOR)]
    return dataclasses.replace(
        parts[DISCRIMINATOR],
        model=registry.write("deberta_rtd", arguments),
        objectives=" + ".join(one for one in said if one),
    )
