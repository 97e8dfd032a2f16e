"""Train the arms of a grid with several seeds on equal terms, and compare them honestly.

The same command again goes on where it stopped; started on several machines with one --dir they
share the cells out among themselves. With --report-only the page is written from what is there.
"""

from __future__ import annotations

import dataclasses
import sys
from typing import Literal

from bert_variants.ablate import cells, emit, page, results, tables
from bert_variants.ablate.grid import Cell, Grid
from bert_variants.commands.prepare import describe, prepared
from bert_variants.report import console
from bert_variants.report import page as run_page
from bert_variants.report.run import ReportError
from bert_variants.train import record
from bert_variants.train.setup import Setup


@dataclasses.dataclass(frozen=True)
class Options:
    """What to do with the grid.

    Attributes:
        dir: where cells, tables and the page go; empty: run.dir of the grid.
        seeds: instead of the grid's.
        report_only: train nothing; write tables and page from the cells as they are now.
        emit: train nothing; print the cells that are not done as a Slurm array script, or as
            commands that make a TPU VM each.
        retry: try cells again that failed.
    """

    dir: str = ""
    seeds: tuple[int, ...] = ()
    report_only: bool = False
    emit: Literal["no", "slurm", "tpu"] = "no"
    retry: bool = False


def main(grid: Grid, options: Options) -> int:
    """Train what is left of the grid, then write and print what came of it."""
    grid = asked(grid, options)
    grid.check()
    if options.emit != "no":
        cells.check_same(grid.cells())
        left = [c for c in grid.cells() if cells.state(c) != "done"]
        if not left:
            print(f"every cell in {grid.dir} is done: --report-only", file=sys.stderr)
            return 0
        print(emit.script(grid, left, options.emit), end="")
        return 0
    code = 0 if options.report_only else train(grid, retry=options.retry)
    found = results.gather(grid)
    path = page.write(found)
    print(tables.text(found))
    print(f"tables and page: {path}")
    return code


def asked(grid: Grid, options: Options) -> Grid:
    """The grid with the options' directory and seeds."""
    if options.dir:
        run = dataclasses.replace(grid.base.run, dir=options.dir)
        grid = dataclasses.replace(grid, base=dataclasses.replace(grid.base, run=run))
    return dataclasses.replace(grid, seeds=options.seeds) if options.seeds else grid


def train(grid: Grid, *, retry: bool) -> int:
    """Prepare the text once, then train cells until none is left; 75 if told to stop."""
    cells.check_same(grid.cells())
    store = prepared(grid.base)
    print(describe(store))
    record.write_json(grid.dir / "grid.json", page.as_json(grid, sys.argv))
    shown: list[console.TrainProgress] = []

    def reporter(ready: Setup) -> console.TrainProgress:
        shown.append(console.TrainProgress(ready))
        return shown[-1]

    def finished(cell: Cell) -> None:
        while shown:  # a cell that failed did not take its bar away
            shown.pop().close()
        try:
            run_page.write(cell.dir)
        except (ReportError, OSError) as error:
            print(f"{cell}: no page: {error}")

    def note(text: str) -> None:
        print(text, flush=True)

    return cells.work(grid, store, reporter=reporter, finished=finished, note=note, retry=retry)
