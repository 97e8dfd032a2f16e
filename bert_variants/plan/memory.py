"""Memory of a training step on each device, from shapes alone.

::

    parameters   what the sharding table leaves on a device, float32
    optimizer    the same for its state (AdamW and LAMB: two moments)
    gradients    as the parameters; twice with microbatches (sum and part)
    memory       what a recurrent model remembers of its rows, before and after the step
    activations  what the backward pass keeps of the forward pass (the residuals of jax.vjp),
                 rows of a microbatch split over data x fsdp; run.remat is in it
    transient    logits and their gradient at the P predicted positions, float32; with run.remat
                 also what one layer keeps while it is computed again

Activations are what automatic differentiation asks for. XLA keeps less where it fuses or
recomputes; widths that are split over ``tensor`` are counted whole. So the estimate is rather too
high than too low; the tests hold it against compiled programs.
"""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from typing import Any

import jax
from jax.sharding import AbstractMesh, AxisType, NamedSharding, PartitionSpec

from bert_variants import registry
from bert_variants.plan.abstract import Abstract
from bert_variants.train import sharding

FORMULA = (
    "parameters + optimizer state + gradients as sharded, plus a recurrent model's memory before "
    "and after the step, plus what jax.vjp keeps for the rows of a microbatch, plus logits and "
    "their gradient, plus one recomputed layer with run.remat"
)


@dataclasses.dataclass(frozen=True)
class Memory:
    """Bytes on one device; ``checkpoint`` is on disk, for the whole run."""

    parameters: int
    optimizer: int
    gradients: int
    memory: int
    activations: int
    transient: int
    checkpoint: int

    @property
    def total(self) -> int:
        """Everything that lives on a device at the worst moment."""
        state = self.parameters + self.optimizer + self.gradients + self.memory
        return state + self.activations + self.transient


def of(abstract: Abstract, mesh: AbstractMesh) -> Memory:
    """Estimate a step of an experiment on a mesh of devices that need not exist."""
    run = abstract.experiment.run
    state = abstract.state
    placed = sharding.shardings(state, mesh, abstract.net.rules)
    ways = mesh.shape["data"] * mesh.shape["fsdp"]
    rows = math.ceil(run.batch / run.microbatches / ways)
    parameters = sharded_bytes(state.params, placed.params)
    activations = residual_bytes(abstract, rows)
    transient = 2 * rows * abstract.predictions * abstract.vocab_size * 4 * _predicts(abstract)
    if run.remat:
        whole = residual_bytes(abstract.with_run(remat=False), rows)
        transient += (whole - activations) // _layers(abstract)
    return Memory(
        parameters=parameters,
        optimizer=sharded_bytes(state.opt_state, placed.opt_state),
        gradients=parameters * (2 if run.microbatches > 1 else 1),
        memory=2 * sharded_bytes(state.carry, placed.carry),
        activations=activations,
        transient=transient,
        checkpoint=_bytes(state),
    )


def mesh_of(abstract: Abstract, devices: int) -> AbstractMesh:
    """The mesh of an experiment over so many devices, without them.

    Raises:
        ConfigError: a shape that does not use exactly those devices, or cannot split the batch.
    """
    sizes = sharding.mesh_sizes(abstract.experiment.mesh, devices)
    mesh = AbstractMesh(sizes, sharding.AXES, axis_types=(AxisType.Auto,) * len(sizes))
    sharding.check_batch(abstract.experiment, mesh)
    return mesh


def residual_bytes(abstract: Abstract, rows: int) -> int:
    """Bytes that the backward pass of ``rows`` rows keeps, beyond parameters and rows."""

    def cut(leaf: Any) -> Any:
        return jax.ShapeDtypeStruct((rows, *leaf.shape[1:]), leaf.dtype)

    inputs = jax.tree.map(cut, abstract.rows)
    kept = jax.eval_shape(
        lambda params, rows: jax.vjp(lambda p: abstract.loss(p, rows), params)[1],
        abstract.state.params,
        inputs,
    )
    sizes: Counter[tuple[Any, ...]] = Counter((x.shape, x.dtype) for x in jax.tree.leaves(kept))
    # parameters and rows are among what is kept, but they are there anyway
    sizes -= Counter((x.shape, x.dtype) for x in jax.tree.leaves((abstract.state.params, inputs)))
    return sum(
        number * math.prod(shape) * dtype.itemsize for (shape, dtype), number in sizes.items()
    )


def sharded_bytes(tree: Any, shardings: Any) -> int:
    """Bytes of one device's share."""

    def one(leaf: Any, where: NamedSharding) -> int:
        return math.prod(_share(leaf.shape, where)) * leaf.dtype.itemsize

    return sum(jax.tree.leaves(jax.tree.map(one, tree, shardings)))


def _share(shape: tuple[int, ...], where: NamedSharding) -> tuple[int, ...]:
    spec = tuple(where.spec) + (None,) * (len(shape) - len(where.spec))
    return tuple(size // _ways(axis, where.mesh) for size, axis in zip(shape, spec, strict=True))


def _ways(axis: Any, mesh: Any) -> int:
    if axis is None or axis is PartitionSpec.UNCONSTRAINED:
        return 1
    return math.prod(mesh.shape[a] for a in (axis if isinstance(axis, tuple) else (axis,)))


def _bytes(tree: Any) -> int:
    return sum(math.prod(x.shape) * x.dtype.itemsize for x in jax.tree.leaves(tree))


def _layers(abstract: Abstract) -> int:
    return registry.lookup("model", abstract.experiment.model).argument("layers")


def _predicts(abstract: Abstract) -> bool:
    outputs = jax.eval_shape(abstract.apply, abstract.state.params, abstract.rows)
    return outputs.token_logits_BPV is not None
