"""The one place that knows devices: the mesh, and what lies where on it.

Axes: ``data`` (rows; parameters are copied), ``fsdp`` (rows and storage), ``tensor`` (widths).
A model's table says for each parameter's path how it is split; an axis that does not divide a
dimension is left out there, so every size runs on every mesh.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding, PartitionSpec

from bert_variants import config
from bert_variants.config import ConfigError
from bert_variants.train.optim import path_name
from bert_variants.types import Leaf

AXES = ("data", "fsdp", "tensor")
ROWS = PartitionSpec(("data", "fsdp"))


def make_mesh(shape: config.Mesh, devices: Sequence[Any] | None = None) -> Mesh:
    """The mesh of a config over all devices.

    Axes are ``Auto``: jax's own default became Explicit, under which linen and ``jnp.take`` fail.

    Raises:
        ConfigError: a shape that does not use exactly the devices there are.
    """
    devices = list(jax.devices() if devices is None else devices)
    return jax.make_mesh(
        mesh_sizes(shape, len(devices)), AXES, axis_types=(AxisType.Auto,) * 3, devices=devices
    )


def mesh_sizes(shape: config.Mesh, devices: int) -> tuple[int, int, int]:
    """Sizes of data, fsdp and tensor over so many devices, the -1 resolved.

    Raises:
        ConfigError: a shape that does not use exactly these devices.
    """
    sizes = [shape.data, shape.fsdp, shape.tensor]
    known = math.prod(s for s in sizes if s > 0)
    if -1 in sizes and devices % known == 0:
        sizes[sizes.index(-1)] = devices // known
    if math.prod(sizes) != devices:
        raise ConfigError(
            f"mesh {dict(zip(AXES, sizes, strict=True))} does not fit {devices} devices. "
            "Give sizes whose product is that number, one of them may be -1."
        )
    return sizes[0], sizes[1], sizes[2]


def check_batch(experiment: config.Experiment, mesh: Mesh | AbstractMesh) -> None:
    """Refuse a batch that the mesh cannot split evenly.

    Raises:
        ConfigError: names the field, the number and the nearest that would do.
    """
    ways = mesh.shape["data"] * mesh.shape["fsdp"]
    micro = experiment.run.batch // experiment.run.microbatches
    for field, rows in (
        ("run.batch / run.microbatches", micro),
        ("evals.batch", experiment.evals.batch),
    ):
        if rows % ways:
            below, above = rows // ways * ways, (rows // ways + 1) * ways
            raise ConfigError(
                f"{field} is {rows}, not divisible by the {ways} ways that mesh.data x mesh.fsdp "
                f"split rows. Take {f'{below} or ' if below else ''}{above}."
            )


def spec_for(path: str, rules: Sequence[tuple[str, PartitionSpec]]) -> PartitionSpec:
    """The spec of the one rule that matches a parameter's path.

    Raises:
        ConfigError: no rule, or more than one.
    """
    found = [(pattern, spec) for pattern, spec in rules if re.search(pattern, path)]
    if len(found) != 1:
        raise ConfigError(
            f"parameter '{path}' is matched by {len(found)} sharding rules "
            f"({', '.join(p for p, _ in found) or 'none'}), expected exactly one."
        )
    return found[0][1]


def shardings(
    tree: Any, mesh: Mesh | AbstractMesh, rules: Sequence[tuple[str, PartitionSpec]]
) -> Any:
    """A NamedSharding for each leaf of ``tree``: parameters, or a train state that holds them.

    Scalars are copied to every device. Moments of the optimizer end in the path of their
    parameter and so lie where it lies.
    """

    def one(path: tuple[Any, ...], leaf: Leaf) -> NamedSharding:
        if not leaf.shape:
            return NamedSharding(mesh, PartitionSpec())
        if "carry" in path_name(path).split("/"):
            return NamedSharding(mesh, ROWS)
        return NamedSharding(mesh, _dividing(spec_for(path_name(path), rules), leaf.shape, mesh))

    return jax.tree_util.tree_map_with_path(one, tree)


def _dividing(
    spec: PartitionSpec, shape: tuple[int, ...], mesh: Mesh | AbstractMesh
) -> PartitionSpec:
    """The spec without the axes that do not divide their dimension."""
    fitting = [
        axis if axis is not None and size % mesh.shape[axis] == 0 else None
        for axis, size in zip(spec, shape, strict=False)
    ]
    return PartitionSpec(*fitting)


def batch_shardings(batch: Any, mesh: Mesh | AbstractMesh) -> Any:
    """Rows over ``data`` and ``fsdp``; scalars everywhere."""
    return jax.tree.map(
        lambda leaf: NamedSharding(mesh, ROWS if np.ndim(leaf) else PartitionSpec()), batch
    )


def put_batch(batch: Any, mesh: Mesh) -> Any:
    """This process's rows of a host batch as one global array on the mesh."""
    return jax.tree.map(
        lambda leaf, sharding: jax.make_array_from_process_local_data(sharding, np.asarray(leaf)),
        batch,
        batch_shardings(batch, mesh),
    )
