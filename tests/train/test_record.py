"""Metrics that end where the run goes on, and files that are whole or not there."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from bert_variants.train import record
from bert_variants.train.errors import RunDirError


def written(run_dir: Path, steps: int) -> None:
    """Lines of steps 1 .. steps, evaluated at every second."""
    run_dir.mkdir(exist_ok=True)
    with record.Record(run_dir, first_step=1, enabled=True) as out:
        for step in range(1, steps + 1):
            out.line("train", step, {"loss": 1 / step}, {"step_seconds": 0.5})
            if step % 2 == 0:
                out.line("held_out", step, {"held_out/loss": 2.0}, {})


def kinds(run_dir: Path) -> list[tuple[str, int]]:
    return [(x["kind"], x["step"]) for x in record.read(run_dir)]


def test_a_line_keeps_what_can_be_repeated_apart_from_time(tmp_path: Path) -> None:
    written(tmp_path, 1)
    (line,) = record.read(tmp_path)
    assert record.reproducible(line) == {"kind": "train", "step": 1, "loss": 1.0}
    assert line["timing"]["step_seconds"] == 0.5
    assert line["timing"]["seconds"] >= 0
    assert list(tmp_path.glob("events.out.tfevents.*"))


def test_values_that_are_not_finite_are_null(tmp_path: Path) -> None:
    with record.Record(tmp_path, first_step=1, enabled=True) as out:
        out.line("train", 1, {"loss": math.nan, "norm": -math.inf, "skipped": 1}, {})
    text = (tmp_path / record.METRICS).read_text()
    assert "NaN" not in text
    assert record.reproducible(json.loads(text)) == {
        "kind": "train",
        "step": 1,
        "loss": None,
        "norm": None,
        "skipped": 1,
    }


@pytest.mark.parametrize(
    ("evaluated", "kept"),
    [
        (
            True,
            [
                ("train", 1),
                ("train", 2),
                ("held_out", 2),
                ("train", 3),
                ("train", 4),
                ("held_out", 4),
            ],
        ),
        (False, [("train", 1), ("train", 2), ("held_out", 2), ("train", 3), ("train", 4)]),
    ],
)
def test_rewind_keeps_what_stands_and_moves_the_rest(
    tmp_path: Path, evaluated: bool, kept: list[tuple[str, int]]
) -> None:
    written(tmp_path, 6)
    before = (tmp_path / record.METRICS).read_bytes()
    moved = record.rewind(tmp_path, 4, evaluated)
    assert kinds(tmp_path) == kept
    assert moved == 9 - len(kept)
    after = (tmp_path / record.METRICS).read_bytes() + (tmp_path / record.LOST).read_bytes()
    assert after == before
    assert record.rewind(tmp_path, 4, evaluated) == 0


def test_a_torn_last_line_is_moved_and_the_next_one_is_whole(tmp_path: Path) -> None:
    written(tmp_path, 2)
    path = tmp_path / record.METRICS
    path.write_bytes(path.read_bytes() + b'{"kind": "train", "step": 3, "lo')
    assert kinds(tmp_path) == [("train", 1), ("train", 2), ("held_out", 2)]
    assert record.rewind(tmp_path, 9, True) == 1
    with record.Record(tmp_path, first_step=3, enabled=True) as out:
        out.line("train", 3, {}, {})
    assert kinds(tmp_path)[-1] == ("train", 3)


def test_a_process_that_is_not_the_first_writes_nothing(tmp_path: Path) -> None:
    with record.Record(tmp_path, first_step=1, enabled=False) as out:
        assert out.line("train", 1, {"loss": 1.0}, {})["loss"] == 1.0
        out.sync()
    assert list(tmp_path.iterdir()) == []


def test_broken_events_are_told_once_and_metrics_go_on(tmp_path: Path) -> None:
    class Broken:
        def add_scalar(self, *_: object) -> None:
            raise ConnectionError("unreachable")

    with record.Record(tmp_path, first_step=1, enabled=True) as out:
        out._events.close()
        out._events = Broken()
        with pytest.warns(UserWarning, match="off from now on: unreachable"):
            out.line("train", 1, {"loss": 1.0}, {})
        out.line("train", 2, {"loss": 1.0}, {})
    assert kinds(tmp_path) == [("train", 1), ("train", 2)]


def test_metrics_that_cannot_be_written_end_the_run(tmp_path: Path) -> None:
    with record.Record(tmp_path, first_step=1, enabled=True) as out:
        out._file.close()
        with pytest.raises((RunDirError, ValueError)):
            out.line("train", 1, {"loss": 1.0}, {})
        out._file = open("/dev/full", "wb", buffering=0)  # noqa: SIM115
        with pytest.raises(RunDirError, match="No space left"):
            out.line("train", 1, {"loss": 1.0}, {})


def test_write_json_replaces_in_one_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "new" / "x.json"
    record.write_json(path, {"a": 1})

    def fail(self: Path, target: Path) -> None:
        raise OSError("power went")

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(OSError, match="power went"):
        record.write_json(path, {"a": 2})
    assert json.loads(path.read_text()) == {"a": 1}
