"""Progress in a terminal and in a log, told by the numbers that the loop gives."""

from __future__ import annotations

import dataclasses
import io
import types

import jax
import pytest
from rich.console import Console

from bert_variants.configs import bert
from bert_variants.plan import abstract, flops, peaks
from bert_variants.report import console
from bert_variants.train.reporting import Reporter, Result, Start
from bert_variants.train.setup import Setup


@pytest.fixture(scope="module")
def setup():
    """As much of a set-up as is looked at."""
    made = bert.get_config("tiny")
    made = dataclasses.replace(made, run=dataclasses.replace(made.run, steps=100, log_every=10))
    mesh = jax.make_mesh((1,), ("data",), devices=jax.devices()[:1])
    found = object.__new__(Setup)
    fields = {
        "experiment": made,
        "vocab": types.SimpleNamespace(size=8192),
        "mesh": mesh,
        "network": types.SimpleNamespace(module=types.SimpleNamespace(precision="float32")),
    }
    for name, value in fields.items():
        object.__setattr__(found, name, value)
    return found


@pytest.fixture
def fast(monkeypatch):
    """A known peak, so that utilisation is a known number."""
    monkeypatch.setattr(peaks, "measured", lambda precision: 1e12)


def line(step, loss=3.0, seconds=0.1):
    timing = {"step_seconds": seconds, "tokens_per_second": 4096 / seconds}
    return {"kind": "train", "step": step, "loss": loss, "timing": timing}


def run(progress, steps=100):
    progress.start(Start(0, steps, "scratch"))
    for step in range(1, steps + 1):
        progress.step(line(step))
        if step == 50:
            progress.evaluated(
                step,
                {
                    "held_out/mlm/loss": 3.1,
                    "held_out/mlm/accuracy": 0.4,
                    "tokens(rate=0.15)/mlm/loss": 3.2,
                    "tokens(rate=0.15)/unigram/loss": 5.9,
                    "held_out/loss": 3.8,
                },
            )
            progress.saved(step)
            progress.note("step 50: loss or gradient is not finite [bold]; skipped")
    progress.done(Result(0, "done", steps, {}))


def made(setup, *, terminal, every=0.0):
    out = Console(file=io.StringIO(), force_terminal=terminal, width=120, highlight=False)
    return console.TrainProgress(setup, out, every=every), out.file


@pytest.mark.usefixtures("fast")
def test_a_log_has_a_line_where_metrics_are_logged(setup):
    progress, out = made(setup, terminal=False)
    assert isinstance(progress, Reporter)
    run(progress)
    text = out.getvalue()
    assert "\x1b" not in text
    lines = text.split("\n")
    counted = flops.of(abstract.of(setup.experiment, 8192)).training
    mfu = counted / 0.1 / 1e12
    assert lines[0] == "training steps 0 to 100, from scratch"
    assert lines[1].startswith(f"{counted:.3g} FLOP a step; peak 1 TFLOP/s (float32")
    steps = [one for one in lines if one.startswith("step ") and "tokens/s" in one]
    assert len(steps) == 10
    assert steps[4] == f"step 50/100  loss 3.000  41k tokens/s  MFU {mfu:.0%}  0:05 left"
    assert "step 50  held-out loss  mlm 3.100  tokens(rate=0.15) 3.200 (unigram 5.900)" in lines
    assert "step 50  saved" in lines
    assert "step 50: loss or gradient is not finite [bold]; skipped" in lines


@pytest.mark.usefixtures("fast")
def test_a_log_is_not_flooded(setup):
    progress, out = made(setup, terminal=False, every=3600.0)
    run(progress)
    assert out.getvalue().count("tokens/s") + out.getvalue().count("loss 3.000") <= 2


@pytest.mark.usefixtures("fast")
def test_a_terminal_has_a_bar_and_gets_its_cursor_back(setup):
    progress, out = made(setup, terminal=True)
    run(progress)
    text = out.getvalue()
    assert "MFU" in text
    assert "100%" in text
    assert text.count("\x1b[?25l") == text.count("\x1b[?25h") == 1
    progress.close()
    assert out.getvalue() == text


@pytest.mark.usefixtures("fast")
def test_speed_and_loss_are_means_of_what_counts(setup):
    progress, _ = made(setup, terminal=False, every=3600.0)
    progress.start(Start(0, 100, "scratch"))
    progress.step(line(1, loss=9.0, seconds=60.0))  # holds the compilation
    assert progress.told(1) == "loss 9.000"
    progress.step(line(2, loss=float("nan"), seconds=0.1))
    progress.step(line(3, loss=None, seconds=0.3))
    told = progress.told(3)
    assert told.startswith("loss 9.000  20.5k tokens/s")
    assert told.endswith("0:19 left")


def test_no_peak_no_utilisation(setup, monkeypatch):
    monkeypatch.setattr(peaks, "peak", lambda devices, precision: None)
    progress, out = made(setup, terminal=False)
    run(progress)
    assert "MFU" not in out.getvalue()


def test_training_goes_on_where_the_speed_cannot_be_judged(setup, monkeypatch):
    def fail(devices, precision):
        raise RuntimeError("no such device")

    monkeypatch.setattr(peaks, "peak", fail)
    progress, out = made(setup, terminal=False)
    run(progress)
    assert "utilisation is not shown: RuntimeError: no such device" in out.getvalue()
    assert "step 100/100" in out.getvalue()


def test_preparing_in_a_log_and_in_a_terminal():
    assert console.rate(3_000_000, 12_000_000, 900_000, 2.0) == (
        "3.0/12.0 MB  1.5 MB/s  450k tokens/s  0:06 left"
    )
    # the source guessed too low
    assert console.rate(13_000_000, 12_000_000, 10, 1.0).startswith("13.0/13.0 MB")
    assert console.rate(0, 12_000_000, 0, 0.0) == "0.0/12.0 MB"
    for terminal in (False, True):
        out = Console(file=io.StringIO(), force_terminal=terminal, width=100)
        with console.PrepareProgress(out, every=0.0) as progress:
            progress.report(3_000_000, 12_000_000, 900_000, 2.0)
        text = out.file.getvalue()
        assert "1.5 MB/s" in text
        assert text.count("\x1b[?25l") == text.count("\x1b[?25h") == int(terminal)


@pytest.mark.parametrize(
    ("seconds", "told"), [(7, "0:07"), (245, "4:05"), (7980, "2:13:00"), (273_600, "3d 4:00:00")]
)
def test_time_left(seconds, told):
    assert console.clock(float(seconds)) == told
