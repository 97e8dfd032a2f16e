"""The statistics that dropout needs of its counter hash, and that its two passes agree."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from bert_variants import config
from bert_variants.ops.dropout import dropout, keep_mask
from bert_variants.train.sharding import make_mesh

N = 1 << 20


def kept(seed: int, rate: float, shape: tuple[int, ...] = (N,)) -> np.ndarray:
    words = jax.random.key_data(jax.random.fold_in(jax.random.key(7), seed))
    return np.asarray(keep_mask(words, shape, rate))


def correlation(a: np.ndarray, b: np.ndarray) -> float:
    """In standard deviations of an independent pair's."""
    a, b = a.ravel().astype(np.float64), b.ravel().astype(np.float64)
    return float(np.corrcoef(a, b)[0, 1] * np.sqrt(a.size))


@pytest.mark.parametrize("rate", [0.01, 0.1, 0.5, 0.9])
@pytest.mark.parametrize("seed", range(4))
def test_rate(seed, rate):
    dropped = (~kept(seed, rate)).sum()
    assert abs(dropped - N * rate) < 4 * (N * rate * (1 - rate)) ** 0.5


def test_keys_are_independent():
    """Random keys, consecutive layers' keys, and keys that share one of their words."""
    base = jax.random.key_data(jax.random.key(3))
    pairs = [(jax.random.key_data(jax.random.key(s)), base) for s in (0, 1, 2)]
    splits = jax.random.key_data(jax.random.split(jax.random.key(3), 4))
    pairs += [(splits[i], splits[i + 1]) for i in range(3)]
    pairs += [(base.at[0].add(1), base), (base.at[1].add(1), base), (base[::-1], base)]
    for one, other in pairs:
        a, b = (np.asarray(keep_mask(words, (N,), 0.3)) for words in (one, other))
        assert abs(correlation(a, b)) < 4.5


@pytest.mark.parametrize("stride", [1, 2, 3, 4, 64, 128, 768, 1024, 4096, 65536])
def test_neighbours_are_independent(stride):
    for seed in range(3):
        mask = kept(seed, 0.1)
        assert abs(correlation(mask[:-stride], mask[stride:])) < 4.5


def test_rows_and_columns_are_even():
    """No row, column or plane of a [B, T, D] array is dropped more than chance allows."""
    mask = ~kept(1, 0.1, (16, 128, 512))
    for axes in ((1, 2), (0, 2), (0, 1)):
        shares = mask.mean(axis=axes)
        sigma = (0.1 * 0.9 * shares.size / mask.size) ** 0.5
        assert np.abs(shares - 0.1).max() < 5 * sigma


def test_patterns_of_eight():
    """Eight neighbours at rate 1/2 make each of 256 patterns equally often (chi-square)."""
    for seed in range(3):
        bits = kept(seed, 0.5).reshape(-1, 8)
        counts = np.bincount(bits @ (1 << np.arange(8)), minlength=256)
        expected = len(bits) / 256
        statistic = ((counts - expected) ** 2 / expected).sum()
        assert abs(statistic - 255) < 5 * (2 * 255) ** 0.5


def test_shape_does_not_matter_only_the_index():
    np.testing.assert_array_equal(kept(0, 0.3, (4, 6, 8)).ravel(), kept(0, 0.3, (192,)))


def test_mean_is_unbiased():
    x = jnp.ones(N)
    found = dropout(x, 0.1, jax.random.key(5))
    assert set(np.unique(found)) == {np.float32(0), np.float32(1 / 0.9)}
    assert abs(float(found.mean()) - 1) < 4 * (0.1 / 0.9 / N) ** 0.5


def test_bfloat16_is_scaled_without_bias():
    """1 / 0.9 is not a bfloat16: rounded first, it would make every element 0.16 % too small."""
    x = jax.random.uniform(jax.random.key(1), (N,), minval=0.5, maxval=1.5).astype(jnp.bfloat16)
    found = dropout(x, 0.1, jax.random.key(5))
    assert found.dtype == jnp.bfloat16
    kept = np.asarray(found != 0)
    ratio = np.asarray(found, np.float64)[kept].sum() / np.asarray(x, np.float64)[kept].sum()
    assert abs(ratio * 0.9 - 1) < 1e-4


def test_backward_uses_the_same_mask():
    x = jax.random.normal(jax.random.key(0), (64, 32)) + 3
    key = jax.random.key(9)
    out, pull = jax.vjp(lambda x: dropout(x, 0.25, key), x)
    (grad,) = pull(jnp.ones_like(x))
    np.testing.assert_allclose(grad, jnp.where(out == 0, 0, 1 / 0.75), rtol=1e-6)
    assert 0.15 < float((out == 0).mean()) < 0.35


def test_under_jit_and_sharded():
    x = jnp.ones((16, 8, 32))
    key = jax.random.key(2)
    expected = np.asarray(dropout(x, 0.3, key))
    jitted = jax.jit(lambda x, key: dropout(x, 0.3, key))
    np.testing.assert_array_equal(jitted(x, key), expected)
    mesh = make_mesh(config.Mesh(data=4, fsdp=1, tensor=2))
    placed = jax.device_put(x, NamedSharding(mesh, PartitionSpec("data", None, "tensor")))
    np.testing.assert_array_equal(jitted(placed, key), expected)


def test_rate_zero_and_bad_rates():
    x = jnp.ones(4)
    assert dropout(x, 0.0, jax.random.key(0)) is x
    for rate in (-0.1, 1.0, 1.5):
        with pytest.raises(ValueError, match="expected 0 <= rate < 1"):
            dropout(x, rate, jax.random.key(0))
