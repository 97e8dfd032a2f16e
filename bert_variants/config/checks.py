"""Whether the parts of an experiment fit together, before anything is compiled."""

from __future__ import annotations

import math

from bert_variants import registry
from bert_variants.config.experiment import CALLS, OPTIONAL_CALLS, Experiment
from bert_variants.config.fields import ConfigError, get_field
from bert_variants.config.terms import objective_terms


def check(experiment: Experiment) -> None:
    """Resolve every name and refuse combinations that mean nothing, before anything is compiled.

    Objectives declare what they read of the model (``reads``) and of the rows (``needs``);
    examples declare their ``labels``, corruptions what they add (``gives``) and, where they need
    it, which field of the config must not be empty (``needs``), models which outputs they can make
    (``outputs``).

    Raises:
        ConfigError: an unknown name or parameter, or an objective whose input nobody provides.
    """
    try:
        found = {
            path: registry.lookup(family, get_field(experiment, path))
            for path, family in CALLS.items()
            if path != "evals.masks" and (path not in OPTIONAL_CALLS or get_field(experiment, path))
        }
        masks = [registry.lookup("corruption", call) for call in experiment.evals.masks]
        objectives = [
            registry.lookup("objective", call) for _, call in objective_terms(experiment.objectives)
        ]
    except registry.RegistryError as error:
        raise ConfigError(str(error)) from None
    if not objectives:
        raise ConfigError("objectives is empty: there is nothing to train. Name some: mlm + nsp.")
    example, corruption, model = (found[k] for k in ("data.example", "corruption", "model"))
    for chosen in (corruption, *masks):
        _check_rate(chosen)
        _check_room(chosen, experiment.data.length)
        for field in chosen.traits["needs"]:
            if not get_field(experiment, field):
                raise ConfigError(f"corruption '{chosen}' needs {field}, which is empty.")
        if _leaves_the_answers(chosen) and "order_BT" not in model.traits["reads"]:
            able = [n for n in registry.names("model") if _reads_order(n)]
            raise ConfigError(
                f"corruption '{chosen}' leaves what is to be predicted in the text and says in "
                f"which order it may be read, but model '{model.name}' reads all of it at once. "
                f"Models that keep to an order: {', '.join(able)}."
            )
    given = {f"labels.{name}" for name in example.traits["labels"]}
    given |= set(corruption.traits["gives"])
    for objective in objectives:
        for need in objective.traits["needs"]:
            if need not in given:
                raise ConfigError(
                    f"objective '{objective.name}' needs {need}, which neither example "
                    f"'{example.name}' nor corruption '{corruption.name}' gives. "
                    f"Given here: {', '.join(sorted(given)) or 'nothing'}."
                )
        for output in objective.traits["reads"]:
            if output not in model.traits["outputs"]:
                raise ConfigError(
                    f"objective '{objective.name}' reads {output}, which model '{model.name}' "
                    f"does not make. It makes: {', '.join(model.traits['outputs'])}."
                )


def _leaves_the_answers(corruption: registry.Call) -> bool:
    """Whether it, or one that it holds, predicts tokens that stand in its inputs, by an order."""
    within = any(_leaves_the_answers(inner) for inner in corruption.inner())
    return within or "order_BT" in corruption.entry.traits["gives"]


def _reads_order(model: str) -> bool:
    return "order_BT" in registry.entry("model", model).traits["reads"]


def _check_rate(corruption: registry.Call) -> None:
    """Refuse a share of tokens that leaves nothing to predict or nothing to read."""
    for inner in corruption.inner():
        _check_rate(inner)
    named = corruption.entry.parameters
    if "rate" in named and not 0 < corruption.argument("rate") < 1:
        rate = corruption.argument("rate")
        ends = {0: "nothing would be predicted", 1: "no text would be left to predict from"}
        why = ends[rate] if rate in ends else "it is a share of the text"
        raise ConfigError(
            f"corruption '{corruption}': rate is {rate}, expected 0 < rate < 1: {why}."
        )
    if "max_predictions" in named and corruption.argument("max_predictions") < 0:
        raise ConfigError(
            f"corruption '{corruption}': max_predictions is "
            f"{corruption.argument('max_predictions')}, expected a number of positions, or 0 for "
            "as many as the rate may take."
        )


def _check_room(corruption: registry.Call, length: int) -> None:
    """Refuse room for fewer predictions than the rate asks for, which would silently be another
    rate. One less is another way to round.
    """
    for inner in corruption.inner():
        _check_room(inner, length)
    named = corruption.entry.parameters
    if not {"rate", "max_predictions"} <= named.keys() or not corruption.argument(
        "max_predictions"
    ):
        return
    room, rate = corruption.argument("max_predictions"), corruption.argument("rate")
    asked = math.ceil(round(rate * length, 9))
    if room < asked - 1:
        on_purpose = f" or, if so few are meant, write cap={room}" if "cap" in named else ""
        raise ConfigError(
            f"corruption '{corruption}' asks for {asked} of {length} tokens, but max_predictions "
            f"has room for {room}, {room / length:.1%} of a full row. Leave max_predictions out "
            f"(or make it {asked}), or lower the rate{on_purpose}."
        )


def wanted_outputs(experiment: Experiment) -> tuple[tuple[str, int], ...]:
    """The heads that the objectives ask of the model: (output, classes or 0), sorted.

    Raises:
        ConfigError: two objectives that ask the same head for different numbers of classes.
    """
    wanted: dict[str, int] = {}
    for _, call in objective_terms(experiment.objectives):
        for output, classes in registry.lookup("objective", call).traits["reads"].items():
            if wanted.setdefault(output, classes) != classes:
                raise ConfigError(
                    f"objectives {experiment.objectives!r} ask {output} for {wanted[output]} and "
                    f"for {classes} classes."
                )
    return tuple(sorted(wanted.items()))
