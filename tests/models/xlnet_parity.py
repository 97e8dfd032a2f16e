"""The comparison of XLNet with what transformers computed; see tests/golden/make_xlnet.py."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from contracts import rows as data
from models import weights
from models.parity import assert_close

from bert_variants import config, registry
from bert_variants.models import network
from bert_variants.train import step
from bert_variants.types import Corrupted

Arrays = Mapping[str, np.ndarray]
Case = Mapping[str, Any]


def params_of(arrays: Arrays, case: Case) -> dict:
    """PyTorch's weights in our tree: heads are joined, kernels are [in, out], layers stacked."""
    width = case["width"]

    def layer(i: int) -> dict:
        at = f"transformer.layer.{i}."

        def flat(name: str) -> np.ndarray:
            return arrays[f"{at}rel_attn.{name}"].reshape(width, -1)

        names = {"query": "q", "key": "k", "value": "v", "relative": "r"}
        offsets = {"query_content": "r_w", "query_position": "r_r", "query_segment": "r_s"}
        attention = {ours: {"kernel": flat(theirs)} for ours, theirs in names.items()}
        attention |= {k: arrays[f"{at}rel_attn.{v}_bias"] for k, v in offsets.items()}
        return {
            "attention": attention
            | {"out": {"kernel": flat("o").T}, "segments": arrays[f"{at}rel_attn.seg_embed"]},
            "attention_norm": weights.norm(arrays, f"{at}rel_attn.layer_norm"),
            "ffn": {
                "wide": weights.dense(arrays, f"{at}ff.layer_1"),
                "narrow": weights.dense(arrays, f"{at}ff.layer_2"),
            },
            "ffn_norm": weights.norm(arrays, f"{at}ff.layer_norm"),
        }

    return {
        "word": {"embedding": arrays["transformer.word_embedding.weight"]},
        "start": arrays["transformer.mask_emb"],
        "encoder": weights.stacked([layer(i) for i in range(case["layers"])]),
        "heads": {"tokens": {"bias": arrays["lm_loss.bias"]}},
    }


def batch_of(arrays: Arrays, number: int, case: Case, carry: Any) -> Corrupted:
    """A stored batch in our types."""
    stored = {k.split("/")[2]: v for k, v in arrays.items() if k.startswith(f"b/{number}/")}
    count, length = stored["ids"].shape
    half = (np.arange(count) >= count // 2).astype(np.int32)
    plain = data.rows(0, count, length, empty=tuple(range(count))).replace(
        tokens_BT=stored["ids"],
        segments_BT=stored["segments"],
        valid_BT=stored["valid"],
        labels={"backward": half} if case["bi_data"] else {},
        carry=carry,
    )
    return Corrupted.of(
        plain,
        inputs_BT=stored["ids"],
        at_BP=stored["at"],
        targets_BP=stored["targets"],
        weights_BP=stored["weights"],
        order_BT=stored["order"] if case["ordered"] else None,
    )


def build(case: Case, **run: str) -> tuple[config.Experiment, network.Network]:
    """Our network of a case."""
    sizes = {k: case[k] for k in ("layers", "width", "heads", "ffn", "memory", "reuse", "clamp")}
    experiment = config.Experiment(
        model=registry.write("xlnet", sizes),
        objectives="mlm",
        run=config.Run(precision="float32", **run),
    )
    return experiment, network.build(experiment, case["vocab"], wanted=(("layers", 0),))


def check(arrays: Arrays, case: Case, **run: str) -> None:
    """Both streams of each row, with the memory of those before; the last row's gradients."""
    experiment, net = build(case, **run)
    params = jax.tree.map(jnp.asarray, params_of(stored(arrays, "w/"), case))
    carry = net.carry(len(arrays["b/0/ids"]))
    shapes = jax.eval_shape(net.init, jax.random.key(0), batch_of(arrays, 0, case, carry))
    assert jax.tree.map(jnp.shape, params) == jax.tree.map(jnp.shape, shapes)
    run_once = data.quickly(net.apply)
    for number in range(case["rows"]):
        batch = jax.tree.map(jnp.asarray, batch_of(arrays, number, case, carry))
        before, outputs = carry, run_once(params, batch)
        check_row(arrays, number, outputs, batch)
        carry = outputs.carry
    (objective,) = step.objectives_of(experiment)

    def loss(params: Any) -> jax.Array:
        return objective.objective(net.apply(params, batch), batch).loss.value()

    assert before is not None
    value, grads = data.quickly(jax.value_and_grad(loss))(params)
    np.testing.assert_allclose(value, arrays["r/loss"], rtol=1e-5)
    check_gradients(arrays, grads, case)


def stored(arrays: Arrays, prefix: str) -> dict[str, np.ndarray]:
    return {k.removeprefix(prefix): v for k, v in arrays.items() if k.startswith(prefix)}


def check_row(arrays: Arrays, number: int, outputs: Any, batch: Corrupted) -> None:
    valid = np.asarray(batch.valid_BT)
    for i, layer in enumerate(outputs.layers):
        expected = arrays[f"r/{number}/hidden"][i]
        assert_close(layer[valid], expected[valid], f"row {number}, layer {i}")
    used = np.asarray(batch.weights_BP) > 0
    expected = arrays[f"r/{number}/token_logits"]
    if used.any():
        assert_close(outputs.token_logits_BPV[used], expected[used], f"row {number}, token logits")


def check_gradients(arrays: Arrays, grads: Any, case: Case) -> None:
    """The stored gradients, carried over as the weights are; those not stored stay NaN.

    Where nothing depends on a parameter (one segment in all rows), both are rounding noise.
    """
    like = {k: np.full_like(v, np.nan) for k, v in stored(arrays, "w/").items()}
    given = stored(arrays, "r/grad/")
    expected = data.leaves(params_of(like | given, case))
    noise = 1e-7 * max(np.abs(g).max() for g in given.values())
    seen = 0
    for path, found in data.leaves(grads).items():
        there = ~np.isnan(expected[path])
        if there.any():
            seen += 1
        if there.any() and np.abs(expected[path][there]).max() > noise:
            assert_close(found[there], expected[path][there], f"gradient of {path}")
    assert seen >= len(given) - 2  # some are two layers' of one of ours
