"""What is planned is what is built: against formulas, compiled programs and published sizes."""

from __future__ import annotations

import dataclasses
import json

import jax
import jax.numpy as jnp
import pytest

from bert_variants import config
from bert_variants.configs import bert
from bert_variants.plan import abstract, flops, memory, parameters, peaks, summary
from bert_variants.train import sharding

MESH_8 = [(8, 1, 1), (1, 8, 1), (2, 2, 2), (1, 1, 8), (4, 1, 2)]


def experiment(size="tiny", *, length=64, layers=2, **run):
    made = bert.get_config(size)
    model = f"bert(layers={layers}, width=64, heads=2, ffn=256)" if size == "tiny" else made.model
    return dataclasses.replace(
        made,
        model=model,
        data=dataclasses.replace(made.data, length=length),
        run=dataclasses.replace(made.run, **{"batch": 16, "precision": "float32", **run}),
    )


def expected(L, D, F, V, T, P):
    """The formula of plan/flops.py and of performance figures everywhere, a row of T tokens."""
    layers = L * (8 * T * D**2 + 4 * T * D * F)
    attention = L * 4 * T**2 * D
    heads = 2 * P * D**2 + 2 * P * D * V + 2 * D**2 + 2 * D * 2
    return layers + attention + heads


@pytest.mark.parametrize(
    ("size", "length", "P"), [("base", 128, 20), ("base", 512, 77), ("large", 512, 77)]
)
def test_counted_products_are_those_of_the_formula(size, length, P):
    found = flops.of(abstract.of(experiment(size, length=length), 30522))
    layers, width, _ = bert.SIZES[size]
    forward = 16 * expected(layers, width, 4 * width, 30522, length, P)
    assert found.forward == forward
    assert found.training == 3 * forward
    assert found.executed == found.training
    assert found.tokens == 16 * length


def test_base_at_512_takes_what_is_known_of_it():
    found = flops.of(abstract.of(experiment("base", length=512), 30522))
    assert found.training_per_token == pytest.approx(0.59e9, rel=0.03)
    parts = found.parts
    assert set(parts) == {
        "attention projections",
        "attention products",
        "ffn",
        "heads/tokens",
        "heads/pooler",
        "heads/pair",
    }
    assert parts["ffn"] == 2 * parts["attention projections"]


@pytest.mark.slow
def test_remat_computes_the_layers_again_and_is_no_part_of_training():
    plain = flops.of(abstract.of(experiment()))
    again = flops.of(abstract.of(experiment(remat=True)))
    layers = sum(n for name, n in plain.parts.items() if "heads" not in name)
    assert again.training == plain.training
    # the last product of a layer is not needed by its backward pass
    assert 0.6 * layers < again.executed - again.training <= layers


@pytest.mark.parametrize(
    "change",
    [
        {"microbatches": 4},
        *(
            pytest.param(how, marks=pytest.mark.slow)
            for how in ({"scan": "off"}, {"precision": "bfloat16"})
        ),
    ],
)
def test_how_it_is_run_does_not_change_the_count(change):
    assert flops.of(abstract.of(experiment(**change))) == flops.of(abstract.of(experiment()))


def test_loops_branches_and_convolutions_are_counted():
    x = jax.ShapeDtypeStruct((8, 8), jnp.float32)
    once = 2 * 8**3
    loop = lambda x: jax.lax.scan(lambda c, _: (c @ x, None), x, length=5)[0]  # noqa: E731
    assert flops.count(loop, x) == 5 * once
    branch = lambda x: jax.lax.cond(x[0, 0] > 0, lambda: x @ x @ x, lambda: x)  # noqa: E731
    assert flops.count(branch, x) == 2 * once
    assert flops.count(jax.jit(jax.grad(lambda x: jnp.sum(jnp.sin(x @ x)))), x) == 3 * once
    image = jax.ShapeDtypeStruct((2, 3, 10), jnp.float32)
    kernel = jax.ShapeDtypeStruct((5, 3, 4), jnp.float32)
    convolve = lambda a, k: jax.lax.conv_general_dilated(a, k, (1,), "VALID")  # noqa: E731
    assert flops.count(convolve, image, kernel) == 2 * (2 * 5 * 7) * (3 * 4)


@pytest.fixture(scope="module")
def compiled():
    """A step, planned and really compiled; layers unrolled, since XLA counts a loop once."""
    found = abstract.of(experiment(scan="off", batch=32))
    program = jax.jit(found.step, donate_argnums=0).lower(found.state, found.batch).compile()
    return found, program


def test_xla_counts_the_same_products_and_a_little_more(compiled):
    found, program = compiled
    xla = program.cost_analysis()["flops"]
    # what it has beyond the products is element-wise, which weighs more the smaller the model
    assert 1 <= xla / flops.of(found).executed < 1.2


def test_the_memory_estimate_is_within_a_half_of_the_compiled_program(compiled):
    found, program = compiled
    needs = memory.of(found, memory.mesh_of(found, 1))
    analysis = program.memory_analysis()
    # parameters and optimizer state are the program's arguments, the rest is temporary
    temporary = needs.gradients + needs.activations + needs.transient
    assert 1 / 1.5 < temporary / analysis.temp_size_in_bytes < 1.5
    state = needs.parameters + needs.optimizer
    assert state <= analysis.argument_size_in_bytes < state * 1.1


def test_remat_and_microbatches_save_memory():
    def total(**run):
        found = abstract.of(experiment(layers=6, **run))
        return memory.of(found, memory.mesh_of(found, 1)).total

    assert total(remat=True) < total()
    assert total(microbatches=4) < total()


@pytest.mark.parametrize("shape", MESH_8)
def test_a_device_holds_its_share(shape):
    made = dataclasses.replace(experiment(), mesh=config.Mesh(*shape))
    found = abstract.of(made, 8192)
    needs = memory.of(found, memory.mesh_of(found, 8))
    whole = 4 * parameters.count(found.state.params)
    split = shape[1] * shape[2]
    # position table, norms and some biases are copied: 6 % of this tiny model
    assert whole / split <= needs.parameters <= whole / split + 0.06 * whole
    assert 2 * needs.parameters <= needs.optimizer <= 2 * needs.parameters + 64
    assert needs.checkpoint == pytest.approx(3 * whole, abs=64)


def test_what_is_split_is_what_jax_splits():
    made = dataclasses.replace(experiment(), mesh=config.Mesh(2, 2, 2))
    found = abstract.of(made, 8192)
    real = jax.make_mesh((2, 2, 2), ("data", "fsdp", "tensor"))
    placed = sharding.shardings(found.state.params, real, found.net.rules)
    params = found.state.params
    shares = jax.tree.map(lambda x, s: 4 * jnp.zeros(s.shard_shape(x.shape)).size, params, placed)
    planned = memory.of(found, memory.mesh_of(found, 8)).parameters
    assert planned == sum(jax.tree.leaves(shares))


def test_a_plan_is_plain_values_and_reads_well():
    found = summary.summary(bert.get_config("base"), 8, 30522, backend="tpu")
    assert found["parameters"]["total"] == 110_106_428  # as published, with both heads
    assert sum(found["parameters"]["groups"].values()) == 110_106_428
    assert found["precision"] == "bfloat16"
    assert found["rows"]["predictions"] == 20
    assert found["run"]["tokens"] == 256 * 128 * 1_000_000
    assert found["mesh"] == {"data": 8, "fsdp": 1, "tensor": 1, "devices": 8}
    assert json.loads(json.dumps(found)) == found
    # 6 N D for a first guess: 6 x 85 M weights in products x 32.8 G tokens
    assert found["flops"]["run"] == pytest.approx(6 * 85e6 * 32.768e9, rel=0.1)
    text = summary.render(found)
    for part in ("110,106,428", "2 m n k", "checkpoint", "TPU v5e", "32.8 G tokens"):
        assert part in text


def test_plans_that_cannot_be_made_say_why():
    bad = dataclasses.replace(experiment(), mesh=config.Mesh(2, 1, 1))
    with pytest.raises(config.ConfigError, match="does not fit 3 devices"):
        summary.summary(bad, 3)
    with pytest.raises(config.ConfigError, match=r"run\.batch.* is 16"):
        summary.summary(experiment(), 3)
    for loaded in ('wordpiece(file="v.txt")', 'byte_bpe(vocab="v.json", merges="m.txt")'):
        data = dataclasses.replace(experiment().data, tokenizer=loaded)
        with pytest.raises(config.ConfigError, match="--vocab"):
            summary.summary(dataclasses.replace(experiment(), data=data), 1)


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("NVIDIA H100 80GB HBM3", "H100"),
        ("NVIDIA H100 PCIe", "H100 PCIe"),
        ("NVIDIA H200", "H200"),
        ("NVIDIA A100-SXM4-80GB", "A100 80 GB"),
        ("NVIDIA A100-SXM4-40GB", "A100"),
        ("NVIDIA L40S", None),
        ("TPU v5 lite", "TPU v5e"),
        ("TPU v5", "TPU v5p"),
        ("TPU v6 lite", "TPU v6e"),
        ("cpu", None),
    ],
)
def test_devices_are_known_by_what_jax_calls_them(kind, name):
    found = peaks.known(kind)
    assert (found.name if found else None) == name


def test_a_cpu_is_measured():
    found = peaks.peak(jax.devices(), "float32")
    assert found.flops > 1e8
    assert "measured" in found.source
