"""What every shipped config keeps to, at every size. A new file in configs/ is covered at once."""

from __future__ import annotations

import inspect
import json
import typing

import jax
import pytest
from contracts import lowering

from bert_variants import config, registry
from bert_variants.models import network
from bert_variants.train import sharding


def arguments(name: str) -> list[dict[str, str]]:
    """A config's sizes, from the annotation of its argument; one call without where it has none."""
    function = config.config_module(name).get_config
    if "size" not in inspect.signature(function).parameters:
        return [{}]
    hint = typing.get_type_hints(function)["size"]
    return [{"size": size} for size in typing.get_args(hint)]


CASES = [
    pytest.param(name, kwargs, id="-".join([name, *kwargs.values()]))
    for name in config.shipped_configs()
    for kwargs in arguments(name)
]
every = pytest.mark.parametrize(("name", "kwargs"), CASES)
# Seconds each: the default suite lowers those that differ most, one network, two, and two streams
# over a memory, at size base.
BY_DEFAULT = ("bert-base", "electra-base", "xlnet-base")
LOWERED = [
    pytest.param(
        *case.values,
        id=case.id,
        marks=[] if case.id in BY_DEFAULT else pytest.mark.slow,
    )
    for case in CASES
]


@every
def test_loads_and_is_whole(name, kwargs):
    experiment = config.get_config(name, **kwargs)
    assert isinstance(experiment, config.Experiment)
    config.check(experiment)
    assert experiment.name
    assert config.config_module(name).__doc__, "a config says which paper it is and how to run it"


@every
def test_round_trips(name, kwargs):
    experiment = config.get_config(name, **kwargs)
    stored = json.dumps(config.to_dict(experiment))
    assert config.from_dict(json.loads(stored)) == experiment
    assert config.differences(experiment, config.from_dict(json.loads(stored))) == {}


@every
def test_call_strings_are_whole(name, kwargs):
    """What stands in a checkpoint's metadata reads back as the same call."""
    experiment = config.get_config(name, **kwargs)
    for path, family in config.call_fields().items():
        calls = config.get_field(experiment, path)
        for call in (calls,) if isinstance(calls, str) else calls:
            if call:
                found = registry.lookup(family, call)
                assert registry.lookup(family, str(found)) == found


@pytest.mark.parametrize(("name", "kwargs"), LOWERED)
def test_step_lowers_at_full_size(name, kwargs):
    """For 32 TPU cores that are not there; every leaf of the state has its place."""
    experiment = config.get_config(name, **kwargs)
    mesh = lowering.abstract_mesh(4, 4, 2)
    rows = 32 * experiment.run.microbatches
    experiment = config.set_field(experiment, "run.batch", rows)
    lowered = lowering.lower(experiment, mesh)
    assert "stablehlo.dot_general" in lowered.text
    assert "sdy.sharding" in lowered.text or "mhlo.sharding" in lowered.text
    state_bytes = shard_bytes = 0
    for leaf, where in zip(
        jax.tree.leaves(lowered.state), jax.tree.leaves(lowered.placed), strict=True
    ):
        state_bytes += leaf.size
        shard = where.shard_shape(leaf.shape)
        size = 1
        for side in shard:
            size *= side
        shard_bytes += size
    # fsdp and tensor split nearly all of it eight ways
    assert shard_bytes < state_bytes / 5


def test_full_size_has_a_length_that_the_model_takes():
    for case in CASES:
        name, kwargs = case.values
        experiment = config.get_config(name, **kwargs)
        positions = registry.lookup("model", experiment.model).entry.parameters
        if "positions" in positions:
            call = registry.lookup("model", experiment.model)
            assert experiment.data.length <= call.argument("positions")


def test_abstract_and_real_meshes_place_alike():
    """The eight fake devices of the other tests and the abstract mesh use the same table."""
    experiment = config.get_config("bert", size="tiny")
    experiment = config.set_field(experiment, "run.batch", 8)
    abstract = lowering.lower(experiment, lowering.abstract_mesh(2, 2, 2), platform="cpu")
    real = sharding.make_mesh(config.Mesh(2, 2, 2))
    rules = network.build(experiment, lowering.VOCAB.size).rules
    placed = sharding.shardings(abstract.state, real, rules)
    specs = [jax.tree.map(lambda s: s.spec, p) for p in (abstract.placed, placed)]
    assert specs[0] == specs[1]


def test_what_is_lowered_by_default_is_there():
    assert set(BY_DEFAULT) <= {case.id for case in CASES}
