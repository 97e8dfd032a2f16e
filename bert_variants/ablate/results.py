"""What a grid has come to, read from the cells' own files: results, terms, comparisons."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from bert_variants.ablate import cells as cells_of
from bert_variants.ablate import statistics
from bert_variants.ablate.cells import CellError, State
from bert_variants.ablate.grid import Cell, Grid, lower_is_better
from bert_variants.ablate.statistics import Comparison
from bert_variants.config import Experiment
from bert_variants.plan import abstract, flops, parameters
from bert_variants.report import run as runs
from bert_variants.report.run import Points
from bert_variants.text import tokenizers


@dataclasses.dataclass(frozen=True)
class CellResult:
    """A cell and what is known of it.

    Attributes:
        cell: arm, seed, experiment.
        state: done, failed, unfinished or waiting.
        step: the last one that was logged.
        message: why it failed.
        values: measure -> result at the last step; only of a cell that is done, and only numbers.
        curves: measure -> (step, value) at every evaluation, however the cell ended.
        tokens: seen so far, padding included.
        seconds: of training, over all starts.
        fingerprints: of store, tokenizer and probes; what its numbers were measured on.
        device: kind of device of the last start.
    """

    cell: Cell
    state: State
    step: int
    message: str
    values: Mapping[str, float]
    curves: Mapping[str, Points]
    tokens: int
    seconds: float
    fingerprints: Mapping[str, str]
    device: str


@dataclasses.dataclass(frozen=True)
class Terms:
    """On what terms an arm is compared.

    Attributes:
        tokens: that a cell sees in all, padding included.
        flops: of all its training steps, counted in the traced program (``plan.flops``).
        parameters: of its model.
        predictions: P, positions that a row predicts at most.
    """

    tokens: int
    flops: float
    parameters: int
    predictions: int


@dataclasses.dataclass(frozen=True)
class Results:
    """A grid's results.

    Attributes:
        grid: what was compared.
        cells: one for each arm and seed, in the grid's order.
        terms: arm -> its terms; empty where the size of the vocabulary is not known yet.
        comparisons: measure -> arm -> comparison with the baseline.
    """

    grid: Grid
    cells: tuple[CellResult, ...]
    terms: Mapping[str, Terms]
    comparisons: Mapping[str, Mapping[str, Comparison]]

    def of(self, arm: str) -> list[CellResult]:
        """The cells of an arm, by seed."""
        return [one for one in self.cells if one.cell.arm == arm]

    def count(self, state: State) -> int:
        """How many cells are in a state."""
        return sum(one.state == state for one in self.cells)

    @property
    def primary(self) -> Mapping[str, Comparison]:
        """The comparisons that verdicts are about."""
        return self.comparisons[self.grid.judged_by()[0]]


def gather(grid: Grid) -> Results:
    """Read every cell of a grid.

    Raises:
        CellError: a directory holds something else than its cell, or cells were not judged by the
            same probes over the same text.
    """
    cells = grid.cells()
    cells_of.check_same(cells)
    found = tuple(_read(cell, grid.judged_by()) for cell in cells)
    check_comparable(found)
    comparisons = {measure: _compared(grid, found, measure) for measure in grid.judged_by()}
    return Results(grid, found, _terms(grid, found), comparisons)


def check_comparable(found: Sequence[CellResult]) -> None:
    """See that all cells were judged on the same rows and masks.

    Raises:
        CellError: names two cells and what differs.
    """
    seen: dict[str, tuple[str, Cell]] = {}
    for one in found:
        for name, value in one.fingerprints.items():
            first, cell = seen.setdefault(name, (value, one.cell))
            if first != value:
                raise CellError(
                    f"cells {cell} and {one.cell} cannot be compared: {name} is {first[:12]} in "
                    f"{cell.dir} and {value[:12]} in {one.cell.dir}. They were made from other "
                    "text, or judged on other rows or masks (another version of the code or of "
                    "jax). Remove one of the directories and train it again."
                )


def _read(cell: Cell, measures: Sequence[str]) -> CellResult:
    state = cells_of.state(cell)
    if not (cell.dir / "config.json").is_file():
        message = cells_of.failure(cell.dir)
        return CellResult(cell, state, 0, message, {}, {}, 0, 0.0, {}, "")
    run = runs.read(cell.dir)
    curves = {measure: run.judged(measure) for measure in measures}
    at_end = run.held_out.get(cell.experiment.run.steps, {}) if state == "done" else {}
    values = {m: v for m in measures if (v := at_end.get(m)) is not None}
    lacking = [m for m in measures if m not in values]
    message = cells_of.failure(cell.dir) if state == "failed" else ""
    if state == "done" and lacking:
        state, message = "failed", f"{lacking[0]} is not a finite number at the last step"
    tokens = run.series("tokens")
    newest = run.starts[-1] if run.starts else {}
    versions = newest.get("versions")
    return CellResult(
        cell=cell,
        state=state,
        step=max([*run.train, *run.held_out], default=0),
        message=message,
        values=values,
        curves=curves,
        tokens=int(tokens[-1][1]) if tokens else 0,
        seconds=elapsed(run.series("seconds")),
        fingerprints=_fingerprints(run),
        device=str(versions["devices"]) if versions and "devices" in versions else "",
    )


def elapsed(seconds: Points) -> float:
    """Time over all starts of a run: each start counts from 0 again."""
    total, before = 0.0, 0.0
    for _, now in seconds:
        total += now - before if now >= before else now
        before = now
    return total


def _fingerprints(run: runs.Run) -> dict[str, str]:
    """Of the newest start, and of the probes at every start: masks must never have changed."""
    told = run.manifest.get("fingerprints")
    found = {k: str(v) for k, v in told.items()} if isinstance(told, Mapping) else {}
    probes = list(dict.fromkeys(str(one["probes"]) for one in run.starts if "probes" in one))
    if len(probes) > 1:
        raise CellError(
            f"{run.folder} was judged on other rows or masks after it was started again: probes "
            f"{probes[0][:12]}, then {probes[1][:12]}. Remove it and train it again."
        )
    return found


def _compared(grid: Grid, found: Sequence[CellResult], measure: str) -> dict[str, Comparison]:
    values: dict[str, dict[int, float]] = {arm: {} for arm in grid.arms}
    failed: dict[str, list[int]] = {arm: [] for arm in grid.arms}
    for one in found:
        if measure in one.values and one.state == "done":
            values[one.cell.arm][one.cell.seed] = one.values[measure]
        if one.state == "failed":
            failed[one.cell.arm].append(one.cell.seed)
    return statistics.compare(
        values, grid.baseline, grid.seeds, lower_is_better=lower_is_better(measure), failed=failed
    )


def _terms(grid: Grid, found: Sequence[CellResult]) -> dict[str, Terms]:
    """Of every arm; traced, nothing is compiled."""
    begun = [one.cell.dir for one in found if (one.cell.dir / "tokenizer").is_dir()]
    size = vocabulary(begun[0]) if begun else 0
    return {arm: terms(grid.arm(arm), size) for arm in grid.arms} if size else {}


def vocabulary(run_dir: Path) -> int:
    """V of the tokenizer in a run's directory."""
    files = {p.name: p.read_bytes() for p in (run_dir / "tokenizer").iterdir() if p.is_file()}
    return tokenizers.restore(files).vocab.size


def terms(experiment: Experiment, vocab_size: int) -> Terms:
    """Tokens, operations and parameters of an experiment."""
    shapes = abstract.of(experiment, vocab_size)
    counted = flops.of(shapes)
    return Terms(
        tokens=counted.tokens * experiment.run.steps,
        flops=float(counted.training) * experiment.run.steps,
        parameters=parameters.count(shapes.state.params),
        predictions=shapes.predictions,
    )


@dataclasses.dataclass(frozen=True)
class Band:
    """An arm's curve over seeds: the mean at each step, and the lowest and highest seed."""

    arm: str
    seeds: int
    mean: Points
    low: Points
    high: Points


def bands(results: Results, measure: str) -> list[Band]:
    """One for each arm that has a curve.

    Only cells that are done count where there are any, so that a seed that stopped early does not
    bend the mean; and only steps at which all of them were judged.
    """
    found = []
    for arm in results.grid.arms:
        one = results.of(arm)
        chosen = [c for c in one if c.state == "done"] or one
        curves = [dict(c.curves[measure]) for c in chosen if c.curves.get(measure)]
        if not curves:
            continue
        steps = sorted(set.intersection(*(set(curve) for curve in curves)))
        at = {step: [curve[step] for curve in curves] for step in steps}
        found.append(
            Band(
                arm=arm,
                seeds=len(curves),
                mean=[(s, math.fsum(v) / len(v)) for s, v in at.items()],
                low=[(s, min(v)) for s, v in at.items()],
                high=[(s, max(v)) for s, v in at.items()],
            )
        )
    return found
