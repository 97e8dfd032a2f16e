"""The experiment as one frozen value: what a config file returns and a checkpoint stores.

Every default stands here; there is no second place. What can be swapped by name (source,
tokenizer, example, corruption, model, objectives, optimizer, schedule) is a call-string of the
registry. A variant is ``dataclasses.replace`` of a parent.
"""

from __future__ import annotations

import ast
import dataclasses
import importlib
import importlib.util
import inspect
import json
import math
import re
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from bert_variants import registry

Precision = Literal["auto", "float32", "bfloat16", "bfloat16_dots"]


class ConfigError(ValueError):
    """A field that is unknown, of the wrong kind, out of range, or does not fit another one."""


@dataclasses.dataclass(frozen=True)
class Data:
    """Text in, rows out.

    Attributes:
        source: where documents come from: pydocs(), text("*.txt"), tfds("name"), synthetic().
        held_out_source: documents to evaluate on; empty: a share of ``source``.
        held_out: share of ``source``'s documents that are held out, chosen by their content.
        tokenizer: wordpiece(size=8192) trains one on the corpus; wordpiece(file="vocab.txt")
            loads one. Likewise byte_bpe(...) and sentencepiece(...).
        units: phrase and entity boundaries to store with the text; empty: none.
        example: how rows are built from documents.
        length: T, tokens a row, specials included.
        copies: 0 draws new rows and masks on every visit. k repeats them after k visits: static
            masking with k copies, as in BERT's own data (dupe_factor).
        dir: where prepared shards are kept, one folder for each (source, tokenizer, units).
        workers: processes that prepare text; 0: one a core. The shards do not depend on it.
    """

    source: str = "pydocs()"
    held_out_source: str = ""
    held_out: float = 0.05
    tokenizer: str = "wordpiece(size=8192)"
    units: str = ""
    example: str = "nsp_pairs()"
    length: int = 128
    copies: int = 0
    dir: str = "data"
    workers: int = 0


@dataclasses.dataclass(frozen=True)
class Optim:
    """How gradients become updates.

    Attributes:
        optimizer: adamw(...), lamb(...); see train/optim.py.
        schedule: the learning rate over steps: bert_linear(), linear(), product(), cosine(),
            constant().
        lr: the schedule's peak.
        warmup: steps of linear warm-up.
        weight_decay: decoupled, scaled by the learning rate.
        no_decay: parameters whose path matches one of these regular expressions are not decayed
            (and take no trust ratio in LAMB).
        clip: largest global gradient norm; 0: no clipping.
        freeze: parameters whose path matches one of these regular expressions never change. They
            have no moments, and no part in the norm that is clipped.
        layer_decay: each layer learns at this share of the rate of the one above it, for
            fine-tuning; 1: all alike. See ``train/optim.py:scale_by_depth``.
        layer_decay_gap: further factors of it between the heads and the top layer: ELECTRA was
            published with 1 and says that 0 was meant.
    """

    optimizer: str = "adamw(bias_correction=False)"
    schedule: str = "bert_linear()"
    lr: float = 1e-4
    warmup: int = 10_000
    weight_decay: float = 0.01
    no_decay: tuple[str, ...] = ("bias$", "norm/scale$")
    clip: float = 1.0
    freeze: tuple[str, ...] = ()
    layer_decay: float = 1.0
    layer_decay_gap: int = 0


@dataclasses.dataclass(frozen=True)
class Mesh:
    """Devices by axis. At most one axis may be -1: all devices that are left.

    Attributes:
        data: rows of the batch are split over it; parameters are copied.
        fsdp: rows are split over it too, and so are parameters and optimizer state.
        tensor: widths of matrices are split over it.
    """

    data: int = -1
    fsdp: int = 1
    tensor: int = 1


@dataclasses.dataclass(frozen=True)
class Run:
    """The life of a run.

    Attributes:
        dir: everything the run writes. Starting again with the same dir resumes.
        seed: all randomness comes from it.
        steps: optimizer steps of the whole run; the schedule ends there.
        batch: rows of the global batch.
        microbatches: parts that the batch is split into, one after the other. Exact: the
            gradients are those of the whole batch.
        precision: of the matrix products. Parameters, sums and losses are float32 always. auto:
            bfloat16 on GPU and TPU; on a CPU with bfloat16 instructions only the products' inputs
            are bfloat16; else float32.
        scan: compile one layer and loop over it (fast to compile) or all of them (faster on a CPU
            for shallow models). The numbers are the same. auto: scan, except on a CPU with at
            most 12 layers.
        remat: recompute activations in the backward pass, for memory.
        log_every, eval_every, save_every: in steps; 0: only at the end.
        keep: newest checkpoints that are kept, beside the best by held-out loss.
        keep_every: also keep every checkpoint whose step is a multiple; 0: none.
        init_from: a run, or a directory of Hugging Face's transformers, whose parameters start this
            run; empty: random. Heads of a published model that this run has not are left there.
        init_map: where its parameters have other names: entries "HERE <- THERE". What the regular
            expression HERE finds in the path of a parameter of this run is replaced by THERE, which
            gives its path in ``init_from``. An entry "HERE" alone: these start at random. The first
            entry that finds something counts; without one the names are the same. With a map, what
            is not taken is told and left; see ``train/origins.py``.
        output_bias: what the bias of the heads that predict tokens starts at: zeros as in BERT, or
            the log of the corpus's unigram probabilities, which spares a short run the steps that
            learn them.
        allow_change: names of fields that may differ from the checkpoint's on resume.
        max_skipped: steps with a non-finite loss or gradient that are skipped in a row before the
            run is rolled back; after three roll-backs it stops with exit code 4.
    """

    dir: str = "runs/bert"
    seed: int = 0
    steps: int = 1_000_000
    batch: int = 256
    microbatches: int = 1
    precision: Precision = "auto"
    scan: Literal["auto", "on", "off"] = "auto"
    remat: bool = False
    log_every: int = 10
    eval_every: int = 1_000
    save_every: int = 1_000
    keep: int = 2
    keep_every: int = 0
    init_from: str = ""
    init_map: tuple[str, ...] = ()
    output_bias: Literal["zeros", "unigram"] = "zeros"
    allow_change: tuple[str, ...] = ()
    max_skipped: int = 5


@dataclasses.dataclass(frozen=True)
class Evals:
    """The probes that judge every run alike, whatever trained it.

    Attributes:
        example: how held-out rows are built for the masks; not the run's own, so that runs with
            different rows are judged on the same ones.
        masks: corruptions whose masks over held-out rows are fixed: the same for every run on the
            same corpus.
        pll: pseudo-log-likelihood: so many tokens of each row are hidden, one at a time, and
            predicted from all the others; see train/pll.py. 0: none.
        rows: held-out rows at most.
        batch: rows of an evaluation batch.
    """

    example: str = "single()"
    masks: tuple[str, ...] = ("tokens(rate=0.15)", "whole_words(rate=0.15)")
    pll: int = 0
    rows: int = 512
    batch: int = 64


@dataclasses.dataclass(frozen=True)
class Experiment:
    """One experiment, complete.

    Attributes:
        name: what it is called in tables.
        data, optim, mesh, run, evals: see their classes.
        corruption: what is done to the text, such as ``tokens(rate=0.15)``.
        model: the architecture, such as ``bert(layers=12, width=768)``.
        objectives: a weighted sum, such as ``mlm + 0.5*nsp``. Empty: a model without heads, which
            can be used and not trained.
    """

    name: str = "bert"
    data: Data = dataclasses.field(default_factory=Data)
    corruption: str = "tokens(rate=0.15)"
    model: str = "bert()"
    objectives: str = "mlm + nsp"
    optim: Optim = dataclasses.field(default_factory=Optim)
    mesh: Mesh = dataclasses.field(default_factory=Mesh)
    run: Run = dataclasses.field(default_factory=Run)
    evals: Evals = dataclasses.field(default_factory=Evals)

    def __post_init__(self) -> None:
        for path, low in _AT_LEAST.items():
            value = get_field(self, path)
            if value < low:
                raise ConfigError(f"{path} is {value}, expected at least {low}.")
        if not 0 <= self.data.held_out < 1:
            raise ConfigError(f"data.held_out is {self.data.held_out}, expected 0 <= x < 1.")
        if not (self.data.held_out or self.data.held_out_source):
            raise ConfigError(
                "data.held_out is 0 and data.held_out_source is empty: every run is judged on "
                "held-out text. Set one of them."
            )
        if self.run.batch % self.run.microbatches:
            raise ConfigError(
                f"run.batch is {self.run.batch}, not divisible by run.microbatches "
                f"{self.run.microbatches}."
            )
        axes = (self.mesh.data, self.mesh.fsdp, self.mesh.tensor)
        if axes.count(-1) > 1 or any(a == 0 or a < -1 for a in axes):
            raise ConfigError(
                f"mesh is {axes}: axes are positive numbers, at most one of them -1 (the rest)."
            )
        for path, family in _CALLS.items():
            calls = get_field(self, path)
            for call in (calls,) if isinstance(calls, str) else calls:
                if call or path not in _OPTIONAL_CALLS:
                    _parse_named(path, call, family)
        objective_terms(self.objectives)
        if not 0 < self.optim.layer_decay <= 1:
            raise ConfigError(
                f"optim.layer_decay is {self.optim.layer_decay}, expected 0 < x <= 1."
            )
        if self.run.init_map and not self.run.init_from:
            raise ConfigError("run.init_map is given, but run.init_from is empty.")
        for path in ("optim.no_decay", "optim.freeze", "run.init_map"):
            for entry in get_field(self, path):
                _check_pattern(path, entry)


def init_map_entry(entry: str) -> tuple[str, str | None]:
    """An entry of ``run.init_map``: (HERE, THERE), or (HERE, None) where there is no arrow.

    ``"^discriminator/ <- generator/"`` is ``("^discriminator/", "generator/")``.
    """
    here, arrow, there = entry.partition("<-")
    return here.strip(), there.strip() if arrow else None


def _check_pattern(path: str, pattern: str) -> None:
    if path == "run.init_map":
        pattern, _ = init_map_entry(pattern)
    try:
        re.compile(pattern)
    except re.error as error:
        raise ConfigError(f"{path}: {pattern!r} is no regular expression: {error}.") from None


_AT_LEAST = {
    "data.length": 4,
    "data.copies": 0,
    "data.workers": 0,
    "optim.lr": 0,
    "optim.warmup": 0,
    "optim.weight_decay": 0,
    "optim.clip": 0,
    "optim.layer_decay_gap": 0,
    "run.steps": 1,
    "run.batch": 1,
    "run.microbatches": 1,
    "run.log_every": 0,
    "run.eval_every": 0,
    "run.save_every": 0,
    "run.keep": 1,
    "run.keep_every": 0,
    "run.max_skipped": 0,
    "evals.pll": 0,
    "evals.rows": 1,
    "evals.batch": 1,
}
# Fields that hold call-strings, and the family that each belongs to.
_CALLS = {
    "data.source": "source",
    "data.held_out_source": "source",
    "data.tokenizer": "tokenizer",
    "data.units": "units",
    "data.example": "example",
    "corruption": "corruption",
    "model": "model",
    "optim.optimizer": "optimizer",
    "optim.schedule": "schedule",
    "evals.example": "example",
    "evals.masks": "corruption",
}
_OPTIONAL_CALLS = ("data.held_out_source", "data.units")


def call_fields() -> dict[str, str]:
    """Dotted path of every field that holds call-strings -> the registry family."""
    return dict(_CALLS)


def get_field(config: Any, path: str) -> Any:
    """The value at a dotted path."""
    for part in path.split("."):
        config = getattr(config, part)
    return config


def set_field(config: Any, path: str, value: Any) -> Any:
    """A copy of ``config`` with the value at a dotted path replaced.

    Raises:
        ConfigError: no such field; names the nearest one.
    """
    head, _, rest = path.partition(".")
    known = [f.name for f in dataclasses.fields(config)]
    if head not in known:
        raise ConfigError(f"unknown field '{path}'.{registry.nearest(head, known)}")
    new = set_field(getattr(config, head), rest, value) if rest else value
    return dataclasses.replace(config, **{head: new})


def objective_terms(text: str) -> tuple[tuple[float, str], ...]:
    """Read ``mlm + 0.5*nsp(smoothing=0.1)`` into ``((1.0, "mlm()"), (0.5, "nsp(...)"))``.

    Empty text has no terms: a model without heads, which can be used and not be trained.

    Raises:
        ConfigError: anything but a sum of calls with optional numeric weights in front.
    """
    if not text.strip():
        return ()
    try:
        node = ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError) as error:
        raise ConfigError(f"objectives {text!r} cannot be read: {error}.") from None
    parts: list[ast.expr] = []
    while isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        parts.insert(0, node.right)
        node = node.left
    parts.insert(0, node)
    terms = []
    for part in parts:
        weight = 1.0
        if isinstance(part, ast.BinOp) and isinstance(part.op, ast.Mult):
            if not isinstance(part.left, ast.Constant) or not isinstance(
                part.left.value, (int, float)
            ):
                raise ConfigError(f"objectives {text!r}: a weight is a number in front: 0.5*nsp.")
            weight, part = float(part.left.value), part.right
        name, args, kwargs = _parse_named("objectives", ast.unparse(part), "objective")
        if args:
            raise ConfigError(f"objectives {text!r}: name the parameters of '{name}'.")
        terms.append((weight, registry.write(name, kwargs)))
    names = [registry.parse(call)[0] for _, call in terms]
    if len(set(names)) != len(names):
        raise ConfigError(f"objectives {text!r}: the same objective stands there twice.")
    return tuple(terms)


def _parse_named(path: str, call: str, family: str) -> tuple[str, list[Any], dict[str, Any]]:
    try:
        return registry.parse(call)
    except registry.RegistryError as error:
        raise ConfigError(f"{path} ({family}): {error}") from None


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
            for path, family in _CALLS.items()
            if path != "evals.masks"
            and (path not in _OPTIONAL_CALLS or get_field(experiment, path))
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


def to_dict(config: Any) -> dict[str, Any]:
    """Nested plain values, ready for JSON."""
    return json.loads(json.dumps(dataclasses.asdict(config)))


def from_dict(values: Mapping[str, Any], cls: type = Experiment, path: str = "") -> Any:
    """The inverse of ``to_dict``, strict.

    Raises:
        ConfigError: an unknown key (names the nearest), or a value of the wrong kind.
    """
    hints = typing.get_type_hints(cls)
    known = [f.name for f in dataclasses.fields(cls)]
    for key in values:
        if key not in known:
            raise ConfigError(f"unknown field '{path}{key}'.{registry.nearest(key, known)}")
    built = {k: _from_value(v, hints[k], f"{path}{k}") for k, v in values.items()}
    return cls(**built)


def _from_value(value: Any, hint: Any, path: str) -> Any:
    if dataclasses.is_dataclass(hint):
        if not isinstance(value, Mapping):
            raise ConfigError(f"{path} is {value!r}, expected an object.")
        return from_dict(value, hint, path + ".")
    origin = typing.get_origin(hint)
    if origin is tuple:
        if not isinstance(value, (list, tuple)):
            raise ConfigError(f"{path} is {value!r}, expected a list.")
        inner = typing.get_args(hint)[0]
        return tuple(_from_value(v, inner, f"{path}[{i}]") for i, v in enumerate(value))
    if origin is Literal:
        if value not in typing.get_args(hint):
            raise ConfigError(f"{path} is {value!r}, expected one of {typing.get_args(hint)}.")
        return value
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, hint) or (isinstance(value, bool) and hint is not bool):
        raise ConfigError(f"{path} is {value!r}, expected {hint.__name__}.")
    return value


def differences(old: Any, new: Any) -> dict[str, tuple[Any, Any]]:
    """Dotted path -> (old, new) for every leaf that differs."""
    flat_old, flat_new = _flat(to_dict(old)), _flat(to_dict(new))
    return {
        k: (flat_old.get(k), flat_new.get(k))
        for k in sorted({*flat_old, *flat_new})
        if flat_old.get(k) != flat_new.get(k)
    }


def _flat(values: Mapping[str, Any], path: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat.update(
            _flat(value, f"{path}{key}.") if isinstance(value, Mapping) else {path + key: value}
        )
    return flat


def config_module(name_or_path: str) -> types.ModuleType:
    """The module of a config: ``bert`` (a shipped one) or ``path/to/file.py``.

    Raises:
        ConfigError: no such file or name, or a file without ``get_config``.
    """
    path = Path(name_or_path)
    if path.suffix == ".py":
        if not path.is_file():
            raise ConfigError(f"config file {name_or_path} does not exist.")
        spec = importlib.util.spec_from_file_location(f"config_{path.stem}", path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    else:
        try:
            module = importlib.import_module(f"bert_variants.configs.{name_or_path}")
        except ModuleNotFoundError as error:
            if error.name != f"bert_variants.configs.{name_or_path}":
                raise
            hint = registry.nearest(name_or_path, shipped_configs())
            raise ConfigError(f"unknown config '{name_or_path}'.{hint}") from None
    if not hasattr(module, "get_config"):
        raise ConfigError(f"config {name_or_path} has no function get_config().")
    return module


def shipped_configs() -> list[str]:
    """Names of the configs that come with the package."""
    folder = Path(importlib.import_module("bert_variants.configs").__path__[0])
    return sorted(p.stem for p in folder.glob("*.py") if p.stem != "__init__")


def get_config(name_or_path: str, **arguments: Any) -> Experiment:
    """Call a config's ``get_config``, such as ``get_config("bert", size="tiny")``.

    Raises:
        ConfigError: as ``config_module``, or an argument or a value that this config does not take.
    """
    return call(config_module(name_or_path).get_config, name_or_path, arguments)


def call(function: Any, name: str, arguments: Mapping[str, Any]) -> Any:
    """Call the function of a config file, whose arguments are checked against its annotations.

    Raises:
        ConfigError: an argument that it does not take, or a value that is none of a Literal's.
    """
    known = list(inspect.signature(function).parameters)
    hints = typing.get_type_hints(function)
    for key, value in arguments.items():
        if key not in known:
            raise ConfigError(f"config '{name}' takes no '{key}'.{registry.nearest(key, known)}")
        chosen = key in hints and typing.get_origin(hints[key]) is Literal
        choices = typing.get_args(hints[key]) if chosen else ()
        if chosen and value not in choices:
            hint = registry.nearest(str(value), [str(choice) for choice in choices])
            raise ConfigError(f"config '{name}': {key} is {value!r}.{hint}")
    return function(**arguments)
