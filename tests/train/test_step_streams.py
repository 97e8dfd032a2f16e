"""The step of models with memory, two streams and distances: every mesh agrees, rows stay put."""

from __future__ import annotations

import re

import jax.numpy as jnp
import pytest
from train.steps import batch, trainer
from train.test_step import assert_same

SIZES = "layers=2, width=32, heads=8, ffn=64, positions=16, memory=8"
MODELS = {
    "xlnet": {"model": f"xlnet({SIZES}, reuse=6)", "corruption": "permutation(rate=0.3)"},
    "transformer_xl": {"model": f"transformer_xl({SIZES}, reuse=15)", "corruption": "causal()"},
}

pytestmark = pytest.mark.slow  # compiles a training program for each mesh


def remembering(apply):
    """The network with a memory that differs from row to row, some of it not filled."""

    def run(params, rows, **options):
        count = rows.inputs_BT.shape[0]
        number = jnp.arange(count * 2 * 8 * 32, dtype=jnp.float32)
        carry = {
            "states": jnp.sin(number).reshape(count, 2, 8, 32),
            "length": jnp.arange(count, dtype=jnp.int32) % 9,
        }
        return apply(params, rows.replace(carry=carry), **options)

    return run


def of(name: str, shape=(1, 1, 1), **options):
    return trainer(shape, objectives="mlm", wrap=remembering, **MODELS[name], **options)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("shape", [(2, 2, 2), (8, 1, 1), (1, 8, 1), (1, 1, 8)])
def test_every_mesh_agrees(shape, name):
    """Dropout on."""
    assert_same(of(name, shape).results(batch()), of(name).results(batch()))


def test_rows_in_both_directions_on_every_mesh():
    rows = batch()
    rows = rows.replace(labels={"backward": rows.labels["next_sentence"]})
    assert_same(of("xlnet", (2, 2, 2)).results(rows), of("xlnet").results(rows))


@pytest.mark.parametrize("name", MODELS)
def test_data_parallel_moves_gradients_only(name):
    text = of(name, (8, 1, 1)).hlo(batch())
    assert "all-reduce" in text
    assert not re.search(r"all-to-all|collective-permute|all-gather", text)


@pytest.mark.parametrize("name", MODELS)
def test_fully_sharded_does_not_exchange_activations(name):
    text = of(name, (1, 8, 1)).hlo(batch())
    assert "all-gather" in text
    assert not re.search(r"all-to-all", text)
