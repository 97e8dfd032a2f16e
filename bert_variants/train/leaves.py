"""A train state as named leaves, and named leaves as nested dicts: what a checkpoint stores."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax

from bert_variants.train.optim import path_name
from bert_variants.types import Leaf

PARAMS = "params/"


def flatten(state: Any) -> tuple[dict[str, Leaf], Any]:
    """Names like ``params/encoder/w``, ``opt_state/1/mu/encoder/w``, ``step``; the structure."""
    paths, structure = jax.tree_util.tree_flatten_with_path(state)
    return {path_name(path): leaf for path, leaf in paths}, structure


def items(leaves: Mapping[str, Leaf]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Parameters (their names without ``params/``) and the rest, as nested dicts."""
    params = {n.removeprefix(PARAMS): x for n, x in leaves.items() if n.startswith(PARAMS)}
    return nested(params), nested({n: x for n, x in leaves.items() if not n.startswith(PARAMS)})


def named(params: Any, rest: Any = None) -> dict[str, Leaf]:
    """The inverse of ``items``."""
    leaves, _ = flatten(params)
    others, _ = flatten(rest)
    return {**{PARAMS + name: leaf for name, leaf in leaves.items()}, **others}


def nested(leaves: Mapping[str, Leaf]) -> dict[str, Any]:
    """Leaves by path, as nested dicts."""
    made: dict[str, Any] = {}
    for name, leaf in leaves.items():
        *path, last = name.split("/")
        inner = made
        for part in path:
            inner = inner.setdefault(part, {})
        inner[last] = leaf
    return made
