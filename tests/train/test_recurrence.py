"""A memory that goes from batch to batch: through meshes, windows, evaluation, kill and resume.

The toy model says which rows it saw before, so that what it has to say is known from the pipeline.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import recurrent_runs as recurrent
import tiny_runs as tiny
from contracts import rows as data
from train.steps import keep_gradient
from train.test_resume import meta_of
from train.test_two_processes import pair

import bert_variants as bv
from bert_variants import config
from bert_variants.commands import evaluate as evaluate_verb
from bert_variants.models import network
from bert_variants.plan import abstract, memory, summary
from bert_variants.text import sharding as text_sharding
from bert_variants.text.pipeline import Position
from bert_variants.text.prepare import prepare
from bert_variants.text.store import Store
from bert_variants.train import begin, checkpoint, fixed, loop, record, resume, setup, step
from bert_variants.train.errors import ResumeRefusedError
from bert_variants.train.meta import Meta
from bert_variants.train.setup import Setup
from bert_variants.train.state import TrainState
from bert_variants.types import Mean, Outputs, Terms

MESHES = {"8x1x1": config.Mesh(8, 1, 1), "2x2x2": config.Mesh(2, 2, 2)}


@pytest.fixture(scope="module", autouse=True)
def _toy() -> Iterator[None]:
    with recurrent.registered(), recurrent.small_windows():
        yield


@pytest.fixture(scope="module")
def streams(base: Path) -> Store:
    """The tiny text in many shards, so that there are several windows."""
    with mock.patch.object(text_sharding, "SHARD_TOKENS", 150):
        return prepare(recurrent.experiment(base, "none").data)


def made(base: Path, streams: Store, mesh: str = "8x1x1", **fields: Any) -> Setup:
    experiment = recurrent.experiment(base, "none", **fields)
    return setup.make(dataclasses.replace(experiment, mesh=MESHES[mesh]), streams)


@pytest.fixture(scope="module")
def toy(base: Path, streams: Store, compiled: Path) -> Setup:
    return made(base, streams)


@pytest.fixture(scope="module")
def whole(toy: Setup, base: Path) -> Path:
    """The directory of a run that nothing interrupted."""
    there = tiny.at(toy, base / "recurrent", keep=100)
    assert loop.train(there, loop.Silent()).exit_code == 0
    return base / "recurrent"


class Cut(Exception):
    """Dies here."""


def watched(ready: Setup, last: int = 0) -> tuple[Setup, list[np.ndarray]]:
    """A set-up that writes down the memory after each step, and dies behind step ``last``."""
    seen: list[np.ndarray] = []

    def a_step(state: TrainState, batch: Any) -> Any:
        if last and int(state.step) == last:
            raise Cut
        state, metrics = ready.train_step(state, batch)
        seen.append(np.asarray(state.carry["seen"]))
        return state, metrics

    return dataclasses.replace(ready, train_step=a_step), seen


def expected(ready: Setup, steps: int) -> list[np.ndarray]:
    """What the memory has to be after each step, from the rows alone."""
    found, seen = [], np.zeros((recurrent.BATCH, recurrent.HISTORY), np.uint32)
    position = Position()
    for _ in range(steps):
        batch, position = ready.rows.batch(position)
        seen = recurrent.remembered(seen, batch)
        found.append(seen)
    return found


def leaves(run: Path, at: int = tiny.STEPS) -> dict[str, Any]:
    return dict(Meta.of(run / checkpoint.FOLDER / str(at)).leaves)


def lines(run: Path) -> list[dict[str, Any]]:
    return [record.reproducible(line) for line in record.read(run)]


# ---- training


def test_the_rows_are_such_that_they_tell(toy: Setup) -> None:
    """Several windows and epochs within a run; places go on, and begin anew, in it."""
    assert toy.rows.windows >= 2
    batch, position, goes_on = None, Position(), []
    for _ in range(tiny.STEPS):
        batch, position = toy.rows.batch(position)
        goes_on.append(int(batch.labels["continues"].sum()))
    assert position.epoch >= 2
    assert set(goes_on) == {0, recurrent.BATCH}
    assert goes_on[recurrent.SAVE] == recurrent.BATCH  # where runs go on, in the middle of places
    assert tiny.STEPS / 4 < goes_on.count(recurrent.BATCH) < tiny.STEPS - 3


@pytest.mark.parametrize(("mesh", "parts"), [("8x1x1", 2), ("2x2x2", 2)])
def test_each_place_remembers_the_rows_that_it_saw(
    base: Path, streams: Store, compiled: Path, whole: Path, mesh: str, parts: int
) -> None:
    """On every mesh, also in parts; and as the loss depends on the memory, losses agree."""
    ready = made(base, streams, mesh, microbatches=parts)
    mean = ready.abstract_state.carry["mean"]
    ways = ready.mesh.shape["data"] * ready.mesh.shape["fsdp"]
    assert mean.sharding.shard_shape(mean.shape) == (recurrent.BATCH // ways, 8)
    state, position, losses = ready.init_state(), Position(), []
    for seen in expected(ready, 12):
        batch, position = ready.rows.batch(position)
        state, metrics = ready.train_step(state, ready.put_batch(batch))
        np.testing.assert_array_equal(state.carry["seen"], seen)
        losses.append(float(metrics["mlm/loss"].value()))
    told = [line["loss"] for line in lines(whole) if line["kind"] == "train"]
    np.testing.assert_allclose(losses, told[:12], rtol=1e-5)


def test_a_memory_that_is_not_finite_is_not_kept() -> None:
    """The loss is finite, but every later one would not be: the step is skipped."""

    def apply(params: Any, rows: Any, *, train: bool = False, key: Any = None) -> Outputs:
        return Outputs(hidden_BTD=params["w"] * jnp.ones((4, 16, 1)), carry=rows.carry / 0)

    def size(outputs: Outputs, rows: Any) -> Terms:
        return Terms(loss=Mean(total=jnp.sum(outputs.hidden_BTD), weight=jnp.float32(1)))

    run = step.make_train_step(
        apply,
        setup.bind("tokens()", data.VOCAB),
        [step.Weighted("size", 1.0, size)],
        keep_gradient(),
        lambda step: jnp.float32(1),
        seed=0,
    )
    params = {"w": jnp.float32(2.0)}
    state = TrainState(
        step=jnp.int32(0),
        params=params,
        opt_state=params,
        skipped=jnp.int32(0),
        carry=jnp.ones((4, 3)),
    )
    new, metrics = jax.jit(run)(state, data.on_device(data.rows(0, 4)))
    assert np.isfinite(metrics["gradient_norm"].value())
    assert int(new.skipped) == 1
    np.testing.assert_array_equal(new.carry, state.carry)


# ---- checkpoint and resume


def test_the_checkpoint_holds_the_memory(toy: Setup, whole: Path) -> None:
    held = leaves(whole)
    assert held["carry/seen"]["shape"] == [recurrent.BATCH, recurrent.HISTORY]
    assert set(held) == set(Meta.of(whole / checkpoint.FOLDER / str(recurrent.SAVE)).leaves)
    assert held["carry/seen"] != leaves(whole, recurrent.SAVE)["carry/seen"]


def test_a_run_that_was_cut_off_is_bitwise_the_whole_run(
    toy: Setup, whole: Path, tmp_path: Path
) -> None:
    """Cut in the middle of a window and of a save interval."""
    there = tiny.at(toy, tmp_path / "cut", keep=100)
    first, before = watched(there, last=14)
    with pytest.raises(Cut):
        loop.train(first, loop.Silent())
    again, after = watched(there)
    assert loop.train(again, loop.Silent()).exit_code == 0
    history = expected(toy, tiny.STEPS)
    np.testing.assert_array_equal(before, history[:14])
    np.testing.assert_array_equal(after, history[recurrent.SAVE :])
    assert leaves(tmp_path / "cut") == leaves(whole)
    assert lines(tmp_path / "cut") == lines(whole)


@pytest.mark.slow
def test_a_run_goes_on_on_another_mesh(
    base: Path, streams: Store, toy: Setup, whole: Path, tmp_path: Path
) -> None:
    there = tiny.at(toy, tmp_path / "moved", keep=100)
    with pytest.raises(Cut):
        loop.train(watched(there, last=14)[0], loop.Silent())
    other, after = watched(tiny.at(made(base, streams, "2x2x2"), tmp_path / "moved", keep=100))
    assert loop.train(other, loop.Silent()).exit_code == 0
    np.testing.assert_array_equal(after, expected(toy, tiny.STEPS)[recurrent.SAVE :])
    assert leaves(tmp_path / "moved")["carry/seen"] == leaves(whole)["carry/seen"]
    ours, theirs = lines(tmp_path / "moved"), lines(whole)
    assert ours[-1]["held_out/loss"] == pytest.approx(theirs[-1]["held_out/loss"], rel=1e-4)


def test_another_batch_is_refused(base: Path, streams: Store, toy: Setup, whole: Path) -> None:
    """Also where it is allowed by name: there is no memory for other rows."""
    experiment = tiny.at(toy, whole).experiment
    other = config.set_field(experiment, "run.batch", 8)
    other = config.set_field(other, "run.allow_change", ("run.batch",))
    with pytest.raises(ResumeRefusedError, match=r"16 rows of a batch.*run\.batch is 8 now"):
        loop.train(setup.make(other, streams), loop.Silent())


def test_another_batch_is_another_order_of_streams(toy: Setup, ready: Setup) -> None:
    found = {"run.batch": (16, 8)}
    assert resume.order_changed(found, toy.experiment)
    assert not resume.order_changed(found, ready.experiment)
    assert resume.order_changed({"data.length": (16, 8)}, ready.experiment)


def test_where_the_data_jumps_the_memory_begins_empty(toy: Setup) -> None:
    """As after a roll-back, which passes over the rows of the bad steps."""
    state = toy.init_state()
    full = dataclasses.replace(state, carry=jax.tree.map(lambda x: x + 1, state.carry))
    meta = meta_of(toy, position=int(Position(0, 16)))
    same = begin.restored(toy, full, meta, Position(0, 16)).state
    data.assert_equal(same.carry, full.carry)
    jumped = begin.restored(toy, full, meta, Position(0, 32)).state
    data.assert_equal(jumped.carry, state.carry)
    assert jumped.carry["mean"].sharding == toy.abstract_state.carry["mean"].sharding
    data.assert_equal(jumped.params, full.params)


def test_parameters_may_be_taken_from_a_run_with_a_memory(
    toy: Setup, whole: Path, tmp_path: Path
) -> None:
    start = begin.from_start(
        tiny.at(toy, tmp_path / "new", init_from=str(whole)), [], lambda note: None
    )
    data.assert_equal(start.state.carry, toy.network.carry(recurrent.BATCH))
    theirs = checkpoint.load(whole).params
    data.assert_equal(jax.tree.map(np.asarray, start.state.params), theirs)


# ---- evaluation


def test_evaluation_has_a_memory_of_its_own(toy: Setup) -> None:
    """It goes through the rows of the probe in lanes, from an empty memory on every call."""
    (probe,) = toy.probes
    params = toy.init_state().params
    host = list(fixed.rows_of(toy.experiment, toy.store, "stream()").fixed(24))
    assert len(host) >= 3
    assert max(int(b.labels["continues"].sum()) for b in host) > 0
    for _ in range(2):
        kept, seen = probe.memory(), np.zeros((8, recurrent.HISTORY), np.uint32)
        for batch, rows in zip(probe.batches(), host, strict=True):
            _, kept = probe.step(params, batch, kept)
            seen = recurrent.remembered(seen, rows)
            np.testing.assert_array_equal(kept["seen"], seen)


def test_evaluation_is_judged_with_the_memory(toy: Setup) -> None:
    params = toy.init_state().params
    found = toy.evaluate(params)
    assert found == toy.evaluate(params)
    (probe,) = toy.probes
    forgetful = lambda params, batch, kept: probe.step(params, batch, probe.memory())  # noqa: E731
    without = dataclasses.replace(probe, step=forgetful)
    alone = dataclasses.replace(toy, probes=(without,)).evaluate(params)
    assert alone["held_out/mlm/loss"] != pytest.approx(found["held_out/mlm/loss"], rel=1e-4)


def test_evaluating_does_not_touch_the_training(toy: Setup, whole: Path, tmp_path: Path) -> None:
    often = tiny.at(toy, tmp_path / "often", eval_every=1, keep=100)
    assert loop.train(often, loop.Silent()).exit_code == 0
    assert leaves(tmp_path / "often") == leaves(whole)


def test_a_run_is_loaded_and_judged(whole: Path, capsys: pytest.CaptureFixture[str]) -> None:
    loaded = bv.load(whole)
    assert loaded.step == tiny.STEPS
    assert loaded(np.full((2, 5), 7)).hidden_BTD.shape == (2, 5, 8)
    assert evaluate_verb.main(evaluate_verb.Options(str(whole), json=True)) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["held_out/loss"] == lines(whole)[-1]["held_out/loss"]


# ---- without streams, and the plan


@pytest.mark.slow
def test_rows_in_random_order_leave_nothing_to_remember(
    base: Path, streams: Store, compiled: Path
) -> None:
    """The toy hands on a memory whatever it is given; nothing is made of it."""
    experiment = recurrent.experiment(base, "none")
    experiment = config.set_field(experiment, "data.example", "single()")
    ready = setup.make(experiment, streams)
    assert ready.abstract_state.carry is None
    batch, _ = ready.rows.batch(Position())
    state, _ = ready.train_step(ready.init_state(), ready.put_batch(batch))
    assert state.carry is None
    assert np.isfinite(ready.evaluate(state.params)["held_out/loss"])


def test_the_plan_tells_of_the_memory(base: Path) -> None:
    experiment = recurrent.experiment(base, "none")
    found = abstract.of(experiment, 100)
    carry = recurrent.BATCH * (recurrent.HISTORY + 8) * 4
    mesh = memory.mesh_of(found, 8)
    needs = memory.of(found, mesh)
    assert needs.memory == 2 * carry // 8
    plain = config.set_field(experiment, "data.example", "single()")
    forgets = memory.of(abstract.of(plain, 100), mesh)
    assert forgets.memory == 0
    assert needs.checkpoint - forgets.checkpoint == carry
    told = summary.render(summary.summary(experiment, 8, 100))
    assert "recurrence  each row's memory goes on" in told
    assert "memory 224 B" in told
    none = summary._recurrence(plain, abstract.of(plain, 100))
    assert none.startswith("none: rows of single() come in random order")
    bert = tiny.experiment(base, "none")
    assert summary._recurrence(bert, abstract.of(bert)) == ""


def test_a_model_without_memory_has_none(base: Path) -> None:
    streamed = config.set_field(tiny.experiment(base, "none"), "data.example", "stream()")
    net = network.build(dataclasses.replace(streamed, objectives="mlm"), 100)
    assert net.carry(4) is None
    assert setup.memory(net, "stream()", 4) is None


# ---- real processes


@pytest.mark.slow
def test_a_killed_run_is_bitwise_the_whole_run(base: Path, whole: Path) -> None:
    code, output = tiny.ended(recurrent.start(base, "recurrent_killed", "kill@14", keep=100))
    assert code == -9, output
    code, output = tiny.ended(recurrent.start(base, "recurrent_killed", keep=100))
    assert code == 0, output
    assert leaves(base / "recurrent_killed") == leaves(whole)
    assert lines(base / "recurrent_killed") == lines(whole)


@pytest.mark.slow
def test_two_processes_keep_their_lanes(base: Path, whole: Path) -> None:
    with mock.patch.object(tiny, "__file__", recurrent.__file__):
        assert [code for code, _ in pair(base, "recurrent_pair", "term1@13", keep=100)] == [75, 75]
        ends = pair(base, "recurrent_pair", keep=100)
    assert [code for code, _ in ends] == [0, 0], ends
    assert leaves(base / "recurrent_pair")["carry/seen"] == leaves(whole)["carry/seen"]
