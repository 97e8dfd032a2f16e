"""Which checkpoint a run goes on from: the newest one that is provably what was saved."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping

import jax
import numpy as np
from jax.experimental import multihost_utils

from bert_variants.train import manifest
from bert_variants.train.checkpoint import Checkpoints
from bert_variants.train.errors import CheckpointError
from bert_variants.train.manifest import DamagedError
from bert_variants.train.meta import Meta
from bert_variants.train.processes import all_agree, is_primary
from bert_variants.train.state import TrainState


@dataclasses.dataclass(frozen=True)
class Restored:
    """A valid checkpoint, and what was found wrong with newer ones (step -> reason)."""

    state: TrainState
    meta: Meta
    damaged: Mapping[int, str]


def newest_valid(
    checkpoints: Checkpoints, accept: Callable[[Meta], None], *, at_most: int | None = None
) -> Restored | None:
    """Restore the newest valid checkpoint, onto the mesh whatever mesh it was saved from.

    Damaged newer ones are set aside by renaming once a valid one is found; nothing is deleted.

    Args:
        checkpoints: of the run.
        accept: called with the metadata before any array is read, to refuse by raising.
        at_most: newer steps are not looked at.

    Returns:
        None if there is no checkpoint at all (or none up to ``at_most``).

    Raises:
        CheckpointError: there are checkpoints and all are damaged (nothing is changed), or the
            newest valid one holds arrays of other shapes.
    """
    _same_disk(checkpoints)
    damaged: dict[int, str] = {}
    for step in reversed(checkpoints.steps()):
        if at_most is not None and step > at_most:
            continue
        try:
            meta = _meta(checkpoints, step)
            listed = _files_are_good(checkpoints, step)
            accept(meta)
            checkpoints.check_shapes(meta)
            state = _arrays(checkpoints, meta, listed)
        except DamagedError as error:
            damaged[step] = str(error)
            continue
        for bad in damaged:
            checkpoints.set_aside(bad)
        if not listed and is_primary():
            manifest.write(checkpoints.folder / str(step))
        return Restored(state, meta, damaged)
    if damaged or (at_most is None and _only_set_aside(checkpoints)):
        reasons = [f"  step {step}: {reason}" for step, reason in damaged.items()]
        raise CheckpointError(
            f"no checkpoint in {checkpoints.folder} is valid, and none was changed:\n"
            + "\n".join(reasons or ["  only damaged ones that were set aside are left"])
            + "\nRestore one from a copy, or start anew with another --run.dir."
        )
    return None


def _same_disk(checkpoints: Checkpoints) -> None:
    """See that every process finds the same checkpoints."""
    if jax.process_count() == 1:
        return
    mine = checkpoints.steps()
    newest = np.asarray([len(mine), max(mine, default=-1)])
    if not all_agree(bool(np.all(multihost_utils.broadcast_one_to_all(newest) == newest))):
        raise CheckpointError(
            f"the processes of this run do not see the same checkpoints in {checkpoints.folder}. "
            "run.dir must be on a disk that all of them share."
        )


def _meta(checkpoints: Checkpoints, step: int) -> Meta:
    reason, meta = "another process cannot read its metadata", None
    try:
        meta = Meta.of(checkpoints.folder / str(step))
    except DamagedError as error:
        reason = str(error)
    if not all_agree(meta is not None):
        raise DamagedError(reason)
    return meta


def _files_are_good(checkpoints: Checkpoints, step: int) -> bool:
    """Compare the files with the manifest, in the first process; False if there is none."""
    result, reason = 1, "its files are not those of its manifest"
    if is_primary():
        try:
            result = int(manifest.verify(checkpoints.folder / str(step)))
        except DamagedError as error:
            result, reason = -1, str(error)
    if jax.process_count() > 1:
        result = int(multihost_utils.broadcast_one_to_all(np.int32(result)))
    if result < 0:
        raise DamagedError(reason)
    return bool(result)


def _arrays(checkpoints: Checkpoints, meta: Meta, listed: bool) -> TrainState:
    reason, state = "another process cannot read its arrays", None
    try:
        state = checkpoints.read_state(meta)
    except DamagedError as error:
        # Files that are what was written, and yet cannot be read: the machine's fault, not theirs.
        # Arrays that differ from their digests were damaged before they were written.
        if listed and isinstance(error.__cause__, Exception):
            raise error.__cause__ from None
        reason = str(error)
    if not all_agree(state is not None):
        raise DamagedError(reason)
    return state


def _only_set_aside(checkpoints: Checkpoints) -> bool:
    folder = checkpoints.folder
    return folder.is_dir() and any(manifest.INVALID in p.name for p in folder.iterdir())
