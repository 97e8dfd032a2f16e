"""Randomness is derived: from names, steps and rows, and the same in every process."""

from __future__ import annotations

import subprocess
import sys

import jax
import numpy as np
from contracts import rows as data

from bert_variants import keys


def words(key) -> np.ndarray:
    return np.asarray(jax.random.key_data(key))


def test_root_and_names_are_stable():
    """Numbers that checkpoints of older versions rely on."""
    np.testing.assert_array_equal(words(keys.root(7)), [0, 7])
    assert keys.name_number("dropout") == int.from_bytes(
        bytes.fromhex(DROPOUT_SHA256)[:4], "little"
    )


# sha256 of b"dropout", by coreutils' sha256sum
DROPOUT_SHA256 = "1b4c0a293bc93fb96e930a71ce8f599c0a97f0b6e5ff929ed674b9bad828739f"


def test_names_do_not_depend_on_the_process():
    code = "from bert_variants import keys; print(keys.name_number('corruption'))"
    for seed in ("0", "1"):
        out = subprocess.run(
            [sys.executable, "-c", code],
            env={"PYTHONHASHSEED": seed, "JAX_PLATFORMS": "cpu", "PATH": ""},
            capture_output=True,
            text=True,
            check=True,
        )
        assert int(out.stdout) == keys.name_number("corruption")


def test_derive_is_a_path():
    key = keys.root(0)
    one = keys.derive(key, "a", 3, "b")
    np.testing.assert_array_equal(words(one), words(keys.derive(keys.derive(key, "a"), 3, "b")))
    others = [("a", "b", 3), ("a", 3), ("a", 4, "b"), ("b", 3, "a"), ()]
    for path in others:
        assert (words(one) != words(keys.derive(key, *path))).any(), path
    traced = jax.jit(lambda step: keys.derive(key, "a", step, "b"))(np.int32(3))
    np.testing.assert_array_equal(words(traced), words(one))


def test_dynamic_keys_follow_step_and_row():
    batch = data.rows(0, 4)
    key = keys.root(0)
    first = words(keys.corruption_keys(key, batch, 0, 0))
    assert len(np.unique(first, axis=0)) == 4
    assert (first != words(keys.corruption_keys(key, batch, 1, 0))).any(axis=1).all()
    visited = batch.replace(visit_B=batch.visit_B + 1)
    np.testing.assert_array_equal(first, words(keys.corruption_keys(key, visited, 0, 0)))
    moved = data.take(batch, np.array([2, 0, 3, 1]))
    np.testing.assert_array_equal(
        first[[2, 0, 3, 1]], words(keys.corruption_keys(key, moved, 0, 0))
    )


def test_static_keys_follow_visit_and_row_but_not_the_step():
    key = keys.root(0)

    def at(visit: int, step: int = 0):
        return words(keys.corruption_keys(key, data.rows(0, 4, visit=visit), step, 3))

    np.testing.assert_array_equal(at(0), at(3))
    np.testing.assert_array_equal(at(2), at(5, step=17))
    assert len(np.unique(np.concatenate([at(v) for v in range(3)]), axis=0)) == 12
    # one copy: the same for ever
    alone = words(keys.corruption_keys(key, data.rows(0, 4, visit=9), 4, 1))
    np.testing.assert_array_equal(alone, words(keys.corruption_keys(key, data.rows(0, 4), 0, 1)))


def test_dynamic_and_static_streams_are_apart():
    batch = data.rows(0, 4)
    dynamic = words(keys.corruption_keys(keys.root(0), batch, 0, 0))
    static = words(keys.corruption_keys(keys.root(0), batch, 0, 1))
    assert (dynamic != static).any(axis=1).all()


def test_host_rng_is_a_function_of_its_path():
    draw = lambda *path: keys.host_rng(*path).integers(0, 2**62, 4)  # noqa: E731
    np.testing.assert_array_equal(draw(1, "plan", 2), draw(1, "plan", 2))
    for path in ((1, "plan", 3), (2, "plan", 2), (1, "order", 2), (1, "plan")):
        assert (draw(*path) != draw(1, "plan", 2)).all(), path


def test_a_key_is_its_own_root():
    """A program that is given the key draws what one with the number inside draws."""
    for seed in (0, 1, 7, 2**31 - 1, 2**31 + 5, 2**40):
        data = np.asarray(jax.random.key_data(keys.root(seed)))
        given = jax.jit(lambda d: jax.random.bits(keys.root(jax.random.wrap_key_data(d)), (8,)))
        np.testing.assert_array_equal(given(data), jax.random.bits(keys.root(seed), (8,)))
