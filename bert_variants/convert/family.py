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
from bert_variants.convert.errors import check
from bert_variants.convert.rules import Shape, Table
from bert_variants.convert.tensors import Tensors
from bert_variants.models import network
from bert_variants.train import leaves, setup
from bert_variants.types import Vocab

# "gelu" is the exact function in transformers, the approximation in Google's code.
ACTIVATIONS = {
    "gelu": "gelu_erf",
    "gelu_python": "gelu_erf",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "relu": "relu",
    "tanh": "tanh",
}

# Fields of any config.json that do not change what a network computes: bookkeeping, generation,
# what is done in fine-tuning, ids that the tokenizer knows.
CHANGES_NOTHING = frozenset(
    {
        *("_name_or_path", "_num_labels", "name_or_path", "architectures", "model_type"),
        *("transformers_version", "auto_map", "torch_dtype", "dtype", "torchscript"),
        *("finetuning_task", "task_specific_params", "problem_type", "language", "name"),
        *("id2label", "label2id", "num_labels", "custom_pipelines", "adapters"),
        *("use_cache", "gradient_checkpointing", "chunk_size_feed_forward", "return_dict"),
        *("output_attentions", "output_hidden_states", "output_past", "use_bfloat16"),
        *("classifier_dropout", "classifier_dropout_prob", "initializer_range"),
        *("pad_token_id", "bos_token_id", "eos_token_id", "sep_token_id", "cls_token_id"),
        *("mask_token_id", "unk_token_id", "decoder_start_token_id", "tokenizer_class"),
        *("prefix", "do_sample", "max_length", "min_length", "early_stopping", "num_beams"),
        *("num_beam_groups", "diversity_penalty", "temperature", "top_k", "top_p", "typical_p"),
        *("repetition_penalty", "length_penalty", "no_repeat_ngram_size", "bad_words_ids"),
        *("encoder_no_repeat_ngram_size", "num_return_sequences", "output_scores"),
        *("return_dict_in_generate", "forced_bos_token_id", "forced_eos_token_id"),
        *("remove_invalid_values", "exponential_decay_length_penalty", "suppress_tokens"),
        *("begin_suppress_tokens", "tf_legacy_loss", "is_encoder_decoder"),
        *("cross_attention_hidden_size", "pruned_heads", "_attn_implementation"),
        *("_attn_implementation_autoset", "attn_implementation", "layer_norm_type"),
        *("pooler_fc_size", "pooler_num_attention_heads", "pooler_num_fc_layers"),
        *("pooler_size_per_head", "pooler_type", "directionality"),
    }
)


@dataclasses.dataclass(frozen=True)
class Field:
    """A field of config.json that is an argument of our model.

    Attributes:
        theirs: its name there.
        ours: the model's argument.
        default: what transformers takes where the file does not say it.
        values: their value -> ours, where they are spelled differently; several of theirs may be
            one of ours, of which the first is written. None: the same.
    """

    theirs: str
    ours: str
    default: Any
    values: Mapping[Any, Any] | None = None

    def read(self, value: Any) -> Any:
        """Ours; raises KeyError for a value that ours cannot do."""
        return value if self.values is None else self.values[value]

    def write(self, value: Any) -> Any:
        """Theirs; raises KeyError for a value that theirs cannot do."""
        if self.values is None:
            return value
        for theirs, ours in self.values.items():
            if ours == value:
                return theirs
        raise KeyError(value)


@dataclasses.dataclass(frozen=True)
class Architecture:
    """A class of transformers, and which of our heads it has.

    Attributes:
        name: as ``architectures`` in config.json says it.
        heads: names under ``heads/`` in our parameters.
        needs: heads that it cannot be without; None: all of them.
    """

    name: str
    heads: frozenset[str]
    needs: frozenset[str] | None = None

    @property
    def needed(self) -> frozenset[str]:
        return self.heads if self.needs is None else self.needs


@dataclasses.dataclass(frozen=True)
class Settings:
    """A config.json, with what transformers takes where it says nothing.

    Attributes:
        values: of the file.
        where: the file, for messages.
    """

    values: Mapping[str, Any]
    where: str

    def __contains__(self, name: str) -> bool:
        return name in self.values

    def get(self, name: str, default: Any) -> Any:
        """The value, or transformers' own default."""
        return self.values[name] if name in self.values else default


def _nothing(*_: Any) -> dict[str, Any]:
    return {}


def _fits(*_: Any) -> str:
    return ""


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
        known: fields that are read by ``arguments``, or change nothing in this family.
        table: from our model's call to its rules.
        architectures: the first that has all heads of a model is written, else the one that has
            most of them.
        objectives: (a parameter of ours, the objective that trains it): an experiment that is read
            has the objectives whose parameters are in the file.
        arguments: further arguments of our model, from Settings.
        settings: further fields of config.json, from our model's call and its Vocab.
        fits: why a model of ours, by its call and the names of its heads, cannot be written in this
            form; empty if it can. Forms of one model should exclude each other.
        automatic: whether the form is chosen without being named.
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
    arguments: Callable[[Settings], dict[str, Any]] = _nothing
    settings: Callable[[registry.Call, Vocab], dict[str, Any]] = _nothing
    fits: Callable[[registry.Call, frozenset[str]], str] = _fits
    automatic: bool = True

    def experiment_of(self, settings: Settings, found: Tensors) -> config.Experiment:
        """The experiment whose model computes what this directory's computes.

        Args:
            settings: its config.json.
            found: its tensors: heads that are there become objectives.

        Raises:
            ConvertError: lists every field with a value that ours cannot do, or of no known meaning.
        """
        arguments, problems = {}, []
        for field in self.fields:
            value = settings.get(field.theirs, field.default)
            try:
                arguments[field.ours] = field.read(value)
            except (KeyError, TypeError):
                problems.append(
                    f"{field.theirs} is {value!r}, of which our {self.model} knows "
                    f"{', '.join(map(repr, field.values))}."
                )
        for name, allowed in self.fixed.items():
            value = settings.get(name, allowed[0])
            if value not in allowed:
                problems.append(f"{name} is {value!r}, our {self.model} does {allowed[0]!r} only.")
        known = {*CHANGES_NOTHING, *self.known, *self.fixed, "vocab_size"}
        known |= {field.theirs for field in self.fields}
        problems += [
            f"{name} is {settings.values[name]!r}, a field of unknown meaning. Remove it from the "
            "file if it changes nothing."
            for name in sorted(set(settings.values) - known)
        ]
        check(f"{settings.where} describes a model that cannot be read", problems)
        model = registry.write(self.model, arguments | self.arguments(settings))
        call = registry.lookup("model", model)
        table = self.table(call)
        trained = [o for path, o in self.objectives if table.named(found, path)]
        return self.experiment(call, " + ".join(trained))

    def experiment(self, call: registry.Call, objectives: str) -> config.Experiment:
        """Our shipped config with another model and other objectives."""
        parent = config.get_config(self.config)
        length = min(parent.data.length, call.argument("positions"))
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
            heads: names of the heads that it has.

        Raises:
            ConvertError: lists every argument of the model that this form cannot say.
        """
        call = registry.lookup("model", experiment.model)
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
        """The class that is written for a model with these heads: one that needs no others, and
        has most of them."""
        able = [a for a in self.architectures if a.needed <= frozenset(heads)]
        chosen = able or self.architectures[-1:]
        return max(chosen, key=lambda a: len(a.heads & frozenset(heads)))


def heads_of(shapes: Mapping[str, Shape]) -> frozenset[str]:
    """The names of the heads among our parameters: tokens, pooler, pair.

    A pair head of C classes other than two is called ``pairC``: no class of transformers has it.
    """
    return frozenset(head_of(path, shapes) for path in shapes if path.startswith("heads/"))


def head_of(path: str, shapes: Mapping[str, Shape]) -> str:
    """The head that a parameter belongs to, as ``heads_of`` names it; empty for none."""
    top, _, rest = path.partition("/")
    if top != "heads":
        return ""
    name = rest.split("/")[0]
    classes = shapes["heads/pair/output/bias"][0] if name == "pair" else 2
    return name if classes == 2 else f"{name}{classes}"


def shapes_of(experiment: config.Experiment, vocab_size: int) -> dict[str, Shape]:
    """The shapes of our parameters, by path; nothing is computed."""
    return dict(_shapes(experiment, vocab_size))


@functools.lru_cache(maxsize=32)
def _shapes(experiment: config.Experiment, vocab_size: int) -> tuple[tuple[str, Shape], ...]:
    net = network.build(experiment, vocab_size)
    rows = setup.example_rows(4, registry.lookup("example", experiment.data.example))
    made = jax.eval_shape(lambda: net.init(keys.root(0), rows))
    named, _ = leaves.flatten(made)
    return tuple((path, tuple(leaf.shape)) for path, leaf in named.items())
