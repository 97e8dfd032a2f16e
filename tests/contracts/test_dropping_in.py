"""The promise of the registries: one new file, one line of a config, and nothing else is touched.

A corruption is written into a folder as one would write it into ``corruptions/``, found by looking
it up by name, held to the laws of the battery, and trained for a step by a one-line override.
"""

from __future__ import annotations

import re
import sys
import textwrap
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from contracts import rows as data
from contracts import test_corruptions as battery

import bert_variants.corruptions
from bert_variants import config, keys, registry
from bert_variants.models import network
from bert_variants.train import optim, step
from bert_variants.train.state import TrainState

FILE = '''
    """Every other token, from a random one on."""

    import jax
    import jax.numpy as jnp

    from bert_variants.ops import masking
    from bert_variants.registry import register


    @register("corruption", gives=())
    def every_other(keys_B, batch, vocab, *, apart: int = 2):
        """Choose each ``apart``-th candidate; all become [MASK]."""
        most = masking.slots(batch.tokens_BT.shape[1], 1 / apart)

        def row(key, tokens_T, maskable_T):
            first = jax.random.randint(key, (), 0, apart)
            chosen_T = maskable_T & (jnp.cumsum(maskable_T) % apart == first)
            chosen_T = chosen_T & (jnp.cumsum(chosen_T) <= most)
            return jnp.where(chosen_T, vocab.mask, tokens_T), chosen_T

        inputs_BT, chosen_BT = jax.vmap(row)(keys_B, batch.tokens_BT, batch.maskable_BT)
        return masking.predict(batch, inputs_BT, chosen_BT, most)
'''


@pytest.fixture
def drop_in(tmp_path, monkeypatch):
    """``drop_in(name, code)``: a file lies where corruptions lie, and nobody has imported it."""
    registry.names("corruption")
    dropped = []

    def drop(name: str, code: str) -> str:
        kept = dict(registry._ENTRIES["corruption"])
        (tmp_path / f"{name}.py").write_text(code, encoding="utf-8")
        folders = [*bert_variants.corruptions.__path__, str(tmp_path)]
        monkeypatch.setattr(bert_variants.corruptions, "__path__", folders)
        monkeypatch.setitem(registry._ENTRIES, "corruption", kept)
        registry._load.cache_clear()
        dropped.append(name)
        return name

    yield drop
    for name in dropped:
        sys.modules.pop(f"bert_variants.corruptions.{name}", None)
    registry._load.cache_clear()


@pytest.fixture
def dropped_in(drop_in):
    return drop_in("every_other", textwrap.dedent(FILE).lstrip())


@pytest.mark.parametrize(
    ("document", "name"), [("README.md", "word_ends"), ("CONTRIBUTING.md", "word_starts")]
)
def test_the_documented_example_passes_the_battery(drop_in, document, name):
    """What people are told to copy is what the tests let through."""
    text = (Path(__file__).parents[2] / document).read_text(encoding="utf-8")
    (code,) = [c for c in re.findall(r"```python\n(.*?)```", text, re.S) if f"def {name}(" in c]
    drop_in(name, code)
    for check in CHECKS:
        check(f"{name}()")
    battery.check_fields(f"{name}()", 16)
    assert f"'{name}(rate=0.2)'" in text


def test_is_found_by_its_name(dropped_in):
    assert dropped_in in registry.names("corruption")
    assert registry.lookup("corruption", "every_other(apart=3)").argument("apart") == 3


CHECKS = [
    battery.check_randomness,
    battery.check_rows_are_independent,
    battery.check_shapes,
    battery.check_budget,
    battery.check_devices,
]


@pytest.mark.parametrize("check", CHECKS, ids=lambda c: c.__name__)
def test_is_covered_by_the_battery(dropped_in, check):
    check("every_other(apart=5)")


@pytest.mark.parametrize("length", [4, 16])
def test_its_fields_are_covered(dropped_in, length):
    battery.check_fields("every_other()", length)


def test_the_battery_catches_a_bad_one(dropped_in):
    """One that looks at its neighbours, and one that touches specials, do not get through."""
    good = registry.lookup("corruption", "every_other")

    @registry.register("corruption", gives=())
    def neighbours(keys_B, batch, vocab):
        """Bad: each row is corrupted with its neighbour's key."""
        return good(jnp.roll(keys_B, 1), batch, vocab)

    @registry.register("corruption", gives=())
    def everywhere(keys_B, batch, vocab):
        """Bad: [CLS], [SEP] and padding are masked too."""
        return good(keys_B, batch.replace(maskable_BT=jnp.ones_like(batch.maskable_BT)), vocab)

    @registry.register("corruption", gives=())
    def forgetful(keys_B, batch, vocab):
        """Bad: always the same mask."""
        return good(jnp.repeat(jax.random.key(0)[None], len(keys_B)), batch, vocab)

    with pytest.raises(AssertionError):
        battery.check_rows_are_independent("neighbours()")
    with pytest.raises(AssertionError):
        battery.check_fields("everywhere()", 16)
    with pytest.raises(AssertionError):
        battery.check_randomness("forgetful()")


def test_one_line_trains_it(dropped_in):
    """``--corruption 'every_other(apart=3)'``, one step, and the loss is that of its positions."""
    experiment = config.Experiment(
        model=data.small("bert", layers=1),
        objectives="mlm",
        data=config.Data(example="single()"),
        run=config.Run(precision="float32", scan="on"),
    )
    experiment = config.set_field(experiment, "corruption", "every_other(apart=3)")
    config.check(experiment)
    assert config.from_dict(config.to_dict(experiment)) == experiment
    net = network.build(experiment, data.VOCAB.size)
    optimizer, schedule = optim.build(experiment.optim, 10)
    call = registry.lookup("corruption", experiment.corruption)
    run = step.make_train_step(
        net.apply,
        lambda row_keys, batch: call(row_keys, batch, data.VOCAB),
        step.objectives_of(experiment),
        optimizer,
        schedule,
        seed=0,
    )
    rows = data.on_device(data.rows(0, 4))
    params = data.random_params(jax.eval_shape(net.init, keys.root(0), rows))
    zero = jnp.int32(0)
    state = TrainState(
        step=jnp.int32(3), params=params, opt_state=optimizer.init(params), skipped=zero
    )
    new, metrics = data.quickly(run)(state, rows)
    maskable = np.asarray(rows.maskable_BT).sum(axis=1)
    assert maskable.sum() // 3 - 4 <= float(metrics["mlm/loss"].weight) <= maskable.sum() // 3 + 4
    assert np.isfinite(metrics["mlm/loss"].value())
    assert any(
        (a != b).any() for a, b in zip(*map(jax.tree.leaves, (new.params, params)), strict=True)
    )
