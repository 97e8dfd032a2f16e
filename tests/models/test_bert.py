"""What is published of BERT itself: parameter counts, initial values, and dropout by layer."""

from __future__ import annotations

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from contracts import rows as data
from contracts import test_models as battery

from bert_variants import config, keys, registry
from bert_variants.models import network
from bert_variants.train.optim import path_name

ENCODER, POOLED, FULL, NO_NSP = 0, 1, 2, 3
COUNTS = {
    # encoder, + pooler, the full pretraining model, encoder + MLM without pooler
    ("tiny", 30522): (4_369_408, 4_385_920, 4_433_468, None),
    ("mini", 30522): (11_104_768, 11_170_560, 11_267_900, None),
    ("small", 30522): (28_500_992, 28_763_648, 29_058_876, None),
    ("medium", 30522): (41_110_528, 41_373_184, 41_668_412, None),
    ("base", 30522): (108_891_648, 109_482_240, 110_106_428, 109_514_298),
    ("large", 30522): (334_092_288, 335_141_888, 336_226_108, 335_174_458),
    ("base", 28996): (107_719_680, 108_310_272, 108_932_934, 108_340_804),
    ("large", 28996): (332_529_664, 333_579_264, 334_661_958, 333_610_308),
}


@pytest.mark.parametrize(("size", "vocab"), COUNTS)
def test_parameter_counts_of_bert(size, vocab):
    experiment = config.get_config("bert", size=size)
    call = registry.lookup("model", experiment.model)

    def count(*wanted: tuple[str, int]) -> int:
        net = network.Network(call(vocab_size=vocab, wanted=wanted), call.traits["rules"])
        shapes = jax.eval_shape(net.init, keys.root(0), battery.batch())
        assert_one_rule_each(shapes, net.rules)
        return sum(leaf.size for leaf in jax.tree.leaves(shapes))

    mlm, nsp, pooled = ("token_logits_BPV", 0), ("pair_logits_BC", 2), ("pooled_BD", 0)
    expected = COUNTS[size, vocab]
    assert count() == expected[ENCODER]
    assert count(pooled) == expected[POOLED]
    assert count(pooled, mlm, nsp) == count(mlm, nsp) == expected[FULL]
    if expected[NO_NSP] is not None:
        assert count(mlm) == expected[NO_NSP]


def assert_one_rule_each(shapes, rules) -> None:
    for path, _ in jax.tree_util.tree_leaves_with_path(shapes):
        assert sum(bool(re.search(pattern, path_name(path))) for pattern, _ in rules) == 1


def test_initial_values_of_bert():
    """Cut at two standard deviations of 0.02: none beyond 0.04, and 0.0176 in all."""
    made = jax.jit(battery.build("bert", width=128, ffn=256).init)(keys.root(0), battery.batch())
    for path, leaf in data.leaves(made).items():
        if "bias" in path:
            assert (leaf == 0).all(), path
        elif "scale" in path:
            assert (leaf == 1).all(), path
        else:
            assert np.abs(leaf).max() <= 0.04 + 1e-6, path
            if leaf.size > 5000:
                assert abs(leaf.std() - 0.0176) < 0.0005, path
    layers = made["encoder"]["layers"]["ffn"]["wide"]["kernel"]
    assert (layers[0] != layers[1]).any(), "each layer has its own start"


def test_width_must_be_divisible():
    with pytest.raises(ValueError, match="width 30 is not divisible by heads 4"):
        jax.eval_shape(battery.build("bert", width=30).init, keys.root(0), battery.batch())


def test_every_layer_drops_its_own():
    """Updates of 1000 in every entry drown the residual: signs of a layer's output are its mask."""
    net = battery.build("bert", wanted=(("layers", 0),), attention_dropout=0.0)
    made = jax.tree_util.tree_map_with_path(
        lambda path, x: (
            jnp.ones_like(x)
            if "scale" in path_name(path)
            else jnp.full_like(x, 1000.0)
            if path_name(path).endswith("attention/out/bias")
            else jnp.zeros_like(x)
        ),
        battery.params("bert"),
    )
    rows = data.on_device(data.rows(0, 4, 16, full=True))
    layers = battery.jitted(net, True)(made, rows, keys.root(0)).layers
    first, second = (np.asarray(x >= 0) for x in layers[1:])
    sigma = (0.1 * 0.9 / first.size) ** 0.5
    for kept in (first, second):
        assert abs(kept.mean() - 0.9) < 4 * sigma
    both = (~first & ~second).mean()
    assert abs(both - 0.01) < 4 * (0.01 / first.size) ** 0.5
