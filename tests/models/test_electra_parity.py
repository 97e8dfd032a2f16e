"""ELECTRA's two networks equal transformers', by stored arrays and live; see golden/make_electra.

Everything at once: the generator's logits, the text that its likeliest ids make, what the
discriminator says of it, both losses, and the gradient of their sum, whose part for the shared
tables comes from both networks.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from contracts import rows as data
from golden import make_electra as golden
from models import weights
from models.parity import assert_close

from bert_variants import config, registry
from bert_variants.models import network
from bert_variants.train import step
from bert_variants.types import Corrupted

SIZES = ("layers", "width", "heads", "ffn", "embedding", "positions", "segments")
WRITER = ("generator_layers", "generator_width", "generator_heads", "generator_ffn")


def params_of(named: Mapping[str, np.ndarray], case: Mapping[str, Any]) -> dict:
    """PyTorch's weights (or gradients) in our tree; of what is shared, the discriminator's."""

    def of(prefix: str) -> dict[str, np.ndarray]:
        return {k[2:]: v for k, v in named.items() if k.startswith(f"{prefix}.")}

    def reader(found: Mapping[str, np.ndarray], layers: int) -> dict:
        made = {"encoder": weights.layers(found, "electra", layers)}
        if "electra.embeddings_project.weight" in found:
            made["project"] = weights.dense(found, "electra.embeddings_project")
        return made

    writer, judge = of("g"), of("d")
    tables = ("word", "position", "segment")
    made = {
        "embeddings": weights.embeddings(judge, "electra", *tables),
        "discriminator": reader(judge, case["layers"]),
        "generator": reader(writer, case["generator_layers"]),
        "heads": {
            "tokens": weights.token_head(
                writer,
                "generator_predictions.dense",
                "generator_predictions.LayerNorm",
                "generator_lm_head.bias",
            ),
            "replaced": {
                "dense": weights.dense(judge, "discriminator_predictions.dense"),
                "output": weights.dense(judge, "discriminator_predictions.dense_prediction"),
            },
        },
    }
    if not case["tied"]:
        made["generator_embeddings"] = weights.embeddings(writer, "electra", *tables)
    return made


def our_batch(arrays: Mapping[str, np.ndarray]) -> Corrupted:
    plain = data.rows(0, *arrays["b/ids"].shape)
    made = Corrupted.of(
        plain.replace(
            tokens_BT=arrays["b/ids"],
            segments_BT=arrays["b/segments"],
            valid_BT=arrays["b/valid"],
        ),
        inputs_BT=arrays["b/inputs"],
        at_BP=arrays["b/at"],
        targets_BP=arrays["b/targets"],
        weights_BP=arrays["b/weights"],
    )
    return data.on_device(made)


def check(
    arrays: Mapping[str, np.ndarray],
    case: Mapping[str, Any],
    scan: str = "on",
    gradients: bool = True,
) -> None:
    """Every result against the stored one, to 1e-5 of its largest entry."""
    sizes = {k: case[k] for k in (*SIZES, *WRITER)}
    tying = "embeddings" if case["tied"] else "none"
    experiment = config.Experiment(
        model=registry.write("electra", {**sizes, "tying": tying, "temperature": 1e-6}),
        objectives="mlm + 50*replaced_token",
        run=config.Run(precision="float32", scan=scan),
    )
    net = network.build(experiment, case["vocab"], wanted=(("layers", 0),))
    batch = our_batch(arrays)
    stored = {k[2:]: v for k, v in arrays.items() if k.startswith("w/")}
    params = jax.tree.map(jnp.asarray, params_of(stored, case))
    expected_shapes = jax.eval_shape(net.init, jax.random.key(0), batch)
    assert jax.tree.map(jnp.shape, params) == jax.tree.map(jnp.shape, expected_shapes)
    objectives = step.objectives_of(experiment)

    def loss(params):
        outputs = net.apply(params, batch)
        means = {o.name: o.objective(outputs, batch).loss.value() for o in objectives}
        return sum(o.weight * means[o.name] for o in objectives), (outputs, means)

    function = jax.grad(loss, has_aux=True) if gradients else loss
    grads, (outputs, means) = data.quickly(function)(params)
    valid, used = arrays["b/valid"], arrays["b/weights"] > 0
    np.testing.assert_array_equal(outputs.replaced_BT, arrays["r/replaced"])
    assert 0 < arrays["r/replaced"].sum() < used.sum(), "some drawn right, some wrong"
    assert_close(outputs.token_logits_BPV[used], arrays["r/token_logits"][used], "token logits")
    for i, layer in enumerate(outputs.layers):
        assert_close(layer[valid], arrays["r/hidden"][i][valid], f"layer {i}")
    assert_close(
        outputs.replaced_logits_BT[valid], arrays["r/replaced_logits"][valid], "replaced logits"
    )
    for name, mean in means.items():
        np.testing.assert_allclose(mean, arrays[f"r/{name}"], rtol=1e-5, err_msg=name)
    if gradients:
        check_gradients(arrays, grads, case)


def check_gradients(arrays: Mapping[str, np.ndarray], grads: Any, case: Mapping[str, Any]) -> None:
    """Of every parameter."""
    stored = {k.removeprefix("r/grad/"): v for k, v in arrays.items() if "/grad/" in k}
    expected = data.leaves(params_of(stored, case))
    assert expected.keys() == data.leaves(grads).keys()
    largest = max(np.abs(x).max() for x in expected.values())
    for path, found in data.leaves(grads).items():
        if np.abs(expected[path]).max() < 1e-6 * largest:  # biases of keys: 0 but for rounding
            assert np.abs(found).max() < 1e-5 * largest, path
        else:
            assert_close(found, expected[path], f"gradient of {path}", 2e-5)


def stored(name: str) -> dict[str, np.ndarray]:
    with np.load(golden.FOLDER / f"{name}.npz") as arrays:
        return dict(arrays)


@pytest.mark.parametrize("name", ["narrow", "apart", pytest.param("wide", marks=pytest.mark.slow)])
def test_equals_the_stored_arrays(name):
    check(stored(name), golden.CASES[name], "off" if name == "wide" else "on")


def test_files_are_small():
    sizes = {path.stem: path.stat().st_size for path in golden.FOLDER.glob("*.npz")}
    assert sizes.keys() == golden.CASES.keys()
    assert max(sizes.values()) < 120_000


@pytest.mark.parametrize(
    ("weight", "message"),
    [
        ("g.generator_predictions.LayerNorm.bias", "token logits"),
        ("g.electra.embeddings_project.bias", "token logits"),
        ("d.electra.embeddings_project.bias", "layer 0"),
        ("d.discriminator_predictions.dense.bias", "replaced logits"),
    ],
)
def test_a_wrong_weight_is_seen(weight, message):
    arrays = stored("narrow")
    arrays[f"w/{weight}"] = arrays[f"w/{weight}"] + np.float32(1e-3)
    if message == "token logits":  # its ids must be the same, for the comparison to get there
        arrays[f"w/{weight}"][1:] -= np.float32(1e-3)
    with pytest.raises(AssertionError, match=message):
        check(arrays, golden.CASES["narrow"], gradients=False)


oracle = pytest.mark.oracle
quiet = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")


@oracle
@quiet
@pytest.mark.parametrize("name", golden.CASES)
def test_stored_arrays_are_todays(name):
    pytest.importorskip("transformers")
    live = golden.compute(golden.CASES[name], list(golden.CASES).index(name))
    kept = stored(name)
    assert set(kept) == set(live)
    for key, value in kept.items():
        assert_close(live[key], value, key)


@oracle
@quiet
@pytest.mark.parametrize("tied", [True, False])
def test_other_weights_and_another_shape(tied):
    pytest.importorskip("transformers")
    case = {
        **golden.CASES["narrow"],
        "width": 28,
        "heads": 7,
        "embedding": 12,
        "generator_width": 15,
        "generator_heads": 5,
        "vocab": 53,
        "length": 14,
        "tied": tied,
    }
    check(golden.compute(case, 11), case)
