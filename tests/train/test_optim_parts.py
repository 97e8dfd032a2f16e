"""Parameters that are frozen, and layers that learn at rates of their own."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from contracts import rows as data
from train.test_optim import GRADS, PARAMS, flat

from bert_variants import config, keys, registry
from bert_variants.config import ConfigError, Optim
from bert_variants.models import network
from bert_variants.train import optim, sharding


def steps(settings: Optim, grads=GRADS):
    """Three updates of rate 0.1, and the state after them."""
    optimizer, _ = optim.build(settings, 10)
    params = jax.tree.map(jnp.asarray, PARAMS)
    state = optimizer.init(params)
    for each in grads:
        updates, state = optimizer.update(each, state, params)
        params = jax.tree.map(lambda p, u: p - 0.1 * u, params, updates)
    return flat(params), state


# ------------------------------------------------------------- frozen


@pytest.mark.parametrize("optimizer", registry.names("optimizer"))
def test_frozen_parameters_do_not_move_and_have_no_moments(optimizer):
    settings = Optim(optimizer=f"{optimizer}()", weight_decay=0.3, freeze=("^embeddings/", "ffn/"))
    before = flat(PARAMS)
    after, state = steps(settings)
    still = {p for p in before if p.startswith("embeddings/") or "ffn/" in p}
    assert still
    for path, value in before.items():
        assert (after[path] == value).all() == (path in still), path
    held = [optim.path_name(p) for p, _ in jax.tree_util.tree_leaves_with_path(state)]
    assert held
    assert not [p for p in held if p.endswith(tuple(still))]
    moving = set(before) - still
    assert all(sum(p.endswith(path) for p in held) == 2 for path in moving), "two moments each"


def test_what_is_left_is_trained_as_if_the_frozen_were_not_there():
    """Neither their gradients nor their size is part of the norm that is clipped."""
    found, _ = steps(Optim(clip=0.5, freeze=("^embeddings/",)))
    huge = [{**g, "embeddings": jax.tree.map(lambda x: x * 1e6, g["embeddings"])} for g in GRADS]
    with_huge, _ = steps(Optim(clip=0.5, freeze=("^embeddings/",)), huge)
    for path, value in found.items():
        np.testing.assert_array_equal(with_huge[path], value, err_msg=path)
    unfrozen, _ = steps(Optim(clip=0.5), huge)
    assert (unfrozen["heads/pair/output/bias"] != found["heads/pair/output/bias"]).any()


@pytest.mark.parametrize(
    ("patterns", "message"),
    [
        (("^embeddings/", "^generator/"), r"no parameter's path matches '\^generator/'"),
        (("",), "leaves nothing to train"),
    ],
)
def test_a_freeze_that_means_nothing_is_refused(patterns, message):
    optimizer, _ = optim.build(Optim(freeze=patterns), 10)
    with pytest.raises(ConfigError, match=message):
        optimizer.init(PARAMS)


def test_a_frozen_state_has_its_place_on_the_mesh():
    """Its leaves end in their parameters' paths, also inside of masks and chains."""
    experiment = config.Experiment(model=data.small("bert"))
    net = network.build(experiment, data.VOCAB.size)
    settings = Optim(freeze=("^embeddings/",), layer_decay=0.9)
    optimizer, _ = optim.build(settings, 10)

    def init():
        params = net.init(keys.root(0), data.on_device(data.rows(0, 1)))
        return params, optimizer.init(params)

    params, state = jax.eval_shape(init)
    mesh = sharding.make_mesh(config.Mesh(2, 2, 2))
    placed = sharding.shardings(state, mesh, net.rules)
    assert jax.tree.structure(placed) == jax.tree.structure(state)
    size = sum(x.size for x in jax.tree.leaves(state))
    moving = {k: v for k, v in params.items() if k != "embeddings"}
    assert size == 1 + 2 * sum(x.size for x in jax.tree.leaves(moving))


# ------------------------------------------------------------- by depth

TREE = {
    "embeddings": {"word": {"embedding": np.ones((7, 4))}},
    "discriminator": {
        "project": {"kernel": np.ones((4, 6))},
        "encoder": {"layers": {"ffn": {"kernel": np.ones((12, 6, 6)), "bias": np.ones((12, 6))}}},
    },
    "heads": {"replaced": {"dense": {"kernel": np.ones((6, 6))}}},
}


def factors(decay: float, gap: int = 0):
    return flat(optim.depth_factors(TREE, decay, gap))


def test_published_factors():
    """google-research/electra, 12 layers, 0.8: head 1, top 0.64, lowest 0.8^13, tables 0.8^14."""
    found = factors(0.8, 1)
    kernel = found["discriminator/encoder/layers/ffn/kernel"]
    assert kernel.shape == (12, 1, 1)
    assert found["heads/replaced/dense/kernel"] == 1
    np.testing.assert_allclose(kernel[11], 0.64, rtol=1e-6)
    np.testing.assert_allclose(kernel[0], 0.8**13, rtol=1e-5)
    np.testing.assert_allclose(kernel[1:] / kernel[:-1], 1.25, rtol=1e-5)
    for path in ("embeddings/word/embedding", "discriminator/project/kernel"):
        np.testing.assert_allclose(found[path], 0.8**14, rtol=1e-6)
    assert found["discriminator/encoder/layers/ffn/bias"].shape == (12, 1)


def test_factors_without_the_gap():
    found = factors(0.8)
    kernel = found["discriminator/encoder/layers/ffn/kernel"]
    np.testing.assert_allclose(kernel[[11, 0], 0, 0], [0.8, 0.8**12], rtol=1e-5)
    np.testing.assert_allclose(found["embeddings/word/embedding"], 0.8**13, rtol=1e-5)


def test_each_stack_counts_its_own_layers():
    tree = {"generator": {"encoder": {"layers": {"bias": np.ones((3, 2))}}}, **TREE}
    found = flat(optim.depth_factors(tree, 0.5))
    np.testing.assert_allclose(found["generator/encoder/layers/bias"][:, 0], [0.125, 0.25, 0.5])
    np.testing.assert_allclose(found["embeddings/word/embedding"], 0.5**13)


@pytest.mark.parametrize("optimizer", registry.names("optimizer"))
def test_updates_are_scaled_and_decay_with_them(optimizer):
    """A step is the unscaled one times the factor, layer by layer."""
    plain, scaled = (
        Optim(optimizer=f"{optimizer}()", weight_decay=0.3, layer_decay=d) for d in (1.0, 0.5)
    )
    before = flat(PARAMS)
    (left, _), (right, _) = (steps(s, GRADS[:1]) for s in (plain, scaled))
    expected = flat(optim.depth_factors(PARAMS, 0.5))
    for path, start in before.items():
        np.testing.assert_allclose(
            right[path] - start, (left[path] - start) * expected[path], rtol=1e-4, atol=1e-6
        )


def test_off_is_off():
    """A rate of 1 adds nothing, not even to the state."""
    made, _ = optim.build(Optim(), 10)
    plain = registry.lookup("optimizer", Optim().optimizer)(Optim())
    assert jax.tree.structure(made.init(PARAMS)) == jax.tree.structure(plain.init(PARAMS))


# ------------------------------------------------------------- settings


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("optim.layer_decay", 0.0, r"optim.layer_decay is 0.0, expected 0 < x <= 1"),
        ("optim.layer_decay", 1.5, "expected 0 < x <= 1"),
        ("optim.layer_decay_gap", -1, "optim.layer_decay_gap is -1"),
        ("optim.freeze", ("(",), r"optim.freeze: '\(' is no regular expression"),
        ("optim.no_decay", ("[",), "optim.no_decay: '\\[' is no regular expression"),
        ("run.init_map", ("a <- b",), "run.init_map is given, but run.init_from is empty"),
    ],
)
def test_settings_are_checked(path, value, message):
    with pytest.raises(ConfigError, match=message):
        config.set_field(config.Experiment(), path, value)
