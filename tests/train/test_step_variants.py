"""The step with layers that share parameters, narrow tables and a span head: every mesh agrees."""

from __future__ import annotations

import functools
import re

import pytest
from train.steps import batch, trainer
from train.test_step import assert_same

SIZES = "width=32, heads=8, ffn=64, positions=16, embedding=16"
ALBERTS = {
    "all": f"albert(layers=2, {SIZES})",
    "groups": f"albert(layers=4, groups=2, {SIZES})",
    "attention": f"albert(layers=2, sharing='attention', {SIZES})",
    "ffn": f"albert(layers=2, sharing='ffn', {SIZES})",
}
ROBERTA = "bert(layers=2, width=32, heads=8, ffn=64, positions=16, segments=0, first_position=2)"
SPANS = {"objectives": "mlm + span_boundary", "corruption": "whole_words(rate=0.3)"}

pytestmark = pytest.mark.slow  # compiles a training program for each mesh


@pytest.mark.parametrize(
    ("shape", "name"),
    [
        ((2, 2, 2), "all"),
        ((2, 2, 2), "attention"),
        ((8, 1, 1), "all"),
        ((1, 8, 1), "all"),
        ((1, 1, 8), "all"),
        ((2, 2, 2), "groups"),
        ((1, 8, 1), "groups"),
        ((2, 2, 2), "ffn"),
    ],
)
def test_every_mesh_agrees(shape, name):
    """Dropout on. Gradients of a shared layer are the sum of its uses on every device."""
    model = ALBERTS[name]
    assert_same(trainer(shape, model=model).results(batch()), trainer(model=model).results(batch()))


@pytest.mark.parametrize("name", ["all", "groups", "attention"])
def test_every_mesh_agrees_in_parts(name):
    """With microbatches, layers unrolled."""
    parts = functools.partial(trainer, model=ALBERTS[name], microbatches=2, scan="off")
    assert_same(parts((2, 2, 2)).results(batch()), parts().results(batch()))


@pytest.mark.parametrize("model", [ROBERTA, ALBERTS["all"]], ids=["roberta", "albert"])
def test_the_span_head_on_every_mesh(model):
    parts = functools.partial(trainer, model=model, **SPANS)
    assert_same(parts((2, 2, 2)).results(batch()), parts().results(batch()))


def test_data_parallel_moves_gradients_only():
    text = trainer((8, 1, 1), model=ALBERTS["all"], **SPANS).hlo(batch())
    assert "all-reduce" in text
    assert not re.search(r"all-to-all|collective-permute|all-gather", text)


def test_fully_sharded_does_not_exchange_activations():
    text = trainer((1, 8, 1), model=ALBERTS["all"], **SPANS).hlo(batch())
    assert "all-gather" in text
    assert not re.search(r"all-to-all", text)
