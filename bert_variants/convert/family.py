"""What a family of models is in a Hugging Face directory, and what can be done with that.

How to write one: see ``families/__init__.py``.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Collection, Mapping
from typing import Any

import jax

from bert_variants import config, keys, registry
from bert_variants.convert.errors import ConvertError, check
from bert_variants.convert.fields import CHANGES_NOTHING, Field, Settings
from bert_variants.convert.rules import Shape, Table
from bert_variants.convert.tensors import Tensors
from bert_variants.models import network
from bert_variants.train import leaves, setup
from bert_variants.types import Vocab


@dataclasses.dataclass(frozen=True)
class Architecture:
    """A class of transformers, and which of our heads it has.

    Attributes:
        name: as ``architectures`` in config.json says it.
        heads: as ``heads_of`` names them.
        needs: heads that it cannot be without; None: all of them.
    """

    name: str
    heads: frozenset[str]
    needs: frozenset[str] | None = None

    @property
    def needed(self) -> frozenset[str]:
        return self.heads if self.needs is None else self.needs


@dataclasses.dataclass(frozen=True)
class Part:
    """One of the networks of a model that holds several, as a model by itself.

    Attributes:
        experiment: of this part alone.
        whole: the path of one of its parameters -> that in the whole model; of several paths the
            sum (a table that is stored as a difference from another one).
    """

    experiment: config.Experiment
    whole: Callable[[str], tuple[str, ...]]


def _nothing(*_: Any) -> dict[str, Any]:
    return {}


def _fits(*_: Any) -> str:
    return ""


def _whole(*_: Any) -> dict[str, Part]:
    return {}


def _itself(experiment: config.Experiment) -> config.Experiment:
    return experiment


@dataclasses.dataclass(frozen=True)
class Family:
    """One family.

    Attributes:
        model_type: in config.json.
        model: the name that our model is registered by.
        config: our shipped config: what stands in the experiment beside the model.
        fields: of config.json, that are arguments of our model.
        fixed: fields that must have one of these values, because ours does nothing else; the first
            is transformers' default and is written.
        known: fields that ``arguments`` reads, or that change nothing in this family.
        table: from our model's call to its rules.
        architectures: the one that has most of a model's heads and needs no others is written.
        objectives: (a parameter of ours, the objective that trains it): an experiment that is read
            has the objectives whose parameters are in the file.
        arguments: further arguments of our model, from Settings and the tensors that are there.
        settings: further fields of config.json, from our model's call and its Vocab. Raises
            ConvertError for what cannot be said.
        fits: why a model of ours, by its call and the names of its heads, cannot be written in this
            form; empty if it can.
        rank: of the forms that fit, the highest is written; negative: only where it is asked for.
        split: folder -> part, of an experiment whose model holds several networks and is written as
            several directories; empty: it is one.
        again: the experiment as which the parts are read, where that differs from what was split.
        join: the inverse: folder -> experiment, and whether the parts have the same embeddings.
            Raises ConvertError for parts that make no whole. None: it cannot be had.
    """

    model_type: str
    model: str
    config: str
    fields: tuple[Field, ...]
    table: Callable[[registry.Call], Table]
    architectures: tuple[Architecture, ...]
    objectives: tuple[tuple[str, str], ...]
    fixed: Mapping[str, tuple[Any, ...]] = dataclasses.field(default_factory=dict)
    known: Collection[str] = ()
    arguments: Callable[[Settings, Tensors], dict[str, Any]] = _nothing
    settings: Callable[[registry.Call, Vocab], dict[str, Any]] = _nothing
    fits: Callable[[registry.Call, frozenset[str]], str] = _fits
    rank: int = 0
    split: Callable[[config.Experiment], dict[str, Part]] = _whole
    again: Callable[[config.Experiment], config.Experiment] = _itself
    join: Callable[[dict[str, config.Experiment], bool], config.Experiment] | None = None

    def table_of(self, experiment: config.Experiment) -> Table:
        """The rules of an experiment's model."""
        return self.table(resolved(registry.lookup("model", experiment.model)))

    def experiment_of(self, settings: Settings, found: Tensors) -> config.Experiment:
        """The experiment whose model computes what this directory's computes.

        Args:
            settings: its config.json.
            found: its tensors: heads that are there become objectives.

        Raises:
            ConvertError: lists every field with a value that ours cannot do, or that is not known.
        """
        arguments, problems = {}, []
        for field in self.fields:
            value, why = field.read(settings)
            arguments[field.ours] = value
            problems += why
        for name, allowed in self.fixed.items():
            value = settings.said_or(name, allowed[0])
            if not any(value is one or (value == one and value is not None) for one in allowed):
                able = " or ".join(map(repr, allowed))
                problems.append(f"{name} is {value!r}, our model '{self.model}' does {able} only.")
        known = {*CHANGES_NOTHING, *self.known, *self.fixed, "vocab_size"}
        known |= {field.theirs for field in self.fields}
        problems += [
            f"{name} is {settings.values[name]!r}, a field of unknown meaning. Remove it from the "
            "file if it changes nothing."
            for name in sorted(set(settings.values) - known)
        ]
        heading = f"{settings.where} describes a model that cannot be read"
        check(heading, problems)
        arguments |= self.arguments(settings, found)
        try:
            call = resolved(registry.lookup("model", registry.write(self.model, arguments)))
            table = self.table(call)
            trained = [o for path, o in self.objectives if table.named(found, path)]
            return self.experiment(call, " + ".join(trained))
        except ValueError as error:  # sizes that do not fit each other
            raise ConvertError(f"{heading}: {error}") from None

    def experiment(self, call: registry.Call, objectives: str) -> config.Experiment:
        """Our shipped config with another model and other objectives."""
        parent = config.get_config(self.config)
        length = max(4, min(parent.data.length, call.argument("positions")))
        return dataclasses.replace(
            parent,
            name=self.model_type,
            data=dataclasses.replace(parent.data, length=length),
            model=str(call),
            objectives=objectives,
        )

    def hf_config_of(
        self, experiment: config.Experiment, vocab: Vocab, heads: Collection[str]
    ) -> dict[str, Any]:
        """config.json of an experiment's model.

        Args:
            experiment: whose model it is.
            vocab: special ids; ``size`` is the number of rows of the model's table.
            heads: that it has, as ``heads_of`` names them.

        Raises:
            ConvertError: lists every argument of the model that this form cannot say.
        """
        call = resolved(registry.lookup("model", experiment.model))
        made: dict[str, Any] = {
            "architectures": [self.architecture(heads).name],
            "model_type": self.model_type,
            "vocab_size": vocab.size,
        }
        problems = [why for why in [self.fits(call, frozenset(heads))] if why]
        for field in self.fields:
            try:
                made[field.theirs] = field.write(call.argument(field.ours))
            except KeyError:
                problems.append(f"{field.ours} is {call.argument(field.ours)!r}.")
        check(f"model {experiment.model} cannot be said as a {self.model_type}", problems)
        made |= {name: allowed[0] for name, allowed in self.fixed.items()}
        made |= {"initializer_range": 0.02, "pad_token_id": vocab.pad}
        return made | self.settings(call, vocab)

    def architecture(self, heads: Collection[str]) -> Architecture:
        """The class that is written for a model with these heads."""
        mine = frozenset(heads)
        able = [a for a in self.architectures if a.needed <= mine] or [self.architectures[-1]]
        return max(able, key=lambda a: len(a.heads & mine))


def resolved(call: registry.Call) -> registry.Call:
    """A model's call with every argument said, and the widths that 0 leaves to it filled in."""
    arguments = {name: call.argument(name) for name in call.entry.parameters}
    if "ffn" in arguments and not arguments["ffn"]:
        arguments["ffn"] = 4 * arguments["width"]
    if "embedding" in arguments and not arguments["embedding"]:
        arguments["embedding"] = arguments["width"]
    return registry.Call(call.entry, arguments)


def heads_of(shapes: Mapping[str, Shape]) -> frozenset[str]:
    """The names of the heads among our parameters: tokens, pooler, pair.

    A pair head of C classes other than two is called ``pairC``: no class of transformers has it.
    """
    return frozenset(head_of(path, shapes) for path in shapes) - {""}


def head_of(path: str, shapes: Mapping[str, Shape]) -> str:
    """The head that a parameter belongs to, as ``heads_of`` names it; empty for none."""
    top, _, rest = path.partition("/")
    if top != "heads":
        return ""
    name = rest.split("/")[0]
    classes = shapes["heads/pair/output/bias"][0] if name == "pair" else 2
    return name if classes == 2 else f"{name}{classes}"


def shapes_of(experiment: config.Experiment, vocab_size: int) -> dict[str, Shape]:
    """The shapes of our parameters, by path; nothing is computed.

    Raises:
        ConvertError: sizes that do not fit each other.
    """
    try:
        return dict(_shapes(experiment, vocab_size))
    except (ValueError, TypeError, OverflowError) as error:
        raise ConvertError(f"model {experiment.model} cannot be built: {error}") from None


@functools.lru_cache(maxsize=32)
def _shapes(experiment: config.Experiment, vocab_size: int) -> tuple[tuple[str, Shape], ...]:
    # as a loop: one layer is traced, however many there are
    looped = dataclasses.replace(experiment.run, scan="on", precision="float32")
    net = network.build(dataclasses.replace(experiment, run=looped), vocab_size)
    rows = setup.example_rows(4, registry.lookup("example", experiment.data.example))
    made = jax.eval_shape(lambda: net.init(keys.root(0), rows))
    named, _ = leaves.flatten(made)
    return tuple((path, tuple(leaf.shape)) for path, leaf in named.items())
