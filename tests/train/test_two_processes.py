"""Two real processes on loopback: the same numbers as one, and one decision when told to stop."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
import tiny_runs as tiny

from bert_variants.train import checkpoint, manifest, record
from bert_variants.train.meta import Meta


def pair(base: Path, run: str, fault: str = "none", **fields: object) -> list[tuple[int, str]]:
    """Run two processes of one device each to their ends: exit codes and outputs."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    started = [
        tiny.start(
            base,
            run,
            fault,
            environment={
                "BERT_VARIANTS_COORDINATOR": f"127.0.0.1:{port}",
                "BERT_VARIANTS_PROCESSES": "2",
                "BERT_VARIANTS_PROCESS_ID": str(index),
                "XLA_FLAGS": "",
            },
            **fields,
        )
        for index in range(2)
    ]
    return [tiny.ended(process) for process in started]


def assert_as_one(run: Path, reference: Path) -> None:
    """The same rows in the same steps, and numbers that agree to rounding."""
    ours = [record.reproducible(line) for line in record.read(run)]
    theirs = [record.reproducible(line) for line in record.read(reference)]
    assert len(ours) >= 13
    for one, other in zip(ours, theirs, strict=False):
        assert one.keys() == other.keys()
        tolerance = 1e-5 if one["step"] <= 20 else 1e-4  # rounding grows with the steps
        for name in one:
            expected = other[name]
            if isinstance(expected, float):
                expected = pytest.approx(expected, rel=tolerance, abs=1e-7)
            assert one[name] == expected, (one["step"], name)


@pytest.mark.slow
def test_two_processes_agree_with_one_and_stop_together(base: Path, reference: Path) -> None:
    # SIGTERM reaches the second process alone, before its thirteenth batch
    ends = pair(base, "pair", "term1@13")
    assert [code for code, _ in ends] == [75, 75], ends
    (step,) = set(manifest.steps(base / "pair" / checkpoint.FOLDER)) - {10}
    assert 13 <= step <= 16
    assert f"stopped at step {step} " in ends[0][1]
    assert f"stopped at step {step} " in ends[1][1]
    assert_as_one(base / "pair", reference)


@pytest.mark.slow
def test_two_processes_go_on_bit_for_bit(base: Path, reference: Path) -> None:
    assert [code for code, _ in pair(base, "pair_whole")] == [0, 0]
    assert [code for code, _ in pair(base, "pair_cut", "term1@13")] == [75, 75]
    ends = pair(base, "pair_cut")
    assert [code for code, _ in ends] == [0, 0], ends
    assert_as_one(base / "pair_cut", reference)
    whole, cut = (
        Meta.of(base / run / checkpoint.FOLDER / str(tiny.STEPS))
        for run in ("pair_whole", "pair_cut")
    )
    assert whole.leaves == cut.leaves
