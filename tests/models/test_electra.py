"""ELECTRA: who reads what, what trains whom, what is shared; published sizes."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from contracts import rows as data
from ops.test_sampling import assert_drawn_from, count

from bert_variants import config, keys, registry
from bert_variants.models import network
from bert_variants.registry import RegistryError
from bert_variants.train import setup
from bert_variants.train.optim import path_name

MLM, REPLACED, TRUTH = ("token_logits_BPV", 0), ("replaced_logits_BT", 0), ("replaced_BT", 0)
JOINT = (MLM, REPLACED, TRUTH)
STILL = {"dropout": 0.0, "attention_dropout": 0.0}


def net(*wanted: tuple[str, int], **fields) -> network.Network:
    """A tiny ELECTRA with the heads of ``wanted``."""
    call = registry.lookup("model", registry.edit(data.small("electra"), **fields))
    module = call(vocab_size=data.VOCAB.size, wanted=wanted)
    return network.Network(module, call.traits["rules"])


@functools.cache
def batch(seed: int = 0, count: int = 6):
    """Rows whose masked tokens are [MASK] or stay: ELECTRA's corruption at a higher rate."""
    made = data.corrupt("tokens(rate=0.4, mask=0.85, random=0.0)", data.rows(seed, count))
    return data.on_device(made)


def params_of(made: network.Network):
    return data.random_params(jax.eval_shape(made.init, keys.root(0), batch()), spread=0.3)


def run(made: network.Network, params, rows, **options):
    return data.quickly(lambda p, b: made.apply(p, b, **options))(params, rows)


def paths(made: network.Network) -> dict[str, int]:
    """Path of every parameter -> its size."""
    shapes = jax.eval_shape(made.init, keys.root(0), batch())
    return {path_name(p): x.size for p, x in jax.tree_util.tree_leaves_with_path(shapes)}


# ------------------------------------------------------------- sizes

# discriminator's encoder, with its head; generator's with the shared tables, with its head; both
COUNTS = {
    "small": (13_483_008, 13_549_057, 4_580_928, 4_620_026, 14_196_219),
    "small++": (13_483_008, 13_549_057, 13_483_008, 13_546_682, 23_122_875),
    "base": (108_891_648, 109_483_009, 33_511_168, 33_740_602, 119_386_427),
    "large": (334_092_288, 335_142_913, 50_999_552, 51_295_290, 354_655_291),
}


@pytest.mark.parametrize("size", COUNTS)
def test_parameter_counts(size):
    experiment = config.get_config("electra", size=size)
    call = registry.lookup("model", experiment.model)

    def sizes(*wanted: tuple[str, int]) -> dict[str, int]:
        return paths(network.Network(call(vocab_size=30_522, wanted=wanted), call.traits["rules"]))

    def of(found: dict[str, int], *parts: str) -> int:
        return sum(n for path, n in found.items() if path.startswith(parts))

    encoder, with_head, writer, writer_with_head, joint = COUNTS[size]
    found = sizes(*config.wanted_outputs(experiment))
    assert sum(sizes().values()) == encoder
    assert sum(found.values()) == joint
    assert of(found, "embeddings/", "discriminator/") == encoder
    assert of(found, "embeddings/", "discriminator/", "heads/replaced/") == with_head
    assert of(found, "embeddings/", "generator/") == writer
    assert of(found, "embeddings/", "generator/", "heads/tokens/") == writer_with_head


def test_the_generator_keeps_the_depth_and_a_quarter_of_the_width():
    found = jax.eval_shape(net(*JOINT, layers=3).init, keys.root(0), batch())["generator"]
    assert found["encoder"]["layers"]["ffn"]["wide"]["kernel"].shape == (3, 8, 32)
    assert found["project"]["kernel"].shape == (32, 8)
    wide = net(*JOINT, width=192, heads=3, generator_width=128).module._writer()
    assert (wide.width, wide.heads, wide.ffn) == (128, 2, 512)
    own = net(MLM, generator_width=12, generator_heads=3, generator_ffn=20, generator_layers=1)
    found = jax.eval_shape(own.init, keys.root(0), batch())["generator"]
    assert found["encoder"]["layers"]["ffn"]["wide"]["kernel"].shape == (1, 12, 20)
    assert own.module._writer().heads == 3


def test_what_each_tying_has():
    """Tables of the discriminator's width for both, of the generator's for itself, one network."""

    def tables(**fields) -> dict[str, tuple[int, ...]]:
        shapes = jax.eval_shape(net(*JOINT, **fields).init, keys.root(0), batch())
        named = jax.tree_util.tree_leaves_with_path(shapes)
        return {path_name(p): x.shape for p, x in named}

    tied, own, one = (tables(embedding=16, tying=t) for t in ("embeddings", "none", "all"))
    assert tied["generator/project/kernel"] == (16, 8)
    assert tied["discriminator/project/kernel"] == (16, 32)
    assert not [p for p in tied if p.startswith("generator_embeddings/")]
    assert own["generator_embeddings/word/embedding"] == (data.VOCAB.size, 8)
    assert own["generator_embeddings/norm/scale"] == (8,)
    assert "generator/project/kernel" not in own
    assert own["heads/tokens/dense/kernel"] == (8, 8)
    assert not [p for p in one if p.startswith("generator")]
    assert one["heads/tokens/dense/kernel"] == (32, 16)
    assert "discriminator/project/kernel" not in tables(tying="all")


def test_initial_values():
    """Glorot, uniform, behind the tables and in front of the one logit; 0.0176 elsewhere."""
    wide = net(*JOINT, width=128, heads=2, embedding=64, ffn=128)
    made = data.quickly(wide.init)(keys.root(0), batch())
    for part, fan in (
        (made["discriminator"]["project"]["kernel"], 64 + 128),
        (made["generator"]["project"]["kernel"], 64 + 32),
        (made["heads"]["replaced"]["output"]["kernel"], 128 + 1),
    ):
        bound = (6 / fan) ** 0.5
        assert 0.97 * bound < np.abs(part).max() <= bound
        assert abs(part.std() / (bound / 3**0.5) - 1) < 0.1
    for part in (
        made["heads"]["replaced"]["dense"]["kernel"],
        made["generator"]["encoder"]["layers"]["ffn"]["wide"]["kernel"],
    ):
        assert abs(part.std() - 0.0176) < 0.001


@pytest.mark.parametrize(
    ("call", "message"),
    [
        ("electra(temperature=0.0)", "temperature is 0.0, expected above 0"),
        ("electra(tying='all', generator_width=64)", "generator_width is 64.*the discriminator"),
        ("electra(generator='uniform', generator_layers=2)", "it is a uniform distribution"),
        ("electra(generator='unigram', tying='none')", "unigram generator has nothing to tie"),
        ("electra(tying='embedding')", "Did you mean 'embeddings'"),
    ],
)
def test_settings_that_mean_nothing_are_refused(call, message):
    with pytest.raises(RegistryError, match=message):
        registry.lookup("model", call)


def test_a_width_that_the_generators_heads_do_not_divide():
    odd = net(MLM, generator_width=10, generator_heads=4)
    with pytest.raises(ValueError, match="width 10 is not divisible by heads 4"):
        jax.eval_shape(odd.init, keys.root(0), batch())


# ------------------------------------------------------------- who reads what


@pytest.mark.parametrize("tying", ["embeddings", "none", "all"])
def test_the_discriminator_reads_the_original_with_the_samples_put_in(tying):
    """At a temperature of nearly 0 the samples are the likeliest ids."""
    made = net(*JOINT, tying=tying, temperature=1e-6)
    params, rows = params_of(made), batch()
    found = run(made, params, rows)
    tokens, at = np.asarray(rows.tokens_BT), np.asarray(rows.at_BP)
    used = np.asarray(rows.weights_BP) > 0
    guesses = np.asarray(found.token_logits_BPV).argmax(-1)
    read = tokens.copy()
    for b in range(len(read)):
        read[b, at[b][used[b]]] = guesses[b][used[b]]
    assert (np.asarray(rows.inputs_BT) == data.VOCAB.mask).any()
    np.testing.assert_array_equal(found.replaced_BT, read != tokens)
    assert found.replaced_BT.any()
    plain = data.on_device(data.rows(0, 6)).replace(tokens_BT=jnp.asarray(read))
    again = run(made, params, plain)
    data.assert_near(found.hidden_BTD, again.hidden_BTD, 1e-6)
    data.assert_near(found.replaced_logits_BT, again.replaced_logits_BT, 1e-6)
    assert again.replaced_BT is None
    assert again.token_logits_BPV is None


@pytest.mark.slow
def test_the_generator_reads_the_corrupted_rows():
    """Its logits follow the inputs, and not what [MASK] hides."""
    made = net(*JOINT)
    params, rows = params_of(made), batch()
    found = run(made, params, rows).token_logits_BPV
    hidden = (rows.inputs_BT == data.VOCAB.mask) & rows.maskable_BT
    blind = rows.replace(tokens_BT=jnp.where(hidden, 50, rows.tokens_BT))
    np.testing.assert_array_equal(run(made, params, blind).token_logits_BPV, found)
    unlike = rows.replace(inputs_BT=jnp.where(rows.maskable_BT, 50, rows.inputs_BT))
    assert (run(made, params, unlike).token_logits_BPV != found).any()


def test_nothing_is_drawn_unless_somebody_asks():
    """With ``mlm`` alone the discriminator reads the rows as they are; no random number is made."""
    asked, not_asked = net(*JOINT), net(MLM)
    params, rows = params_of(asked), batch()

    def bits(made: network.Network) -> int:
        program = jax.make_jaxpr(lambda p, b: made.apply(p, b))(params, rows).jaxpr
        return count(program, "random_bits")

    assert bits(not_asked) == 0 < bits(asked)
    as_given = rows.replace(tokens_BT=rows.inputs_BT, weights_BP=jnp.zeros_like(rows.weights_BP))
    left = run(not_asked, params, rows).hidden_BTD
    data.assert_near(left, run(asked, params, as_given).hidden_BTD, 1e-6)


@pytest.mark.slow
def test_an_evaluation_repeats_itself_and_a_row_draws_for_itself():
    """The same numbers each time, wherever in a batch a row stands, whatever stands beside it."""
    made = net(*JOINT)
    params = params_of(made)
    found = run(made, params, batch())
    data.assert_equal(found, run(made, params, batch()))
    order = np.array([3, 1, 5, 0, 2, 4])
    moved = run(made, params, data.take(batch(), order))
    np.testing.assert_array_equal(moved.replaced_BT, np.asarray(found.replaced_BT)[order])
    others = data.take(batch(seed=9), slice(0, 3))
    others = others.replace(example_id_B=others.example_id_B + 100)
    mixed = jax.tree.map(lambda a, b: jnp.concatenate([a, b[3:]]), others, batch())
    beside = run(made, params, mixed).replaced_BT[3:]
    np.testing.assert_array_equal(beside, found.replaced_BT[3:])


@pytest.mark.slow
def test_training_draws_anew_for_every_key():
    made = net(*JOINT, **STILL)
    params = params_of(made)
    one, same, other = (
        run(made, params, batch(), train=True, key=keys.root(s)).replaced_BT for s in (0, 0, 1)
    )
    np.testing.assert_array_equal(one, same)
    assert (one != other).any()


# ------------------------------------------------------------- what trains whom


def gradient(objective: str, **fields) -> dict[str, float]:
    """Path -> the largest entry of an objective's gradient."""
    made = net(*JOINT, **fields)
    bound = registry.lookup("objective", objective)

    def loss(params):
        return bound(made.apply(params, batch()), batch()).loss.value()

    grads = data.quickly(jax.grad(loss))(params_of(made))
    named = jax.tree_util.tree_leaves_with_path(grads)
    return {path_name(p): float(jnp.abs(x).max()) for p, x in named}


def moved(found: dict[str, float], *parts: str) -> list[bool]:
    """Whether each parameter below ``parts`` has a gradient (biases of keys never have one)."""
    inside = [p for p in found if p.startswith(parts) and not p.endswith("key/bias")]
    assert inside
    return [found[p] > 0 for p in inside]


def test_the_discriminators_loss_reaches_the_shared_tables_and_nothing_else_of_the_generator():
    found = gradient("replaced_token")
    assert not any(moved(found, "generator/", "heads/tokens/"))
    assert all(moved(found, "embeddings/", "discriminator/", "heads/replaced/"))


def test_the_generators_loss_reaches_nothing_of_the_discriminator():
    """And so the comparison above is not blind."""
    found = gradient("mlm")
    assert all(moved(found, "generator/", "heads/tokens/", "embeddings/"))
    assert not any(moved(found, "discriminator/", "heads/replaced/"))


@pytest.mark.slow
def test_untied_networks_do_not_touch_each_other():
    of_reader, of_writer = (gradient(o, tying="none") for o in ("replaced_token", "mlm"))
    writer, reader = ("generator", "heads/tokens/"), ("embeddings/", "discriminator/")
    assert not any(moved(of_reader, *writer))
    assert all(moved(of_reader, *reader))
    assert not any(moved(of_writer, *reader))
    assert all(moved(of_writer, *writer))


@pytest.mark.slow
def test_one_network_is_trained_by_both():
    for objective in ("replaced_token", "mlm"):
        assert all(moved(gradient(objective, tying="all"), "embeddings/", "discriminator/"))
    assert not any(moved(gradient("replaced_token", tying="all"), "heads/tokens/"))


# ------------------------------------------------------------- generators


def many(made: network.Network, params, draws: int = 12):
    """Samples of every slot of 64 rows, again and again: the original ids and what was drawn.

    What was drawn is read off the word that the discriminator's lowest layer was given: tables of
    one-hot rows, nothing else in them, and no LayerNorm in the way of their largest entry.
    """
    rows = data.on_device(
        data.corrupt("tokens(rate=0.9, mask=1.0, random=0.0)", data.rows(3, 256, 64, full=True))
    )

    @jax.jit
    def draw(key):
        return made.apply(params, rows, train=True, key=key).layers[0].argmax(-1)

    used = np.asarray(rows.weights_BP) > 0
    at = np.asarray(rows.at_BP)
    found = [np.take_along_axis(np.asarray(draw(keys.root(s))), at, 1)[used] for s in range(draws)]
    return np.tile(np.asarray(rows.targets_BP)[used], draws), np.concatenate(found)


def readable(**fields):
    """A model whose lowest layer tells which ids were read, and its parameters."""
    sizes = {"width": data.VOCAB.size, "heads": 1, "layers": 1, "ffn": 8, "positions": 64}
    made = net(*JOINT, ("layers", 0), **sizes, **STILL, **fields)
    params = jax.tree.map(jnp.zeros_like, params_of(made))
    params["embeddings"]["word"]["embedding"] = jnp.eye(data.VOCAB.size)
    params["embeddings"]["norm"]["scale"] = jnp.ones(data.VOCAB.size)
    return made, params


@pytest.mark.slow
def test_the_uniform_generator_draws_all_ids_alike():
    made, params = readable(generator="uniform")
    assert not [p for p in paths(made) if p.startswith(("generator", "heads/tokens"))]
    _, drawn = many(made, params)
    assert len(drawn) > 1e5
    counts = np.bincount(drawn, minlength=data.VOCAB.size)
    assert_drawn_from(counts, np.full(data.VOCAB.size, 1 / data.VOCAB.size))


def test_the_unigram_generator_starts_at_the_corpus_and_draws_from_it():
    made, params = readable(generator="unigram")
    assert [p for p in paths(made) if p.startswith(("generator", "heads/tokens"))] == [
        "heads/tokens/bias"
    ]
    _, drawn = many(made, setup.with_unigram_bias(params, data.VOCAB))
    assert len(drawn) > 1e5
    shares = (data.VOCAB.counts_V + 1) / (data.VOCAB.counts_V + 1).sum()
    assert_drawn_from(np.bincount(drawn, minlength=data.VOCAB.size), shares)


def test_without_context_the_logits_are_the_same_everywhere_and_learn_only_themselves():
    found = gradient("mlm", generator="unigram")
    assert {p for p, size in found.items() if size > 0} == {"heads/tokens/bias"}
    assert not any(gradient("mlm", generator="uniform").values())


@pytest.mark.parametrize("disallow", [False, True])
def test_the_original_is_drawn_unless_it_is_disallowed(disallow):
    made, params = readable(generator="uniform", disallow_correct=disallow)
    originals, drawn = many(made, params)
    assert len(drawn) > 1e5
    right, fair = (originals == drawn).mean(), 1 / data.VOCAB.size
    if disallow:
        assert right == 0
    else:
        assert abs(right - fair) < 5 * (fair / len(drawn)) ** 0.5


def test_disallowed_slots_are_all_replaced():
    made = net(*JOINT, disallow_correct=True)
    found = np.asarray(run(made, params_of(made), batch()).replaced_BT)
    expected = np.zeros_like(found)
    for b, (at, weights) in enumerate(zip(batch().at_BP, batch().weights_BP, strict=True)):
        expected[b, np.asarray(at)[np.asarray(weights) > 0]] = True
    np.testing.assert_array_equal(found, expected)


@pytest.mark.slow
def test_temperature():
    """Two ids with logits 1 apart: e to the 1 / T between them."""
    for temperature in (0.5, 3.0):
        made, params = readable(generator="unigram", temperature=temperature)
        bias = jnp.full(data.VOCAB.size, -1e9).at[jnp.array([40, 41])].set(jnp.array([0.0, 1.0]))
        params["heads"]["tokens"]["bias"] = bias
        _, drawn = many(made, params, draws=8)
        assert set(np.unique(drawn)) == {40, 41}
        share = 1 / (1 + np.exp(-1 / temperature))
        sigma = (share * (1 - share) / len(drawn)) ** 0.5
        assert abs((drawn == 41).mean() - share) < 5 * sigma


@pytest.mark.slow
def test_both_networks_can_read_distances():
    """DeBERTa's attention by one field: a table of distances in each, trained by its own loss."""
    found = gradient("replaced_token", relative="deberta_v2(buckets=4)")
    assert all(moved(found, "discriminator/encoder/relative/"))
    assert not any(moved(found, "generator/"))
    with pytest.raises(RegistryError, match="deberta_v3"):
        registry.lookup("model", "electra(relative='deberta_v3')")


def test_spans_need_a_generator_that_reads():
    spans = net(("span_logits_BPV", 15), generator="uniform")
    with pytest.raises(ValueError, match="a uniform generator reads no text"):
        jax.eval_shape(spans.init, keys.root(0), batch())
