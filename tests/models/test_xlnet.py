"""XLNet: equal to transformers', blind to what it predicts, with a memory that begins and ends."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from contracts import rows as data
from contracts import test_models as battery
from golden import make_xlnet as golden
from models import xlnet_parity as parity
from models.test_counts import MLM, POOLED, count

from bert_variants import config, keys, registry
from bert_variants.models import network
from bert_variants.types import Corrupted

T = 16


# ------------------------------------------------------------- equal to transformers


@pytest.mark.parametrize("name", golden.CASES)
@pytest.mark.parametrize("scan", ["on", pytest.param("off", marks=pytest.mark.slow)])
def test_equals_the_stored_arrays(name, scan):
    """Both streams of rows in a stream, losses, gradients."""
    with np.load(golden.FOLDER / f"{name}.npz") as arrays:
        parity.check(dict(arrays), golden.CASES[name], scan=scan)


def test_files_are_small():
    sizes = {path.stem: path.stat().st_size for path in golden.FOLDER.glob("*.npz")}
    assert sizes.keys() == golden.CASES.keys()
    assert max(sizes.values()) < 120_000


@pytest.mark.parametrize(
    ("weight", "message"),
    [
        ("w/transformer.layer.0.rel_attn.r", "row 0, layer 1"),
        ("w/transformer.layer.1.rel_attn.r_s_bias", "row 0, layer 2"),
        ("w/transformer.mask_emb", "row 0, token logits"),
    ],
)
def test_a_wrong_weight_is_seen(weight, message):
    with np.load(golden.FOLDER / "two_streams.npz") as stored:
        arrays = dict(stored)
    arrays[weight] = arrays[weight] + np.float32(0.01)
    with pytest.raises(AssertionError, match=message):
        parity.check(arrays, golden.CASES["two_streams"])


def test_a_memory_that_is_not_read_is_seen():
    with np.load(golden.FOLDER / "two_streams.npz") as stored:
        arrays = dict(stored)
    with pytest.raises(AssertionError, match="row 1, layer 1"):
        parity.check(arrays, golden.CASES["two_streams"] | {"reuse": 5})


@pytest.mark.oracle
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("name", golden.CASES)
def test_stored_arrays_are_todays(name):
    pytest.importorskip("transformers")
    live = golden.compute(golden.CASES[name], list(golden.CASES).index(name))
    with np.load(golden.FOLDER / f"{name}.npz") as stored:
        assert set(stored.files) == set(live)
        for key in stored.files:
            parity.assert_close(live[key], stored[key], key)


@pytest.mark.oracle
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize(
    "changed",
    [
        {"length": 1, "first": 1, "reuse": 0, "ordered": False, "memory": 2},
        {"length": 2, "first": 1, "reuse": 1},
        {"length": 13, "first": 13, "reuse": 0, "memory": 30},
        {"length": 10, "clamp": 3, "bi_data": True},
        {"length": 11, "first": 0, "memory": 4, "rows": 4},
    ],
)
def test_other_shapes(changed):
    """Length 1, a memory that never fills, one that is shorter than a row, clamped distances."""
    pytest.importorskip("transformers")
    case = {**golden.CASES["two_streams"], "layers": 2, **changed}
    parity.check(golden.compute(case, 23), case)


# ------------------------------------------------------------- sizes


@pytest.mark.parametrize(
    ("size", "published", "summary"),
    [("base", 116_718_336, 590_592), ("large", 360_268_800, 1_049_600)],
)
def test_parameter_counts(size, published, summary):
    """Table, layers, u, v, s, segments and the start of the query stream; the bias of V; the
    projection of a row's vector."""
    model = config.get_config("xlnet", size=size).model
    width = registry.lookup("model", model).argument("width")
    assert count(model, 32_000, MLM) == published + 32_000
    assert count(model, 32_000) == published - width, "nothing predicted, no query stream"
    assert count(model, 32_000, POOLED) == published - width + summary


def test_tied_offsets():
    """One u, v and s for all layers; the segments stay each layer's own."""
    untied, tied = (count(f"xlnet(untie={untie})", 100) for untie in (True, False))
    assert untied - tied == 11 * 3 * 768


# ------------------------------------------------------------- a tiny one


@functools.cache
def build(**settings) -> network.Network:
    made = {"memory": 12, "reuse": 10} | settings
    return battery.build("xlnet", **made)


@functools.cache
def params(**settings):
    net = build(**settings)
    return data.random_params(jax.eval_shape(net.init, keys.root(0), battery.batch()), 0.3)


@functools.cache
def permuted(seed: int = 0, count: int = 4, length: int = T) -> Corrupted:
    batch = data.rows(seed, count, length, full=True)
    made = data.corrupt("permutation(rate=0.4)", batch)
    return jax.tree.map(jnp.asarray, made)


def apply(net: network.Network, rows: Corrupted, train: bool = False, **settings):
    run = battery.jitted(net, train)
    return run(params(**settings), rows, *((keys.root(1),) if train else ()))


def test_a_prediction_is_blind_to_itself_and_to_what_is_later():
    """Another token at a target changes the logits of later places alone, to the bit."""
    rows, net = permuted(), build()
    plain = np.asarray(apply(net, rows).token_logits_BPV)
    order = np.take_along_axis(np.asarray(rows.order_BT), np.asarray(rows.at_BP), axis=1)
    used = np.asarray(rows.weights_BP) > 0
    moved = 0
    for slot in range(rows.at_BP.shape[1]):
        at = rows.at_BP[:, slot]
        other = jnp.where(jnp.arange(T)[None] == at[:, None], 90 - slot, rows.inputs_BT)
        changed = np.asarray(apply(net, rows.replace(inputs_BT=other)).token_logits_BPV)
        blind = used & used[:, [slot]] & (order <= order[:, [slot]])
        np.testing.assert_array_equal(changed[blind], plain[blind])
        later = used & used[:, [slot]] & (order > order[:, [slot]])
        differs = np.abs(changed - plain).max(-1) > 0
        assert differs[later].all()
        moved += later.sum()
    assert moved > 10


def test_gradients_come_from_earlier_places_alone():
    """Every token has an id of its own; a logit's gradient reaches exactly those that it may."""
    rows = permuted(count=2)
    ids = jnp.tile(jnp.arange(10, 10 + T, dtype=jnp.int32)[None], (2, 1))
    rows = rows.replace(inputs_BT=ids, tokens_BT=ids)
    net, given = build(), params()
    used = np.asarray(rows.weights_BP) > 0

    @data.quickly
    def slope(params, row, slot):
        def logit(params):
            return net.apply(params, rows).token_logits_BPV[row, slot, 95]  # an id that is not read

        return jax.grad(logit)(params)["word"]["embedding"]

    for row, slot in np.argwhere(used)[::2]:
        table = np.asarray(slope(given, row, slot))[10 : 10 + T]
        order = np.asarray(rows.order_BT[row])
        own = order[int(rows.at_BP[row, slot])]
        np.testing.assert_array_equal((table != 0).any(axis=1), order < own)


def test_without_an_order_a_prediction_reads_all_others():
    rows = battery.batch().replace(weights_BP=jnp.ones_like(battery.batch().weights_BP))
    net = build()
    plain = apply(net, rows)
    # one layer: the query reads the words themselves, and not the one at its own position
    net = build(layers=1)
    plain = np.asarray(apply(net, rows, layers=1).token_logits_BPV)
    for slot in range(2):
        at = rows.at_BP[:, slot]
        other = jnp.where(jnp.arange(T)[None] == at[:, None], 77, rows.inputs_BT)
        changed = np.asarray(apply(net, rows.replace(inputs_BT=other), layers=1).token_logits_BPV)
        same = np.asarray(rows.at_BP) == np.asarray(at)[:, None]
        np.testing.assert_array_equal(changed[same], plain[same])
        assert (np.abs(changed - plain).max(-1)[~same] > 0).all()


def test_what_is_masked_may_be_hidden_from_all():
    """As in an order that has it last: no other token and no prediction reads it, padding apart."""
    rows, net = battery.batch(), build(masked="hidden")
    given = params(masked="hidden")
    run = battery.jitted(net)
    plain = run(given, rows)
    used = np.asarray(rows.weights_BP) > 0
    at = np.zeros(rows.inputs_BT.shape, bool)
    at[np.nonzero(used)[0], np.asarray(rows.at_BP)[used]] = True
    other = run(given, rows.replace(inputs_BT=jnp.where(at, 77, rows.inputs_BT)))
    text = np.asarray(rows.valid_BT) & ~at
    np.testing.assert_array_equal(other.token_logits_BPV[used], plain.token_logits_BPV[used])
    np.testing.assert_array_equal(other.hidden_BTD[text], plain.hidden_BTD[text])
    ordered = build()
    last = rows.replace(order_BT=jnp.asarray(at, jnp.int32))
    data.assert_equal(battery.jitted(ordered)(given, last), plain)
    read = battery.jitted(ordered)(given, rows)
    assert (read.token_logits_BPV[used] != plain.token_logits_BPV[used]).any()


def test_content_is_read_the_same_with_and_without_predictions():
    rows = permuted()
    without = rows.replace(at_BP=rows.at_BP[:, :1], targets_BP=rows.targets_BP[:, :1])
    left, right = (apply(build(), r).hidden_BTD for r in (rows, without))
    np.testing.assert_array_equal(left, right)


# ------------------------------------------------------------- a row's vector


def test_a_rows_vector_is_that_of_its_last_token():
    """Padding behind it or in front of it: the same text has the same vector."""
    text = data.rows(0, 3, 10, full=True)
    behind = jax.tree.map(lambda x: np.pad(x, ((0, 0), (0, 4))) if x.ndim == 2 else x, text)
    front = jax.tree.map(lambda x: np.pad(x, ((0, 0), (4, 0))) if x.ndim == 2 else x, text)
    net = build()
    run = battery.jitted(net)
    vectors = [run(params(), data.on_device(r)).pooled_BD for r in (text, behind, front)]
    np.testing.assert_allclose(vectors[1], vectors[0], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(vectors[2], vectors[0], rtol=1e-5, atol=1e-6)
    top = np.asarray(run(params(), data.on_device(text)).hidden_BTD[:, -1])
    head = jax.tree.map(np.asarray, params()["heads"]["pooler"]["dense"])
    np.testing.assert_allclose(
        vectors[0], np.tanh(top @ head["kernel"] + head["bias"]), rtol=1e-4, atol=1e-5
    )


# ------------------------------------------------------------- rows that run backwards


def test_a_backward_row_is_the_forward_one_in_a_mirror():
    """Reversed text with negated distances: the same states in reverse order, where nothing else
    tells left from right."""
    rows = data.on_device(data.rows(3, 4, T, full=True))
    turned = rows.replace(
        tokens_BT=rows.tokens_BT[:, ::-1],
        segments_BT=rows.segments_BT[:, ::-1],
        labels={"backward": jnp.ones(4, jnp.int32)},
    )
    run = battery.jitted(build())
    forward, backward = (run(params(), r).hidden_BTD for r in (rows, turned))
    np.testing.assert_allclose(backward[:, ::-1], forward, rtol=1e-4, atol=1e-5)
    wrong = run(params(), turned.replace(labels={"backward": jnp.zeros(4, jnp.int32)}))
    assert np.abs(wrong.hidden_BTD[:, ::-1] - forward).max() > 1e-2


# ------------------------------------------------------------- memory


def rows_of_a_stream(number: int, **labels) -> Corrupted:
    batch = permuted(seed=10 + number)
    return batch.replace(labels={k: jnp.asarray(v, jnp.int32) for k, v in labels.items()})


def test_an_empty_memory_is_none():
    net, rows = build(), rows_of_a_stream(0)
    carry = net.carry(4)
    assert carry["states"].shape == (4, 2, 12, 32)
    assert carry["length"].dtype == jnp.int32
    with_memory, without = (apply(net, rows.replace(carry=c)) for c in (carry, None))
    data.assert_near(with_memory.token_logits_BPV, without.token_logits_BPV, 2e-6)
    data.assert_near(with_memory.hidden_BTD, without.hidden_BTD, 2e-6)
    assert without.carry is None
    np.testing.assert_array_equal(with_memory.carry["length"], [10] * 4)


def test_what_is_kept():
    """The inputs of the layers at the first ``reuse`` positions; then the newest of old and new."""
    net = build()
    wanted = build(wanted=(("layers", 0),))
    first, second = rows_of_a_stream(0), rows_of_a_stream(1)
    one = apply(wanted, first.replace(carry=net.carry(4)))
    states = np.asarray(one.carry["states"])
    assert (states[:, :, :2] == 0).all()
    for layer in range(2):
        np.testing.assert_array_equal(states[:, layer, 2:], one.layers[layer][:, :10])
    two = apply(wanted, second.replace(carry=one.carry))
    later = np.asarray(two.carry["states"])
    np.testing.assert_array_equal(later[:, :, :2], states[:, :, -2:])
    for layer in range(2):
        np.testing.assert_array_equal(later[:, layer, 2:], two.layers[layer][:, :10])
    np.testing.assert_array_equal(two.carry["length"], [12] * 4)


def test_padding_is_not_kept():
    """A row of 6 tokens adds 6 positions."""
    net, rows = build(), rows_of_a_stream(0)
    short = rows.replace(valid_BT=rows.valid_BT.at[1, 6:].set(False))
    made = apply(build(wanted=(("layers", 0),)), short.replace(carry=net.carry(4)))
    np.testing.assert_array_equal(made.carry["length"], [10, 6, 10, 10])
    np.testing.assert_array_equal(made.carry["states"][1, 0, -6:], made.layers[0][1, :6])
    assert (made.carry["states"][1, :, :6] == 0).all()


def test_rows_that_do_not_go_on_have_no_memory():
    net = build()
    first = apply(net, rows_of_a_stream(0).replace(carry=net.carry(4)))
    broken = rows_of_a_stream(1, continues=[1, 0, 1, 0])
    mixed = apply(net, broken.replace(carry=first.carry))
    fresh = apply(net, rows_of_a_stream(1).replace(carry=net.carry(4)))
    going_on = apply(net, rows_of_a_stream(1).replace(carry=first.carry))
    for row, other in enumerate((going_on, fresh, going_on, fresh)):
        for path in (lambda o: o.token_logits_BPV, lambda o: o.carry["states"]):
            np.testing.assert_array_equal(path(mixed)[row], path(other)[row])
    np.testing.assert_array_equal(mixed.carry["length"], [12, 10, 12, 10])
    assert (going_on.token_logits_BPV != fresh.token_logits_BPV).any()


def test_no_gradient_flows_through_the_memory():
    net = build()
    carry = apply(net, rows_of_a_stream(0).replace(carry=net.carry(4))).carry
    rows = rows_of_a_stream(1)

    def loss(states):
        outputs = net.apply(params(), rows.replace(carry=carry | {"states": states}))
        return (outputs.hidden_BTD**2).sum() + (outputs.carry["states"] ** 2).sum()

    assert (data.quickly(jax.grad(loss))(carry["states"]) == 0).all()


def test_memory_is_in_the_format_of_the_activations():
    assert build(precision="bfloat16").carry(2)["states"].dtype == jnp.bfloat16
    assert build(memory=0).carry(2) is None


@pytest.mark.parametrize("form", [{"scan": "off"}, {"remat": True}])
def test_forms_agree_with_memory(form):
    rows = rows_of_a_stream(1)
    carry = apply(build(), rows_of_a_stream(0).replace(carry=build().carry(4))).carry
    left, right = (apply(net, rows.replace(carry=carry)) for net in (build(), build(**form)))
    data.assert_near(left, right, 2e-6)


def test_packed_rows_with_a_memory():
    rows = permuted()
    packed = rows.replace(packs_BT=jnp.ones((4, T), jnp.int32), carry=build().carry(4))
    with pytest.raises(ValueError, match="rows with a memory cannot be packed"):
        apply(build(), packed)


# ------------------------------------------------------------- where it begins


def test_initial_values():
    """Normal of 0.02, u, v, s and segments too; Glorot's for the start of the query stream."""
    net = build(width=128, ffn=256)
    made = jax.jit(net.init)(keys.root(0), battery.batch())
    limit = (6 / 129) ** 0.5
    assert 0.9 * limit < np.abs(made["start"]).max() <= limit
    layers = made["encoder"]["layers"]
    for name in ("query_content", "query_position", "query_segment", "segments"):
        assert abs(np.asarray(layers["attention"][name]).std() - 0.02) < 0.004, name
    for name in ("query", "relative", "out"):
        kernel = np.asarray(layers["attention"][name]["kernel"])
        assert abs(kernel.std() - 0.02) < 0.001
        assert np.abs(kernel).max() > 0.05, "not truncated"
    assert (layers["ffn"]["wide"]["bias"] == 0).all()
