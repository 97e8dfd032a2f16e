"""Killed, stopped, poisoned: a run goes on bit for bit, or says clearly why not."""

from __future__ import annotations

import dataclasses
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import pytest
import tiny_runs as tiny

from bert_variants.text.pipeline import Position
from bert_variants.train import (
    branches,
    checkpoint,
    loop,
    manifest,
    optim,
    record,
    restore,
    setup,
    step,
)
from bert_variants.train.errors import CheckpointError, DivergedError, RunDirError
from bert_variants.train.meta import Meta
from bert_variants.train.setup import Setup


def last(run_dir: Path) -> Meta:
    """The metadata of a run's last checkpoint; its digests are those of every array's bits."""
    folder = run_dir / checkpoint.FOLDER
    return Meta.of(folder / str(manifest.steps(folder)[-1]))


def assert_same_run(one: Path, other: Path) -> None:
    """Bitwise equal state, position and held-out results, and the same lines of metrics."""
    a, b = last(one), last(other)
    assert a.step == b.step == tiny.STEPS
    assert a.leaves == b.leaves
    assert (a.position, a.tokens, a.held_out) == (b.position, b.tokens, b.held_out)
    lines = [[record.reproducible(line) for line in record.read(run)] for run in (one, other)]
    assert lines[0] == lines[1]
    assert len(lines[0]) == tiny.STEPS + 2  # 30 steps, evaluations at 15 and 30


@pytest.mark.slow
def test_killed_three_times_and_stopped_once_is_bitwise_the_same(
    base: Path, ready: Setup, reference: Path
) -> None:
    run, folder = "killed", base / "killed" / checkpoint.FOLDER
    # in epoch 0, while step 10 is being written: nothing of it may count
    code, output = tiny.ended(tiny.start(base, run, "kill_save@10"))
    assert code == -signal.SIGKILL, output
    assert manifest.steps(folder) == []
    assert list(folder.glob(f"*{manifest.UNFINISHED}*"))
    # from nothing again; between the commit of step 20, at an epoch's edge, and its manifest
    code, output = tiny.ended(tiny.start(base, run, "kill_list@20"))
    assert code == -signal.SIGKILL, output
    assert "did not end in order" in output
    assert not list(folder.glob(f"*{manifest.UNFINISHED}*"))
    assert not (folder / "20" / manifest.NAME).exists()
    assert Meta.of(folder / "20").position == 2 << 40
    # twice in a row from that checkpoint, in epoch 2: killed, then told to stop
    code, output = tiny.ended(tiny.start(base, run, "kill@24"))
    assert code == -signal.SIGKILL, output
    assert "from its own step 20" in output
    assert manifest.verify(folder / "20")
    assert record.read(base / run)[-1]["step"] == 24
    code, output = tiny.ended(tiny.start(base, run, "term@23"))
    assert code == 75, output
    assert last(base / run).step in (24, 25)
    # and to the end, in this process
    assert loop.train(tiny.at(ready, base / run), loop.Silent()).exit_code == 0
    assert_same_run(base / run, reference)
    assert not (base / run / "lock").read_bytes()


@pytest.mark.slow
def test_killed_at_random_moments(base: Path, reference: Path) -> None:
    run, choose, reached = "random", random.Random(4), set()

    def newest() -> int:
        return max(manifest.steps(base / run / checkpoint.FOLDER), default=0)

    for _ in range(8):
        before = newest()
        process = tiny.start(base, run, save_every=3, eval_every=15)
        while process.poll() is None and newest() == before:
            time.sleep(0.002)
        time.sleep(choose.uniform(0.0, 0.1))  # about two saves
        process.send_signal(signal.SIGKILL)
        assert tiny.ended(process)[0] in (-signal.SIGKILL, 0)
        reached.add(newest())
    assert len(reached) >= 2, reached
    assert tiny.ended(tiny.start(base, run, save_every=3, eval_every=15))[0] == 0
    assert_same_run(base / run, reference)


# ---- damaged checkpoints


def opened(ready: Setup, run_dir: Path) -> checkpoint.Checkpoints:
    return checkpoint.Checkpoints(run_dir, ready.abstract_state, keep=100, keep_every=0)


def copied(reference: Path, tmp_path: Path, *, listed: bool = True) -> Path:
    """Checkpoints 10 and 20 of the reference, in a run directory of their own."""
    run = tmp_path / "run"
    for name in ("10", "20"):
        shutil.copytree(reference / checkpoint.FOLDER / name, run / checkpoint.FOLDER / name)
        if not listed:
            (run / checkpoint.FOLDER / name / manifest.NAME).unlink()
    return run


def flip(path: Path, at: float = 0.5) -> None:
    data = bytearray(path.read_bytes())
    data[int(len(data) * at)] ^= 4
    path.write_bytes(data)


def files_of(reference: Path, step: int) -> list[str]:
    folder = reference / checkpoint.FOLDER / str(step)
    found = [p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()]
    return sorted(name for name in found if (folder / name).stat().st_size)


def contents(folder: Path) -> dict[Path, bytes]:
    return {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize(
    "damage",
    [flip, *(pytest.param(how, marks=pytest.mark.slow) for how in (truncate, Path.unlink))],
)
def test_damage_to_any_file_is_found_and_walked_back_from(
    ready: Setup, reference: Path, tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    names = files_of(reference, 20)
    assert {"params/_METADATA", "rest/manifest.ocdbt", "meta/metadata", "manifest.json"} <= {*names}
    for number, name in enumerate(names):
        run = copied(reference, tmp_path / str(number))
        damage(run / checkpoint.FOLDER / "20" / name)
        with opened(ready, run) as checkpoints:
            found = restore.newest_valid(checkpoints, lambda meta: None)
        if name == manifest.NAME and damage is Path.unlink:  # as if killed before it was written
            assert (found.meta.step, found.damaged) == (20, {})
            assert manifest.verify(run / checkpoint.FOLDER / "20")
            continue
        assert found.meta.step == 10, name
        assert list(found.damaged) == [20]
        assert sorted(p.name for p in (run / checkpoint.FOLDER).iterdir()) == ["10", "20.invalid"]


# a restore that fails leaves orbax's own threads with a closed event loop
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_without_a_manifest_the_digests_find_every_flip_that_matters(
    ready: Setup, reference: Path, tmp_path: Path
) -> None:
    """Orbax alone restores some of these silently; then the arrays differ from their digests."""
    walked_back = 0
    with opened(ready, reference) as checkpoints:
        good = restore.newest_valid(checkpoints, lambda meta: None, at_most=20)
    names = [n for n in files_of(reference, 20) if "/d/" in n or n == "meta/metadata"]
    for number, name in enumerate(names):
        run = copied(reference, tmp_path / str(number), listed=False)
        flip(run / checkpoint.FOLDER / "20" / name, at=0.7)
        with opened(ready, run) as checkpoints:
            found = restore.newest_valid(checkpoints, lambda meta: None)
        walked_back += found.meta.step == 10
        if found.meta.step == 20:  # the flip hit bytes that nothing reads
            same = jax.tree.map(lambda a, b: bool((a == b).all()), found.state, good.state)
            assert all(jax.tree.leaves(same)), name
    assert walked_back >= 2


def test_a_run_with_a_damaged_checkpoint_ends_as_if_nothing_had_been(
    base: Path, ready: Setup, reference: Path, tmp_path: Path
) -> None:
    run = copied(reference, tmp_path)
    shutil.copy(reference / record.METRICS, run)
    flip(run / checkpoint.FOLDER / "20" / "params" / "_METADATA")
    said = Notes()
    loop.train(tiny.at(ready, run), said)
    assert any("20 is set aside" in text and "_METADATA" in text for text in said.notes)
    assert_same_run(run, reference)


def test_all_damaged_is_an_error_and_changes_nothing(
    ready: Setup, reference: Path, tmp_path: Path
) -> None:
    run = copied(reference, tmp_path)
    for name in ("10", "20"):
        flip(run / checkpoint.FOLDER / name / "meta" / "metadata")
    before = contents(run / checkpoint.FOLDER)
    with pytest.raises(CheckpointError, match=r"(?s)step 20: .*step 10: ") as caught:
        loop.train(tiny.at(ready, run), loop.Silent())
    assert caught.value.exit_code == 3
    assert before == {
        p: p.read_bytes() for p in (run / checkpoint.FOLDER).rglob("*") if p.is_file()
    }
    # what was set aside does not count as no checkpoint at all either
    shutil.rmtree(run / checkpoint.FOLDER / "10")
    (run / checkpoint.FOLDER / "20").rename(run / checkpoint.FOLDER / "20.invalid")
    with pytest.raises(CheckpointError, match="set aside"):
        loop.train(tiny.at(ready, run), loop.Silent())


# ---- steps that are not finite


class Notes(loop.Silent):
    """Remembers what it was told."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)


BAD = (12, 22, 23, 24)


@pytest.fixture(scope="module")
def sick(ready: Setup) -> Setup:
    """The set-up with weights of NaN in the batches that an undisturbed run meets as ``BAD``."""
    position, rows = Position(), []
    for number in range(max(BAD) + 1):
        batch, position = ready.rows.batch(position)
        if number in BAD:
            rows.append((int(batch.visit_B[0]), int(batch.example_id_B[0])))
    rows_NE = jnp.asarray(rows, jnp.uint32)
    corruption = setup.bind(ready.experiment.corruption, ready.vocab)

    def poison(keys_B: Any, batch: Any) -> Any:
        made = corruption(keys_B, batch)
        mine_BE = jnp.stack([batch.visit_B, batch.example_id_B], axis=-1)
        bad_B = (mine_BE[:, None] == rows_NE[None]).all(-1).any(-1)
        return made.replace(weights_BP=jnp.where(bad_B[:, None], jnp.nan, made.weights_BP))

    run = ready.experiment.run
    optimizer, schedule = optim.build(ready.experiment.optim, run.steps)
    made = step.make_train_step(
        ready.network.apply, poison, ready.objectives, optimizer, schedule, seed=run.seed
    )
    placed = ready.state_shardings
    jitted = jax.jit(made, donate_argnums=0, out_shardings=(placed, None))
    return dataclasses.replace(ready, train_step=setup.on_mesh(ready.mesh, jitted))


def test_bad_steps_are_skipped_and_counted(sick: Setup, tmp_path: Path) -> None:
    said = Notes()
    assert loop.train(tiny.at(sick, tmp_path, max_skipped=3), said).exit_code == 0
    assert [n for n in said.notes if "not finite" in n][:2] == [
        "step 13: loss or gradient is not finite; skipped (1 in a row)",
        "step 23: loss or gradient is not finite; skipped (1 in a row)",
    ]
    lines = [x for x in record.read(tmp_path) if x["kind"] == "train"]
    assert {x["step"]: x["skipped"] for x in lines if x["skipped"]} == {13: 1, 23: 1, 24: 2, 25: 3}
    assert [x["step"] for x in lines if x["loss"] is None] == [13, 23, 24, 25]
    checkpoint.load(tmp_path)  # verifies, finiteness included


def test_too_many_bad_steps_roll_the_run_back_past_them(
    ready: Setup, sick: Setup, tmp_path: Path
) -> None:
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    said = Notes()
    fields = {"max_skipped": 2, "save_every": 3, "keep": 100}
    assert loop.train(tiny.at(sick, whole, **fields), said).exit_code == 0
    (rollback,) = branches.read(whole)
    assert (rollback.bad_step, rollback.to_step, rollback.skipped) == (25, 21, 3)
    assert any(n.startswith("ROLLED BACK") for n in said.notes)
    lines = [x for x in record.read(whole) if x["kind"] == "train"]
    assert [x["step"] for x in lines] == list(range(1, tiny.STEPS + 1))
    assert [x["step"] for x in lines if x["loss"] is None] == [13]
    _, after = ready.rows.batch(Position.of(rollback.position))
    assert lines[21]["position"] == int(after)
    # the same, ended by force after the roll-back was decided and before it was carried out
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checkpoint.Checkpoints, "discard", lambda *_: 1 // 0)
        with pytest.raises(ZeroDivisionError):
            loop.train(tiny.at(sick, cut, **fields), loop.Silent())
    assert 24 in manifest.steps(cut / checkpoint.FOLDER)
    assert loop.train(tiny.at(sick, cut, **fields), said).exit_code == 0
    assert any("branch that was rolled back" in n for n in said.notes)
    assert_same_run(cut, whole)


def test_a_run_that_cannot_recover_diverges_with_good_checkpoints(
    sick: Setup, tmp_path: Path
) -> None:
    with pytest.raises(DivergedError, match="after 3 roll-backs") as caught:
        loop.train(tiny.at(sick, tmp_path, max_skipped=0), loop.Silent())
    assert caught.value.exit_code == 4
    assert checkpoint.load(tmp_path).step == 10


# ---- directories


def test_a_directory_that_cannot_be_made_is_an_error(ready: Setup, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(RunDirError, match="cannot be written"):
        loop.train(tiny.at(ready, tmp_path / "file" / "run"), loop.Silent())


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is read-only for root")
def test_a_read_only_directory_is_an_error(ready: Setup, tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(RunDirError, match="cannot be written"):
        loop.train(tiny.at(ready, tmp_path / "run"), loop.Silent())


def test_a_directory_that_vanishes_is_an_error(ready: Setup, tmp_path: Path) -> None:
    class Vandal(loop.Silent):
        def step(self, line: Mapping[str, Any]) -> None:
            if line["step"] == 5:
                (tmp_path / "run").rename(tmp_path / "elsewhere")

    with pytest.raises(RunDirError, match="deleted or moved"):
        loop.train(tiny.at(ready, tmp_path / "run"), Vandal())


# ---- signals


SECOND = """
import os, signal, time
from bert_variants.train.signals import Signals
with Signals() as signals:
    os.kill(os.getpid(), signal.SIGTERM)
    assert signals.requested and signals.received == "SIGTERM"
    os.kill(os.getpid(), signal.SIGTERM)
    print("the same signal from two sides counts once")
    time.sleep(1.1)
    os.kill(os.getpid(), signal.SIGINT)
    print("not reached")
"""


def test_a_second_signal_ends_at_once() -> None:
    done = subprocess.run([sys.executable, "-c", SECOND], capture_output=True, text=True)
    assert done.returncode == 128 + signal.SIGINT
    assert "ending at once" in done.stderr
    assert "counts once" in done.stdout
    assert "not reached" not in done.stdout


def test_told_to_stop_during_an_evaluation(ready: Setup, reference: Path, tmp_path: Path) -> None:
    """The evaluation is abandoned, the step saved; it is done anew when the run goes on."""
    evaluate = setup.Setup.evaluate

    def interrupted(self: Setup, params: Any, stop: Callable[[], bool]) -> dict[str, float]:
        signal.raise_signal(signal.SIGTERM)
        return evaluate(self, params, stop)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(setup.Setup, "evaluate", interrupted)
        result = loop.train(tiny.at(ready, tmp_path), loop.Silent())
    assert (result.exit_code, result.step) == (75, 15)
    assert last(tmp_path).held_out == {}
    assert loop.train(tiny.at(ready, tmp_path), loop.Silent()).exit_code == 0
    assert_same_run(tmp_path, reference)


def test_told_to_stop_while_waiting_for_data(ready: Setup, reference: Path, tmp_path: Path) -> None:
    batch, stalled = ready.rows.batch, threading.Event()

    def stall(position: Position) -> Any:
        if position.epoch == 1 and not stalled.is_set():
            stalled.set()
            threading.Timer(0.5, signal.raise_signal, [signal.SIGINT]).start()
            time.sleep(3)
        return batch(position)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ready.rows, "batch", stall)
        result = loop.train(tiny.at(ready, tmp_path), loop.Silent())
    assert stalled.is_set()
    assert (result.exit_code, result.step) == (75, 10)
    assert loop.train(tiny.at(ready, tmp_path), loop.Silent()).exit_code == 0
    assert_same_run(tmp_path, reference)
