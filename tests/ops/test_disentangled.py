"""Scores that know distances: against loops in numpy, and without a gather of scores."""

from __future__ import annotations

import itertools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bert_variants.ops import disentangled
from bert_variants.ops.disentangled import Relative, bucket, groups, read, slide, slide_back
from bert_variants.registry import RegistryError

B, N, H = 2, 3, 5


# ------------------------------------------------------------- rows of the table


@pytest.mark.parametrize(
    ("distance", "expected"),
    [
        *((0, 0), (1, 1), (128, 128), (129, 129), (200, 169), (256, 192), (300, 207)),
        *((400, 233), (511, 255), (512, 255), (9999, 255)),
    ],
)
def test_buckets_of_version_2(distance, expected):
    found = bucket(np.array([distance, -distance]), 256, 512)
    np.testing.assert_array_equal(found, [expected, -expected])


def test_rows_of_version_1():
    """i - j = 0 has row 512, the distances of 512 tokens have 1 .. 1023; others the outer ones."""
    rows = read("deberta_v1").rows(701)
    at = dict(zip(range(-700, 701), rows, strict=True))
    assert [at[r] for r in (0, 511, -511, -512, 600, -700)] == [512, 1023, 1, 0, 1023, 0]
    np.testing.assert_array_equal(read("deberta_v1").rows(3), [510, 511, 512, 513, 514])


def test_rows_of_version_2():
    """511 and all beyond have the last row; row 0 is never read."""
    relative = read("deberta_v2")
    assert relative.size == 512
    rows = relative.rows(1001)
    assert rows.min() == 1
    assert rows.max() == 511
    assert rows[1000] == 256
    np.testing.assert_array_equal(rows[1000 - 128 : 1000 + 129], np.arange(128, 385))


@pytest.mark.parametrize("length", [1, 2, 600])
@pytest.mark.parametrize("call", ["deberta_v1", "deberta_v2", "deberta_v2(buckets=4, reach=4)"])
def test_rows_ascend(call, length):
    """What the model cuts out of the table rests on it."""
    rows = read(call).rows(length)
    assert len(rows) == 2 * length - 1
    assert (np.diff(rows) >= 0).all()


def test_scale():
    assert read("deberta_v1").scale(64) == pytest.approx((3 * 64) ** -0.5)
    assert read("deberta_v1(terms='p2c')").scale(64) == pytest.approx((2 * 64) ** -0.5)


def test_presets():
    assert read("") is None
    assert read("deberta_v1") == Relative(512, 0, "c2p+p2c", "own", False)
    assert read("deberta_v2(reach=64, buckets=8)") == Relative(64, 8, "c2p+p2c", "shared", True)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        ("deberta_v4", r"'deberta_v4' is unknown\. Did you mean 'deberta_v[12]'\?"),
        ("deberta_v2(bucket=8)", r"has no 'bucket'\. Did you mean 'buckets'\?"),
        ("deberta_v2(8)", "name its values: reach, buckets"),
        ("deberta_v2(buckets='8')", "buckets is '8', expected int"),
        ("deberta_v1(terms='c2c')", r"terms is 'c2c'\. Did you mean"),
        ("deberta_v1(projections='mine')", "projections is 'mine'"),
        ("deberta_v2(reach=1)", "reach is 1, expected at least 2"),
        ("deberta_v2(reach=64)", r"buckets is 256, expected 0, or 4 \.\. 125"),
        ("deberta_v2(", "cannot read"),
    ],
)
def test_what_cannot_be_read(call, message):
    with pytest.raises(RegistryError, match=message):
        read(call)


# ------------------------------------------------------------- the shift


def test_slide_takes_the_documented_entries():
    wide = jnp.arange(18).reshape(3, 6)
    np.testing.assert_array_equal(slide(wide), [[2, 3, 4], [7, 8, 9], [12, 13, 14]])


@pytest.mark.parametrize(("size", "length"), [(1, 1), (2, 2), (7, 7), (1, 4), (3, 12)])
def test_slide_and_its_transpose(size, length):
    rng = np.random.default_rng(length)
    wide = rng.normal(size=(2, 3, size, length + size)).astype(np.float32)
    out = rng.normal(size=(2, 3, size, length)).astype(np.float32)
    c, s = np.indices((size, length))
    np.testing.assert_array_equal(slide(wide), wide[..., c, size - 1 - c + s])
    np.testing.assert_array_equal(slide_back(out), jax.vjp(slide, wide)[1](out)[0])


def test_groups_are_quarters_of_what_is_long_and_even():
    assert [len(groups(n)) for n in (1, 12, 16, 18, 64, 66, 512)] == [1, 1, 4, 1, 4, 1, 4]
    for length in (5, 64, 512):
        found = groups(length)
        assert [found[0].start, found[-1].stop] == [0, length]
        assert all(a.stop == b.start for a, b in itertools.pairwise(found))


# ------------------------------------------------------------- the scores


def inputs(relative: Relative, length: int, seed: int = 0):
    """Queries, keys, and the projected rows that a text of that length uses."""
    rng = np.random.default_rng(seed)
    rows = relative.rows(length)
    size = rows[-1] - rows[0] + 1

    def normal(*shape: int) -> np.ndarray:
        return rng.normal(size=shape).astype(np.float32)

    q, k = normal(B, length, N, H), normal(B, length, N, H)
    keys, queries = normal(size, N, H), normal(size, N, H)
    return (
        q,
        k,
        *(
            table if term in relative.terms else None
            for term, table in (("c2p", keys), ("p2c", queries))
        ),
    )


def loops(q, k, keys, queries, relative: Relative) -> np.ndarray:
    """Word for word, in double precision."""
    length = q.shape[1]
    found = np.zeros((B, N, length, length))
    rows = relative.rows(length)
    for b, n, i, j in np.ndindex(found.shape):
        row = rows[i - j + length - 1] - rows[0]
        terms = 1
        if keys is not None:
            found[b, n, i, j] += np.float64(q[b, i, n]) @ keys[row, n]
            terms += 1
        if queries is not None:
            found[b, n, i, j] += np.float64(queries[row, n]) @ k[b, j, n]
            terms += 1
        found[b, n, i, j] /= (H * terms) ** 0.5
    return found


RELATIVES = [
    Relative(reach=32),
    Relative(reach=4),  # longer than the reach
    Relative(reach=8, buckets=6, projections="shared", norm=True),
    Relative(reach=32, terms="c2p"),
    Relative(reach=7, buckets=4, terms="p2c"),
]
each = pytest.mark.parametrize("relative", RELATIVES, ids=str)


@each
@pytest.mark.parametrize("length", [1, 2, 5, 11, 16, 36])
def test_is_the_formula(relative, length):
    arrays = inputs(relative, length)
    found = disentangled.scores(*arrays, relative, "float32")
    np.testing.assert_allclose(found, loops(*arrays, relative), rtol=1e-5, atol=1e-5)


def test_the_papers_index_is_another():
    """The third term of j - i, as the paper prints it, gives other scores."""
    relative = RELATIVES[0]
    q, k, keys, queries = inputs(relative, 6)
    found = disentangled.scores(q, k, keys, queries, relative, "float32")
    printed = disentangled.scores(q, k, keys, queries[::-1], relative, "float32")
    assert np.abs(found - printed).max() > 0.1
    np.testing.assert_allclose(
        np.diagonal(found, axis1=2, axis2=3), np.diagonal(printed, axis1=2, axis2=3), rtol=1e-5
    )


def gathered(q, k, keys, queries, relative: Relative):
    """The published formulation: products with all rows, then a gather."""
    length = q.shape[1]
    rows = relative.rows(length)
    i, j = np.indices((length, length))
    index = jnp.asarray(rows[i - j + length - 1] - rows[0])
    found = 0.0
    if keys is not None:
        wide = jnp.einsum("binh,rnh->bnir", q, keys)
        found += jnp.take_along_axis(wide, index[None, None], axis=3)
    if queries is not None:
        wide = jnp.einsum("bjnh,rnh->bnrj", k, queries)
        found += jnp.take_along_axis(wide, index[None, None], axis=2)
    return found * relative.scale(H)


@each
@pytest.mark.parametrize("length", [1, 9, 20])
def test_gradients_are_those_of_the_gather(relative, length):
    arrays = [x for x in inputs(relative, length) if x is not None]
    out = np.random.default_rng(1).normal(size=(B, N, length, length)).astype(np.float32)
    present = ["c2p" in relative.terms, "p2c" in relative.terms]

    def whole(q, k, *tables):
        tables = iter(tables)
        return q, k, *(next(tables) if there else None for there in present)

    def pulled(scores):
        return jax.grad(lambda *x: (scores(*whole(*x), relative) * out).sum(), range(len(arrays)))(
            *arrays
        )

    ours = pulled(lambda *x: disentangled.scores(*x, "float32"))
    for found, expected in zip(ours, pulled(gathered), strict=True):
        np.testing.assert_allclose(found, expected, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("precision", ["bfloat16", "bfloat16_dots"])
def test_bfloat16_is_near_and_stays_float32(precision):
    relative = RELATIVES[2]
    cast = jnp.bfloat16 if precision == "bfloat16" else jnp.float32
    arrays = [jnp.asarray(x, cast) for x in inputs(relative, 11)]
    exact = loops(*(np.float32(x) for x in arrays), relative)
    found = disentangled.scores(*arrays, relative, precision)
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, exact, atol=0.04)
    grads = jax.grad(lambda *x: (disentangled.scores(*x, relative, precision) ** 2).sum(), range(4))
    near = jax.jit(grads)(*arrays)
    exact = jax.grad(lambda *x: (gathered(*x, relative) ** 2).sum(), range(4))(
        *(x.astype(jnp.float32) for x in arrays)
    )
    for low, high in zip(near, exact, strict=True):
        assert low.dtype == cast
        low, high = np.float32(low).ravel(), np.ravel(high)
        assert low @ high / np.linalg.norm(low) / np.linalg.norm(high) > 0.999


@pytest.mark.parametrize("relative", [RELATIVES[0], RELATIVES[2]], ids=str)
def test_no_score_is_gathered(relative):
    """Neither forward nor backward; of rows of the table at most 2T - 1 are."""
    length = 16
    arrays = inputs(relative, length)

    def program(scores) -> str:
        grads = jax.grad(lambda *x: (scores(*x, relative) ** 2).sum(), range(4))
        return jax.jit(grads).lower(*arrays).as_text()

    def moved(text: str) -> list[int]:
        """Numbers in the results of all gathers and scatters."""
        sizes = []
        for line in text.split("\n"):
            if re.search(r'"?stablehlo\.(gather|scatter|dynamic_slice)"?\(', line):
                shapes = re.findall(r"tensor<((?:\d+x)+)", line) or ["1x"]
                sizes.append(max(int(np.prod([int(s) for s in x[:-1].split("x")])) for x in shapes))
        return sizes

    assert max(moved(program(gathered))) >= B * N * length * length, "the test sees gathers"
    found = moved(program(lambda *x: disentangled.scores(*x, "float32")))
    assert max(found, default=0) <= 2 * length * N * H
    if not relative.buckets:
        assert not found
