"""Grids: what they are made of, and what is refused before anything is trained."""

from __future__ import annotations

import dataclasses

import pytest

from bert_variants import config
from bert_variants.ablate import grid as grids
from bert_variants.ablate.grid import Grid

BASE = config.Experiment(
    data=config.Data(example="single()"),
    objectives="mlm",
    run=config.Run(dir="runs/g", steps=100, batch=8),
    evals=config.Evals(pll=2),
)
ARMS = {"tokens": {}, "words": {"corruption": "whole_words(rate=0.15)"}}


def make(arms=ARMS, **fields) -> Grid:
    return Grid(**{"name": "g", "base": BASE, "arms": arms, "baseline": next(iter(arms)), **fields})


def test_cells_are_experiments_of_their_own():
    cells = make(seeds=(3, 5)).cells()
    assert [str(c) for c in cells] == [
        *("tokens/seed-3", "words/seed-3", "tokens/seed-5", "words/seed-5")
    ]
    last = cells[-1].experiment
    assert last.corruption == "whole_words(rate=0.15)"
    assert (last.run.seed, last.run.dir) == (5, "runs/g/cells/words/seed-5")
    assert cells[0].experiment.run.steps == 100


@pytest.mark.parametrize(
    ("path", "value", "expected"),
    [
        ("corruption.rate", 0.3, "tokens(rate=0.3)"),
        ("corruption", "whole_words()", "whole_words()"),
        ("optim.lr", 1, 1.0),
        ("data.copies", 10, 10),
        ("optim.no_decay", ["bias$"], ("bias$",)),
    ],
)
def test_overrides(path, value, expected):
    found = grids.overridden(BASE, path, value)
    field = "corruption" if path.startswith("corruption") else path
    assert config.get_field(found, field) == expected
    assert type(config.get_field(found, field)) is type(expected)


REFUSED = [
    ({"arms": {"tokens": {}}}, "1 arms, expected at least 2"),
    ({"baseline": "token"}, "Did you mean 'tokens'"),
    ({"seeds": ()}, "seeds are"),
    ({"seeds": (1, 1)}, "seeds are"),
    ({"seeds": (-1, 1)}, "seeds are"),
    ({"arms": {"a": {}, "b": {}}}, "a and b are the same experiment"),
    # equal by what they mean, not by how they are written
    ({"arms": {"a": {}, "b": {"corruption": "tokens(mask=0.8)"}}}, "a and b are the same"),
    ({"arms": {"a": {}, "b": {"objectives": "1.0*mlm()"}}}, "are the same"),
    ({"arms": {"a": {}, "A": {"corruption.rate": 0.3}}}, "upper and lower case"),
    ({"arms": {"a": {}, "../b": {"corruption.rate": 0.3}}}, "cannot name a directory"),
    ({"arms": {"a": {}, "b": {"corruption": "tokns()"}}}, "arm b: .*Did you mean 'tokens'"),
    ({"arms": {"a": {}, "b": {"corruption.rat": 0.3}}}, "arm b: .*Did you mean 'rate'"),
    ({"arms": {"a": {}, "b": {"corrupton": "tokens()"}}}, "arm b: .*Did you mean 'corruption'"),
    ({"arms": {"a": {}, "b": {"run.steps.x": 3}}}, "arm b: "),
    ({"arms": {"a": {}, "b": {"optim.lr": "fast"}}}, "arm b: optim.lr is 'fast'"),
    ({"arms": {"a": {}, "b": {"objectives": "mlm + nsp"}}}, "arm b: .*labels.next_sentence"),
    ({"arms": {"a": {}, "b": {"run.seed": 4}}}, "set for each cell"),
    ({"arms": {"a": {}, "b": {"run.dir": "x"}}}, "set for each cell"),
    ({"measures": ("pll/mlm/los",)}, "Did you mean 'pll/mlm/loss'"),
]


@pytest.mark.parametrize(("fields", "says"), REFUSED, ids=[says[:24] for _, says in REFUSED])
def test_refused(fields, says):
    with pytest.raises(config.ConfigError, match=says):
        make(**fields).check()


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("data.source", "synthetic()"),
        ("data.held_out_source", "synthetic()"),
        ("data.held_out", 0.1),
        ("data.tokenizer", "wordpiece(size=999)"),
        ("data.length", 64),
        ("evals.rows", 8),
        ("evals.masks", ["tokens(rate=0.2)"]),
        ("evals.pll", 4),
        ("run.steps", 200),
        ("run.batch", 16),
        ("run.init_from", "runs/other"),
    ],
)
def test_unequal_terms_are_refused(path, value):
    arms = {"a": {}, "b": {path: value, "corruption.rate": 0.3}}
    with pytest.raises(config.ConfigError, match=f"arm b sets {path} .*equal terms"):
        make(arms).check()


def test_equal_tokens_may_be_divided_otherwise():
    arms = {"a": {}, "b": {"run.steps": 50, "run.batch": 16}}
    with pytest.raises(config.ConfigError, match="equal='tokens'"):
        make(arms).check()
    make(arms, equal="tokens").check()
    more = {"a": {}, "b": {"run.steps": 51, "run.batch": 16}}
    with pytest.raises(config.ConfigError, match="sees 816 rows, the base 800"):
        make(more, equal="tokens").check()


TINY = dataclasses.replace(BASE, model="bert(layers=1, width=16, heads=2, ffn=32)")


def test_equal_flops_give_each_arm_its_number_of_steps():
    """Two layers' worth of work a step, half the steps; the head's share is the same for both."""
    arms = {"one": {}, "two": {"model.layers": 2}, "loss": {"corruption.mask": 0.9}}
    found = make(arms, base=TINY, equal="flops")
    found.check()
    steps = {c.arm: c.experiment.run.steps for c in found.cells()}
    one, two = (grids.step_flops(found.arm(arm)) for arm in ("one", "two"))
    assert two > 1.1 * one
    assert steps == {"one": 100, "two": round(100 * one / two), "loss": 100}
    assert abs(steps["two"] * two - 100 * one) <= two / 2


def test_equal_flops_leave_the_steps_to_the_grid():
    arms = {"a": {}, "b": {"run.steps": 50, "corruption.rate": 0.3}}
    with pytest.raises(config.ConfigError, match=r"arm b sets run\.steps, which follow"):
        make(arms, base=TINY, equal="flops").check()


def test_a_grid_that_nothing_can_judge_is_refused():
    blind = dataclasses.replace(BASE, evals=config.Evals(masks=()))
    with pytest.raises(config.ConfigError, match="no probe"):
        make(base=blind).check()
    silent = dataclasses.replace(BASE, data=config.Data(), objectives="nsp")
    with pytest.raises(config.ConfigError, match="no probe"):
        make(base=silent).check()


def test_what_decides_comes_first():
    assert make().judged_by() == (
        *("pll/mlm/loss", "tokens(rate=0.15)/mlm/loss", "whole_words(rate=0.15)/mlm/loss"),
    )
    chosen = make(measures=("tokens(rate=0.15)/mlm/accuracy",))
    chosen.check()
    assert chosen.judged_by() == ("tokens(rate=0.15)/mlm/accuracy",)
    assert grids.lower_is_better("pll/mlm/loss")
    assert not grids.lower_is_better("tokens(rate=0.15)/mlm/accuracy")


@pytest.mark.parametrize("name", grids.shipped())
def test_shipped_grids(name):
    grid = grids.get_grid(name, steps=120)
    grid.check()
    assert grid.claim, "a grid names the paper's claim"
    assert grid.number, "and its number"
    assert grid.compares, "and what can be concluded"
    assert len(grid.seeds) >= 3
    assert grids.load(name).__doc__.count("bert-variants ablate") >= 1
    if grid.equal != "flops":
        assert {c.experiment.run.steps for c in grid.cells()} == {120}
    assert grid.judged_by()[0] == "pll/mlm/loss"


def test_grids_are_no_configs():
    assert not {"ablations", *grids.shipped()} & (set(config.shipped_configs()) - {"albert"})
    assert {"attention", "masking", "rate", "replaced_token"} <= set(grids.shipped())


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("maskng", "Did you mean 'masking'"),
        ("missing.py", "missing.py does not exist"),
        ("_base", "unknown grid '_base'"),
    ],
)
def test_unknown_grids(name, says):
    with pytest.raises(config.ConfigError, match=says):
        grids.load(name)


def test_a_file_without_get_grid(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text("x = 1\n")
    with pytest.raises(config.ConfigError, match="no function get_grid"):
        grids.load(str(path))
    with pytest.raises(config.ConfigError, match=r"takes no 'stps'.*Did you mean 'steps'"):
        grids.get_grid("masking", stps=3)
