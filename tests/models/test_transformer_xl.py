"""Transformer-XL: its formulas written out in numpy, and its memory against one long pass.

transformers no longer has this network; what stands here is stated from the paper's section 3 and
from the sizes that kimiyoung/transformer-xl's scripts give.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from contracts import rows as data
from contracts import test_models as battery
from models.test_counts import MLM, count

from bert_variants import config, keys, registry
from bert_variants.models import network
from bert_variants.types import Batch, Corrupted

VARIANTS = [
    {},
    {"norm_first": True},
    {"untie": True, "clamp": 3},
    {"same_length": True},
    {"same_length": True, "norm_first": True, "clamp": 4},
]


@functools.cache
def build(**settings) -> network.Network:
    made = {"memory": 7, "reuse": 0} | settings
    return battery.build("transformer_xl", **made)


@functools.cache
def params(**settings):
    net = build(**settings)
    return data.random_params(jax.eval_shape(net.init, keys.root(0), battery.batch()), 0.3)


def text(seed: int, count: int = 3, length: int = 6) -> Batch:
    """Consecutive tokens without special ones."""
    batch = data.rows(seed, count, length, full=True)
    ids = np.random.default_rng(seed).integers(5, data.VOCAB.size, (count, length))
    return batch.replace(tokens_BT=ids.astype(np.int32), maskable_BT=np.ones_like(ids, bool))


def causal(batch: Batch, carry=None) -> Corrupted:
    made = jax.tree.map(jnp.asarray, data.corrupt("causal()", batch))
    return made.replace(carry=carry)


def apply(net: network.Network, given, rows):
    return battery.jitted(net)(given, rows)


# ------------------------------------------------------------- the formulas


def norm(x, at, eps=1e-5):
    x = x - x.mean(-1, keepdims=True)
    x = x / np.sqrt((x**2).mean(-1, keepdims=True) + eps)
    return x * at["scale"] + at["bias"]


def attention(x, old, at, offsets, heads, settings):
    """One row, token by token and head by head, with R of each distance computed where needed."""
    both = np.concatenate([old, x])
    width = x.shape[1] // heads
    q, (k, v) = x @ at["query"]["kernel"], (both @ at[n]["kernel"] for n in ("key", "value"))
    out = np.zeros_like(x)
    for i in range(len(x)):
        for n in range(heads):
            part = slice(n * width, (n + 1) * width)
            scores = []
            here = len(old) + i
            lowest = max(0, here + 1 - settings["memory"]) if settings["same_length"] else 0
            for j in range(lowest, here + 1):
                distance = here - j
                if settings["clamp"]:
                    distance = min(distance, settings["clamp"])
                frequency = 10000.0 ** (-2 * np.arange(x.shape[1] // 2) / x.shape[1])
                angle = distance * frequency
                r = np.concatenate([np.sin(angle), np.cos(angle)]) @ at["relative"]["kernel"]
                content = (q[i, part] + offsets["query_content"][n]) @ k[j, part]
                position = (q[i, part] + offsets["query_position"][n]) @ r[part]
                scores.append((content + position) / np.sqrt(width))
            share = np.exp(np.array(scores) - max(scores))
            out[i, part] = share / share.sum() @ v[lowest : here + 1, part]
    return out @ at["out"]["kernel"]


def restated(given, tokens, old, settings):
    """Layers of a row [L + 1][T, D] and the logits after every token, in double precision.

    ``old``: for each layer what the row remembers of its inputs, [L][M, D].
    """
    given = jax.tree.map(np.float64, given)
    table = given["word"]["embedding"]
    layers = [table[tokens] * np.sqrt(table.shape[1])]
    stack = given["encoder"]["layers"]
    for number in range(settings["layers"]):
        at = jax.tree.map(lambda w, number=number: w[number], stack)
        offsets = at["attention"] if settings["untie"] else given["encoder"]
        x, m = layers[-1], old[number]
        if settings["norm_first"]:
            first, second = (
                functools.partial(norm, at=at[n]) for n in ("attention_norm", "ffn_norm")
            )
            x = x + attention(
                first(x), first(m), at["attention"], offsets, settings["heads"], settings
            )
            x = x + feed_forward(second(x), at["ffn"])
        else:
            update = attention(x, m, at["attention"], offsets, settings["heads"], settings)
            x = norm(x + update, at["attention_norm"])
            x = norm(x + feed_forward(x, at["ffn"]), at["ffn_norm"])
        layers.append(x)
    return layers, layers[-1] @ table.T + given["heads"]["tokens"]["bias"]


def feed_forward(x, at):
    wide = np.maximum(x @ at["wide"]["kernel"] + at["wide"]["bias"], 0)
    return wide @ at["narrow"]["kernel"] + at["narrow"]["bias"]


@pytest.mark.parametrize("variant", VARIANTS, ids=str)
def test_is_the_formula(variant):
    """Three rows of a stream, one after another: every layer, the logits, the memory."""
    plain = {"untie": False, "norm_first": False, "same_length": False, "clamp": 0}
    settings = plain | variant | {"layers": 2, "heads": 2, "memory": 7}
    sizes = {"width": 12, "heads": 2, "ffn": 10} | variant
    net = build(wanted=(("layers", 0),), **sizes)
    given = params(wanted=(("layers", 0),), **sizes)
    carry = net.carry(2)
    old = [[np.zeros((0, 12))] * 2 for _ in range(2)]
    for number in range(3):
        batch = text(number, 2, 6)
        outputs = apply(net, given, causal(batch, carry))
        for row in range(2):
            layers, logits = restated(given, batch.tokens_BT[row], old[row], settings)
            for i, layer in enumerate(layers):
                near(outputs.layers[i][row], layer, f"row {number}, layer {i}")
            near(outputs.token_logits_BPV[row], logits[:-1], f"row {number}, logits")
            old[row] = [
                np.concatenate([m, x])[-7:] for m, x in zip(old[row], layers[:-1], strict=True)
            ]
        carry = outputs.carry
        near(carry["states"][0, 1, -6:], old[0][1][-6:], "memory")


def near(found, expected, what):
    worst = np.abs(np.float64(found) - expected).max() / np.abs(expected).max()
    assert worst < 1e-5, f"{what}: {worst:.1e} of the largest entry"


# ------------------------------------------------------------- a memory instead of a long row


@pytest.mark.parametrize("variant", [{}, {"norm_first": True, "untie": True}], ids=str)
def test_row_by_row_is_one_pass(variant):
    """Nothing falls out of the memory, which begins empty: the same states to 1e-5."""
    net = build(memory=20, **variant)
    given = params(memory=20, **variant)
    whole = text(7, 3, 20)
    expected = apply(net, given, causal(whole)).hidden_BTD
    carry = net.carry(3)
    for start, stop in ((0, 5), (5, 12), (12, 13), (13, 20)):
        part = jax.tree.map(lambda x, a=start, b=stop: x[:, a:b] if x.ndim == 2 else x, whole)
        outputs = apply(net, given, causal(part, carry) if stop - start > 1 else plain(part, carry))
        near(outputs.hidden_BTD, np.float64(expected[:, start:stop]), f"{start} .. {stop}")
        carry = outputs.carry
    np.testing.assert_array_equal(carry["length"], [20] * 3)


def plain(batch: Batch, carry) -> Batch:
    return jax.tree.map(jnp.asarray, batch).replace(carry=carry)


def test_without_memory_it_is_not_one_pass():
    net, given = build(memory=20), params(memory=20)
    whole = text(7, 3, 20)
    expected = apply(net, given, causal(whole)).hidden_BTD[:, 10:]
    part = jax.tree.map(lambda x: x[:, 10:] if x.ndim == 2 else x, whole)
    found = apply(net, given, causal(part)).hidden_BTD
    assert np.abs(found - expected).max() > 1e-2


def test_rows_that_share_a_token_predict_all():
    """``stream(reuse=1)``: logits of every token but the first, as of one pass."""
    net = build(memory=30, reuse=5)
    given = params(memory=30, reuse=5)
    whole = text(8, 2, 21)
    expected = np.asarray(apply(net, given, causal(whole)).token_logits_BPV)
    carry, found = net.carry(2), []
    for start in (0, 5, 10, 15):
        part = jax.tree.map(lambda x, a=start: x[:, a : a + 6] if x.ndim == 2 else x, whole)
        outputs = apply(net, given, causal(part, carry))
        found.append(outputs.token_logits_BPV)
        carry = outputs.carry
    found = np.concatenate(found, axis=1)
    assert found.shape == expected.shape == (2, 20, data.VOCAB.size)
    near(found, np.float64(expected), "logits")


def test_same_length_reads_so_much_and_no_more():
    """The token ``memory`` places to the left is out of sight of one layer, the next one is not."""
    net, given = (
        build(layers=1, same_length=True, memory=4),
        params(layers=1, same_length=True, memory=4),
    )
    rows = causal(text(9, 1, 10))
    plain_top = apply(net, given, rows).hidden_BTD
    for at in range(10):
        changed = rows.replace(inputs_BT=rows.inputs_BT.at[:, at].set(90))
        differs = np.abs(apply(net, given, changed).hidden_BTD - plain_top).max(-1)[0] > 0
        np.testing.assert_array_equal(np.flatnonzero(differs), np.arange(at, min(at + 4, 10)))


def test_same_length_without_a_memory():
    with pytest.raises(ValueError, match="same_length counts in memories"):
        jax.eval_shape(build(same_length=True, memory=0).init, keys.root(0), battery.batch())


# ------------------------------------------------------------- left to right


def test_nothing_to_the_right_is_read():
    net, given = build(), params()
    rows = causal(text(2, 3, 9))
    plain_logits = np.asarray(apply(net, given, rows).token_logits_BPV)
    for at in range(9):
        changed = rows.replace(inputs_BT=rows.inputs_BT.at[:, at].set(90))
        logits = np.asarray(apply(net, given, changed).token_logits_BPV)
        moved = np.abs(logits - plain_logits).max(-1) > 0
        # slot p predicts position p + 1 from the tokens up to p
        np.testing.assert_array_equal(moved, np.arange(8)[None].repeat(3, 0) >= at)


def test_a_mask_is_predicted_from_its_left():
    """The probes of every model: what stands at the position itself plays no part."""
    net, given = build(), params()
    rows = jax.tree.map(jnp.asarray, data.corrupt("tokens(rate=0.3)", data.rows(1, 4, 16)))
    logits = apply(net, given, rows).token_logits_BPV
    own = jnp.any(jnp.arange(16)[None, None] == rows.at_BP[:, :1, None], axis=1)
    other = apply(net, given, rows.replace(inputs_BT=jnp.where(own, 50, rows.inputs_BT)))
    np.testing.assert_array_equal(logits[:, 0], other.token_logits_BPV[:, 0])


def test_a_first_token_is_predicted_from_nothing():
    net, given = build(), params()
    rows = causal(text(3, 2, 6))
    rows = rows.replace(at_BP=jnp.zeros_like(rows.at_BP))
    logits = apply(net, given, rows).token_logits_BPV
    bias = given["heads"]["tokens"]["bias"]
    np.testing.assert_allclose(logits[0, 0], bias, rtol=1e-6)


# ------------------------------------------------------------- sizes


@pytest.mark.parametrize(
    ("size", "vocab", "published"),
    [("base", 204, 41_055_436), ("large", 204, 277_231_820), ("large", 27, 277_050_395)],
)
def test_parameter_counts(size, vocab, published):
    """enwik8 (204 symbols) and text8 (27), table counted once."""
    assert count(config.get_config("transformer_xl", size=size).model, vocab, MLM) == published


def test_config_shares_a_token_between_rows():
    for size in ("tiny", "base", "large"):
        experiment = config.get_config("transformer_xl", size=size)
        call = registry.lookup("model", experiment.model)
        assert call.argument("reuse") == experiment.data.length - 1
        assert experiment.data.example == "stream(reuse=1)"
