"""A toy model that remembers which rows it saw, and runs of it over streams that take a second.

As a program it is ``tiny_runs.py`` with this model: the same arguments, the same faults.
"""

from __future__ import annotations

import contextlib
import dataclasses
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import tiny_runs as tiny
from jax.sharding import PartitionSpec

from bert_variants import config, registry
from bert_variants.text import pipeline
from bert_variants.types import Batch, Corrupted, Outputs

HISTORY, LENGTH, BATCH, SAVE = 6, 8, 16, 8
NAME = "toy_memory"


class ToyMemory(nn.Module):
    """A token's hidden state is its embedding and the mean of the row before, at the same place.

    The memory of a row: ``seen``, the identities (plus 1) of the last rows in its place, newest
    last, 0 for none; ``mean``, which the loss depends on.
    """

    layers: int = 1
    width: int = 8
    positions: int = 64
    vocab_size: int = 0
    wanted: tuple[tuple[str, int], ...] = ()
    precision: str = "float32"
    unroll: int = 1
    remat: bool = False

    @nn.nowrap
    def carry(self, rows: int) -> dict[str, jax.Array]:
        """The empty memory."""
        return {
            "seen": jnp.zeros((rows, HISTORY), jnp.uint32),
            "mean": jnp.zeros((rows, self.width)),
        }

    @nn.compact
    def __call__(self, batch: Batch | Corrupted, *, train: bool = False) -> Outputs:
        """Hands on a memory even where it was given none."""
        table_VD = self.param("table", nn.initializers.normal(0.5), (self.vocab_size, self.width))
        bias_V = self.param("bias", nn.initializers.zeros, (self.vocab_size,))
        memory = self.carry(batch.inputs_BT.shape[0])
        if batch.carry is not None:
            goes_on_B1 = (batch.labels["continues"] == 1)[:, None]
            memory = jax.tree.map(
                lambda new, old: jnp.where(goes_on_B1, old, new), memory, batch.carry
            )
        hidden_BTD = jnp.take(table_VD, batch.inputs_BT, axis=0) + memory["mean"][:, None]
        at_BP = jnp.zeros_like(batch.inputs_BT[:, :1]) if batch.at_BP is None else batch.at_BP
        at_BPD = jnp.take_along_axis(hidden_BTD, at_BP[:, :, None], axis=1)
        identity_B1 = (batch.example_id_B + 1)[:, None].astype(jnp.uint32)
        return Outputs(
            hidden_BTD=hidden_BTD,
            token_logits_BPV=jnp.einsum("bpd,vd->bpv", at_BPD, table_VD) + bias_V[None, None],
            carry={
                "seen": jnp.concatenate([memory["seen"][:, 1:], identity_B1], axis=1),
                "mean": jax.lax.stop_gradient(jnp.tanh(hidden_BTD.mean(axis=1))),
            },
        )


@contextlib.contextmanager
def registered() -> Iterator[None]:
    """The toy under its name, while this lasts: the batteries are for models of the project."""
    registry.names("model")
    registry.register(
        "model",
        name=NAME,
        outputs=("hidden_BTD", "token_logits_BPV"),
        reserved=("vocab_size", "wanted", "precision", "unroll", "remat", "parent", "name"),
        rules=((r"table$", PartitionSpec("tensor", "fsdp")), (r"bias$", PartitionSpec())),
        recurrent=True,
    )(ToyMemory)
    try:
        yield
    finally:
        del registry._ENTRIES["model"][NAME]


@contextlib.contextmanager
def small_windows() -> Iterator[None]:
    """Several windows an epoch, of a few batches each, although the text is small."""
    with mock.patch.multiple(pipeline, WINDOW_TOKENS=500, LANE_ROWS=2):
        yield


_plain = tiny.experiment


def experiment(base: Path, run: str | Path, **fields: Any) -> config.Experiment:
    """The toy over streams of the tiny text; ``fields`` are those of run."""
    made = _plain(base, run, **{"batch": BATCH, "save_every": SAVE, **fields})
    return dataclasses.replace(
        made,
        data=dataclasses.replace(
            made.data, example="stream()", length=LENGTH, dir=str(base / "sharded")
        ),
        model=f"{NAME}()",
        objectives="mlm",
        evals=config.Evals(rows=24, batch=8, masks=()),
    )


def remembered(seen: np.ndarray, batch: Batch) -> np.ndarray:
    """What ``seen`` has to be after a batch."""
    kept = np.where(batch.labels["continues"][:, None] == 1, seen, 0)
    newest = (batch.example_id_B + 1)[:, None]
    return np.concatenate([kept[:, 1:], newest], axis=1).astype(np.uint32)


def start(base: Path, run: str, fault: str = "none", **options: Any) -> subprocess.Popen[str]:
    """As ``tiny_runs.start``."""
    with mock.patch.object(tiny, "__file__", __file__):
        return tiny.start(base, run, fault, **options)


def main(argv: list[str]) -> int:
    """As ``tiny_runs.main``."""
    with registered(), small_windows(), mock.patch.object(tiny, "experiment", experiment):
        return tiny.main(argv)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
