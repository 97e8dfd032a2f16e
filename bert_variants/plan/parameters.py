"""How many parameters an experiment has, and in which part of the network."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import jax

from bert_variants.train.optim import path_name


def count(params: Any) -> int:
    """All parameters; arrays or shapes."""
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(params))


def by_group(params: Any, depth: int = 2) -> dict[str, int]:
    """Parameters by the first ``depth`` names of their paths, in the network's order.

    BERT: ``embeddings/word``, ``embeddings/position``, ..., ``encoder/layers``, ``heads/tokens``.
    A table that is tied counts once, where it is made.
    """
    found: Counter[str] = Counter()
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        found["/".join(path_name(path).split("/")[:depth])] += math.prod(leaf.shape)
    return dict(found)
