"""What every registered model keeps to. A new file in models/ is covered by existing.

Each is built tiny, by the names that sizes have everywhere (``layers``, ``width``, ...).
"""

from __future__ import annotations

import dataclasses
import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from contracts import rows as data

from bert_variants import config, keys, registry
from bert_variants.models import network
from bert_variants.train.optim import path_name
from bert_variants.types import Outputs

NAMES = registry.names("model")
CORRUPTIONS = registry.names("corruption")
each = pytest.mark.parametrize("name", NAMES)
# seconds for each form of each model: the default suite compiles those of one
each_form = pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=[] if n == "bert" else pytest.mark.slow) for n in NAMES],
)
ALWAYS = {"hidden_BTD", "carry"}
CLASSES = {"pair_logits_BC": 2, "span_logits_BPV": 15}


def outputs_of(name: str) -> tuple[str, ...]:
    return registry.entry("model", name).traits["outputs"]


@functools.cache
def objectives_for(name: str) -> str:
    """A sum of registered objectives that the model can serve, as many as go together."""
    made, heads, fitting = set(outputs_of(name)), {}, []
    for objective in ("mlm", *registry.names("objective")):
        read = registry.entry("objective", objective).traits["reads"]
        agree = all(heads.get(output, classes) == classes for output, classes in read.items())
        if (
            objective not in fitting
            and set(read) <= made
            and agree
            and together(*fitting, objective)
        ):
            heads |= read
            fitting.append(objective)
    assert fitting, f"no registered objective fits model {name}"
    return " + ".join(fitting)


def together(*objectives: str) -> bool:
    """Whether the corruption that gives most, the same for every model, gives what all need."""
    gives = [set(registry.entry("corruption", n).traits["gives"]) for n in CORRUPTIONS]
    needs = {n for o in objectives for n in registry.entry("objective", o).traits["needs"]}
    return {need for need in needs if "." not in need} <= max(gives, key=len)


def corruption_for(objectives: tuple[str, ...]) -> str:
    needs = [n for o in objectives for n in registry.entry("objective", o).traits["needs"]]
    return registry.edit(data.corruption_for(tuple(needs)), rate=0.3)


@functools.cache
def build(
    name: str,
    *,
    wanted: tuple[tuple[str, int], ...] = (),
    precision: str = "float32",
    scan: str = "on",
    remat: bool = False,
    **sizes: int,
) -> network.Network:
    """A tiny network with the heads of every fitting objective."""
    experiment = config.Experiment(
        model=data.small(name, **sizes),
        objectives=objectives_for(name),
        run=config.Run(precision=precision, scan=scan, remat=remat),
    )
    return network.build(experiment, data.VOCAB.size, wanted=wanted)


@functools.cache
def batch(seed: int = 0, length: int = 16):
    """Rows with what the objectives of every model need."""
    served = {o for name in NAMES for o in objectives_for(name).split(" + ")}
    call = corruption_for(tuple(sorted(served)))
    return jax.tree.map(jnp.asarray, data.corrupt(call, data.rows(seed, 4, length)))


@functools.cache
def params(name: str):
    return data.random_params(jax.eval_shape(build(name).init, keys.root(0), batch()))


@functools.cache
def jitted(net: network.Network, train: bool = False):
    if train:
        return data.quickly(lambda p, b, key: net.apply(p, b, train=True, key=key))
    return data.quickly(lambda p, b: net.apply(p, b))


def everything(outputs: Outputs, valid_BT) -> Outputs:
    """The outputs with what stands at padding blanked: nobody reads it."""
    hide = valid_BT[:, :, None]
    top = jnp.where(hide, outputs.hidden_BTD, 0)
    layers = outputs.layers and tuple(jnp.where(hide, x, 0) for x in outputs.layers)
    of_tokens = {
        name: jnp.where(valid_BT if value.ndim == 2 else hide, value, 0)
        for name, value in data.fields(outputs).items()
        if name.endswith(("_BT", "_BTV"))
    }
    return dataclasses.replace(outputs, hidden_BTD=top, layers=layers, scores=None, **of_tokens)


def scalar(net: network.Network):
    """A loss that every output enters, by fixed random weights, over what is valid."""

    def loss(params, rows):
        outputs = everything(net.apply(params, rows), rows.valid_BT)
        total = 0.0
        for path, leaf in jax.tree_util.tree_leaves_with_path(outputs):
            key = keys.derive(jax.random.key(5), jax.tree_util.keystr(path))
            weights = jax.random.normal(key, leaf.shape) / leaf.size
            total = total + jnp.sum(jnp.tanh(leaf.astype(jnp.float32)) * weights)
        return total

    return loss


@functools.cache
def gradient(net: network.Network):
    return data.quickly(jax.grad(scalar(net)))


# ------------------------------------------------------------- outputs


@each
def test_outputs_are_there_when_wanted(name):
    rows = batch()
    for output in outputs_of(name):
        call = registry.lookup("model", data.small(name))
        wanted = ((output, CLASSES.get(output, 0)),)
        net = network.Network(call(vocab_size=data.VOCAB.size, wanted=wanted), call.traits["rules"])
        shapes = jax.eval_shape(net.init, keys.root(0), rows)
        made = jax.eval_shape(net.apply, shapes, rows)
        assert output in data.fields(made)


@each
def test_nothing_wanted_nothing_made(name):
    """No head, no parameters of a head."""
    call = registry.lookup("model", data.small(name))
    net = network.Network(call(vocab_size=data.VOCAB.size), call.traits["rules"])
    shapes = jax.eval_shape(net.init, keys.root(0), batch())
    assert set(data.fields(jax.eval_shape(net.apply, shapes, batch()))) <= ALWAYS
    paths = [path_name(p) for p, _ in jax.tree_util.tree_leaves_with_path(shapes)]
    assert not [p for p in paths if p.startswith("heads/")]


@each
def test_shapes(name):
    wanted = tuple((o, 0) for o in ("layers", "scores") if o in outputs_of(name))
    net = build(name, wanted=wanted)
    rows = batch()
    made = jax.eval_shape(net.apply, params(name), rows)
    slots = rows.at_BP.shape[1]
    sizes = {"B": 4, "T": 16, "D": 32, "V": data.VOCAB.size, "P": slots, "C": 2, "N": 4, "L": 2}
    for field, value in data.fields(made).items():
        if field == "layers":
            assert [x.shape for x in value] == [(4, 16, 32)] * 3
        elif field == "scores":
            assert value.shape == (2, 4, 4, 16, 16)
        elif "_" in field:
            assert value.shape == tuple(sizes[letter] for letter in field.rsplit("_", 1)[1]), field


@each
def test_the_top_layer_is_the_last_of_all(name):
    if "layers" not in outputs_of(name):
        pytest.skip("does not give its layers")
    made = jitted(build(name, wanted=(("layers", 0),)))(params(name), batch())
    np.testing.assert_array_equal(made.layers[-1], made.hidden_BTD)
    for lower, upper in zip(made.layers[:-1], made.layers[1:], strict=True):
        assert (lower != upper).any()


@each
def test_a_plain_batch_is_read_as_it_is(name):
    """Uncorrupted rows: the same hidden states, and nothing predicted."""
    rows = data.on_device(data.rows(0, 4))
    made = jitted(build(name))(params(name), rows)
    assert made.token_logits_BPV is None
    # with no slot used, so that a generator has nothing to put in
    blank = jnp.zeros_like(batch().weights_BP)
    as_corrupted = batch().replace(inputs_BT=rows.tokens_BT, weights_BP=blank)
    other = jitted(build(name))(params(name), as_corrupted)
    np.testing.assert_array_equal(made.hidden_BTD, other.hidden_BTD)


# ------------------------------------------------------------- padding and packing


@each
def test_padding_changes_nothing(name):
    """Other ids, segments and positions at padding: not a bit differs where there is text."""
    rows = batch()
    pads = ~rows.valid_BT
    assert pads.any()
    spoilt = rows.replace(
        inputs_BT=jnp.where(pads, 77, rows.inputs_BT),
        tokens_BT=jnp.where(pads, 77, rows.tokens_BT),
        segments_BT=jnp.where(pads, 1, rows.segments_BT),
        positions_BT=jnp.where(pads, 3, rows.positions_BT),
    )
    wanted = (("layers", 0),) if "layers" in outputs_of(name) else ()
    run = jitted(build(name, wanted=wanted))
    clean, dirty = (everything(run(params(name), r), r.valid_BT) for r in (rows, spoilt))
    data.assert_equal(clean, dirty)


@each
def test_padding_gets_no_gradient(name):
    """The word at padding is id 77 and stands nowhere else: its row must not be pulled at."""
    rows = batch()
    pads = ~rows.valid_BT
    inputs, tokens = (
        jnp.where(pads, 77, jnp.minimum(x, 76)) for x in (rows.inputs_BT, rows.tokens_BT)
    )
    # with no slot used: a generator might draw that word
    blank = jnp.zeros_like(rows.weights_BP)
    rows = rows.replace(inputs_BT=inputs, tokens_BT=tokens, weights_BP=blank)

    def loss(params):
        hidden = build(name).apply(params, rows).hidden_BTD
        return jnp.sum(jnp.where(pads[:, :, None], 0, hidden) ** 3)

    grads = data.quickly(jax.grad(loss))(params(name))
    tables = [
        leaf
        for path, leaf in jax.tree_util.tree_leaves_with_path(grads)
        if path_name(path).endswith("embedding") and leaf.shape[0] == data.VOCAB.size
    ]
    # beneath the tables of a discriminator may lie others that its states do not train
    tables = [table for table in tables if (table != 0).any()]
    assert tables
    for table in tables:
        assert (table[77] == 0).all()
        assert (table[rows.inputs_BT[0, 0]] != 0).any()


@each
def test_length_does_not_matter(name):
    """Two more columns of padding: the same numbers."""
    short = data.rows(0, 4, 16)
    more = jax.tree.map(lambda x: np.pad(x, ((0, 0), (0, 2))) if x.ndim == 2 else x, short)
    run = jitted(build(name))
    left, right = (run(params(name), data.on_device(r)).hidden_BTD for r in (short, more))
    where = short.valid_BT
    np.testing.assert_allclose(left[where], right[:, :16][where], rtol=1e-5, atol=1e-5)


@each
def test_packed_rows_are_separate_rows(name):
    """Two sequences in one row: as each alone, and blind to the other."""
    parts = [data.rows(seed, 4, 8, full=True) for seed in (1, 2)]
    together = jax.tree.map(
        lambda a, b: np.concatenate([a, b], 1) if a.ndim == 2 else a, *parts
    ).replace(packs_BT=np.repeat([[1, 2, 0]], 4, 0).repeat(8, 1)[:, :16].astype(np.int32))
    run = jitted(build(name))
    packed = run(params(name), data.on_device(together)).hidden_BTD
    for i, part in enumerate(parts):
        alone = run(params(name), data.on_device(part)).hidden_BTD
        np.testing.assert_allclose(packed[:, 8 * i : 8 * i + 8], alone, rtol=1e-5, atol=1e-5)
    changed = together.replace(tokens_BT=np.where(together.packs_BT == 2, 50, together.tokens_BT))
    other = run(params(name), data.on_device(changed)).hidden_BTD
    np.testing.assert_array_equal(packed[:, :8], other[:, :8])
    assert (packed[:, 8:] != other[:, 8:]).any()


@each
def test_rows_of_padding_are_finite(name):
    rows = data.on_device(data.rows(0, 4, empty=(1,)))
    assert all(
        jnp.isfinite(x).all() for x in jax.tree.leaves(jitted(build(name))(params(name), rows))
    )


# ------------------------------------------------------------- forms of the same computation


@each_form
@pytest.mark.parametrize(
    "form",
    [
        {"scan": "off"},
        {"remat": True},
        pytest.param({"scan": "off", "remat": True}, marks=pytest.mark.slow),
    ],
)
def test_forms_agree(name, form):
    """Looped or unrolled, recomputed or not: the same outputs and gradients."""
    plain, other = build(name), build(name, **form)
    left, right = (jitted(net)(params(name), batch()) for net in (plain, other))
    data.assert_near(left.hidden_BTD, right.hidden_BTD, 1e-6)
    data.assert_near(left, right)  # logits of a few classes are small sums of large terms
    left, right = (gradient(net)(params(name), batch()) for net in (plain, other))
    data.assert_near(left, right, 2e-6)


@pytest.mark.slow
@each
def test_forms_drop_the_same(name):
    """Dropout too does not depend on the form of the loop."""
    key = keys.root(3)
    plain = jitted(build(name), True)(params(name), batch(), key)
    other = jitted(build(name, scan="off", remat=True), True)(params(name), batch(), key)
    data.assert_near(plain.hidden_BTD, other.hidden_BTD, 1e-6)


@each
def test_dropout_only_in_training(name):
    net = build(name)
    run, train = jitted(net), jitted(net, True)
    still = run(params(name), batch())
    data.assert_equal(still, run(params(name), batch()))
    one, same, other = (train(params(name), batch(), keys.root(s)) for s in (0, 0, 1))
    data.assert_equal(one, same)
    assert (one.hidden_BTD != other.hidden_BTD).any()
    assert (one.hidden_BTD != still.hidden_BTD).any()


@each_form
@pytest.mark.parametrize("precision", ["bfloat16", "bfloat16_dots"])
def test_bfloat16_is_near_float32(name, precision):
    exact, near = build(name), build(name, precision=precision)
    left, right = (
        everything(jitted(n)(params(name), batch()), batch().valid_BT) for n in (exact, near)
    )
    for field, value in judged(left).items():
        assert cosine(value, judged(right)[field]) > 0.999, field
    left, right = (data.leaves(gradient(n)(params(name), batch())) for n in (exact, near))
    assert {x.dtype for x in right.values()} == {np.dtype("float32")}
    for path, value in left.items():
        # a bias of keys moves all scores of a query alike: its gradient is rounding noise
        if np.abs(value).max() > 1e-6:
            assert cosine(value, right[path]) > 0.99, path
    flat = [np.concatenate([x.ravel() for x in side.values()]) for side in (left, right)]
    assert cosine(*flat) > 0.999
    assert (flat[0] != flat[1]).any()


def judged(outputs: Outputs) -> dict[str, np.ndarray]:
    """The outputs by name. Class logits stand with the row's vector, of which they are a float32
    linear function: alone, where its terms cancel, any rounding of the vector would look large."""
    found = {name: np.ravel(value) for name, value in data.fields(outputs).items()}
    if "pooled_BD" in found and "pair_logits_BC" in found:
        logits = found.pop("pair_logits_BC")
        found["pooled_BD"] = np.concatenate([found["pooled_BD"], logits])
    return found


def cosine(a, b) -> float:
    a, b = (np.asarray(x, np.float64).ravel() for x in (a, b))
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


@each
def test_parameters_are_float32(name):
    for precision in ("float32", "bfloat16"):
        shapes = jax.eval_shape(build(name, precision=precision).init, keys.root(0), batch())
        assert {x.dtype for x in jax.tree.leaves(shapes)} == {jnp.dtype("float32")}


@each
def test_every_parameter_has_one_rule(name):
    """And no rule is dead: each matches something."""
    net = build(name)
    paths = [path_name(p) for p, _ in jax.tree_util.tree_leaves_with_path(params(name))]
    for path in paths:
        assert sum(bool(re.search(pattern, path)) for pattern, _ in net.rules) == 1, path
    for pattern, _ in net.rules:
        assert any(re.search(pattern, path) for path in paths), pattern


@each
def test_every_parameter_is_used(name):
    """A parameter without a gradient is a layer that somebody forgot to call."""
    call = corruption_for(tuple(objectives_for(name).split(" + ")))
    rows = jax.tree.map(jnp.asarray, data.corrupt(call, data.rows(0, 4, 16, full=True)))
    for path, leaf in data.leaves(gradient(build(name))(params(name), rows)).items():
        if "'key'" in path and "bias" in path:
            continue  # adds the same to all scores of a query: no gradient by construction
        assert (leaf != 0).any(), path
