"""The cells of a grid on disk, and the worker that trains those that nobody else does.

A cell is an ordinary run: ``bert-variants train`` with its options makes the same one. What a cell
has come to is read from its run's own files, so cells trained elsewhere count as well::

    <grid>/cells/<arm>/seed-<n>/     the run: config.json, metrics.jsonl, checkpoints/, ...
                                claim-0001.json    who works on it (claims.py)
                                failed.json        why it could not be trained to the end
"""

from __future__ import annotations

import dataclasses
import datetime
import json
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from bert_variants import config
from bert_variants.ablate.claims import Claim, ClaimLostError, Claims
from bert_variants.ablate.grid import Cell, Grid, canonical
from bert_variants.text.store import Store
from bert_variants.train import checkpoint, errors, loop, manifest, record, setup
from bert_variants.train.reporting import Reporter, Result, Silent, Start
from bert_variants.train.setup import Setup

FAILED = "failed.json"
POLL = 2.0  # seconds between two looks at cells that others work on

State = Literal["done", "failed", "unfinished", "waiting"]
Note = Callable[[str], None]
# what may differ between a cell on disk and the grid's, for it changes no number
_FREE = ("name", "data.workers", "run.keep", "run.keep_every", "run.save_every", "run.log_every")


class CellError(config.ConfigError):
    """A cell's directory holds something else than this grid's cell."""


def state(cell: Cell) -> State:
    """What has become of a cell.

    ``done``: its last step was judged and saved. ``failed``: a worker gave it up, see
    ``failed.json``. ``unfinished``: it was begun. ``waiting``: nothing was trained yet.
    """
    steps = cell.experiment.run.steps
    saved = manifest.steps(cell.dir / checkpoint.FOLDER)
    if steps in saved and any(
        line["kind"] == "held_out" and line["step"] == steps for line in record.read(cell.dir)
    ):
        return "done"
    if (cell.dir / FAILED).is_file():
        return "failed"
    return "unfinished" if (cell.dir / "config.json").is_file() else "waiting"


def check_same(cells: Sequence[Cell]) -> None:
    """See that what lies in the cells' directories are these cells.

    Raises:
        CellError: names the first field that differs.
    """
    for cell in cells:
        path = cell.dir / "config.json"
        if not path.is_file():
            continue
        try:
            there = canonical(config.from_dict(json.loads(path.read_bytes())))
        except (ValueError, TypeError) as error:
            raise CellError(f"{path} is no experiment of this version: {error}") from None
        found = {
            field: values
            for field, values in config.differences(there, canonical(cell.experiment)).items()
            if field not in _FREE and not field.endswith(".dir")
        }
        if found:
            field, (old, new) = next(iter(found.items()))
            raise CellError(
                f"{cell.dir} was trained with {field} = {old!r}, the grid says {new!r}"
                + (f" ({len(found)} fields differ)" if len(found) > 1 else "")
                + ". Give the grid another --dir, or remove that directory."
            )


def work(
    grid: Grid,
    store: Store,
    *,
    reporter: Callable[[Setup], Reporter] = lambda ready: Silent(),
    finished: Callable[[Cell], None] = lambda cell: None,
    note: Note = print,
    claims: Claims | None = None,
    retry: bool = False,
    poll: float = POLL,
) -> int:
    """Train the cells of a grid, one after the other, until every one is done or failed.

    Cells that other workers have are left to them; when nothing else is left this one waits, and
    takes over those of workers that died. A cell that cannot be trained is written down and the
    rest goes on.

    Args:
        grid: already checked.
        store: of the prepared text, one for all cells.
        reporter: told how a cell's training goes.
        finished: called after each cell that this worker trained.
        note: told what is begun, taken over or given up.
        claims: how workers see each other.
        retry: try failed cells again.
        poll: seconds between two looks at the others' cells.

    Returns:
        0; or 75 if it was told to stop: the cell in hand is saved, and the same command goes on.

    Raises:
        CellError: a directory holds something else.
    """
    cells, claims = grid.cells(), claims or Claims()
    check_same(cells)
    if retry:
        for cell in cells:
            (cell.dir / FAILED).unlink(missing_ok=True)
    waited = False
    while True:
        left = [cell for cell in cells if state(cell) not in ("done", "failed")]
        if not left:
            return errors.DONE
        taken = next(((c, got) for c in left if (got := claims.take(c.dir)) is not None), None)
        if taken is None:
            if not waited:
                note(f"{len(left)} cells are being trained by others: waiting for them")
            waited = True
            time.sleep(poll)
            continue
        cell, claim = taken
        with claim:
            if state(cell) in ("done", "failed"):  # since it was looked at
                continue
            if claim.before:
                note(f"{cell}: taken over")
            number = cells.index(cell) + 1
            note(f"cell {number} of {len(cells)}: {cell} in {cell.dir}")
            stopped = _train(cell, store, claim, reporter, note)
        finished(cell)
        if stopped:
            return errors.STOPPED


def _train(
    cell: Cell,
    store: Store,
    claim: Claim,
    reporter: Callable[[Setup], Reporter],
    note: Note,
) -> bool:
    """Train a claimed cell; True if the worker was told to stop."""
    try:
        ready = setup.make(cell.experiment, store)
        setup.check_predicts(setup.first_rows(ready), cell.experiment)
        result = loop.train(ready, Claimed(reporter(ready), claim))
    except ClaimLostError as error:
        note(f"{cell}: {error}")
    except errors.LockedError as error:
        note(f"{cell}: {error}")  # someone trains it without a claim
    except Exception as error:  # whatever ends an arm, the others go on
        give_up(cell, error)
        note(f"{cell} FAILED: {type(error).__name__}: {error}")
    else:
        note(f"{cell}: {result.message}")
        return result.exit_code == errors.STOPPED
    return False


def give_up(cell: Cell, error: Exception) -> None:
    """Write down why a cell cannot be trained to the end."""
    lines = record.read(cell.dir)
    about = {
        "error": type(error).__name__,
        "message": str(error),
        "step": max((line["step"] for line in lines), default=0),
        "time": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "trace": traceback.format_exception(error)[-3:],
    }
    record.write_json(cell.dir / FAILED, about)


def failure(folder: Path) -> str:
    """Why a cell failed, in words; empty if it did not."""
    path = folder / FAILED
    if not path.is_file():
        return ""
    try:
        told = json.loads(path.read_bytes())
        return f"{told['error']} at step {told['step']:,}: {told['message']}"
    except (ValueError, KeyError, TypeError) as error:
        return f"{FAILED} cannot be read: {error}"


@dataclasses.dataclass(frozen=True)
class Claimed:
    """A reporter that ends the run when its cell was taken over, and else hands everything on."""

    to: Reporter
    claim: Claim

    def start(self, start: Start) -> None:
        """Hand on."""
        self.to.start(start)

    def step(self, line: Mapping[str, Any]) -> None:
        """Hand on, if the cell is still this worker's."""
        self.claim.check()
        self.to.step(line)

    def evaluated(self, step: int, results: Mapping[str, float]) -> None:
        """Hand on, if the cell is still this worker's."""
        self.claim.check()
        self.to.evaluated(step, results)

    def saved(self, step: int) -> None:
        """Hand on."""
        self.to.saved(step)

    def note(self, text: str) -> None:
        """Hand on."""
        self.to.note(text)

    def done(self, result: Result) -> None:
        """Hand on."""
        self.to.done(result)
