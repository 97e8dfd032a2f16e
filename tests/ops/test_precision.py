"""Formats of products: what is rounded, what is summed in float32, forwards and backwards."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bert_variants.ops import precision
from bert_variants.ops.precision import einsum

RNG = np.random.default_rng(0)
X = RNG.normal(size=(6, 33)).astype(np.float32)
W = RNG.normal(size=(33, 9)).astype(np.float32)


def rounded(x) -> np.ndarray:
    return np.asarray(jnp.asarray(x, jnp.bfloat16), np.float64)


def test_float32_is_plain():
    np.testing.assert_array_equal(
        einsum("md,df->mf", X, W, "float32"), jnp.einsum("md,df->mf", X, W)
    )


@pytest.mark.parametrize(("name", "out"), [("bfloat16", "bfloat16"), ("bfloat16_dots", "float32")])
def test_inputs_are_rounded_and_sums_are_not(name, out):
    found = einsum("md,df->mf", X, W, name)
    assert found.dtype == jnp.dtype(out)
    exact = rounded(X) @ rounded(W)
    if name == "bfloat16_dots":
        np.testing.assert_allclose(found, exact, rtol=1e-5, atol=1e-5)
    else:
        np.testing.assert_array_equal(found, jnp.asarray(exact, jnp.float32).astype(jnp.bfloat16))


def test_a_long_sum_keeps_small_terms():
    """4096 ones: summed in bfloat16 they would stop at 256."""
    ones = jnp.ones((1, 4096))
    assert float(einsum("md,df->mf", ones, ones.T, "bfloat16")[0, 0]) == 4096


@pytest.mark.parametrize("name", ["bfloat16", "bfloat16_dots"])
def test_backward_rounds_what_is_multiplied_and_keeps_the_operands_format(name):
    out = RNG.normal(size=(6, 9)).astype(np.float32)
    _, pull = jax.vjp(lambda x, w: einsum("md,df->mf", x, w, name), X, W)
    to_x, to_w = pull(jnp.asarray(out, jnp.bfloat16 if name == "bfloat16" else jnp.float32))
    assert to_x.dtype == to_w.dtype == jnp.float32
    np.testing.assert_allclose(to_x, rounded(out) @ rounded(W).T, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(to_w, rounded(X).T @ rounded(out), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("spec", ["md,df->mf", "me,ve->mv"])
@pytest.mark.parametrize(("rows", "inner", "outer"), [(6, 3, 9), (6, 9, 3), (1, 4, 4), (4, 1, 1)])
def test_matrix_gradients_in_every_shape(spec, rows, inner, outer):
    """The narrower factor is transposed; both orders of the result, and edges of one."""
    x = RNG.normal(size=(rows, inner)).astype(np.float32)
    w = RNG.normal(size=(inner, outer) if spec[3] == "d" else (outer, inner)).astype(np.float32)
    out = RNG.normal(size=(rows, outer)).astype(np.float32)
    _, pull = jax.vjp(lambda x, w: einsum(spec, x, w, "bfloat16_dots"), x, w)
    exact = rounded(x).T @ rounded(out)
    np.testing.assert_allclose(
        jax.jit(pull)(out)[1], exact if spec[3] == "d" else exact.T, rtol=1e-5, atol=1e-5
    )


def test_backward_of_mixed_operands():
    """bfloat16 activations with float32 parameters: each gradient in its own format."""
    x = jnp.asarray(X, jnp.bfloat16)
    grads = jax.grad(
        lambda x, w: einsum("md,df->mf", x, w, "bfloat16").astype(jnp.float32).sum(), (0, 1)
    )(x, W)
    assert [g.dtype for g in grads] == [jnp.bfloat16, jnp.float32]


@pytest.mark.parametrize(
    ("spec", "left", "right"),
    [
        ("btnh,bsnh->bnts", (2, 5, 3, 4), (2, 6, 3, 4)),
        ("bnts,bsnh->btnh", (2, 3, 5, 6), (2, 6, 3, 4)),
        ("md,df->mf", (7, 4), (4, 9)),
        ("me,ve->mv", (7, 4), (9, 4)),
    ],
)
def test_every_product_that_models_use(spec, left, right):
    x, y = (RNG.normal(size=s).astype(np.float32) for s in (left, right))
    both = {}
    for name in ("float32", "bfloat16_dots"):
        value = lambda x, y, name=name: (einsum(spec, x, y, name) ** 2).sum()  # noqa: E731
        both[name] = (einsum(spec, x, y, name), *jax.grad(value, (0, 1))(x, y))
    for exact, near in zip(*both.values(), strict=True):
        assert exact.shape == near.shape
        assert np.abs(exact - near).max() < 0.03 * np.abs(exact).max()


@pytest.mark.parametrize("size", [1, 4])
def test_every_backward_product_has_a_kernel(size):
    """Compiled, with bfloat16 operands as they come: not every order of operands has one."""
    q, k, v = (jnp.ones((size, 16, 4, 8), jnp.bfloat16) for _ in range(3))

    def loss(q, k, v):
        scores = einsum("btnh,bsnh->bnts", q, k, "bfloat16")
        return (einsum("bnts,bsnh->btnh", scores, v, "bfloat16").astype(jnp.float32) ** 2).sum()

    grads = jax.jit(jax.grad(loss, (0, 1, 2)))(q, k, v)
    assert all(np.isfinite(np.asarray(g, np.float32)).all() for g in grads)


def test_resolve(monkeypatch):
    assert precision.resolve("float32", "gpu") == "float32"
    assert precision.resolve("auto", "tpu") == precision.resolve("auto", "gpu") == "bfloat16"
    for has, expected in ((True, "bfloat16_dots"), (False, "float32")):
        monkeypatch.setattr(precision, "_cpu_has_bfloat16", lambda has=has: has)
        assert precision.resolve("auto", "cpu") == expected


def test_unknown_names_fail():
    with pytest.raises(KeyError):
        einsum("md,df->mf", X, W, "float16")


@pytest.mark.parametrize(
    ("spec", "left", "right"),
    [
        ("bnts,btnh->bsnh", (2, 3, 5, 6), (2, 5, 3, 4)),  # the gradients of keys and values
        ("btnh,bnts->bsnh", (2, 5, 3, 4), (2, 3, 5, 6)),
        ("bnts,btnh->bsnh", (1, 1, 1, 1), (1, 1, 1, 1)),
        ("bnts,btnh->bsnh", (1, 1, 8, 8), (1, 8, 1, 64)),
        ("btnh,btmh->bnhm", (2, 5, 3, 4), (2, 5, 6, 4)),  # neither factor has its rows in place
    ],
)
def test_products_over_rows(spec, left, right):
    x, y = (RNG.normal(size=s).astype(np.float32) for s in (left, right))
    for name, take in (("float32", np.float64), ("bfloat16_dots", rounded)):
        found = jax.jit(lambda x, y, name=name: precision.product(spec, x, y, name))(x, y)
        assert found.dtype == jnp.float32
        np.testing.assert_allclose(found, np.einsum(spec, take(x), take(y)), rtol=1e-5, atol=1e-5)
