"""Starting from another run's parameters under other names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
import tiny_runs as tiny

from bert_variants import config
from bert_variants.config import ConfigError
from bert_variants.train import checkpoint, leaves, setup
from bert_variants.train.errors import ResumeRefusedError
from bert_variants.train.origins import origins, params_of
from bert_variants.train.setup import Setup

NAMES = (
    "embeddings/word/embedding",
    "discriminator/encoder/layers/ffn/wide/kernel",
    "generator/encoder/layers/ffn/wide/kernel",
    "heads/tokens/bias",
    "heads/replaced/dense/kernel",
)
TWO_STAGES = (
    "^embeddings/ <- generator_embeddings/",
    "^discriminator/ <- generator/",
    "^heads/(?!tokens/)",
)


def test_names_by_hand():
    assert origins(NAMES, TWO_STAGES) == {
        "embeddings/word/embedding": "generator_embeddings/word/embedding",
        "discriminator/encoder/layers/ffn/wide/kernel": "generator/encoder/layers/ffn/wide/kernel",
        "generator/encoder/layers/ffn/wide/kernel": "generator/encoder/layers/ffn/wide/kernel",
        "heads/tokens/bias": "heads/tokens/bias",
        "heads/replaced/dense/kernel": None,
    }


def test_no_map_is_the_same_names():
    assert origins(NAMES, ()) == {name: name for name in NAMES}


def test_the_first_entry_that_finds_something_counts_and_groups_are_known():
    found = origins(["a/x", "b/x"], (r"^a/", r"^(\w)/(\w)$ <- \2/\1"))
    assert found == {"a/x": None, "b/x": "x/b"}
    assert origins(["deep/a/x"], ("^deep/ <-",)) == {"deep/a/x": "a/x"}


def test_an_entry_that_finds_nothing_is_refused():
    with pytest.raises(ConfigError, match="'\\^hads/' finds none of this run's parameters"):
        origins(NAMES, ("^hads/",))


def other(ready: Setup, reference: Path, entries: tuple[str, ...], objectives: str) -> Setup:
    """A set-up like the reference's, with other objectives, starting from its parameters."""
    changed = tiny.at(ready, reference.parent / "other", init_from=str(reference)).experiment
    changed = config.set_field(changed, "run.init_map", entries)
    return setup.make(config.set_field(changed, "objectives", objectives), ready.store)


def named(params: Any) -> dict[str, np.ndarray]:
    return {n: np.asarray(x) for n, x in leaves.flatten(params)[0].items()}


def test_heads_that_are_not_wanted_are_left_where_they_are(ready: Setup, reference: Path):
    """The reference has a head for pairs, this run has none; and its head for tokens is new."""
    run = other(ready, reference, ("^heads/tokens/",), "mlm")
    notes: list[str] = []
    fresh = run.init_state().params
    found = named(params_of(run, fresh, notes.append))
    theirs, mine = named(checkpoint.load(reference).params), named(fresh)
    for name, value in found.items():
        source = mine if name.startswith("heads/tokens/") else theirs
        np.testing.assert_array_equal(value, source[name], err_msg=name)
    assert (mine["heads/tokens/dense/kernel"] != theirs["heads/tokens/dense/kernel"]).any()
    assert any("5 arrays start at random: heads/tokens/bias" in note for note in notes)
    assert any("9 arrays are left there: heads/pair/output/bias" in note for note in notes)
    for value, like in zip(
        jax.tree.leaves(params_of(run, fresh, notes.append)), jax.tree.leaves(fresh), strict=True
    ):
        assert value.sharding == like.sharding


def test_another_name_is_read_from_there(ready: Setup, reference: Path):
    """The table of positions from that of words does not fit; the query from the key does."""
    run = other(ready, reference, ("attention/query/ <- attention/key/",), "mlm + nsp")
    found = named(params_of(run, run.init_state().params, lambda note: None))
    theirs = named(checkpoint.load(reference).params)
    at = "encoder/layers/attention"
    for name in ("kernel", "bias"):
        np.testing.assert_array_equal(found[f"{at}/query/{name}"], theirs[f"{at}/key/{name}"])
        np.testing.assert_array_equal(found[f"{at}/key/{name}"], theirs[f"{at}/key/{name}"])


@pytest.mark.parametrize(
    ("entries", "objectives", "message"),
    [
        ((), "mlm", r"heads/pair/output/bias is .* there, not wanted here \(4 arrays differ\)"),
        (("position/ <- word/",), "mlm + nsp", r"embeddings/word/embedding is .* there, \(32, 16"),
        (("position/ <- place/",), "mlm + nsp", "embeddings/place/embedding is missing there"),
    ],
)
def test_what_does_not_fit_is_refused(ready, reference, entries, objectives, message):
    run = other(ready, reference, entries, objectives)
    with pytest.raises(ResumeRefusedError, match=message):
        params_of(run, run.init_state().params, lambda note: None)
