"""The benchmarks run at toy size; what they measure there means nothing."""

from __future__ import annotations

import importlib.util
import json
import math

import numpy as np
import pytest

from benchmarks import compile as compiling
from benchmarks import corruption, gemm, learning, loader, machine, step, transfer, turns


def test_clean_turns_count_and_few_of_them_do_not():
    worker = turns.Worker.__new__(turns.Worker)
    worker.arm, worker.died, worker.ready = turns.Arm("a", "ours", {}), "", {}
    worker.turns = [turns.Turn(1.0, 2.0, 0.0)] * 3 + [turns.Turn(9.0, 9.0, 0.5)] * 4
    found = turns.summary(worker)
    assert (found["ms"], found["clean"], found["steps"]) == (1000, 3, 7)
    worker.turns = worker.turns[1:]
    assert turns.summary(worker)["ms"] == 9000  # two clean ones are too few: all count
    assert "loaded machine" in turns.table([turns.summary(worker)])


@pytest.mark.parametrize(("busy", "others"), [(0.0, 0.0), (1e6, 1.0), (None, 0.0)])
def test_others_are_seen(monkeypatch, busy, others):
    """What this process burns is its own; the rest is others', at most the whole machine."""
    counted = iter([None, None] if busy is None else [100.0, 100.0 + busy])
    monkeypatch.setattr(machine, "busy_seconds", lambda: next(counted))
    with machine.Meter() as meter:
        total = sum(i * i for i in range(300_000))
    assert total > 0
    assert meter.cpu > 0
    assert meter.others == others


def test_half_a_machine_is_half(monkeypatch):
    """Core-seconds of others over those that there were."""
    wall = iter([0.0, 4.0])
    monkeypatch.setattr(machine.time, "perf_counter", lambda: next(wall))
    monkeypatch.setattr(machine.time, "process_time", lambda: 0.0)
    counted = iter([100.0, 104.0])
    monkeypatch.setattr(machine, "busy_seconds", lambda: next(counted))
    monkeypatch.setattr(machine, "cores", lambda: 2)
    with machine.Meter() as meter:
        pass
    assert meter.others == 0.5


def test_useful_operations_of_a_base_step():
    """BERT-base, 1 row of 512: 6 * 85 M a token in layers, attention, and the head on 77 places."""
    layers, attention = 6 * 512 * 12 * 12 * 768**2, 12 * 512 * 512 * 12 * 768
    head = 6 * 77 * (768**2 + 768 * 30_522)
    assert step.useful_flops(step.Shape("base", 1, 512)) == layers + attention + head


def test_arms_that_do_not_fit_are_left_out_and_named(monkeypatch, capsys):
    names = ("HF as people run it", "HF malloc", "HF best", "ours float32", "ours")
    arms = [turns.Arm(name, "ours", {}) for name in names]
    for gibibytes, left_out in ((64, set()), (29, {"ours float32"}), (22, set(step.BETWEEN))):
        monkeypatch.setattr(machine, "memory", lambda size=gibibytes: size << 30)
        kept = step.fitting(arms, step.CPU["base"])
        assert {arm.name for arm in arms} - {arm.name for arm in kept} == left_out
        assert [arm for arm in arms if arm in kept] == kept
        printed = capsys.readouterr().out
        assert all(name in printed for name in left_out)


def test_matthews_of_always_the_same_is_nothing():
    truth = np.array([0, 1, 1, 0, 1])
    assert transfer.score("matthews", truth, np.ones(5)) == 0.0
    assert transfer.score("matthews", truth, truth) == pytest.approx(1.0)
    assert transfer.score("matthews", truth, 1 - truth) == pytest.approx(-1.0)
    # tp 2, fp 1, fn 1, tn 1: (2 * 1 - 1 * 1) / sqrt(3 * 3 * 2 * 2)
    assert transfer.score("matthews", truth, np.array([1, 1, 1, 0, 0])) == pytest.approx(1 / 6)


def test_a_linear_probe_learns_what_is_linear():
    rng = np.random.default_rng(0)
    rows_BD = rng.normal(size=(300, 5)).astype(np.float32)
    classes = (rows_BD @ rng.normal(size=(5, 3))).argmax(axis=1)
    says = transfer.fit(rows_BD[:200], classes[:200], 3, 1e-4)
    assert (says(rows_BD[200:]) == classes[200:]).mean() > 0.9


def test_knowing_nothing_of_two_classes():
    assert learning.of_two(0.5) == {"loss": pytest.approx(math.log(2)), "accuracy": 0.5}
    assert learning.of_two(0.1)["accuracy"] == 0.9
    assert learning.of_two(0.0) == {"loss": 0.0, "accuracy": 1.0}


@pytest.mark.slow
def test_step_with_every_arm_that_is_installed(tmp_path, capfd):
    """An arm that cannot run is reported dead and does not stop the others."""
    torch = importlib.util.find_spec("torch") is not None
    options = ["--shapes", "toy", "--rounds", "2", "--patience", "0"]
    result = step.main([*options, "--json", str(tmp_path / "deep" / "step.json")])
    (found,) = result["shapes"]
    assert json.loads((tmp_path / "deep" / "step.json").read_text()) == result
    for arm in found["arms"]:
        alive = torch or arm["arm"].startswith("ours")
        assert bool(arm["died"]) != alive, arm
        assert arm["steps"] == (2 if alive else 0)
    assert "core-ms" in capfd.readouterr().out


@pytest.mark.slow
def test_a_worker_that_dies_is_reported():
    dies = turns.Arm("dies", "ours", {"size": "no such size"})
    lives = turns.Arm("lives", "ours", {"size": "tiny", "batch": 8, "length": 16})
    said: list[str] = []
    dead, alive = turns.run([dies, lives], 1, 0.0, said.append)
    assert "exit code 1" in dead.died
    assert not alive.died
    assert len(alive.turns) == 1
    assert any("died" in line for line in said)


@pytest.mark.slow
def test_corruption_loader_and_compilation(tmp_path):
    shares = corruption.main(["--shapes", "toy", "--rounds", "3"])["toy"]
    assert set(shares) >= {"step", "tokens", "whole_words"}
    assert loader.main(["--tokens", "50000", "--megabytes", "0"])["rows"]
    assert gemm.main(["--times", "1", "--shapes", "1"])["4096x256x1024"]["jax"] > 0
    found = compiling.main(["--shape", "toy", "--scans", "on", "--repeats", "1"])
    assert found["compile"].keys() == {"scan on, cold", "scan on, cached"}
