"""PyTorch's names and layouts of BERT's weights into ours, and the comparison of one case.

Written out here and not taken from the package: a converter that is wrong must not agree with
itself.
"""

from __future__ import annotations

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
from contracts import rows as data

from bert_variants import config, registry
from bert_variants.models import network
from bert_variants.train import step
from bert_variants.types import Corrupted

WANTED = (("layers", 0), ("scores", 0))


def our_params(weights: Mapping[str, np.ndarray], layers: int) -> dict:
    """Dense kernels are transposed (ours are [in, out]); layers are stacked."""

    def dense(name: str) -> dict:
        return {"kernel": weights[f"{name}.weight"].T, "bias": weights[f"{name}.bias"]}

    def norm(name: str) -> dict:
        return {"scale": weights[f"{name}.weight"], "bias": weights[f"{name}.bias"]}

    def layer(i: int) -> dict:
        at = f"bert.encoder.layer.{i}."
        names = {"query": "self.query", "key": "self.key", "value": "self.value"}
        names["out"] = "output.dense"
        return {
            "attention": {k: dense(f"{at}attention.{v}") for k, v in names.items()},
            "attention_norm": norm(f"{at}attention.output.LayerNorm"),
            "ffn": {
                "wide": dense(f"{at}intermediate.dense"),
                "narrow": dense(f"{at}output.dense"),
            },
            "ffn_norm": norm(f"{at}output.LayerNorm"),
        }

    def table(kind: str) -> dict:
        return {"embedding": weights[f"bert.embeddings.{kind}_embeddings.weight"]}

    return {
        "embeddings": {
            "word": table("word"),
            "position": table("position"),
            "segment": table("token_type"),
            "norm": norm("bert.embeddings.LayerNorm"),
        },
        "encoder": {
            "layers": jax.tree.map(lambda *x: np.stack(x), *[layer(i) for i in range(layers)])
        },
        "heads": {
            "pooler": {"dense": dense("bert.pooler.dense")},
            "pair": {"output": dense("cls.seq_relationship")},
            "tokens": {
                "dense": dense("cls.predictions.transform.dense"),
                "norm": norm("cls.predictions.transform.LayerNorm"),
                "bias": weights["cls.predictions.bias"],
            },
        },
    }


def our_batch(arrays: Mapping[str, np.ndarray]) -> Corrupted:
    """The stored batch in our types."""
    count, length = arrays["b/ids"].shape
    plain = data.rows(0, count, length)
    return Corrupted.of(
        plain.replace(
            tokens_BT=arrays["b/ids"],
            segments_BT=arrays["b/segments"],
            valid_BT=arrays["b/valid"],
            labels={"next_sentence": arrays["b/labels"]},
        ),
        inputs_BT=arrays["b/ids"],
        at_BP=arrays["b/at"],
        targets_BP=arrays["b/targets"],
        weights_BP=arrays["b/weights"],
    )


def build(case: Mapping[str, int], **run: str) -> tuple[config.Experiment, network.Network]:
    """Our BERT of that configuration."""
    sizes = {k: case[k] for k in ("layers", "width", "heads", "ffn", "positions", "segments")}
    experiment = config.Experiment(
        model=registry.write("bert", sizes),
        objectives="mlm + nsp",
        run=config.Run(precision="float32", **run),
    )
    return experiment, network.build(experiment, case["vocab"], wanted=WANTED)


def assert_close(found, expected, what: str, relative: float = 1e-5) -> None:
    """Within ``relative`` of the array's largest entry."""
    found, expected = np.float64(found), np.float64(expected)
    assert found.shape == expected.shape, what
    worst = np.abs(found - expected).max() / np.abs(expected).max()
    assert worst <= relative, f"{what}: {worst:.2e} of the largest entry"


def check(arrays: Mapping[str, np.ndarray], case: Mapping[str, int], **run: str) -> None:
    """Every output, the losses and the gradients against the stored ones."""
    weights = {k[2:]: v for k, v in arrays.items() if k.startswith("w/")}
    params = jax.tree.map(jnp.asarray, our_params(weights, case["layers"]))
    batch = jax.tree.map(jnp.asarray, our_batch(arrays))
    experiment, net = build(case, **run)
    expected_shapes = jax.eval_shape(net.init, jax.random.key(0), batch)
    assert jax.tree.map(jnp.shape, params) == jax.tree.map(jnp.shape, expected_shapes)
    objectives = step.objectives_of(experiment)

    def loss(params):
        outputs = net.apply(params, batch)
        means = {o.name: o.objective(outputs, batch).loss.value() for o in objectives}
        return sum(means.values()), (outputs, means)

    grads, (outputs, means) = data.quickly(jax.grad(loss, has_aux=True))(params)
    check_outputs(arrays, outputs, batch)
    for name, mean in means.items():
        np.testing.assert_allclose(mean, arrays[f"r/{name}"], rtol=1e-5)
    check_gradients(arrays, grads, case["layers"])


def check_outputs(arrays, outputs, batch) -> None:
    valid = np.asarray(batch.valid_BT)
    for i, layer in enumerate(outputs.layers):
        assert_close(layer[valid], arrays["r/hidden"][i][valid], f"layer {i}")
    assert_close(outputs.hidden_BTD[valid], arrays["r/hidden"][-1][valid], "top")
    rows = np.broadcast_to(valid[None, :, None], outputs.scores.shape[:4])
    assert_close(outputs.scores[rows], arrays["r/scores"][rows], "scores")
    assert_close(outputs.pooled_BD, arrays["r/pooled"], "pooled")
    used = np.asarray(batch.weights_BP) > 0
    assert_close(outputs.token_logits_BPV[used], arrays["r/token_logits"][used], "token logits")
    assert_close(outputs.pair_logits_BC, arrays["r/pair_logits"], "pair logits")


def check_gradients(arrays, grads, layers: int) -> None:
    """The stored gradients, carried over as the weights are; those not stored stay zero."""
    like = {k[2:]: np.full_like(v, np.nan) for k, v in arrays.items() if k.startswith("w/")}
    stored = {k[7:]: v for k, v in arrays.items() if k.startswith("r/grad/")}
    expected = data.leaves(our_params(like | stored, layers))
    compared = 0
    for path, found in data.leaves(grads).items():
        there = ~np.isnan(expected[path])
        if there.any():
            assert_close(found[there], expected[path][there], f"gradient of {path}")
            compared += 1
    assert compared == len(stored)
