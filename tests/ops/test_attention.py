"""Attention against its formula in numpy, and what may not be seen."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bert_variants.ops import attention
from bert_variants.ops.attention import attend, visible

B, T, N, H = 3, 7, 2, 5
RNG = np.random.default_rng(0)
Q, K, V = (RNG.normal(size=(B, T, N, H)).astype(np.float32) for _ in range(3))
VALID = np.arange(T) < np.array([7, 4, 1])[:, None]


def reference(q, k, v, seen, bias=0.0, scale=H**-0.5):
    """Loops, in double precision; hidden keys are left out, not given a small score."""
    out = np.zeros(q.shape)
    scores = np.einsum("btnh,bsnh->bnts", q.astype(np.float64), k) * scale + bias
    seen = np.broadcast_to(seen, scores.shape)
    for b, n, t in np.ndindex(scores.shape[:3]):
        keys = np.flatnonzero(seen[b, n, t])
        if keys.size:
            share = np.exp(scores[b, n, t, keys] - scores[b, n, t, keys].max())
            out[b, t, n] = (share / share.sum()) @ v[b, keys, n]
    return out, scores


def test_is_the_formula():
    seen = visible(jnp.asarray(VALID))
    found, scores = attend(Q, K, V, seen)
    expected, _ = reference(Q, K, V, seen)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    assert scores is None


def test_bias_and_scale():
    bias = RNG.normal(size=(B, N, T, T)).astype(np.float32)
    seen = visible(jnp.asarray(VALID))
    found, _ = attend(Q, K, V, seen, bias_BNTT=bias, scale=0.3)
    expected, _ = reference(Q, K, V, seen, bias, 0.3)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_scores_are_before_mask_and_softmax():
    found, scores = attend(Q, K, V, visible(jnp.asarray(VALID)), scores=True)
    expected, raw = reference(Q, K, V, VALID[:, None, None])
    np.testing.assert_allclose(scores, raw, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    assert scores.dtype == jnp.float32


def test_padding_is_not_seen_exactly():
    """Not a bit, in value or gradient, comes from a hidden key."""
    seen = visible(jnp.asarray(VALID))
    spoilt_k, spoilt_v = K.copy(), V.copy()
    spoilt_k[~VALID], spoilt_v[~VALID] = 1e4, -1e4
    clean, dirty = (attend(Q, k, v, seen)[0] for k, v in ((K, V), (spoilt_k, spoilt_v)))
    np.testing.assert_array_equal(clean, dirty)
    grads = jax.grad(lambda k, v: (attend(Q, k, v, seen)[0] ** 2).sum(), (0, 1))(K, V)
    for grad in grads:
        assert (np.asarray(grad)[~VALID] == 0).all()
        assert (np.asarray(grad)[VALID] != 0).any()


def test_packed_rows_see_their_own():
    packs = np.array([[1, 1, 1, 2, 2, 0, 0]] * B, np.int32)
    seen = visible(jnp.asarray(packs > 0), jnp.asarray(packs))
    assert seen.shape == (B, 1, T, T)
    np.testing.assert_array_equal(seen[0, 0, 0], [1, 1, 1, 0, 0, 0, 0])
    np.testing.assert_array_equal(seen[0, 0, 4], [0, 0, 0, 1, 1, 0, 0])
    np.testing.assert_array_equal(seen[0, 0, 6], [0] * 7)  # padding does not see padding
    found, _ = attend(Q, K, V, seen)
    for part in (slice(0, 3), slice(3, 5)):
        pieces = (x[:, part] for x in (Q, K, V))
        alone, _ = attend(*pieces, jnp.ones((B, 1, 1, part.stop - part.start), bool))
        np.testing.assert_allclose(found[:, part], alone, rtol=1e-5, atol=1e-6)


def test_rows_of_padding_are_finite():
    nothing = visible(jnp.zeros((B, T), bool))
    value, grad = jax.value_and_grad(lambda q: attend(q, K, V, nothing)[0].sum())(Q)
    assert np.isfinite(value)
    assert np.isfinite(grad).all()


def test_dropout_needs_a_key_and_a_rate():
    seen = visible(jnp.asarray(VALID))
    key = jax.random.key(0)
    plain = attend(Q, K, V, seen)[0]
    np.testing.assert_array_equal(attend(Q, K, V, seen, rate=0.5)[0], plain)
    np.testing.assert_array_equal(attend(Q, K, V, seen, rate=0.0, key=key)[0], plain)
    assert (np.asarray(attend(Q, K, V, seen, rate=0.5, key=key)[0]) != plain).any()


def test_dropout_falls_on_the_shares():
    """With one key visible its share is 1: kept and doubled, or gone."""
    one = visible(jnp.asarray(np.arange(T) == 0)[None].repeat(B, 0))
    found = np.asarray(attend(Q, K, V, one, rate=0.5, key=jax.random.key(1))[0])
    ratio = found / V[:, :1]
    assert set(np.unique(ratio.round(4))) == {0.0, 2.0}


@pytest.mark.parametrize("precision", ["bfloat16", "bfloat16_dots"])
def test_bfloat16_is_near(precision):
    seen = visible(jnp.asarray(VALID))
    cast = jnp.bfloat16 if precision == "bfloat16" else jnp.float32
    found, scores = attend(
        *(jnp.asarray(x, cast) for x in (Q, K, V)), seen, precision=precision, scores=True
    )
    assert found.dtype == cast
    assert scores.dtype == jnp.float32
    expected, raw = reference(Q, K, V, seen)
    np.testing.assert_allclose(np.asarray(found, np.float32), expected, atol=0.03)
    np.testing.assert_allclose(scores, raw, atol=0.05)


def test_fused_kernel_only_where_it_can(monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    plain = {"drops": False, "bias": False, "scores": False}
    assert attention._fused_fits("bfloat16", **plain)
    assert not attention._fused_fits("float32", **plain)
    for asked in plain:
        assert not attention._fused_fits("bfloat16", **(plain | {asked: True}))
    monkeypatch.setattr(jax, "default_backend", lambda: "cpu")
    assert not attention._fused_fits("bfloat16", **plain)


@pytest.mark.skipif(jax.default_backend() != "gpu", reason="the fused kernel is cuDNN's")
def test_fused_kernel_is_the_same():
    q, k, v = (
        jax.random.normal(jax.random.key(i), (2, 128, 4, 64), jnp.bfloat16) for i in range(3)
    )
    seen = visible(jnp.arange(128)[None] < jnp.array([[128], [70]]))
    fused, _ = attend(q, k, v, seen, precision="bfloat16")
    plain, _ = attend(q, k, v, seen, precision="bfloat16", scores=True)
    np.testing.assert_allclose(
        np.asarray(fused, np.float32), np.asarray(plain, np.float32), atol=0.03
    )


@pytest.mark.parametrize("rate", [0.0, 0.4])
def test_own_gradient_is_that_of_autodiff(rate):
    """Asking for the scores takes the form that autodiff goes through."""
    seen = visible(jnp.asarray(VALID))
    out = RNG.normal(size=(B, T, N, H)).astype(np.float32)

    def pulled(scores: bool):
        def value(q, k, v):
            found = attend(q, k, v, seen, rate=rate, key=jax.random.key(3), scores=scores)[0]
            return (found * out).sum()

        return jax.value_and_grad(value, (0, 1, 2))(Q, K, V)

    for own, auto in zip(
        jax.tree.leaves(pulled(False)), jax.tree.leaves(pulled(True)), strict=True
    ):
        np.testing.assert_allclose(own, auto, rtol=2e-5, atol=2e-6)
