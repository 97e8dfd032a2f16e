"""The mesh and what lies where on it."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from contracts import rows as data
from jax.sharding import AxisType, PartitionSpec

from bert_variants import config
from bert_variants.config import ConfigError
from bert_variants.train import sharding

RULES = (
    (r"kernel$", PartitionSpec("fsdp", "tensor")),
    (r"bias$", PartitionSpec("tensor")),
    (r"scale$", PartitionSpec()),
)


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        ((-1, 1, 1), (8, 1, 1)),
        ((2, -1, 2), (2, 2, 2)),
        ((1, 2, -1), (1, 2, 4)),
        ((2, 4, 1), (2, 4, 1)),
    ],
)
def test_mesh_fills_the_devices(asked, found):
    mesh = sharding.make_mesh(config.Mesh(*asked))
    assert tuple(mesh.shape.values()) == found
    assert mesh.axis_names == ("data", "fsdp", "tensor")
    assert set(mesh.axis_types) == {AxisType.Auto}
    assert len(set(mesh.devices.flat)) == 8


@pytest.mark.parametrize("asked", [(3, -1, 1), (2, 2, 1), (16, 1, 1), (-1, 3, 1)])
def test_mesh_that_does_not_fit(asked):
    with pytest.raises(ConfigError, match="does not fit 8 devices"):
        sharding.make_mesh(config.Mesh(*asked))


def test_batch_must_be_divisible():
    mesh = sharding.make_mesh(config.Mesh(2, 2, 2))

    def experiment(batch: int, parts: int, evals: int) -> config.Experiment:
        return config.Experiment(
            run=config.Run(batch=batch, microbatches=parts), evals=config.Evals(batch=evals)
        )

    sharding.check_batch(experiment(8, 2, 4), mesh)
    with pytest.raises(ConfigError, match=r"run.batch / run.microbatches is 6.*Take 4 or 8"):
        sharding.check_batch(experiment(6, 1, 4), mesh)
    with pytest.raises(ConfigError, match=r"is 2, not divisible by the 4 ways.*Take 4"):
        sharding.check_batch(experiment(8, 4, 4), mesh)
    with pytest.raises(ConfigError, match=r"evals.batch is 3"):
        sharding.check_batch(experiment(8, 2, 3), mesh)


def test_advice_for_a_batch_is_never_the_same_number_twice():
    """Fewer rows than ways: there is one number to take, not two equal ones."""
    mesh = sharding.make_mesh(config.Mesh(8, 1, 1))
    wrong = config.Experiment(run=config.Run(batch=4), evals=config.Evals(batch=8))
    with pytest.raises(ConfigError) as caught:
        sharding.check_batch(wrong, mesh)
    assert "Take 8." in str(caught.value)


def test_one_rule_exactly():
    assert sharding.spec_for("a/kernel", RULES) == PartitionSpec("fsdp", "tensor")
    with pytest.raises(ConfigError, match=r"'a/table' is matched by 0 sharding rules \(none\)"):
        sharding.spec_for("a/table", RULES)
    both = (*RULES, (r"a/", PartitionSpec()))
    with pytest.raises(ConfigError, match=r"matched by 2 sharding rules \(kernel\$, a/\)"):
        sharding.spec_for("a/kernel", both)


def test_shardings_of_a_state():
    """Moments lie where their parameters lie; what an axis does not divide stays whole."""
    mesh = sharding.make_mesh(config.Mesh(2, 2, 2))
    like = jax.ShapeDtypeStruct
    params = {
        "a": {"kernel": like((4, 6), jnp.float32), "bias": like((6,), jnp.float32)},
        "odd": {"kernel": like((3, 6), jnp.float32), "bias": like((7,), jnp.float32)},
    }
    tree = {
        "params": params,
        "opt_state": {"mu": params},
        "step": like((), jnp.int32),
        "carry": like((8, 3), jnp.float32),
    }
    found = sharding.shardings(tree, mesh, RULES)
    expected = {
        "a": {"kernel": PartitionSpec("fsdp", "tensor"), "bias": PartitionSpec("tensor")},
        "odd": {"kernel": PartitionSpec(None, "tensor"), "bias": PartitionSpec(None)},
    }
    specs = jax.tree.map(lambda s: s.spec, found)
    assert specs["params"] == specs["opt_state"]["mu"] == expected
    assert specs["step"] == PartitionSpec()
    assert specs["carry"] == PartitionSpec(("data", "fsdp"))


def test_put_batch():
    """Rows over data and fsdp, scalars everywhere, values as they were."""
    mesh = sharding.make_mesh(config.Mesh(2, 2, 2))
    batch = data.rows(0, 8, labels={"x": 3}).replace(step=np.int32(5))
    placed = sharding.put_batch(batch, mesh)
    assert placed.tokens_BT.sharding.shard_shape((8, 16)) == (2, 16)
    assert placed.labels["x"].sharding.shard_shape((8,)) == (2,)
    assert placed.step.sharding.is_fully_replicated
    assert placed.tokens_BT.sharding.spec == sharding.batch_shardings(batch, mesh).tokens_BT.spec
    data.assert_equal(jax.tree.map(np.asarray, placed), batch)
