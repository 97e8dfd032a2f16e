"""A fingerprint of every array's bits that does not depend on how the array is split over devices.

Orbax restores flipped bits without complaint, so each checkpoint carries one of these for each
leaf, made on the device from the state itself and not from what was written.

For element i (row-major) with bits b::

    m = mix(b xor mix(i + seed))         mix: murmur3's 32-bit finaliser, a bijection
    digest = sum of m mod 2**32          for two seeds: 64 bits

Addition mod 2**32 is exact in any order, so every mesh gives the same number. A change of a single
element always changes it, because ``mix`` is a bijection.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bert_variants.types import Leaf

SEEDS = (0x9E3779B9, 0x7F4A7C15)
_CHUNK = 1 << 16  # elements; what numpy works on stays in the cache
_BITS = {1: np.uint8, 2: np.uint16, 4: np.uint32}


def device_digests(leaves: Mapping[str, Leaf]) -> jax.Array:
    """uint32 [len(leaves), 3]: two digests, and 1 if every value is finite. To be jitted.

    Rows are in the order of the names.

    Raises:
        TypeError: a leaf of 64-bit values or of no plain number type.
    """
    rows = [_device_row(name, leaves[name]) for name in sorted(leaves)]
    return jnp.stack([jnp.stack(row) for row in rows])


def host_digests(leaves: Mapping[str, np.ndarray]) -> np.ndarray:
    """The same as ``device_digests`` for arrays in host memory, without compiling anything."""
    rows = [_host_row(name, np.asarray(leaves[name])) for name in sorted(leaves)]
    return np.asarray(rows, np.uint32)


def written(leaves: Mapping[str, Leaf], table: np.ndarray) -> dict[str, dict[str, Any]]:
    """The digests as a checkpoint stores them: ``{"params/w": {"shape", "dtype", "digest"}}``."""
    return {
        name: {
            "shape": list(leaves[name].shape),
            "dtype": str(leaves[name].dtype),
            "digest": f"{int(row[0]):08x}{int(row[1]):08x}",
        }
        for name, row in zip(sorted(leaves), np.asarray(table), strict=True)
    }


def non_finite(leaves: Mapping[str, Leaf], table: np.ndarray) -> list[str]:
    """Names of the leaves that hold an infinity or a NaN."""
    rows = zip(sorted(leaves), np.asarray(table), strict=True)
    return [name for name, row in rows if not row[2]]


def _mix(x: Any) -> Any:
    x = (x ^ (x >> np.uint32(16))) * np.uint32(0x85EBCA6B)
    x = (x ^ (x >> np.uint32(13))) * np.uint32(0xC2B2AE35)
    return x ^ (x >> np.uint32(16))


def _bit_type(name: str, dtype: Any) -> Any:
    size = np.dtype(dtype).itemsize
    if size not in _BITS:
        raise TypeError(f"{name} is {dtype}: only values of at most 32 bits can be saved.")
    return _BITS[size]


def _device_row(name: str, leaf: Leaf) -> tuple[Leaf, Leaf, Leaf]:
    bit_type = _bit_type(name, leaf.dtype)
    if leaf.dtype == bool:
        bits = leaf.astype(jnp.uint32)
    else:
        bits = jax.lax.bitcast_convert_type(leaf, bit_type).astype(jnp.uint32)
    place = jnp.zeros(leaf.shape, jnp.uint32)
    for axis in range(leaf.ndim):
        stride = math.prod(leaf.shape[axis + 1 :]) & 0xFFFFFFFF
        place = place + jax.lax.broadcasted_iota(jnp.uint32, leaf.shape, axis) * np.uint32(stride)
    sums = [jnp.sum(_mix(bits ^ _mix(place + np.uint32(seed))), dtype=jnp.uint32) for seed in SEEDS]
    floating = jnp.issubdtype(leaf.dtype, jnp.floating)
    finite = jnp.all(jnp.isfinite(leaf)) if floating else jnp.ones((), bool)
    return sums[0], sums[1], finite.astype(jnp.uint32)


def _host_row(name: str, leaf: np.ndarray) -> tuple[int, int, int]:
    bit_type = _bit_type(name, leaf.dtype)
    flat = np.ascontiguousarray(leaf).reshape(-1)
    floating = jnp.issubdtype(leaf.dtype, jnp.floating)
    sums, finite = [0, 0], True
    for start in range(0, flat.size, _CHUNK):
        part = flat[start : start + _CHUNK]
        bits = part.view(bit_type).astype(np.uint32)
        place = np.arange(start, start + part.size).astype(np.uint32)
        for i, seed in enumerate(SEEDS):
            mixed = _mix(bits ^ _mix(place + np.uint32(seed)))
            sums[i] += int(np.sum(mixed, dtype=np.uint64))
        finite &= not floating or bool(np.all(np.isfinite(part)))
    return sums[0] & 0xFFFFFFFF, sums[1] & 0xFFFFFFFF, int(finite)
