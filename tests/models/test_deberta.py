"""DeBERTa: published sizes, the decoder restated, who trains whom, distances in other encoders."""

from __future__ import annotations

import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from contracts import rows as data
from contracts import test_models as battery

from bert_variants import config, keys, registry
from bert_variants.models import deberta_rtd, network
from bert_variants.models.deberta_layers import first_of_each
from bert_variants.models.heads import TokenHead
from bert_variants.ops.disentangled import read
from bert_variants.train import step

MLM, POOLED, REPLACED = ("token_logits_BPV", 0), ("pooled_BD", 0), ("replaced_logits_BT", 0)


# ------------------------------------------------------------- published sizes


def shapes_of(model: str, vocab: int, *wanted: tuple[str, int]):
    call = registry.lookup("model", model)
    net = network.Network(call(vocab_size=vocab, wanted=wanted), call.traits["rules"])
    return jax.eval_shape(net.init, keys.root(0), data.rows(0, 1, 16))


def count(model: str, vocab: int, *wanted: tuple[str, int]) -> int:
    return sum(leaf.size for leaf in jax.tree.leaves(shapes_of(model, vocab, *wanted)))


def deberta(size: str, version: str, **changes) -> str:
    """The ``deberta`` of a published size; version 3's discriminator alone."""
    model = config.get_config("deberta", size=size, version=version).model
    if version == "v3":
        _, _, fields = registry.parse(model)
        del fields["sharing"]
        model = registry.write("deberta", fields)
    return registry.edit(model, **changes)


@pytest.mark.parametrize(
    ("version", "size", "vocab", "plain", "whole", "pooler", "head"),
    [
        ("v1", "base", 50_265, 138_601_728, 138_994_944, 590_592, 642_393),
        ("v1", "large", 50_265, 405_163_008, 405_687_296, 1_049_600, 1_101_913),
        ("v1", "xlarge", 50_265, 757_804_032, 758_328_320, 1_049_600, None),
        ("v2", "xlarge", 128_100, 884_593_152, 885_379_584, 2_360_832, 2_492_004),
        ("v2", "xxlarge", 128_100, 1_564_549_632, 1_565_336_064, 2_360_832, 2_492_004),
        ("v3", "xsmall", 128_100, 70_682_112, 70_878_720, 147_840, None),
        ("v3", "small", 128_100, 141_304_320, 141_697_536, 590_592, None),
        ("v3", "base", 128_100, 183_831_552, 184_224_768, 590_592, None),
        ("v3", "large", 128_100, 434_012_160, 434_536_448, 1_049_600, None),
    ],
)
def test_published_sizes(version, size, vocab, plain, whole, pooler, head):
    """Without the table of absolute positions (transformers' form) and with it (the official)."""
    model = deberta(size, version)
    without = registry.edit(model, absolute="none")
    assert count(without, vocab) == plain
    assert count(model, vocab) == whole
    assert count(without, vocab, POOLED) == plain + pooler
    if head is not None:
        assert count(model, vocab, MLM) == whole + head


def test_repositorys_base_of_128k():
    """experiments/language_model/deberta_base.json: 128k vocabulary, shared projections, MLM."""
    assert count("deberta(layers=12, width=768, heads=12)", 128_100, MLM) == 184_944_996


@pytest.mark.parametrize(
    ("size", "generator", "discriminator"),
    [
        ("xsmall", 60_508_644, 71_027_713),
        ("small", 121_154_148, 142_290_433),
        ("base", 142_417_764, 184_817_665),
        ("large", 284_561_508, 435_589_121),
    ],
)
def test_published_pairs(size, generator, discriminator):
    """The published discriminator also holds differences of positions, which it never reads."""
    model = config.get_config("deberta", size=size).model
    shapes = shapes_of(model, 128_100, MLM, REPLACED, ("replaced_BT", 0))
    heads = shapes["heads"]
    theirs = (shapes["generator_embeddings"], shapes["generator"], heads["tokens"])
    ours = (shapes["embeddings"], shapes["discriminator"], heads["replaced"])
    assert sum(leaf.size for leaf in jax.tree.leaves(theirs)) == generator
    unread = 512 * registry.lookup("model", model).argument("width")
    assert sum(leaf.size for leaf in jax.tree.leaves(ours)) + unread == discriminator
    assert len(heads) == 2


def test_sharing_decides_who_has_tables():
    """None of its own, or as many as the generator's; with positions in the input those too."""
    call = "deberta_rtd(layers=2, width=32, heads=4, absolute={!r}, sharing={!r})"

    def tables(absolute: str, sharing: str) -> set[str]:
        made = shapes_of(call.format(absolute, sharing), 96, MLM, REPLACED)["embeddings"]
        return set(made) - {"norm"}

    assert tables("decoder", "es") == tables("input", "es") == set()
    assert tables("decoder", "gdes") == tables("decoder", "nes") == {"word"}
    assert tables("input", "gdes") == {"word", "position"}


@pytest.mark.slow
def test_differences_start_at_zero_and_decay():
    net = build_rtd("gdes")
    made = data.quickly(net.init)(keys.root(0), battery.batch())
    assert not made["embeddings"]["word"]["embedding"].any()
    assert made["generator_embeddings"]["word"]["embedding"].std() > 0.015
    no_decay = config.get_config("deberta").optim.no_decay
    for path in ("embeddings/word/embedding", "generator/relative/embedding"):
        assert not any(re.search(pattern, path) for pattern in no_decay)


# ------------------------------------------------------------- the decoder


def restated(params, batch, relative, heads: int, eps: float = 1e-7) -> np.ndarray:
    """What the head for tokens reads, in numpy: gathers, one token of one row at a time."""
    p = jax.tree.map(np.float64, params)
    valid, ids = np.asarray(batch.valid_BT), np.asarray(batch.inputs_BT)
    positions = np.asarray(batch.positions_BT)

    def norm(x, at):
        x = x - x.mean(-1, keepdims=True)
        return x / np.sqrt((x**2).mean(-1, keepdims=True) + eps) * at["scale"] + at["bias"]

    def dense(x, at):
        return x @ at["kernel"] + (at["bias"] if "bias" in at else 0.0)

    def split(x):
        return x.reshape(*x.shape[:-1], heads, -1)

    table = p["encoder"]["relative"]["embedding"]
    if relative.norm:
        table = norm(table, p["encoder"]["relative"]["norm"])
    length = ids.shape[1]
    index = relative.rows(length)[
        np.subtract.outer(np.arange(length), np.arange(length)) + length - 1
    ]

    def layer(number, source, query, seen):
        at = jax.tree.map(lambda x: x[number], p["encoder"]["layers"])
        own = at["attention"]
        q, k, v = (
            split(dense(x, own[n]))
            for n, x in (("query", query), ("key", source), ("value", source))
        )
        prefix = "" if relative.projections == "shared" else "relative_"
        keys_, queries = (split(dense(table, own[f"{prefix}{n}"])) for n in ("key", "query"))
        scores = np.einsum("inh,jnh->nij", q, k)
        scores = scores + np.einsum("inh,ijnh->nij", q, keys_[index])
        scores = scores + np.einsum("ijnh,jnh->nij", queries[index], k)
        scores = scores / np.sqrt(3 * q.shape[-1])
        both = np.outer(seen, seen)[None]
        power = np.where(both, np.exp(scores - scores.max(-1, keepdims=True)), 0.0)
        shares = power / np.maximum(power.sum(-1, keepdims=True), 1e-300)
        context = np.einsum("nij,jnh->inh", shares, v).reshape(length, -1)
        x = norm(query + dense(context, own["out"]), at["attention_norm"])
        inner = dense(x, at["ffn"]["wide"])
        inner = inner * 0.5 * (1 + np.vectorize(math.erf)(inner / np.sqrt(2)))
        return norm(x + dense(inner, at["ffn"]["narrow"]), at["ffn_norm"])

    found = []
    for row in range(len(ids)):
        x = norm(p["embeddings"]["word"]["embedding"][ids[row]], p["embeddings"]["norm"])
        x = np.where(valid[row][:, None], x, 0.0)
        count = len(p["encoder"]["layers"]["attention_norm"]["bias"])
        for number in range(count - 1):
            x = layer(number, x, x, valid[row])
        query = x + p["embeddings"]["position"]["embedding"][positions[row]]
        for _ in range(2):
            query = layer(count - 1, x, query, valid[row])
        found.append(query)
    return np.stack(found)


@pytest.mark.slow
@pytest.mark.parametrize("preset", ["deberta_v1", "deberta_v2"])
def test_decoder_restated(preset):
    """The last layer twice, positions in the first query alone, keys and values from below."""
    relative = f"{preset}(reach=9, buckets={6 if preset == 'deberta_v2' else 0})"
    call = registry.lookup(
        "model", data.small("deberta", layers=3, relative=relative, key_bias=preset != "deberta_v1")
    )
    net = network.Network(call(vocab_size=data.VOCAB.size, wanted=(MLM,)), call.traits["rules"])
    batch = battery.batch()
    params = data.random_params(jax.eval_shape(net.init, keys.root(0), batch))
    hidden = restated(params, batch, read(relative), heads=4)
    at = np.asarray(batch.at_BP)
    picked = jnp.float32(np.take_along_axis(hidden, at[:, :, None], axis=1))
    head = TokenHead(deberta_rtd.shape_of(net.module), 32)
    table = params["embeddings"]["word"]["embedding"]
    expected = head.apply({"params": params["heads"]["tokens"]}, picked, table)
    used = np.asarray(batch.weights_BP) > 0
    found = battery.jitted(net)(params, batch).token_logits_BPV
    data.assert_near(found[used], expected[used])


def test_absolute_positions_reach_tokens_alone():
    """Other positions change the logits of tokens, and neither hidden states nor layers."""
    net = battery.build("deberta", wanted=(("layers", 0),))
    batch = battery.batch()
    other = batch.replace(positions_BT=batch.positions_BT + 7)
    left, right = (battery.jitted(net)(battery.params("deberta"), b) for b in (batch, other))
    data.assert_equal(left.layers, right.layers)
    assert (left.token_logits_BPV != right.token_logits_BPV).any()


def test_longer_than_the_reach():
    """Distances have no end: a text of three times the reach is read."""
    net = battery.build("deberta", relative="deberta_v2(reach=16, buckets=8)", absolute="none")
    rows = data.on_device(data.rows(0, 2, 48, full=True))
    params = data.random_params(jax.eval_shape(net.init, keys.root(0), rows))
    assert jnp.isfinite(battery.jitted(net)(params, rows).hidden_BTD).all()


# ------------------------------------------------------------- who trains whom


def build_rtd(sharing: str) -> network.Network:
    return battery.build("deberta_rtd", sharing=sharing)


def touched(sharing: str, objective: str, net: network.Network | None = None) -> set[str]:
    """The parts of the network whose parameters a loss pulls at."""
    net = net or build_rtd(sharing)
    batch = battery.batch()
    shapes = jax.eval_shape(net.init, keys.root(0), batch)
    params = data.random_params(shapes)
    (chosen,) = step.objectives_of(config.Experiment(objectives=objective))

    def loss(params):
        return chosen.objective(net.apply(params, batch), batch).loss.value()

    grads = data.leaves(data.quickly(jax.grad(loss))(params))
    assert all(np.isfinite(g).all() for g in grads.values())
    found = set()
    for path, grad in grads.items():
        parts = re.findall(r"\['(\w+)'\]", path)
        if (grad != 0).any():
            found.add(
                "/".join(parts[:2] if parts[0].endswith(("embeddings", "heads")) else parts[:1])
            )
    return found


OF_GENERATOR = {
    "generator",
    "generator_embeddings/word",
    "generator_embeddings/position",
    "generator_embeddings/norm",
    "heads/tokens",
}
OF_DISCRIMINATOR = {"discriminator", "embeddings/norm", "heads/replaced"}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("sharing", "tables"),
    [
        ("gdes", {"embeddings/word"}),
        ("nes", {"embeddings/word"}),
        ("es", {"generator_embeddings/word"}),
    ],
)
def test_what_finding_replaced_tokens_trains(sharing, tables):
    """Under gradient-disentangled sharing the difference alone, and nothing of the generator."""
    assert touched(sharing, "replaced_token") == OF_DISCRIMINATOR | tables


@pytest.mark.slow
@pytest.mark.parametrize("sharing", ["gdes", "nes", "es"])
def test_what_masked_tokens_train(sharing):
    assert touched(sharing, "mlm") == OF_GENERATOR


def test_without_the_stop_it_would_train_the_generators_table(monkeypatch):
    """The test above can fail."""
    monkeypatch.setattr(deberta_rtd.jax.lax, "stop_gradient", lambda x: x)
    experiment = config.Experiment(
        model=data.small("deberta_rtd", sharing="gdes"), objectives="mlm + replaced_token"
    )
    net = network.build(experiment, data.VOCAB.size)
    assert "generator_embeddings/word" in touched("gdes", "replaced_token", net)


@pytest.mark.slow
def test_the_difference_is_added():
    """A discriminator over E_G + difference reads what one over that very table reads."""
    gdes, nes = build_rtd("gdes"), build_rtd("nes")
    batch = battery.batch()
    params = data.random_params(jax.eval_shape(gdes.init, keys.root(0), batch))
    theirs, own = (params[n]["word"]["embedding"] for n in ("generator_embeddings", "embeddings"))
    whole = params | {
        "embeddings": params["embeddings"] | {"word": {"embedding": theirs + own}},
    }
    left, right = (battery.jitted(net)(p, batch) for net, p in ((gdes, params), (nes, whole)))
    data.assert_near(left, right, 3e-5)


def test_the_head_of_packed_rows_reads_its_own_first_token():
    hidden = jnp.arange(12.0).reshape(1, 6, 2)
    batch = data.on_device(data.rows(0, 1, 6))
    np.testing.assert_array_equal(first_of_each(hidden, batch), hidden[:, :1])
    packed = batch.replace(packs_BT=jnp.array([[1, 1, 2, 2, 2, 0]]))
    found = first_of_each(hidden, packed)
    np.testing.assert_array_equal(found[0, :, 0], [0, 0, 4, 4, 4, 10])


# ------------------------------------------------------------- every encoder


ENCODERS = {
    "bert": "deberta_v2(reach=16, buckets=8)",
    "albert": "deberta_v1(reach=8, terms='c2p')",
}

in_two = pytest.mark.parametrize("name", ["bert", pytest.param("albert", marks=pytest.mark.slow)])


def with_relative(name: str, **settings):
    net = battery.build(name, relative=ENCODERS[name], **settings)
    return net, data.random_params(jax.eval_shape(net.init, keys.root(0), battery.batch()))


@pytest.mark.parametrize("name", ENCODERS)
def test_one_field_gives_an_encoder_distances(name):
    """One table for all layers, the projections of the preset; nothing without the field."""
    _, params = with_relative(name)
    plain = battery.params(name)
    assert set(params["encoder"]) - set(plain["encoder"]) == {"relative"}
    assert params["encoder"]["relative"]["embedding"].shape == (16, 32)
    attention = params["encoder"]["layers"]["attention"]
    own, normed = ({"relative_key"}, set()) if name == "albert" else (set(), {"norm"})
    assert set(attention) - set(plain["encoder"]["layers"]["attention"]) == own
    assert set(params["encoder"]["relative"]) == {"embedding"} | normed


@pytest.mark.slow
@in_two
def test_distances_matter_and_every_parameter_is_used(name):
    net, params = with_relative(name)
    rows = battery.batch()
    grads = data.leaves(battery.gradient(net)(params, rows))
    for path, grad in grads.items():
        if "relative" in path:
            assert (grad != 0).any(), path
    moved = jax.tree.map(jnp.asarray, params)
    moved["encoder"]["relative"]["embedding"] = params["encoder"]["relative"]["embedding"][::-1]
    left, right = (battery.jitted(net)(p, rows).hidden_BTD for p in (params, moved))
    assert (np.asarray(left) != np.asarray(right)).any()


@pytest.mark.slow
@in_two
def test_with_distances_forms_agree(name):
    """Looped or unrolled, recomputed: outputs, gradients, what is dropped."""
    (plain, params), (other, _) = with_relative(name), with_relative(name, scan="off", remat=True)
    key = keys.root(1)
    left, right = (
        battery.jitted(net, True)(params, battery.batch(), key) for net in (plain, other)
    )
    data.assert_near(left, right)
    left, right = (battery.gradient(net)(params, battery.batch()) for net in (plain, other))
    data.assert_near(left, right, 2e-6)


@pytest.mark.parametrize("name", ["bert", "albert", "deberta", "deberta_rtd"])
def test_an_unknown_attention_is_refused_with_the_config(name):
    with pytest.raises(registry.RegistryError, match=r"'deberta_v9' is unknown"):
        registry.lookup("model", f"{name}(relative='deberta_v9')")


def test_fields_that_mean_nothing_are_refused():
    with pytest.raises(registry.RegistryError, match="convolution is 4, expected an odd number"):
        registry.lookup("model", "deberta(convolution=4)")
    with pytest.raises(registry.RegistryError, match=r"temperature is 0\.0, expected above 0"):
        registry.lookup("model", "deberta_rtd(temperature=0.0)")


# ------------------------------------------------------------- recipes


@pytest.mark.parametrize(
    ("version", "size", "rows", "lr", "steps"),
    [
        ("v1", "base", 2048, 2e-4, 1_000_000),
        ("v1", "large", 2048, 2e-4, 1_000_000),
        ("v2", "xxlarge", 2048, 1.5e-4, 1_000_000),
        ("v3", "xsmall", 64, 3e-4, 1_000_000),
        ("v3", "small", 256, 5e-5, 100_000),
        ("v3", "base", 256, 1e-4, 1_000_000),
        ("v3", "large", 256, 1e-4, 1_000_000),
    ],
)
def test_recipes(version, size, rows, lr, steps):
    experiment = config.get_config("deberta", size=size, version=version)
    config.check(experiment)
    assert (experiment.run.batch, experiment.optim.lr, experiment.run.steps) == (rows, lr, steps)
    assert (experiment.optim.warmup, experiment.data.length) == (10_000, 512)
    terms = config.objective_terms(experiment.objectives)
    weighed = {registry.parse(call)[0]: weight for weight, call in terms}
    assert weighed == ({"mlm": 1.0, "replaced_token": 10.0} if version == "v3" else {"mlm": 1.0})


@pytest.mark.parametrize("version", ["v1", "v2", "v3"])
def test_tiny_has_every_version(version):
    config.check(config.get_config("deberta", size="tiny", version=version))


def test_a_size_that_a_version_lacks():
    with pytest.raises(config.ConfigError, match="'xxlarge', but DeBERTa v1 has tiny, base, large"):
        config.get_config("deberta", size="xxlarge", version="v1")
