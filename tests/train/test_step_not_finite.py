"""A step whose loss or gradient is not finite changes nothing but the count of such steps."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from contracts import rows as data
from train.steps import SMALL, batch, trainer

from bert_variants import registry
from bert_variants.train import step
from bert_variants.train.state import TrainState
from bert_variants.types import Mean, Outputs, Terms


def fragile(apply):
    """A model whose logits are added a number that each row brings along.

    ``value_B`` is added as it is; ``slope_B`` changes the gradient alone, beyond float32.
    """

    def run(params, rows, **options):
        outputs = apply(params, rows, **options)
        steep = rows.extras["slope_B"][:, None, None] * outputs.token_logits_BPV
        added = rows.extras["value_B"][:, None, None] + steep - jax.lax.stop_gradient(steep)
        return dataclasses.replace(outputs, token_logits_BPV=outputs.token_logits_BPV + added)

    return run


def with_poison(name: str = "value_B", value: float = 0.0):
    """A batch of which the sixth row carries poison."""
    poison = {"value_B": np.zeros(16, np.float32), "slope_B": np.zeros(16, np.float32)}
    poison[name][5] = value
    return batch(4).replace(extras=poison)


POISONS = [("value_B", np.nan), ("value_B", np.inf), ("slope_B", 1e37), ("slope_B", np.nan)]


def fragile_trainer(shape=(1, 1, 1)):
    return trainer(shape, model=SMALL, wrap=fragile, optimizer=optax.scale_by_adam)


@pytest.mark.parametrize(("name", "value"), POISONS)
@pytest.mark.parametrize("shape", [(1, 1, 1), (8, 1, 1)], ids=["1x1x1", "8x1x1"])
def test_skips_what_is_not_finite_and_recovers(name, value, shape):
    """One bad row of one of the devices: nothing changes but the step and the count."""
    made = fragile_trainer(shape)
    state, _ = made.run(with_poison())
    assert int(state.skipped) == 0
    for count in (1, 2):
        skipped, metrics = made.run(with_poison(name, value), state)
        data.assert_equal(skipped.params, state.params)
        data.assert_equal(skipped.opt_state, state.opt_state)
        assert int(skipped.step) == int(state.step) + 1
        assert int(skipped.skipped) == count == int(metrics["skipped"].total)
        state = skipped
    healthy, _ = made.run(with_poison(), state)
    assert int(healthy.skipped) == 0
    for path, leaf in data.leaves(healthy.params).items():
        assert np.isfinite(leaf).all(), path
        assert (leaf != data.leaves(state.params)[path]).any(), path


def test_a_bad_gradient_may_come_with_a_finite_loss():
    """So that the test above tests the gradient's check and not the loss's alone."""
    _, metrics = fragile_trainer().run(with_poison("slope_B", 1e37))
    assert np.isfinite(metrics["mlm/loss"].total)
    assert not np.isfinite(metrics["gradient_norm"].total)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_bad_loss_may_come_with_a_finite_gradient(value):
    """The other way round: what is not finite does not depend on the parameters."""

    def off(outputs, rows):
        total = jnp.sum(outputs.hidden_BTD) + value
        return Terms(loss=Mean(total=total, weight=jnp.float32(1)))

    run = step.make_train_step(
        lambda params, rows, **options: Outputs(hidden_BTD=params["w"][None, None, None]),
        lambda row_keys, rows: registry.lookup("corruption", "tokens")(row_keys, rows, data.VOCAB),
        [step.Weighted("off", 1.0, off)],
        optax.scale_by_adam(),
        lambda step: jnp.float32(1),
        seed=0,
    )
    params = {"w": jnp.float32(2.0)}
    state = TrainState(
        step=jnp.int32(0),
        params=params,
        opt_state=optax.scale_by_adam().init(params),
        skipped=jnp.int32(4),
    )
    new, metrics = jax.jit(run)(state, data.on_device(data.rows(0, 4)))
    assert float(metrics["gradient_norm"].value()) == 1
    assert int(new.skipped) == 5
    data.assert_equal((new.params, new.opt_state), (state.params, state.opt_state))
