"""What ALBERT shares: the numbers, the gradients, and that a shared layer is there once."""

from __future__ import annotations

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from contracts import rows as data
from contracts import test_models as battery

from bert_variants import keys
from bert_variants.models.sharing import OWN, runs

LAYERS = 5
MODES = [
    {"sharing": "all"},
    {"sharing": "all", "groups": 2},
    {"sharing": "all", "groups": 3},
    {"sharing": "attention"},
    {"sharing": "ffn"},
]


def build(**settings):
    return battery.build("albert", layers=LAYERS, **settings)


def params_of(net):
    return data.random_params(jax.eval_shape(net.init, keys.root(0), battery.batch()))


def spread(params, mode):
    """The same network with nothing shared: every layer's own copy of what it uses."""
    groups = mode.get("groups", 1)
    index = np.array([layer * groups // LAYERS for layer in range(LAYERS)])
    layers = {
        name: part if name in OWN[mode["sharing"]] else jax.tree.map(lambda x: x[index], part)
        for name, part in params["encoder"]["layers"].items()
    }
    return params | {"encoder": {"layers": layers}}


def test_runs_of_equal_groups():
    assert runs(12, 1) == [(1, 12)]
    assert runs(12, 3) == [(3, 4)]
    assert runs(12, 12) == [(12, 1)]
    assert runs(5, 2) == [(1, 3), (1, 2)]
    assert runs(12, 5) == [(1, 3), (1, 2), (1, 3), (2, 2)]


@pytest.mark.parametrize(
    ("mode", "scan"),
    [
        (MODES[0], "on"),
        *(
            pytest.param(mode, scan, marks=pytest.mark.slow)
            for mode, scan in (
                *((mode, "on") for mode in MODES[1:]),
                (MODES[1], "off"),
                (MODES[3], "off"),
            )
        ),
    ],
    ids=str,
)
def test_sharing_is_repeating(mode, scan):
    """Outputs are those of copies; the gradient is the sum over the copies; so is dropout's."""
    shared, copied = build(**mode, scan=scan), build(sharing="none")
    params = params_of(shared)
    copies = spread(params, mode)
    key = keys.root(1)
    left = battery.jitted(shared, True)(params, battery.batch(), key)
    right = battery.jitted(copied, True)(copies, battery.batch(), key)
    data.assert_near(left, right)
    left = battery.gradient(shared)(params, battery.batch())
    _, back = jax.vjp(lambda params: spread(params, mode), params)
    (right,) = back(battery.gradient(copied)(copies, battery.batch()))
    data.assert_near(left, right)


def test_nothing_shared_and_nothing_factorised_is_bert():
    """The same parameters at the same paths, the same numbers."""
    albert, bert = build(sharing="none", embedding=32), battery.build("bert", layers=LAYERS)
    params = params_of(bert)
    assert jax.tree.map(jnp.shape, params_of(albert)) == jax.tree.map(jnp.shape, params)
    left, right = (battery.jitted(net)(params, battery.batch()) for net in (albert, bert))
    data.assert_near(left, right, 1e-6)


def test_tables_are_narrow():
    """E wide with their norm; the head narrows to E; no dense layer where E = D."""
    params = params_of(build(embedding=8))
    assert params["embeddings"]["word"]["embedding"].shape == (data.VOCAB.size, 8)
    assert params["embeddings"]["norm"]["scale"].shape == (8,)
    assert params["widen"]["kernel"].shape == (8, 32)
    assert params["heads"]["tokens"]["dense"]["kernel"].shape == (32, 8)
    assert "widen" not in params_of(build(embedding=32))


@pytest.mark.parametrize(
    "mode",
    [
        *MODES[:2],
        *(pytest.param(m, marks=pytest.mark.slow) for m in (*MODES[2:], {"sharing": "none"})),
    ],
    ids=str,
)
def test_own_starts_differ(mode):
    """What a layer has for itself starts at other values than in the next layer."""
    made = data.quickly(build(**mode).init)(keys.root(0), battery.batch())["encoder"]["layers"]
    for name, inner in (("attention", "query"), ("ffn", "wide")):
        kernel = made[name][inner]["kernel"]
        own = name in OWN[mode["sharing"]]
        assert kernel.shape[0] == (LAYERS if own else mode.get("groups", 1))
        assert len(np.unique(np.asarray(kernel[:, 0, 0]))) == kernel.shape[0]
        assert abs(float(kernel.std()) - 0.0176) < 0.001


@pytest.mark.parametrize("mode", [*MODES[:1], *MODES[3:], {"sharing": "none"}], ids=str)
def test_a_layer_is_compiled_once(mode):
    """The program of a training step is as long for 5 layers as for 9."""

    def products(layers: int) -> int:
        net = battery.build("albert", layers=layers, **mode)
        shapes = jax.eval_shape(net.init, keys.root(0), battery.batch())
        lowered = jax.jit(jax.grad(battery.scalar(net))).lower(shapes, battery.batch())
        return len(re.findall("dot_general", lowered.as_text()))

    assert products(5) == products(9) > 0


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "bfloat16_dots"])
@pytest.mark.parametrize("groups", [1, 3])
def test_a_shared_layer_is_kept_once(precision, groups):
    """The backward pass keeps no copy of the parameters for each layer, in no format."""

    def kept(layers: int, shape: tuple[int, ...]) -> int:
        net = battery.build(
            "albert", layers=layers, width=48, ffn=80, groups=groups, precision=precision
        )
        shapes = jax.eval_shape(net.init, keys.root(0), battery.batch())
        saved = jax.eval_shape(
            lambda params: jax.vjp(lambda p: battery.scalar(net)(p, battery.batch()), params)[1],
            shapes,
        )
        sizes = [leaf.size for leaf in jax.tree.leaves(saved) if leaf.shape[-2:] == shape]
        assert sizes
        return sum(sizes)

    assert kept(3, (48, 80)) == kept(9, (48, 80))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"groups": 6}, r"groups is 6, expected 1 \.\. 5, the number of layers"),
        ({"groups": 0}, r"groups is 0, expected 1 \.\. 5"),
        ({"groups": 2, "sharing": "ffn"}, "groups is 2 and sharing is 'ffn'"),
    ],
)
def test_bad_groups(settings, message):
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(build(**settings).init, keys.root(0), battery.batch())
