"""Memory from row to row: what a model keeps of the rows it has read, for the rows that follow.

A memory holds the inputs of every layer at up to M positions, the newest last (Dai et al. 2019,
arXiv 1901.02860, section 3.2): ``{"states": [B, L, M, D], "length": int32 [B]}``. The states are in
the format of the activations. The last ``length`` of the M are filled; the others are zeros that
nobody reads. (The TensorFlow code of both Transformer-XL and XLNet lets the first rows attend to
zeros; the PyTorch code of Transformer-XL starts empty, and so does this.)
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from bert_variants.ops.precision import PRECISIONS
from bert_variants.types import Batch, Corrupted, Leaf


class Memory(NamedTuple):
    """A batch's memory as it is read.

    Attributes:
        states_BLMD: inputs of the layers, without gradient.
        length_B: int32, how many of the M are filled.
        taken_B: int32, how many positions of each row are about to be kept.
    """

    states_BLMD: Leaf
    length_B: Leaf
    taken_B: Leaf


def empty(rows: int, layers: int, size: int, width: int, precision: str) -> dict[str, Leaf] | None:
    """The memory of rows before anything was read; None where ``size`` is 0."""
    if not size:
        return None
    return {
        "states": jnp.zeros((rows, layers, size, width), PRECISIONS[precision].activations),
        "length": jnp.zeros((rows,), jnp.int32),
    }


def recall(batch: Batch | Corrupted, reuse: int) -> Memory | None:
    """The memory that comes with a batch, or None where none does.

    Rows with ``labels["continues"]`` 0 do not go on from the row before them in the same place of
    the batch: theirs is dropped.

    Args:
        batch: rows with a memory are padded at their end only.
        reuse: so many first positions of each row are kept, as far as there are tokens; 0: all.

    Raises:
        ValueError: rows that are packed and have a memory.
    """
    if batch.carry is None:
        return None
    if batch.packs_BT is not None:
        raise ValueError("rows with a memory cannot be packed: whose memory would it be?")
    states_BLMD = jax.lax.stop_gradient(batch.carry["states"])
    length_B = batch.carry["length"]
    if "continues" in batch.labels:
        goes_on_B = batch.labels["continues"] != 0
        states_BLMD = jnp.where(goes_on_B[:, None, None, None], states_BLMD, 0)
        length_B = jnp.where(goes_on_B, length_B, 0)
    kept_BT = batch.valid_BT[:, : reuse or batch.valid_BT.shape[1]]
    return Memory(states_BLMD, length_B, jnp.sum(kept_BT, axis=1, dtype=jnp.int32))


def keep(old_BMD: Leaf, x_BTD: Leaf, taken_B: Leaf, reuse: int) -> jax.Array:
    """One layer's memory after a row: the last M of the old one and the row's kept positions."""
    size = old_BMD.shape[1]
    new_BTD = x_BTD[:, : reuse or x_BTD.shape[1]].astype(old_BMD.dtype)
    joined_BXD = jnp.concatenate([old_BMD, jax.lax.stop_gradient(new_BTD)], axis=1)
    cut = jax.vmap(lambda x, start: jax.lax.dynamic_slice_in_dim(x, start, size))
    return cut(joined_BXD, taken_B)


def carry_of(memory: Memory | None, states_BLMD: Leaf) -> dict[str, Leaf] | None:
    """What is handed to the next rows: the kept states, and how many of them there are."""
    if memory is None:
        return None
    filled_B = jnp.minimum(memory.length_B + memory.taken_B, states_BLMD.shape[2])
    return {"states": states_BLMD, "length": filled_B}


def with_memory(visible_BQT: Leaf, memory: Memory | None) -> Leaf:
    """bool [B, Q, M + T]: what is filled of the memory is visible to every query."""
    if memory is None:
        return visible_BQT
    size = memory.states_BLMD.shape[2]
    filled_BM = jnp.arange(size)[None, :] >= size - memory.length_B[:, None]
    shape = (*visible_BQT.shape[:2], size)
    return jnp.concatenate([jnp.broadcast_to(filled_BM[:, None], shape), visible_BQT], axis=2)
