"""The step with attention that knows distances, a decoder, two networks: every mesh agrees."""

from __future__ import annotations

import functools
import re

import pytest
from train.steps import batch, trainer
from train.test_step import assert_same

SIZES = "width=32, heads=8, ffn=64, positions=16"
BUCKETS = "relative='deberta_v2(reach=16, buckets=8)'"
MODELS = {
    "v1": f"deberta(layers=2, {SIZES}, relative='deberta_v1(reach=8)', key_bias=False)",
    "v2": f"deberta(layers=3, {SIZES}, {BUCKETS}, convolution=3, embedding=16)",
    "v3": f"deberta_rtd(layers=2, {SIZES}, {BUCKETS})",
    "bert": f"bert(layers=2, {SIZES}, {BUCKETS})",
}
OBJECTIVES = {"v3": "mlm + 10*replaced_token"}

pytestmark = pytest.mark.slow  # compiles a training program for each mesh


def of(name: str):
    objectives = OBJECTIVES.get(name, "mlm")
    return functools.partial(trainer, model=MODELS[name], objectives=objectives)


@pytest.mark.parametrize("name", MODELS)
def test_every_mesh_agrees(name):
    """Dropout on."""
    assert_same(of(name)((2, 2, 2)).results(batch()), of(name)().results(batch()))


@pytest.mark.parametrize("name", ["v2", "v3"])
def test_every_mesh_agrees_in_parts(name):
    """With microbatches, layers unrolled."""
    parts = functools.partial(of(name), microbatches=2, scan="off")
    assert_same(parts((2, 2, 2)).results(batch()), parts().results(batch()))


@pytest.mark.parametrize("name", ["v2", "v3"])
def test_data_parallel_moves_gradients_only(name):
    text = of(name)((8, 1, 1)).hlo(batch())
    assert "all-reduce" in text
    assert not re.search(r"all-to-all|collective-permute|all-gather", text)


def test_fully_sharded_does_not_exchange_activations():
    text = of("v2")((1, 8, 1)).hlo(batch())
    assert "all-gather" in text
    assert not re.search(r"all-to-all", text)
