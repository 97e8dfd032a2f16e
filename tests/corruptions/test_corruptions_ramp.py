"""The masking rate over steps: on the straight line, as near as the grid allows."""

from __future__ import annotations

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from contracts import rows as data

from bert_variants import config, registry


@functools.cache
def compiled(call):
    bound = registry.lookup("corruption", call)

    def run(batch):
        row_keys = jax.random.split(jax.random.key(4), batch.tokens_BT.shape[0])
        return bound(row_keys, batch, data.VOCAB)

    return data.quickly(run)


def share(call, batch, step):
    batch = batch.replace(step=None if step is None else jnp.int32(step))
    found = compiled(call)(batch)
    return float(found.weights_BP.sum()) / batch.valid_BT.sum()


@pytest.mark.parametrize("step", [0, 1, 90, 333, 500, 777, 1000, 10**9, None])
@pytest.mark.parametrize(("start", "end"), [(0.3, 0.15), (0.1, 0.4)])
def test_the_realised_rate_follows_the_line(start, end, step):
    call = f"ramp(start={start}, end={end}, steps=1000)"
    batch = data.rows(0, 64, 128, full=True)
    along = 1.0 if step is None else min(step / 1000, 1.0)
    line = start + (end - start) * along
    half_a_level = abs(end - start) / 6 / 2
    half_a_token = 0.5 / 128
    assert abs(share(call, batch, step) - line) <= half_a_level + half_a_token + 1e-6


def test_the_worked_schedule():
    """Three levels over 100 steps change at 25 and 75; 128 tokens lose 38, 26 and 13."""
    call = "ramp(start=0.3, end=0.1, steps=100, levels=3)"
    batch = data.rows(0, 4, 128, full=True)
    found = [round(share(call, batch, step) * 128) for step in (0, 24, 25, 74, 75, 99, 100)]
    assert found == [38, 38, 26, 26, 13, 13, 13]


@pytest.mark.slow
def test_the_rate_is_the_only_difference():
    batch = data.rows(1, 8, 64)
    call = "ramp(part='whole_words(random=0.0)', start=0.3, end=0.1, steps=100, levels=3)"
    made = compiled(call)(batch.replace(step=jnp.int32(50)))
    alone = compiled("whole_words(rate=0.2, random=0.0)")(batch)
    np.testing.assert_array_equal(made.inputs_BT, alone.inputs_BT)
    slots = alone.at_BP.shape[1]
    np.testing.assert_array_equal(made.at_BP[:, :slots], alone.at_BP)
    assert made.at_BP.shape[1] == 20  # of the largest rate, ceil(0.3 * 64)
    assert (np.asarray(made.weights_BP)[:, slots:] == 0).all()


@pytest.mark.parametrize(
    ("call", "says"),
    [
        ("ramp(part='tokns()')", r"in corruption 'ramp'.*Did you mean 'tokens'"),
        ("ramp(part='stages()')", "a parameter 'rate'"),
        ("ramp(part=('tokens()', 'tokens()'))", "expected str"),
        ("ramp(part='tokens(rate=0.2)')", "set by start and end. Leave it out"),
        ("ramp(start=1.5)", "start is 1.5"),
        ("ramp(end=-0.1)", "end is -0.1"),
        ("ramp(steps=0)", "steps is 0"),
        ("ramp(levels=1)", "levels is 1"),
    ],
)
def test_what_is_wrong_is_refused_when_the_config_is_checked(call, says):
    base = config.get_config("bert", size="tiny")
    with pytest.raises(config.ConfigError, match=says):
        config.check(dataclasses.replace(base, corruption=call))
