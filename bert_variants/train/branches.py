"""Roll-backs that survive being killed: which checkpoints are abandoned, where the data goes on.

When a run is rolled back from step 520 to its checkpoint of step 400, the steps after 400 belong to
an abandoned branch, and the rows of the bad window are passed over. That is written here first and
carried out afterwards, so that a process killed in between finds out at its next start.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

from bert_variants.train import record
from bert_variants.train.errors import CheckpointError
from bert_variants.train.meta import Meta

NAME = "rollbacks.json"
MOST = 3  # roll-backs of a run


@dataclasses.dataclass(frozen=True)
class Rollback:
    """One roll-back.

    Attributes:
        bad_step: where it was decided.
        to_step: the checkpoint that the run went back to; 0: the start.
        position: where the data goes on, past the bad window.
        skipped: steps in a row that were not finite.
    """

    bad_step: int
    to_step: int
    position: int
    skipped: int


def read(run_dir: Path) -> list[Rollback]:
    """All roll-backs of a run, in their order.

    Raises:
        CheckpointError: the file is damaged.
    """
    path = run_dir / NAME
    if not path.is_file():
        return []
    try:
        return [Rollback(**values) for values in json.loads(path.read_bytes())]
    except (ValueError, TypeError) as error:
        raise CheckpointError(f"{path} is damaged ({error}). Restore it from a copy.") from None


def add(run_dir: Path, before: list[Rollback], new: Rollback) -> list[Rollback]:
    """Write one more."""
    all_of_them = [*before, new]
    record.write_json(run_dir / NAME, [dataclasses.asdict(r) for r in all_of_them])
    return all_of_them


def abandoned(meta: Meta, rollbacks: list[Rollback]) -> bool:
    """Whether a checkpoint lies on a branch that the run went back from.

    ``meta.branch`` roll-backs had been made when it was saved; any later one to an earlier step
    left it behind.
    """
    return any(meta.step > r.to_step for r in rollbacks[meta.branch :])


def position_after(meta: Meta, rollbacks: list[Rollback]) -> int:
    """Where the data goes on from a checkpoint: past the windows that led back to it."""
    later = [r.position for r in rollbacks[meta.branch :] if r.to_step == meta.step]
    return later[-1] if later else meta.position
