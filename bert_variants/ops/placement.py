"""Where activations and gathered tables lie on the mesh. Without a mesh these have no effect."""

from __future__ import annotations

from typing import Any

import jax
from jax.sharding import PartitionSpec

from bert_variants.types import Leaf

ROW_AXES = ("data", "fsdp")


def keep_rows(x: Leaf) -> jax.Array:
    """State that the leading axis of ``x`` is split by rows and nothing else is.

    Parameters are split over ``fsdp`` too. Unless told otherwise the compiler may follow them,
    split an activation's width over ``fsdp``, and move whole activations between devices.
    """
    return place(x, ROW_AXES)


def place(x: Leaf, *axes: Any) -> jax.Array:
    """State how the axes of ``x`` are split: a mesh axis, several, or None; the rest are not."""
    if not set(ROW_AXES) <= set(jax.sharding.get_abstract_mesh().axis_names):
        return x
    spec = PartitionSpec(*axes, *[None] * (x.ndim - len(axes)))
    return jax.lax.with_sharding_constraint(x, spec)


def on_one_device() -> bool:
    """Whether the mesh in force, if any, has a single device: then a gather moves nothing."""
    mesh = jax.sharding.get_abstract_mesh()
    return mesh.empty or mesh.size == 1
