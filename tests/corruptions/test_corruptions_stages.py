"""Schedules: which part is in force at which step, one shape for all, and what is refused early."""

from __future__ import annotations

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from contracts import lowering
from contracts import rows as data
from contracts.test_corruptions import COLLECTIVES

from bert_variants import config, registry
from bert_variants.train import sharding

PARTS = ("tokens(rate=0.1)", "units(rate=0.15)", "whole_words(rate=0.3)")
CALL = registry.write("stages", {"parts": PARTS, "until": (10, 20)})


@functools.cache
def compiled(call):
    bound = registry.lookup("corruption", call)

    def run(batch):
        row_keys = jax.random.split(jax.random.key(3), batch.tokens_BT.shape[0])
        return bound(row_keys, batch, data.VOCAB)

    return data.quickly(run)


def at_step(call, batch, step):
    """With the same row keys at every step, so that the part alone makes the difference."""
    batch = batch.replace(step=None if step is None else jnp.int32(step))
    return jax.tree.map(np.asarray, compiled(call)(batch))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("step", "part"), [(0, 0), (9, 0), (10, 1), (19, 1), (20, 2), (10**9, 2), (None, 2)]
)
def test_the_part_whose_turn_it_is(step, part):
    batch = data.rows(0, 16, 48)
    found, alone = at_step(CALL, batch, step), at_step(PARTS[part], batch, None)
    np.testing.assert_array_equal(found.inputs_BT, alone.inputs_BT)
    slots = alone.at_BP.shape[1]
    for name in ("at_BP", "targets_BP", "weights_BP"):
        values, expected = getattr(found, name), getattr(alone, name)
        np.testing.assert_array_equal(values[:, :slots], expected)
        assert (values[:, slots:] == 0).all()
    for name, nothing in (("left_BP", -1), ("right_BP", -1), ("offset_BP", 0)):
        values, expected = getattr(found, name), getattr(alone, name)
        if expected is None:
            assert (values == nothing).all()
        else:
            np.testing.assert_array_equal(values[:, :slots], expected)
            assert (values[:, slots:] == nothing).all()


def test_the_shape_is_that_of_the_largest_part():
    batch = data.rows(0, 16, 48)
    largest = max(at_step(part, batch, None).at_BP.shape[1] for part in PARTS)
    for step in (None, 0, 15, 25):
        assert at_step(CALL, batch, step).at_BP.shape == (16, largest)
    shapes = [jax.tree.map(np.shape, at_step(CALL, batch, step)) for step in (0, 15, 25)]
    assert shapes[0] == shapes[1] == shapes[2]


def test_moved_tokens_are_none_in_the_other_stages():
    call = registry.write("stages", {"parts": ("shuffle()", "tokens()"), "until": (5,)})
    batch = data.rows(1, 16, 48, full=True)
    assert at_step(call, batch, 0).moved_BT.any()
    later = at_step(call, batch, 5).moved_BT
    assert later.dtype == bool
    assert not later.any()


def test_it_gives_what_all_parts_give_and_needs_what_any_needs():
    spans = ("left_BP", "offset_BP", "right_BP")

    def traits(*parts):
        until = tuple(range(1, len(parts)))
        call = registry.write("stages", {"parts": parts, "until": until})
        found = registry.lookup("corruption", call).traits
        return found["gives"], found["needs"]

    assert traits("tokens()", "units()") == ((), ("data.units",))
    assert traits("whole_words()", "units()") == (spans, ("data.units",))
    assert traits("whole_words()") == (spans, ())
    inside = registry.write("stages", {"parts": ("units()", "whole_words()"), "until": (3,)})
    assert traits("whole_words()", inside) == (spans, ("data.units",))
    assert registry.lookup("corruption", "ramp(part='shuffle()')").traits["gives"] == ("moved_BT",)
    assert traits("shuffle()", "ramp(part='units()')") == ((), ("data.units",))


def checked(corruption, objectives="mlm"):
    base = config.get_config("bert", size="tiny")
    base = dataclasses.replace(base, objectives=objectives)
    config.check(dataclasses.replace(base, corruption=corruption))


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"parts": ("tokns()", "tokens()")}, r"in corruption 'stages'.*Did you mean 'tokens'"),
        ({"parts": ("tokens()", "tokens(rat=0.1)")}, "Did you mean 'rate'"),
        ({"parts": ("tokens()", "ramp(part='tokns()')")}, r"'stages': in corruption 'ramp'.*tokns"),
        ({"parts": ("tokens()", "tokens(")}, "cannot read"),
        ({"parts": "tokens()", "until": ()}, "expected one fewer"),
        ({"parts": (), "until": ()}, "expected call-strings"),
        ({"parts": ("tokens()", 3)}, "expected call-strings"),
        ({"parts": 3}, "expected call-strings"),
        ({"until": (10, 20)}, "2 numbers of steps in until, expected one fewer"),
        ({"until": ()}, "0 numbers of steps"),
        ({"until": (0,)}, "ascending numbers of steps above 0"),
        ({"until": (0.3,)}, "ascending numbers of steps above 0"),
        ({"until": 10}, "ascending numbers of steps above 0"),
        ({"parts": ("tokens()",) * 3, "until": (20, 10)}, "ascending"),
        ({"parts": ("tokens()",) * 3, "until": (10, 10)}, "ascending"),
    ],
)
def test_what_is_wrong_is_refused_when_the_config_is_checked(arguments, says):
    with pytest.raises(config.ConfigError, match=says):
        checked(registry.write("stages", arguments))


def test_an_objective_must_find_its_fields_in_every_stage():
    both = registry.write("stages", {"parts": ("whole_words()", "whole_words(rate=0.3)")})
    checked(both, "mlm + span_boundary")
    one = registry.write("stages", {"parts": ("tokens()", "whole_words()")})
    with pytest.raises(config.ConfigError, match="needs left_BP"):
        checked(one, "mlm + span_boundary")


@pytest.mark.slow
def test_devices_do_not_talk_about_the_stage():
    batch = data.rows(2, 16, 16).replace(step=np.int32(15))
    mesh = sharding.make_mesh(config.Mesh(data=4, fsdp=2))
    placed = sharding.put_batch(batch, mesh)
    bound = registry.lookup("corruption", CALL)

    def run(row_keys, batch):
        return bound(row_keys, batch, data.VOCAB)

    row_keys = jax.random.split(jax.random.key(3), 16)
    spread_keys = jax.device_put(row_keys, jax.NamedSharding(mesh, sharding.ROWS))
    with jax.set_mesh(mesh):
        program = jax.jit(run).lower(spread_keys, placed).compile()
        spread = jax.tree.map(np.asarray, program(spread_keys, placed))
    assert COLLECTIVES.search(program.as_text()) is None
    data.assert_equal(spread, jax.tree.map(np.asarray, jax.jit(run)(row_keys, batch)))


def test_the_train_step_lowers_with_a_schedule_in_microbatches():
    experiment = config.get_config("bert", size="tiny")
    corruption = registry.write("stages", {"parts": ("shuffle()", "ramp()"), "until": (5,)})
    experiment = dataclasses.replace(
        experiment,
        corruption=corruption,
        run=dataclasses.replace(experiment.run, batch=16, microbatches=2),
    )
    lowered = lowering.lower(experiment, lowering.abstract_mesh(2, 2, 2), platform="cpu")
    assert "stablehlo.case" in lowered.text
