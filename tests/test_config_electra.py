"""ELECTRA's configs: what was published, the paper's ablations, and training in two stages."""

from __future__ import annotations

import typing

import jax
import pytest
from contracts import test_models as battery

from bert_variants import config, keys, registry
from bert_variants.configs import electra
from bert_variants.models import network
from bert_variants.train import optim
from bert_variants.train.optim import path_name
from bert_variants.train.origins import origins

SIZES = typing.get_args(electra.Size)


def argument(experiment: config.Experiment, name: str, field: str = "model"):
    return registry.lookup(field, config.get_field(experiment, field)).argument(name)


def paths(experiment: config.Experiment) -> dict[str, tuple[int, ...]]:
    net = network.build(experiment, 211)
    shapes = jax.eval_shape(net.init, keys.root(0), battery.batch())
    named = jax.tree_util.tree_leaves_with_path(shapes)
    return {path_name(p): x.shape for p, x in named}


@pytest.mark.parametrize(("length", "rate", "most"), [(128, 0.15, 19), (512, 0.15, 79)])
def test_the_most_that_is_predicted(length, rate, most):
    assert electra.most(length, rate) == most
    assert electra.most(512, 0.25) == 130


@pytest.mark.parametrize(
    ("size", "peak", "batch", "steps", "generator"),
    [
        ("small", 5e-4, 128, 1_000_000, 64),
        ("small++", 5e-4, 128, 4_000_000, 256),
        ("base", 2e-4, 256, 766_000, 256),
        ("large", 2e-4, 2048, 1_750_000, 256),
    ],
)
def test_published_recipes(size, peak, batch, steps, generator):
    """The rate is the product of warm-up and decay: its highest point is below the peak's name."""
    experiment = config.get_config("electra", size=size)
    assert (experiment.run.batch, experiment.run.steps) == (batch, steps)
    schedule = optim.build(experiment.optim, steps)[1]
    assert float(schedule(10_000)) == pytest.approx(peak * (1 - 10_000 / steps), rel=1e-5)
    assert argument(experiment, "generator_width") == generator
    assert argument(experiment, "activation") == "gelu_erf"
    assert argument(experiment, "rate", "corruption") == (0.25 if size == "large" else 0.15)
    assert argument(experiment, "mask", "corruption") == 0.85
    assert argument(experiment, "random", "corruption") == 0
    assert config.objective_terms(experiment.objectives) == (
        (1.0, "mlm()"),
        (50.0, "replaced_token()"),
    )
    optimizer = registry.lookup("optimizer", experiment.optim.optimizer)
    assert optimizer.argument("bias_correction") is False
    assert (experiment.optim.clip, experiment.optim.weight_decay) == (1.0, 0.01)


@pytest.mark.parametrize("variant", typing.get_args(electra.Variant))
@pytest.mark.parametrize("stage", typing.get_args(electra.Stage))
@pytest.mark.parametrize("size", SIZES)
def test_every_combination_is_whole(size, variant, stage):
    experiment = config.get_config("electra", size=size, variant=variant, stage=stage)
    config.check(experiment)
    assert config.from_dict(config.to_dict(experiment)) == experiment


def test_runs_have_folders_of_their_own():
    every = [
        config.get_config("electra", size=size, variant=variant, stage=stage).run.dir
        for size in SIZES
        for variant in typing.get_args(electra.Variant)
        for stage in typing.get_args(electra.Stage)
    ]
    assert len(set(every)) == len(every)


def test_the_second_stage_starts_from_the_first():
    """Every parameter that is not a new head has its origin there, of the same shape; and what the
    first stage trained is what the second one freezes."""
    first, second = (
        config.get_config("electra", size="tiny", stage=s) for s in ("generator", "discriminator")
    )
    assert second.run.init_from == first.run.dir
    theirs, mine = paths(first), paths(second)
    found = origins(mine, second.run.init_map)
    for name, there in found.items():
        assert (there is None) == name.startswith("heads/replaced/"), name
        assert there is None or theirs[there] == mine[name], name
    sources = set(found.values())
    assert "discriminator/encoder/layers/ffn/wide/kernel" not in sources
    assert found["embeddings/norm/scale"] == "generator_embeddings/norm/scale"

    def frozen(experiment: config.Experiment, names) -> set[str]:
        mask = optim.matching(experiment.optim.freeze)(dict.fromkeys(names, 0))
        return {name for name in names if mask[name]}

    trained_first = set(theirs) - frozen(first, theirs)
    assert trained_first == frozen(second, mine)
    assert set(mine) - frozen(second, mine) == {
        name
        for name in mine
        if name.startswith(("embeddings/", "discriminator/", "heads/replaced/"))
    }
