"""The step with a generator and a discriminator: every mesh agrees, also on what is drawn."""

from __future__ import annotations

import functools
import re

import pytest
from train.steps import batch, trainer
from train.test_step import assert_same

SIZES = "layers=2, width=32, heads=8, ffn=64, positions=16, embedding=16, generator_heads=8"
ELECTRA = {
    "corruption": "tokens(rate=0.3, mask=0.85, random=0.0)",
    "objectives": "mlm + 50*replaced_token",
}
TYINGS = {
    "embeddings": f"electra({SIZES}, generator_width=16)",
    "none": f"electra({SIZES}, generator_width=16, tying='none')",
    "all": f"electra({SIZES.replace(', generator_heads=8', '')}, tying='all')",
    "unigram": f"electra({SIZES.replace(', generator_heads=8', '')}, generator='unigram')",
}

pytestmark = pytest.mark.slow  # compiles a training program for each mesh


@pytest.mark.parametrize(
    ("shape", "name"),
    [
        ((2, 2, 2), "embeddings"),
        ((8, 1, 1), "embeddings"),
        ((1, 8, 1), "embeddings"),
        ((1, 1, 8), "embeddings"),
        ((2, 2, 2), "none"),
        ((2, 2, 2), "all"),
        ((2, 2, 2), "unigram"),
    ],
)
def test_every_mesh_agrees(shape, name):
    """Dropout on, in both networks."""
    made = functools.partial(trainer, model=TYINGS[name], **ELECTRA)
    assert_same(made(shape).results(batch()), made().results(batch()))


def test_every_mesh_agrees_in_parts():
    made = functools.partial(
        trainer, model=TYINGS["embeddings"], **ELECTRA, microbatches=2, scan="off"
    )
    assert_same(made((2, 2, 2)).results(batch()), made().results(batch()))


@pytest.mark.parametrize("objectives", ["mlm + corrected", "mlm + all_tokens"])
def test_the_ablations_on_every_mesh(objectives):
    settings = {**ELECTRA, "objectives": objectives}
    made = functools.partial(trainer, model=TYINGS["embeddings"], **settings)
    assert_same(made((2, 2, 2)).results(batch()), made().results(batch()))


def test_data_parallel_moves_gradients_only():
    text = trainer((8, 1, 1), model=TYINGS["embeddings"], **ELECTRA).hlo(batch())
    assert "all-reduce" in text
    assert not re.search(r"all-to-all|collective-permute|all-gather", text)
