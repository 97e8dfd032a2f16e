"""Where a run begins: from itself, from another run, or from nothing, in this order."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from bert_variants.text.pipeline import Position
from bert_variants.train import branches, resume
from bert_variants.train.branches import Rollback
from bert_variants.train.checkpoint import Checkpoints
from bert_variants.train.manifest import DamagedError
from bert_variants.train.meta import Meta
from bert_variants.train.origins import params_of
from bert_variants.train.restore import newest_valid
from bert_variants.train.setup import Setup
from bert_variants.train.state import TrainState

Note = Callable[[str], None]


@dataclasses.dataclass(frozen=True)
class Beginning:
    """The state to go on from.

    Attributes:
        state: on the mesh.
        step, position, tokens: as in ``Meta``.
        held_out: results that stand for this step already.
        saved: whether a checkpoint of this step exists.
        origin: for people: "its own step 400", "the parameters of runs/x", "nothing".
    """

    state: TrainState
    step: int
    position: Position
    tokens: int
    held_out: dict[str, float]
    saved: bool
    origin: str


def begin(
    setup: Setup, checkpoints: Checkpoints, rollbacks: list[Rollback], note: Note
) -> Beginning:
    """The run's own newest valid checkpoint; else ``run.init_from``'s parameters; else random ones.

    Checkpoints of branches that the run was rolled back from are deleted first.

    Raises:
        CheckpointError: there are checkpoints and none is valid. A run never silently starts anew.
        ResumeRefusedError: the run was made with other settings, or ``init_from`` does not fit.
        ConfigError: an entry of ``run.init_map`` that finds nothing.
    """
    _discard_abandoned(checkpoints, rollbacks, note)
    store, tokenizer = setup.store.fingerprint, setup.tokenizer.fingerprint
    judge = resume.accept(setup.experiment, store, tokenizer, note)
    found = newest_valid(checkpoints, judge)
    if found is None:
        return from_start(setup, rollbacks, note)
    for step, reason in found.damaged.items():
        note(f"CHECKPOINT DAMAGED: step {step} is set aside as {step}.invalid: {reason}")
    if found.damaged:
        note(f"going back to step {found.meta.step}, the newest valid one")
    position = Position.of(branches.position_after(found.meta, rollbacks))
    changed = resume.changes(found.meta, setup.experiment, store, tokenizer)
    if resume.order_changed(changed, setup.experiment):
        position = Position(position.epoch + 1, 0)
        note(
            f"the order of rows is another one now: going on at the start of epoch {position.epoch}"
        )
    return restored(setup, found.state, found.meta, position)


def restored(setup: Setup, state: TrainState, meta: Meta, position: Position) -> Beginning:
    """A checkpoint as a beginning.

    Where the data goes on somewhere else than it stopped, a model's memory is of other rows: it
    begins empty.
    """
    if int(position) != meta.position:
        state = dataclasses.replace(state, carry=_empty(setup.abstract_state.carry))
    return Beginning(
        state=state,
        step=meta.step,
        position=position,
        tokens=meta.tokens,
        held_out=dict(meta.held_out),
        saved=True,
        origin=f"its own step {meta.step}",
    )


def _empty(memory: Any) -> Any:
    """Zeros of the shapes, types and shardings of a memory; None of none."""
    if memory is None:
        return None
    make = jax.jit(
        lambda: jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), memory),
        out_shardings=jax.tree.map(lambda leaf: leaf.sharding, memory),
    )
    return make()


def from_start(setup: Setup, rollbacks: list[Rollback], note: Note) -> Beginning:
    """Step 0, with the parameters of ``run.init_from`` if it is given."""
    init_from = setup.experiment.run.init_from
    state, origin = setup.init_state(), "nothing"
    if init_from:
        state = dataclasses.replace(state, params=params_of(setup, state.params, note))
        origin = f"the parameters of {init_from}"
    passed = [r.position for r in rollbacks if r.to_step == 0]
    position = Position.of(passed[-1]) if passed else Position()
    return Beginning(state, 0, position, 0, {}, False, origin)


def _discard_abandoned(checkpoints: Checkpoints, rollbacks: list[Rollback], note: Note) -> None:
    """Finish a roll-back that was cut short."""
    gone = []
    for step in checkpoints.steps() if rollbacks else ():
        try:
            if branches.abandoned(Meta.of(checkpoints.folder / str(step)), rollbacks):
                gone.append(step)
        except DamagedError:
            continue  # newest_valid will say so
    if gone:
        note(f"steps {gone} belong to a branch that was rolled back; they are deleted")
        checkpoints.discard(gone)
