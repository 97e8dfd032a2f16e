"""Checkpoints: one atomic save of everything, verified before use. The only importer of orbax.

::

    checkpoints/1000/params/...      the parameters
    checkpoints/1000/rest/...        the rest of the train state
    checkpoints/1000/meta/metadata   train/meta.py: position, config, tokenizer, digests, ...
    checkpoints/1000/manifest.json   sha256 of each file, written after the commit
    checkpoints/900.invalid/         found damaged and set aside

A checkpoint is valid if it is committed (its folder has its final name), its files are those of its
manifest, its arrays have the digests that were made on the device before saving, and all values are
finite. Between commit and manifest the process may be killed: then the digests alone decide.

What orbax does not do (its own behaviour, measured): it restores flipped bits silently, answers
``False`` to a save of an old step, and shows the failure of an asynchronous save only at the next
one. Which checkpoints stay is decided here too (``manifest.retained``).
"""

from __future__ import annotations

import concurrent.futures
import dataclasses
import functools
import logging
import time
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from bert_variants import config
from bert_variants.text.tokenizer import Tokenizer
from bert_variants.train import digest, manifest
from bert_variants.train import leaves as leaves_of
from bert_variants.train.errors import CheckpointError, DivergedError
from bert_variants.train.manifest import DamagedError
from bert_variants.train.meta import Meta
from bert_variants.train.processes import barrier, is_primary
from bert_variants.train.state import TrainState

FOLDER = "checkpoints"
ITEMS = ("params", "rest", "meta")
_AT_ONCE = 32 << 20  # bytes of a large array that are packed at a time


@dataclasses.dataclass(frozen=True)
class Saved:
    """A checkpoint to use: its experiment, parameters, tokenizer and step."""

    experiment: config.Experiment
    params: Any
    tokenizer: Tokenizer
    step: int


@dataclasses.dataclass
class _Pending:
    """A save that is not finished: being written, then being listed."""

    step: int
    started: float
    held_out: float | None
    listing: concurrent.futures.Future[None] | None = None


class Checkpoints:
    """The checkpoints of a run. Its processes call every method together; a context manager.

    Raises:
        CheckpointError: from every method: see there.
    """

    def __init__(
        self,
        run_dir: Path,
        abstract: TrainState,
        *,
        keep: int,
        keep_every: int,
        patience: float = 30.0,
    ) -> None:
        """
        Args:
            run_dir: of the run, whose lock is held.
            abstract: shapes, types and shardings of the state.
            keep, keep_every: see ``manifest.retained``.
            patience: seconds after which the loop waits for a save instead of going on.
        """
        self.folder = run_dir.absolute() / FOLDER
        self._keep, self._keep_every, self._patience = keep, keep_every, patience
        self._names, self._structure = leaves_of.flatten(abstract)
        self._digest = _digests_on(next(iter(self._names.values())).sharding.mesh)
        self._primary = is_primary()
        self._pool = concurrent.futures.ThreadPoolExecutor(1, "manifest")
        self._pending: _Pending | None = None
        if self._primary:
            self.cleaned = manifest.clean(self.folder)
        barrier("checkpoints are clean")
        self._manager = _manager(self.folder)
        self._losses = {step: self._loss(step) for step in self.steps()}

    def __enter__(self) -> Checkpoints:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown()
        self._manager.close()

    def steps(self) -> list[int]:
        """The committed ones, ascending; whether they are valid is not known yet."""
        return manifest.steps(self.folder)

    def save(self, state: TrainState, meta: Meta) -> None:
        """Begin to save; it is finished when ``poll`` or ``finish`` says so.

        Raises:
            DivergedError: the state holds values that are not finite; nothing was written.
            CheckpointError: the save before this one failed, or this one was not accepted.
        """
        self.finish()
        leaves, _ = leaves_of.flatten(state)
        table = np.asarray(self._digest(leaves))
        bad = digest.non_finite(leaves, table)
        if bad:
            raise DivergedError(
                f"step {meta.step}: {bad[0]} and {len(bad) - 1} more arrays of the state hold "
                "values that are not finite. Nothing was saved; the last checkpoint is good."
            )
        meta = dataclasses.replace(meta, leaves=digest.written(leaves, table))
        params, rest = leaves_of.items(leaves)
        save = ocp.args.StandardSave
        try:
            accepted = self._manager.save(
                meta.step,
                args=ocp.args.Composite(
                    params=save(params), rest=save(rest), meta=ocp.args.JsonSave(meta.write())
                ),
            )
        except Exception as error:
            raise self._failed(meta.step, error) from error
        if not accepted:
            raise CheckpointError(
                f"step {meta.step} was not saved: {self.folder} already holds step "
                f"{max(self.steps(), default=None)}. Delete the newer steps first."
            )
        self._pending = _Pending(meta.step, time.monotonic(), meta.held_out.get("held_out/loss"))

    def poll(self) -> int | None:
        """Bring a running save forward without waiting; the step of one that is finished now.

        Raises:
            CheckpointError: it failed. Noticed here, one step later, and not at the next save.
        """
        pending = self._pending
        if pending is None:
            return None
        if pending.listing is None:
            late = time.monotonic() - pending.started > self._patience
            if self._manager.is_saving_in_progress() and not late:
                return None
            self._commit(pending)
        if not pending.listing.done():
            return None
        return self._finished(pending)

    def finish(self) -> int | None:
        """Wait for a running save; the step of one that is finished now.

        Raises:
            CheckpointError: it failed.
        """
        pending = self._pending
        if pending is None:
            return None
        if pending.listing is None:
            self._commit(pending)
        return self._finished(pending)

    def verify(self, step: int) -> None:
        """Read a checkpoint back and compare every array with what was saved.

        Raises:
            CheckpointError: it is not what was saved.
        """
        try:
            self.read_state(Meta.of(self.folder / str(step)))
        except DamagedError as error:
            raise CheckpointError(f"{self.folder / str(step)} is not valid: {error}.") from None

    def discard(self, steps: Collection[int]) -> None:
        """Delete checkpoints of an abandoned branch, so that later saves may take their place."""
        self.finish()
        self._manager.close()
        barrier("before discarding")
        if self._primary:
            for step in steps:
                manifest.remove(self.folder, step)
        barrier("discarded")
        self._losses = {s: loss for s, loss in self._losses.items() if s not in steps}
        self._manager = _manager(self.folder)

    # ---- the life of a save

    def _commit(self, pending: _Pending) -> None:
        """Wait until the save is committed, and have its files listed in the background."""
        try:
            self._manager.wait_until_finished()
        except Exception as error:
            raise self._failed(pending.step, error) from error
        if not (self.folder / str(pending.step)).is_dir():
            raise self._failed(pending.step, FileNotFoundError("it was not committed"))
        if self._primary:
            where = self.folder / str(pending.step)
            pending.listing = self._pool.submit(manifest.write, where)
        else:
            pending.listing = concurrent.futures.Future()
            pending.listing.set_result(None)

    def _finished(self, pending: _Pending) -> int:
        try:
            pending.listing.result()
        except OSError as error:
            raise self._failed(pending.step, error) from error
        self._pending = None
        self._losses[pending.step] = pending.held_out
        stay = manifest.retained(self._losses, self._keep, self._keep_every)
        for step in sorted(set(self._losses) - stay):
            del self._losses[step]
            if self._primary and (self.folder / str(step)).is_dir():
                manifest.remove(self.folder, step)
        return pending.step

    def _failed(self, step: int, error: Exception) -> CheckpointError:
        self._pending = None
        before = max((s for s in self.steps() if s != step), default=None)
        return CheckpointError(
            f"step {step} could not be saved in {self.folder}: {type(error).__name__}: {error}. "
            + (f"Step {before} is there still. " if before is not None else "There is no other. ")
            + "Make room or mend the disk, and start the same command again."
        )

    # ---- reading

    def check_shapes(self, meta: Meta) -> None:
        """Compare the arrays that a checkpoint holds with those of this run's state.

        Raises:
            CheckpointError: one is missing, of another shape or of another type.
        """
        mine = {n: (list(x.shape), str(x.dtype)) for n, x in self._names.items()}
        theirs = {n: (x["shape"], x["dtype"]) for n, x in meta.leaves.items()}
        different = sorted(n for n in {*mine, *theirs} if mine.get(n) != theirs.get(n))
        if different:
            name = different[0]
            raise CheckpointError(
                f"{self.folder / str(meta.step)} holds {name} as {theirs.get(name, 'nothing')}, "
                f"this config makes it {mine.get(name, 'nothing')} ({len(different)} arrays "
                "differ). Use the config of the run (config.json), or another --run.dir."
            )

    def read_state(self, meta: Meta) -> TrainState:
        """Read the arrays onto the mesh and compare them with their digests.

        Raises:
            DamagedError: they differ, or cannot be read (then the cause is chained).
        """
        params, rest = leaves_of.items(self._names)
        read = ocp.args.StandardRestore
        try:
            items = self._manager.restore(
                meta.step, args=ocp.args.Composite(params=read(params), rest=read(rest))
            )
        except Exception as error:
            raise DamagedError(f"it cannot be read ({type(error).__name__}: {error})") from error
        leaves = leaves_of.named(items["params"], items["rest"])
        meta.check(leaves, np.asarray(self._digest(leaves)))
        return jax.tree_util.tree_unflatten(self._structure, [leaves[n] for n in self._names])

    def set_aside(self, step: int) -> None:
        """Rename a damaged checkpoint, so that nothing reads it again."""
        self._losses.pop(step, None)
        if self._primary:
            manifest.set_aside(self.folder, step)
        barrier(f"step {step} is set aside")
        self._manager.reload()

    def _loss(self, step: int) -> float | None:
        try:
            return Meta.of(self.folder / str(step)).held_out.get("held_out/loss")
        except DamagedError:
            return None


def load(run_dir: Path, *, host: bool = False) -> Saved:
    """The newest valid checkpoint of a run: to use, not to go on with. Changes nothing on disk.

    Only the parameters are read, onto the default device; with ``host`` they stay numpy arrays.

    Raises:
        CheckpointError: no run there, or no valid checkpoint; names what is wrong with each.
    """
    folder = run_dir.absolute() / FOLDER
    reasons = []
    for step in reversed(manifest.steps(folder)):
        where = folder / str(step)
        try:
            meta = Meta.of(where)
            manifest.verify(where)
            params = _read_params(where, meta)
            params = params if host else jax.tree.map(jnp.asarray, params)
            return Saved(meta.experiment, params, meta.restored_tokenizer, step)
        except (DamagedError, OSError) as error:  # OSError: a running process may delete it
            reasons.append(f"  step {step}: {error}")
    if not reasons:
        raise CheckpointError(f"{run_dir} holds no checkpoint. Is it the directory of a run?")
    raise CheckpointError(f"no checkpoint in {folder} is valid:\n" + "\n".join(reasons))


def write(run_dir: Path, params: Mapping[str, jax.Array], meta: Meta) -> None:
    """Write a checkpoint of parameters alone: to use and to begin from, not to go on with.

    Beside them it takes a part of their memory, more than the largest has but not as much as all of
    them again (``python -m benchmarks.conversion`` measures it).

    Args:
        run_dir: has no checkpoint yet.
        params: their paths -> arrays, on the host's own device.
        meta: whose ``leaves`` are set here.

    Raises:
        CheckpointError: values that are not finite, or it cannot be written.
    """
    folder = run_dir.absolute() / FOLDER
    leaves = leaves_of.named(leaves_of.nested(params), {"step": np.int32(meta.step)})
    table = digest.host_digests({name: np.asarray(leaf) for name, leaf in leaves.items()})
    bad = digest.non_finite(leaves, table)
    if bad:
        raise CheckpointError(
            f"{len(bad)} arrays hold values that are not finite: {', '.join(bad[:4])}. Nothing was "
            "written."
        )
    meta = dataclasses.replace(meta, leaves=digest.written(leaves, table))
    inside, rest = leaves_of.items(leaves)
    save = ocp.args.StandardSave
    at_once = _AT_ONCE + max(leaf.nbytes for leaf in params.values())
    chunks = jax.tree.map(lambda leaf: ocp.SaveArgs(chunk_byte_size=_AT_ONCE), inside)
    handlers = {
        "params": ocp.PyTreeCheckpointHandler(save_concurrent_gb=at_once / 1e9),
        "rest": ocp.StandardCheckpointHandler(),
        "meta": ocp.JsonCheckpointHandler(),
    }
    options = ocp.CheckpointManagerOptions(
        save_root_metadata=False, create=True, enable_async_checkpointing=False
    )
    # a file is gathered in memory before it is written, all of the model if nothing is said
    packed = ocp.args.PyTreeSave(inside, chunks, ocdbt_target_data_file_size=_AT_ONCE)
    with ocp.CheckpointManager(folder, options=options, item_handlers=handlers) as manager:
        manager.save(
            meta.step,
            args=ocp.args.Composite(
                params=packed, rest=save(rest), meta=ocp.args.JsonSave(meta.write())
            ),
        )
    if not (folder / str(meta.step)).is_dir():
        raise CheckpointError(f"{folder} could not be written.")
    manifest.write(folder / str(meta.step))


@functools.lru_cache(maxsize=8)
def _digests_on(mesh: Mesh) -> Any:
    """The jitted digests, replicated on a mesh; compiled once for each kind of state."""
    return jax.jit(digest.device_digests, out_shardings=NamedSharding(mesh, PartitionSpec()))


def _manager(folder: Path, *, read_only: bool = False) -> ocp.CheckpointManager:
    # Everything is kept as far as orbax is concerned; see manifest.retained.
    options = ocp.CheckpointManagerOptions(
        save_interval_steps=0 if read_only else 1,
        save_root_metadata=False,
        create=not read_only,
        read_only=read_only,
    )
    log = logging.getLogger("absl")
    before = log.level
    # that reading does not write is what was asked for, and no reason for two warnings
    log.setLevel(logging.ERROR if read_only else before)
    try:
        return ocp.CheckpointManager(folder, options=options, item_names=ITEMS)
    finally:
        log.setLevel(before)


def _read_params(where: Path, meta: Meta) -> Any:
    leaves = {n: x for n, x in meta.leaves.items() if n.startswith(leaves_of.PARAMS)}
    template = {n: np.empty(x["shape"], x["dtype"]) for n, x in leaves.items()}
    wanted, _ = leaves_of.items(template)
    with _manager(where.parent, read_only=True) as manager:
        try:
            items = manager.restore(
                meta.step, args=ocp.args.Composite(params=ocp.args.StandardRestore(wanted))
            )
        except Exception as error:
            raise DamagedError(f"it cannot be read ({type(error).__name__}: {error})") from None
    found = leaves_of.named(items["params"])
    meta.check(found, digest.host_digests(found))
    return items["params"]
