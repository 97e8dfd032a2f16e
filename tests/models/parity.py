"""The comparison of one case with what transformers computed; see tests/golden/make.py."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from contracts import rows as data
from models import weights

from bert_variants import config, registry
from bert_variants.models import network
from bert_variants.train import step
from bert_variants.types import Corrupted

WANTED = (("layers", 0), ("scores", 0))


@dataclasses.dataclass(frozen=True)
class Ours:
    """Our form of a network of transformers.

    Attributes:
        params: its weights in our tree.
        model, settings: the registered model and what is fixed of it.
        sizes: what it takes of a case.
        objectives: those whose losses are compared.
        label: that the pair head predicts, or empty.
    """

    params: Callable[[Mapping[str, np.ndarray], Mapping[str, Any]], dict]
    model: str
    settings: Mapping[str, Any]
    sizes: tuple[str, ...]
    objectives: str
    label: str = ""


SIZES = ("layers", "width", "heads", "ffn", "positions")
OURS = {
    "bert": Ours(weights.bert, "bert", {}, (*SIZES, "segments"), "mlm + nsp", "next_sentence"),
    "roberta": Ours(
        weights.roberta,
        "bert",
        {"first_position": 2, "segments": 0, "activation": "gelu_erf", "eps": 1e-5},
        SIZES,
        "mlm",
    ),
    "albert": Ours(
        weights.albert,
        "albert",
        {},
        (*SIZES, "segments", "embedding", "groups"),
        "mlm + sop",
        "swapped",
    ),
}


def our_batch(arrays: Mapping[str, np.ndarray], label: str) -> Corrupted:
    """The stored batch in our types."""
    count, length = arrays["b/ids"].shape
    plain = data.rows(0, count, length)
    return Corrupted.of(
        plain.replace(
            tokens_BT=arrays["b/ids"],
            segments_BT=arrays["b/segments"],
            valid_BT=arrays["b/valid"],
            labels={label: arrays["b/labels"]} if label else {},
        ),
        inputs_BT=arrays["b/ids"],
        at_BP=arrays["b/at"],
        targets_BP=arrays["b/targets"],
        weights_BP=arrays["b/weights"],
    )


def build(case: Mapping[str, Any], **run: str) -> tuple[config.Experiment, network.Network]:
    """Our network of that configuration."""
    ours = OURS[case["network"]]
    sizes = {k: case[k] for k in ours.sizes}
    experiment = config.Experiment(
        model=registry.write(ours.model, sizes | ours.settings),
        objectives=ours.objectives,
        run=config.Run(precision="float32", **run),
    )
    return experiment, network.build(experiment, case["vocab"], wanted=WANTED)


def assert_close(found, expected, what: str, relative: float = 1e-5) -> None:
    """Within ``relative`` of the array's largest entry; equal where all entries are 0."""
    found, expected = np.float64(found), np.float64(expected)
    assert found.shape == expected.shape, what
    worst, largest = np.abs(found - expected).max(), np.abs(expected).max()
    assert worst <= relative * largest, f"{what}: differs by {worst:.2e}, largest {largest:.2e}"


def check(arrays: Mapping[str, np.ndarray], case: Mapping[str, Any], **run: str) -> None:
    """Every output, the losses and the gradients against the stored ones."""
    ours = OURS[case["network"]]
    stored = {k[2:]: v for k, v in arrays.items() if k.startswith("w/")}
    whole = weights.folded(stored) if case["network"] == "roberta" else stored
    params = jax.tree.map(jnp.asarray, ours.params(whole, case))
    batch = jax.tree.map(jnp.asarray, our_batch(arrays, ours.label))
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
    check_gradients(arrays, grads, case)


def check_outputs(arrays, outputs, batch) -> None:
    valid = np.asarray(batch.valid_BT)
    for i, layer in enumerate(outputs.layers):
        assert_close(layer[valid], arrays["r/hidden"][i][valid], f"layer {i}")
    assert_close(outputs.hidden_BTD[valid], arrays["r/hidden"][-1][valid], "top")
    rows = np.broadcast_to(valid[None, :, None], outputs.scores.shape[:4])
    assert_close(outputs.scores[rows], arrays["r/scores"][rows], "scores")
    used = np.asarray(batch.weights_BP) > 0
    assert_close(outputs.token_logits_BPV[used], arrays["r/token_logits"][used], "token logits")
    assert (outputs.pair_logits_BC is None) == ("r/pair_logits" not in arrays)
    if outputs.pair_logits_BC is not None:
        assert_close(outputs.pooled_BD, arrays["r/pooled"], "pooled")
        assert_close(outputs.pair_logits_BC, arrays["r/pair_logits"], "pair logits")


def check_gradients(arrays, grads, case: Mapping[str, Any]) -> None:
    """The stored gradients, carried over as the weights are; those not stored stay zero."""
    like = {k[2:]: np.full_like(v, np.nan) for k, v in arrays.items() if k.startswith("w/")}
    stored = {k[7:]: v for k, v in arrays.items() if k.startswith("r/grad/")}
    expected = data.leaves(OURS[case["network"]].params(like | stored, case))
    compared = 0
    for path, found in data.leaves(grads).items():
        there = ~np.isnan(expected[path])
        if there.any():
            assert_close(found[there], expected[path][there], f"gradient of {path}")
            compared += 1
    assert compared == len(stored)
