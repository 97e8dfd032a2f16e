"""DeBERTa equals transformers', by stored arrays and live; see tests/golden/make_deberta.py."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from contracts import rows as data
from golden import make_deberta as make
from models import weights
from models.parity import assert_close

from bert_variants import config, registry
from bert_variants.models import network
from bert_variants.ops.attention import HIDDEN
from bert_variants.train import step
from bert_variants.types import Corrupted

Arrays = Mapping[str, np.ndarray]
WANTED = (("layers", 0), ("scores", 0))


# ------------------------------------------------------------- transformers' names into ours


def attention(stored: Arrays, at: str, case: Mapping[str, Any]) -> dict:
    out = {"out": weights.dense(stored, f"{at}attention.output.dense")}
    if case["version"] != "v1":
        parts = ("query", "key", "value")
        return out | {p: weights.dense(stored, f"{at}attention.self.{p}_proj") for p in parts}
    own = f"{at}attention.self."
    width = case["width"]
    # rows of the fused layer: query, key and value of the first head, then of the second, ...
    fused = stored[f"{own}in_proj.weight"].reshape(case["heads"], 3, -1, width)
    query, key, value = (fused[:, i].reshape(width, width).T for i in range(3))
    return out | {
        "query": {"kernel": query, "bias": stored[f"{own}q_bias"]},
        "key": {"kernel": key},
        "value": {"kernel": value, "bias": stored[f"{own}v_bias"]},
        "relative_key": {"kernel": stored[f"{own}pos_proj.weight"].T},
        "relative_query": weights.dense(stored, f"{own}pos_q_proj"),
    }


def params_of(stored: Arrays, case: Mapping[str, Any], decoder: bool) -> dict:
    def layer(i: int) -> dict:
        at = f"deberta.encoder.layer.{i}."
        return {
            "attention": attention(stored, at, case),
            "attention_norm": weights.norm(stored, f"{at}attention.output.LayerNorm"),
            "ffn": {
                "wide": weights.dense(stored, f"{at}intermediate.dense"),
                "narrow": weights.dense(stored, f"{at}output.dense"),
            },
            "ffn_norm": weights.norm(stored, f"{at}output.LayerNorm"),
        }

    at = "deberta.embeddings."
    embeddings = {
        "word": {"embedding": stored[f"{at}word_embeddings.weight"]},
        "norm": weights.norm(stored, f"{at}LayerNorm"),
    }
    if case["embedding"] != case["width"]:
        embeddings["widen"] = {"kernel": stored[f"{at}embed_proj.weight"].T}
    if decoder:
        embeddings["position"] = {"embedding": stored["positions"]}
    at = "deberta.encoder."
    relative = {"embedding": stored[f"{at}rel_embeddings.weight"]}
    encoder = weights.stacked([layer(i) for i in range(case["layers"])]) | {"relative": relative}
    if case["version"] != "v1":
        relative["norm"] = weights.norm(stored, f"{at}LayerNorm")
    if case["convolution"]:
        encoder["conv"] = {
            "kernel": stored[f"{at}conv.conv.weight"].transpose(2, 1, 0),
            "bias": stored[f"{at}conv.conv.bias"],
            "norm": weights.norm(stored, f"{at}conv.LayerNorm"),
        }
    head = "cls.predictions."
    tokens = weights.token_head(
        stored, f"{head}transform.dense", f"{head}transform.LayerNorm", f"{head}bias"
    )
    return {"embeddings": embeddings, "encoder": encoder, "heads": {"tokens": tokens}}


# ------------------------------------------------------------- the comparison


def batch_of(arrays: Arrays) -> Corrupted:
    count, length = arrays["b/ids"].shape
    plain = data.rows(0, count, max(length, 4))
    plain = jax.tree.map(lambda x: x[:, :length] if x.ndim == 2 else x, plain)
    return Corrupted.of(
        plain.replace(tokens_BT=arrays["b/ids"], valid_BT=arrays["b/valid"]),
        inputs_BT=arrays["b/ids"],
        at_BP=arrays["b/at"],
        targets_BP=arrays["b/targets"],
        weights_BP=arrays["b/weights"],
    )


def build(case: Mapping[str, Any], absolute: str, wanted=WANTED, **run: str):
    relative = f"deberta_{case['version']}"
    settings = {k: case[k] for k in ("layers", "width", "heads", "ffn", "embedding", "convolution")}
    settings |= {
        "relative": registry.write(relative, {k: case[k] for k in ("reach", "buckets")}),
        "key_bias": case["version"] != "v1",
        "absolute": absolute,
        "positions": case["length"],
    }
    experiment = config.Experiment(
        model=registry.write("deberta", settings),
        objectives="mlm",
        run=config.Run(precision="float32", **run),
    )
    return experiment, network.build(experiment, case["vocab"], wanted=wanted)


def loss_of(net: network.Network, experiment: config.Experiment, batch: Corrupted):
    (mlm,) = step.objectives_of(experiment)

    def loss(params):
        outputs = net.apply(params, batch)
        return mlm.objective(outputs, batch).loss.value(), outputs

    return data.quickly(jax.value_and_grad(loss, has_aux=True))


def check(arrays: Arrays, case: Mapping[str, Any], **run: str) -> None:
    """Hidden states, attention, logits, the loss, and its gradients."""
    stored = {k[2:]: v for k, v in arrays.items() if k.startswith("w/")}
    batch = jax.tree.map(jnp.asarray, batch_of(arrays))
    decodes = "r/decoded_mlm" in arrays
    for top in ("plain", "decoded") if decodes else ("plain",):
        absolute = "decoder" if top == "decoded" else "none"
        experiment, net = build(case, absolute, WANTED if top == "plain" else (), **run)
        params = jax.tree.map(jnp.asarray, params_of(stored, case, top == "decoded"))
        shapes = jax.eval_shape(net.init, jax.random.key(0), batch)
        assert jax.tree.map(jnp.shape, params) == jax.tree.map(jnp.shape, shapes)
        (loss, outputs), grads = loss_of(net, experiment, batch)(params)
        if top == "plain":
            check_stack(arrays, outputs, batch)
        used = np.asarray(batch.weights_BP) > 0
        assert_close(outputs.token_logits_BPV[used], arrays[f"r/{top}_logits"][used], top)
        np.testing.assert_allclose(loss, arrays[f"r/{top}_mlm"], rtol=1e-5)
    check_gradients(arrays, grads, case, decodes)


def check_stack(arrays: Arrays, outputs, batch) -> None:
    valid = np.asarray(batch.valid_BT)
    for i, layer in enumerate(outputs.layers):
        assert_close(layer[valid], arrays["r/hidden"][i][valid], f"layer {i}")
    assert_close(outputs.hidden_BTD[valid], arrays["r/hidden"][-1][valid], "top")
    hidden = jnp.where(batch.valid_BT[None, :, None, None, :], 0.0, HIDDEN)
    shares = jax.nn.softmax(outputs.scores + jnp.broadcast_to(hidden, outputs.scores.shape))
    queries = np.broadcast_to(valid[None, :, None], shares.shape[:4])
    assert_close(shares[queries], arrays["r/shares"][queries], "attention")


def check_gradients(arrays: Arrays, grads, case: Mapping[str, Any], decoder: bool) -> None:
    like = {k[2:]: np.full_like(v, np.nan) for k, v in arrays.items() if k.startswith("w/")}
    stored = {k[7:]: v for k, v in arrays.items() if k.startswith("r/grad/")}
    table = "deberta.encoder.rel_embeddings.weight"
    if case["buckets"]:  # what transformers reads from row 0 is read from row 1
        stored[table] = stored[table].copy()
        stored[table][1] += stored[table][0]
        stored[table][0] = 0
    expected = data.leaves(params_of(like | stored, case, decoder))
    compared = 0
    for path, found in data.leaves(grads).items():
        there = ~np.isnan(expected[path])
        if there.any():
            assert_close(found[there], expected[path][there], f"gradient of {path}", 2e-5)
            compared += 1
    fused = "deberta.encoder.layer.0.attention.self.in_proj.weight"
    assert compared == len(stored) + (2 if fused in stored else 0)


def load(name: str) -> dict[str, np.ndarray]:
    with np.load(make.FOLDER / f"{name}.npz") as arrays:
        return dict(arrays)


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.slow if name.startswith("v2") else [])
        for name in make.CASES
    ],
)
def test_equals_the_stored_arrays(name):
    """With padding, a row of one token, and rows longer than the reach."""
    check(load(name), make.CASES[name], scan="on")


@pytest.mark.slow
@pytest.mark.parametrize("name", make.CASES)
def test_unrolled_equals_the_stored_arrays(name):
    check(load(name), make.CASES[name], scan="off")


def test_files_are_small():
    sizes = {path.stem: path.stat().st_size for path in make.FOLDER.glob("*.npz")}
    assert sizes.keys() == make.CASES.keys()
    assert max(sizes.values()) < 120_000


@pytest.mark.parametrize(
    ("name", "weight", "message"),
    [
        ("v1_3x20", "deberta.encoder.rel_embeddings.weight", "layer 1"),
        ("v1_3x20", "deberta.encoder.layer.1.attention.self.q_bias", "layer 2"),
        *(
            pytest.param("v2_3x18", weight, where, marks=pytest.mark.slow)
            for weight, where in (
                ("deberta.encoder.conv.conv.bias", "layer 1"),
                ("deberta.encoder.LayerNorm.weight", "layer 1"),
                ("positions", "decoded"),
            )
        ),
    ],
)
def test_a_wrong_weight_is_seen(name, weight, message):
    """The comparison can fail: some numbers of one parameter, moved by a hundredth."""
    arrays = load(name)
    moved = arrays[f"w/{weight}"].copy()
    moved.reshape(-1, moved.shape[-1])[:, 3] += np.float32(0.01)
    with pytest.raises(AssertionError, match=message):
        check(arrays | {f"w/{weight}": moved}, make.CASES[name])


# ------------------------------------------------------------- live


oracle = [
    pytest.mark.oracle,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]


def marked(function):
    for mark in oracle:
        function = mark(function)
    return function


@marked
@pytest.mark.parametrize("name", make.CASES)
def test_stored_arrays_are_todays(name):
    pytest.importorskip("transformers")
    live, stored = make.compute(make.CASES[name], list(make.CASES).index(name)), load(name)
    assert set(stored) == set(live)
    for key in stored:
        assert_close(live[key], stored[key], key)


@marked
@pytest.mark.parametrize(
    ("version", "more"),
    [
        ("v1", {"length": 1, "reach": 5}),
        ("v1", {"length": 9, "reach": 512}),
        ("v1", {"length": 23, "reach": 4}),
        ("v2", {"length": 1, "reach": 512, "buckets": 256}),
        ("v2", {"length": 9, "reach": 512, "buckets": 256, "embedding": 8}),
        ("v2", {"length": 21, "reach": 9, "buckets": 6, "convolution": 3}),
        # beyond the lengths that are trained
        ("v1", {"length": 531, "reach": 512, "layers": 1, "width": 14, "heads": 2}),
        ("v2", {"length": 531, "reach": 512, "buckets": 256, "width": 14, "heads": 2}),
    ],
)
def test_other_weights_and_another_shape(version, more):
    pytest.importorskip("transformers")
    sizes = {"layers": 2, "width": 28, "heads": 7, "ffn": 33, "vocab": 53, "embedding": 0}
    case = sizes | {"version": version, "buckets": 0, "convolution": 0} | more
    case["embedding"] = case["embedding"] or case["width"]
    check(make.compute(case, 11), case)
