"""Randomness is derived and never stored: root key -> step -> name of the stream -> example.

Nothing random is in a checkpoint; step 1,000 draws the same numbers whether or not the run was
interrupted, on any number of devices.
"""

from __future__ import annotations

import hashlib
from typing import Any

import jax
import numpy as np

from bert_variants.types import Batch


def root(seed: int | Any) -> jax.Array:
    """The typed key that everything random on the device comes from.

    Args:
        seed: a number; or that key itself, where a program is given it as an argument.
    """
    return jax.random.key(seed) if isinstance(seed, int) else seed


def name_number(name: str) -> int:
    """A stable 32-bit number for the name of a stream (``hash`` would differ by process)."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "little")


def derive(key: jax.Array, *path: str | int | Any) -> jax.Array:
    """Fold names and integers (also traced ones) into ``key``, one after the other."""
    for part in path:
        key = jax.random.fold_in(key, name_number(part) if isinstance(part, str) else part)
    return key


def corruption_keys(key: jax.Array, batch: Batch, step: Any, copies: int) -> jax.Array:
    """One key a row, for the corruption.

    Args:
        key: the root key.
        batch: gives ``example_id_B`` and ``visit_B``.
        step: the training step, traced.
        copies: 0 draws afresh at every step (dynamic masking). k > 0 gives a row the same mask
            on visits v, v + k, v + 2k, ...: static masking with k copies, as in BERT's own data.

    Returns:
        Typed keys [B]. A row's key does not depend on where in the batch it stands.
    """
    if copies:
        base = derive(key, "corruption", "static")
        keys = jax.vmap(lambda i, v: derive(base, i, v))(
            batch.example_id_B, batch.visit_B % np.uint32(copies)
        )
    else:
        base = derive(key, step, "corruption")
        keys = jax.vmap(lambda i: derive(base, i))(batch.example_id_B)
    return keys


def host_rng(seed: int, *path: str | int) -> np.random.Generator:
    """A numpy generator for host-side plans, a pure function of (seed, path)."""
    words = [name_number(p) if isinstance(p, str) else int(p) for p in path]
    return np.random.Generator(np.random.Philox(np.random.SeedSequence([int(seed), *words])))
