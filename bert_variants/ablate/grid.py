"""A grid: named arms as overrides of one base experiment, times seeds. What a grid file returns.

::

    # configs/ablations/rate.py
    def get_grid(...) -> Grid:
        return Grid(name="rate", base=..., baseline="15 %", seeds=(0, 1, 2),
                    arms={"rate-15": {}, "rate-40": {"corruption.rate": 0.4}}, ...)

An override is the dotted path of a field and its value; below a field that holds a call-string
stands a parameter of the call: ``corruption.rate`` edits ``tokens(rate=0.15)``. Arms times seeds
are cells; a cell is an experiment with a directory of its own.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import re
import types
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from bert_variants import config, registry
from bert_variants.config import ConfigError, Experiment

PACKAGE = "bert_variants.configs.ablations"
# What must be the same for all arms, or they are not compared on equal terms: the text, what
# judges, and how much of it is seen.
EQUAL = (
    "data.source",
    "data.held_out_source",
    "data.held_out",
    "data.tokenizer",
    "data.units",
    "data.length",
    "data.dir",
    "evals.example",
    "evals.masks",
    "evals.rows",
    "evals.batch",
    "evals.pll",
    "run.steps",
    "run.batch",
    "run.eval_every",
    "run.init_from",
)
# A grid of equal tokens may divide the same number of rows otherwise; one of equal FLOPs gives
# each arm its number of steps.
SHARED_OUT = {
    "steps": (),
    "tokens": ("run.steps", "run.batch"),
    "flops": ("run.steps",),
}
# Set for each cell.
OWN = ("name", "run.dir", "run.seed")
PLL = "pll"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


@dataclasses.dataclass(frozen=True)
class Cell:
    """One run of a grid: an arm with a seed."""

    arm: str
    seed: int
    experiment: Experiment

    @property
    def dir(self) -> Path:
        """The run's directory."""
        return Path(self.experiment.run.dir)

    def __str__(self) -> str:
        return f"{self.arm}/seed-{self.seed}"


@dataclasses.dataclass(frozen=True)
class Grid:
    """What is compared with what.

    Attributes:
        name: for tables and directories.
        base: the experiment that arms are overrides of; cells lie below its ``run.dir``.
        arms: name -> dotted path -> value, in the order in which they are shown.
        baseline: the arm that all others are compared with.
        seeds: every arm is trained with each of them.
        claim: what a paper says about it, with the paper's name and section.
        number: the paper's number.
        compares: what is compared here, and what cannot be concluded from it.
        measures: names of results, such as ``pll/mlm/loss``; verdicts are about the first. Empty:
            the loss of every probe, pseudo-log-likelihood first.
        equal: what all arms have alike. ``steps``: steps and batch; ``tokens``: their product
            alone; ``flops``: the operations of all training steps (``plan.flops``), which those of
            the baseline set: an arm whose step takes twice as many makes half the steps.
    """

    name: str
    base: Experiment
    arms: Mapping[str, Mapping[str, Any]]
    baseline: str
    seeds: tuple[int, ...] = (0, 1, 2)
    claim: str = ""
    number: str = ""
    compares: str = ""
    measures: tuple[str, ...] = ()
    equal: Literal["steps", "tokens", "flops"] = "steps"

    @property
    def dir(self) -> Path:
        """Where everything about the grid is written."""
        return Path(self.base.run.dir)

    def arm(self, name: str) -> Experiment:
        """The experiment of an arm, but for seed and directory.

        Raises:
            ConfigError: an override of a field or parameter that does not exist, or of a value
                that it does not take.
        """
        experiment = self._overridden(name)
        if self.equal != "flops" or name == self.baseline:
            return experiment
        baseline = self._overridden(self.baseline)
        total = baseline.run.steps * step_flops(baseline)
        return config.set_field(experiment, "run.steps", round(total / step_flops(experiment)))

    def _overridden(self, name: str) -> Experiment:
        experiment = config.set_field(self.base, "name", name)
        for path, value in self.arms[name].items():
            try:
                experiment = overridden(experiment, path, value)
            except (ConfigError, registry.RegistryError) as error:
                raise ConfigError(f"grid {self.name}, arm {name}: {error}") from None
        return experiment

    def cells(self) -> tuple[Cell, ...]:
        """All of them, every arm's first seed before any arm's second."""
        made = {name: self.arm(name) for name in self.arms}
        return tuple(
            Cell(name, seed, self._placed(experiment, name, seed))
            for seed in self.seeds
            for name, experiment in made.items()
        )

    def _placed(self, experiment: Experiment, arm: str, seed: int) -> Experiment:
        folder = str(self.dir / "cells" / arm / f"seed-{seed}")
        run = dataclasses.replace(experiment.run, dir=folder, seed=seed)
        return dataclasses.replace(experiment, run=run)

    def judged_by(self) -> tuple[str, ...]:
        """Names of the results that arms are judged by, the one that decides first."""
        return self.measures or measures_of(self.base)

    def check(self) -> None:
        """Refuse a grid that compares nothing, or not on equal terms. Before anything is trained.

        Raises:
            ConfigError: says which arm and what is wrong with it.
        """
        self._check_names()
        experiments = {name: self.arm(name) for name in self.arms}
        for name, experiment in experiments.items():
            self._check_equal(name, experiment)
            try:
                config.check(experiment)
            except ConfigError as error:
                raise ConfigError(f"grid {self.name}, arm {name}: {error}") from None
        self._check_different(experiments)
        self._check_measures()

    def _check_names(self) -> None:
        where = f"grid {self.name}"
        if len(self.arms) < 2:
            raise ConfigError(f"{where} has {len(self.arms)} arms, expected at least 2.")
        if self.baseline not in self.arms:
            hint = registry.nearest(self.baseline, list(self.arms))
            raise ConfigError(f"{where}: the baseline '{self.baseline}' is no arm.{hint}")
        for name in (self.name, *self.arms):
            if not _NAME.fullmatch(name):
                raise ConfigError(
                    f"{where}: '{name}' cannot name a directory; take letters, digits, '.', '_' "
                    "and '-', a letter or digit first."
                )
        if len({name.lower() for name in self.arms}) < len(self.arms):
            raise ConfigError(f"{where}: two arms differ in upper and lower case alone.")
        if not self.seeds or len(set(self.seeds)) < len(self.seeds) or min(self.seeds) < 0:
            raise ConfigError(f"{where}: seeds are {self.seeds}, expected distinct ones from 0.")

    def _check_equal(self, name: str, experiment: Experiment) -> None:
        for path in self.arms[name]:
            if path in OWN:
                raise ConfigError(
                    f"grid {self.name}, arm {name} sets {path}, which is set for each cell."
                )
        changed = config.differences(self.base, experiment)
        if self.equal == "flops" and "run.steps" in self.arms[name]:
            raise ConfigError(
                f"grid {self.name}, arm {name} sets run.steps, which follow from equal FLOPs."
            )
        for path in EQUAL:
            if path in changed and path not in SHARED_OUT[self.equal]:
                old, new = changed[path]
                raise ConfigError(
                    f"grid {self.name}, arm {name} sets {path} to {new!r}, the base has {old!r}: "
                    "arms would not be compared on equal terms. Change the base"
                    + (", or say equal='tokens'." if path in SHARED_OUT["tokens"] else ".")
                )
        if self.equal != "flops" and _rows(experiment) != _rows(self.base):
            raise ConfigError(
                f"grid {self.name}, arm {name} sees {_rows(experiment):,} rows, the base "
                f"{_rows(self.base):,}: run.steps times run.batch must be equal."
            )

    def _check_different(self, experiments: Mapping[str, Experiment]) -> None:
        seen: dict[str, str] = {}
        for name, experiment in experiments.items():
            same = repr(canonical(dataclasses.replace(experiment, name="")))
            if same in seen:
                raise ConfigError(
                    f"grid {self.name}: arms {seen[same]} and {name} are the same experiment."
                )
            seen[same] = name

    def _check_measures(self) -> None:
        known = measures_of(self.base)
        if not known:
            raise ConfigError(
                f"grid {self.name}: the base has no probe that all arms share. Name evals.masks, "
                "or set evals.pll, and train with mlm."
            )
        known = (*known, *(name.replace("/loss", "/accuracy") for name in known))
        for name in self.measures:
            if name not in known:
                raise ConfigError(
                    f"grid {self.name}: no probe gives '{name}'.{registry.nearest(name, [*known])}"
                )


def _rows(experiment: Experiment) -> int:
    return experiment.run.steps * experiment.run.batch


def step_flops(experiment: Experiment) -> int:
    """Operations of a training step, with a vocabulary as large as its tokenizer is asked for."""
    run = dataclasses.replace(experiment.run, dir="", seed=0, steps=1)
    return _step_flops(dataclasses.replace(experiment, name="", run=run))


@functools.lru_cache(maxsize=64)
def _step_flops(experiment: Experiment) -> int:
    from bert_variants.plan import abstract, flops

    return flops.of(abstract.of(experiment)).training


def measures_of(experiment: Experiment) -> tuple[str, ...]:
    """The losses that every run of this kind is judged by, whatever trained it."""
    if "token_logits_BPV" not in dict(config.wanted_outputs(experiment)):
        return ()  # it predicts no tokens
    pll = (f"{PLL}/mlm/loss",) if experiment.evals.pll else ()
    return (*pll, *(f"{mask}/mlm/loss" for mask in experiment.evals.masks))


def lower_is_better(measure: str) -> bool:
    """True of losses; accuracies and scores are better when higher."""
    return measure.rpartition("/")[2] == "loss"


def overridden(experiment: Experiment, path: str, value: Any) -> Experiment:
    """A copy with a field, or a parameter of a field's call-string, replaced.

    ``overridden(e, "corruption.rate", 0.3)`` edits ``tokens(rate=0.15)``.

    Raises:
        ConfigError: no such field, or a value of another kind than the field's.
        RegistryError: no such parameter.
    """
    calls = config.call_fields()
    field = next((p for p in calls if path.startswith(f"{p}.")), None)
    if field is not None and isinstance(config.get_field(experiment, field), str):
        changed = registry.edit(
            config.get_field(experiment, field), **{path.removeprefix(f"{field}."): value}
        )
        registry.lookup(calls[field], changed)
        return config.set_field(experiment, field, changed)
    # by way of plain values, whose reader knows the kind of every field
    values = config.to_dict(experiment)
    *parents, last = path.split(".")
    inside = values
    for part in parents:
        inside = inside[part] if part in inside else {}
        if not isinstance(inside, dict):
            raise ConfigError(f"'{path}': {part} is a value and has no fields.")
    if parents and not inside:
        hint = registry.nearest(parents[0], list(values))
        raise ConfigError(f"unknown field '{path}'.{hint}")
    inside[last] = list(value) if isinstance(value, tuple) else value
    return config.from_dict(values)


def canonical(experiment: Experiment) -> Experiment:
    """The same with every call-string in its full form, so that equal experiments are equal."""
    for path, family in config.call_fields().items():
        value = config.get_field(experiment, path)
        if isinstance(value, tuple):
            whole: Any = tuple(_full(family, call) for call in value)
        else:
            whole = _full(family, value) if value else value
        experiment = config.set_field(experiment, path, whole)
    terms = sorted(config.objective_terms(experiment.objectives))
    text = " + ".join(f"{weight}*{_full('objective', call)}" for weight, call in terms)
    return config.set_field(experiment, "objectives", text)


def _full(family: str, call: str) -> str:
    """A call-string with every parameter that can stand in one, defaults too."""
    found = registry.lookup(family, call)
    values = {key: found.argument(key) for key in found.entry.parameters}
    return registry.write(found.name, values)


def load(name_or_path: str) -> types.ModuleType:
    """The module of a grid: ``masking`` (a shipped one) or ``path/to/file.py``.

    Raises:
        ConfigError: no such file or name, or a file without ``get_grid``.
    """
    return config.module_of("grid", PACKAGE, name_or_path)


def shipped() -> list[str]:
    """Names of the grids that come with the package."""
    return config.shipped_in(PACKAGE)


def get_grid(name_or_path: str, **arguments: Any) -> Grid:
    """Call a grid file's ``get_grid``, such as ``get_grid("rate", steps=2000)``.

    Raises:
        ConfigError: as ``load``, or an argument that this grid does not take.
    """
    function = load(name_or_path).get_grid
    known = list(inspect.signature(function).parameters)
    for key in arguments:
        if key not in known:
            raise ConfigError(
                f"grid '{name_or_path}' takes no '{key}'.{registry.nearest(key, known)}"
            )
    return function(**arguments)


def with_seeds(grid: Grid, seeds: Sequence[int]) -> Grid:
    """The same grid with other seeds."""
    return dataclasses.replace(grid, seeds=tuple(seeds))
