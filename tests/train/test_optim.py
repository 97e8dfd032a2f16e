"""Optimizers and schedules against literal transcriptions of the published ones."""

from __future__ import annotations

import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from contracts import rows as data

from bert_variants import config, keys, registry
from bert_variants.config import Optim
from bert_variants.models import network
from bert_variants.train import optim

RNG = np.random.default_rng(0)
# one stacked matrix of three layers, one single matrix, what is not decayed, and a zero
PARAMS = {
    "encoder": {
        "layers": {
            "ffn": {"kernel": RNG.normal(size=(3, 4, 5)), "bias": RNG.normal(size=(3, 5))},
            "ffn_norm": {"scale": RNG.normal(size=(3, 5)), "bias": RNG.normal(size=(3, 5))},
        }
    },
    "embeddings": {"word": {"embedding": RNG.normal(size=(7, 5))}},
    "heads": {"pair": {"output": {"kernel": np.zeros((5, 2)), "bias": RNG.normal(size=2)}}},
}
PARAMS = jax.tree.map(lambda x: np.asarray(x, np.float32), PARAMS)
GRADS = [
    jax.tree.map(lambda x, size=size: np.float32(size * RNG.normal(size=x.shape)), PARAMS)
    for size in (0.1, 2.0, 0.5)
]
RATES = (0.1, 0.02, 0.3)


def flat(tree) -> dict[str, np.ndarray]:
    named = jax.tree_util.tree_leaves_with_path(tree)
    return {optim.path_name(p): np.asarray(x, np.float64) for p, x in named}


def ours(call: str, settings: Optim) -> dict[str, np.ndarray]:
    """Three steps as the train step takes them."""
    made = registry.lookup("optimizer", call)(settings)
    params = jax.tree.map(jnp.asarray, PARAMS)
    state = made.init(params)
    for grads, rate in zip(GRADS, RATES, strict=True):
        updates, state = made.update(grads, state, params)
        params = jax.tree.map(lambda p, u, rate=rate: p - rate * u, params, updates)
    return flat(params)


def decayed(path: str) -> bool:
    """optimization.py: exclude_from_weight_decay=["LayerNorm", "layer_norm", "bias"]."""
    return not re.search("norm|bias", path)


def clipped(grads: dict[str, np.ndarray], most: float) -> dict[str, np.ndarray]:
    norm = np.sqrt(sum((g**2).sum() for g in grads.values()))
    return {k: g * min(1.0, most / norm) if most else g for k, g in grads.items()}


def adam_direction(grads, moments, count, *, b1, b2, eps, corrected):
    direction = {}
    for path, g in grads.items():
        m, v = moments[path] if path in moments else (np.zeros_like(g), np.zeros_like(g))
        m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g**2
        moments[path] = m, v
        if corrected:
            # 1 - 0.999 has lost four digits in float32, in optax's as in everyone's
            m, v = (
                x / float(1 - np.float32(b) ** np.float32(count)) for x, b in ((m, b1), (v, b2))
            )
        direction[path] = m / (np.sqrt(v) + eps)
    return direction


def literal(*, clip, decay, b1=0.9, b2=0.999, eps=1e-6, corrected=False, trust=False):
    """The published loops, array by array; LAMB with every layer an array of its own."""
    params, moments = flat(PARAMS), {}
    for count, (tree, rate) in enumerate(zip(GRADS, RATES, strict=True), 1):
        grads = clipped(flat(tree), clip)
        found = adam_direction(grads, moments, count, b1=b1, b2=b2, eps=eps, corrected=corrected)
        for path, update in found.items():
            w = params[path]
            if decayed(path):
                update = update + decay * w
                if trust:
                    update = trusted(path, update, w)
            params[path] = w - rate * update
    return params


def trusted(path: str, update: np.ndarray, w: np.ndarray) -> np.ndarray:
    if "layers/" in path:
        return np.stack([trusted("", u, x) for u, x in zip(update, w, strict=True)])
    norm_w, norm_u = np.linalg.norm(w), np.linalg.norm(update)
    return update * (norm_w / norm_u if norm_w > 0 and norm_u > 0 else 1.0)


def assert_near(found, expected) -> None:
    assert found.keys() == expected.keys()
    for path, value in found.items():
        np.testing.assert_allclose(value, expected[path], rtol=2e-5, atol=2e-6, err_msg=path)


@pytest.mark.parametrize("clip", [0.0, 1.0])
def test_adamw_without_bias_correction(clip):
    settings = Optim(weight_decay=0.3, clip=clip)
    found = ours("adamw(bias_correction=False)", settings)
    assert_near(found, literal(clip=clip, decay=0.3))


def test_adamw_arguments_arrive():
    found = ours("adamw(b1=0.5, b2=0.8, eps=0.1)", Optim(weight_decay=0.1, clip=0.5))
    expected = literal(clip=0.5, decay=0.1, b1=0.5, b2=0.8, eps=0.1, corrected=True)
    assert_near(found, expected)


def test_corrected_adamw_is_optaxs():
    """Also a check of the literal loops above."""
    settings = Optim(weight_decay=0.3, clip=0.0)
    mask = jax.tree_util.tree_map_with_path(lambda path, _: decayed(optim.path_name(path)), PARAMS)
    params = jax.tree.map(jnp.asarray, PARAMS)
    rates = jnp.asarray(RATES)
    made = optax.adamw(
        lambda count: rates[count], b1=0.9, b2=0.999, eps=1e-6, weight_decay=0.3, mask=mask
    )
    state = made.init(params)
    for grads in GRADS:
        updates, state = made.update(grads, state, params)
        params = optax.apply_updates(params, updates)
    found = ours("adamw()", settings)
    assert_near(found, flat(params))
    assert_near(found, literal(clip=0.0, decay=0.3, corrected=True))


@pytest.mark.parametrize("corrected", [False, True])
def test_lamb(corrected):
    """A layer of a stack is an array of its own; zeros, norms and biases take no ratio."""
    found = ours(f"lamb(bias_correction={corrected})", Optim(weight_decay=0.3, clip=1.0))
    expected = literal(clip=1.0, decay=0.3, corrected=corrected, trust=True)
    assert_near(found, expected)
    without = literal(clip=1.0, decay=0.3, corrected=corrected)
    assert (
        np.abs(found["embeddings/word/embedding"] - without["embeddings/word/embedding"]).max()
        > 0.01
    )


def test_lamb_of_nothing_is_finite():
    made = registry.lookup("optimizer", "lamb()")(Optim())
    zeros = jax.tree.map(jnp.zeros_like, PARAMS)
    updates, _ = made.update(zeros, made.init(zeros), zeros)
    assert all((u == 0).all() for u in jax.tree.leaves(updates))


def test_moments_start_at_zero_and_count():
    made = optim.scale_by_moments(0.9, 0.999, 1e-6, False)
    state = made.init(PARAMS)
    assert all((x == 0).all() for x in jax.tree.leaves(state))
    _, state = made.update(GRADS[0], state)
    assert int(state.count) == 1
    assert jax.tree.structure(state.mu) == jax.tree.structure(PARAMS)


def test_decay_falls_on_matrices_and_tables_of_bert():
    """Embeddings are decayed in all the published ones; LayerNorms and every bias are not."""
    net = network.build(config.Experiment(model=data.small("bert")), 97)
    shapes = jax.eval_shape(net.init, keys.root(0), data.rows(0, 1))
    mask = optim.matching(Optim().no_decay, invert=True)(shapes)
    named = {optim.path_name(p): m for p, m in jax.tree_util.tree_leaves_with_path(mask)}
    assert len(named) > 20
    for path, is_decayed in named.items():
        assert is_decayed == path.endswith(("kernel", "embedding")), path
    assert {p.rsplit("/", 1)[1] for p in named} == {"kernel", "embedding", "bias", "scale"}


def test_path_names():
    (path, _), *_ = jax.tree_util.tree_leaves_with_path({"a": [optim.Moments(1, {"b": 2}, 3)]})
    assert optim.path_name(path) == "a/0/count"


# ------------------------------------------------------------- schedules


def schedule(call: str, lr: float, warmup: int, steps: int):
    made = registry.lookup("schedule", call)(Optim(lr=lr, warmup=warmup), steps)
    return lambda step: float(jax.jit(made)(jnp.int32(step)))


BERT = ("bert_linear()", 1e-4, 10_000, 1_000_000)
FAIRSEQ = ("linear()", 6e-4, 24_000, 500_000)
ELECTRA = ("product()", 5e-4, 10_000, 1_000_000)


@pytest.mark.parametrize(
    ("settings", "step", "expected"),
    [
        (BERT, 0, 0.0),  # the first step changes nothing
        (BERT, 5_000, 5e-5),
        (BERT, 9_999, 9.999e-5),
        (BERT, 10_000, 9.9e-5),  # downwards
        (BERT, 500_000, 5e-5),
        (BERT, 1_000_000, 0.0),
        (BERT, 1_000_001, 0.0),
        (FAIRSEQ, 0, 6e-4 / 24_000),
        (FAIRSEQ, 1, 6e-4 / 24_000),
        (FAIRSEQ, 12_000, 3e-4),
        (FAIRSEQ, 24_000, 6e-4),
        (FAIRSEQ, 262_000, 3e-4),
        (FAIRSEQ, 500_000, 0.0),
        (ELECTRA, 0, 0.0),
        (ELECTRA, 10_000, 4.95e-4),
        (ELECTRA, 5_000, 5e-4 * 0.5 * 0.995),
        (ELECTRA, 1_000_000, 0.0),
        (("bert_linear(power=2.0)", 1e-4, 0, 100), 50, 2.5e-5),
        (("linear(end=0.1)", 1e-3, 0, 100), 100, 1e-4),
        (("linear(end=0.1, power=2.0)", 1e-3, 0, 100), 50, 1e-3 * (0.1 + 0.9 * 0.25)),
        (("cosine()", 1e-3, 10, 110), 60, 5e-4),
        (("cosine()", 1e-3, 10, 110), 10, 1e-3),
        (("cosine(end=0.2)", 1e-3, 10, 110), 110, 2e-4),
        (("constant()", 1e-3, 10, 110), 4, 5e-4),
        (("constant()", 1e-3, 10, 110), 99, 1e-3),
        (("constant()", 1e-3, 0, 110), 0, 1e-3),
    ],
)
def test_schedule_vectors(settings, step, expected):
    np.testing.assert_allclose(schedule(*settings)(step), expected, rtol=2e-6, atol=1e-11)


@pytest.mark.parametrize("name", registry.names("schedule"))
@pytest.mark.parametrize("warmup", [0, 1, 7])
def test_every_schedule_stays_between_zero_and_the_peak(name, warmup):
    """A new one is tested by existing: rises to the peak or below, never above, never negative."""
    made = registry.lookup("schedule", name)(Optim(lr=2e-3, warmup=warmup), 50)
    rates = np.asarray(jax.vmap(made)(jnp.arange(60)))
    assert np.isfinite(rates).all()
    assert rates.min() >= 0
    assert rates.max() <= 2e-3 * (1 + 1e-6)
    assert rates.max() > 1.5e-3
    assert (np.diff(rates[:warmup]) >= 0).all()
    assert (np.diff(rates[warmup:50]) <= 1e-9).all()


@pytest.mark.parametrize("name", registry.names("optimizer"))
def test_every_optimizer_goes_downhill(name):
    """Updates are subtracted: a quadratic gets smaller, and no state is left out."""
    made = registry.lookup("optimizer", name)(Optim(weight_decay=0.0, clip=1.0))
    params = {"layers": {"kernel": jnp.ones((2, 3, 3))}, "word": {"embedding": jnp.ones((4, 3))}}
    state = made.init(params)
    for _ in range(20):
        updates, state = made.update(params, state, params)
        params = jax.tree.map(lambda p, u: p - 0.02 * u, params, updates)
    assert all((jnp.abs(p) < 0.9).all() for p in jax.tree.leaves(params))


def test_build_takes_what_the_config_names():
    settings = Optim(optimizer="lamb(b1=0.8)", schedule="cosine(end=0.1)", lr=1.0, warmup=0)
    optimizer, rate = optim.build(settings, 10)
    assert float(rate(jnp.int32(10))) == pytest.approx(0.1)
    params = {"kernel": jnp.full((2, 2), 3.0)}
    updates, _ = optimizer.update(params, optimizer.init(params), params)
    # one layer, a trust ratio: the update is as long as the parameter
    assert float(jnp.linalg.norm(updates["kernel"])) == pytest.approx(6.0, rel=1e-5)
