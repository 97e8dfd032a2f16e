"""Two real processes on loopback: the same numbers as one, and one decision when told to stop."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
import tiny_runs as tiny

from bert_variants.train import checkpoint, manifest, record


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


def test_two_processes_stop_together_go_on_and_agree_with_one(base: Path, reference: Path) -> None:
    # SIGTERM reaches the second process alone, before its thirteenth batch
    ends = pair(base, "pair", "term1@13")
    assert [code for code, _ in ends] == [75, 75], ends
    (step,) = set(manifest.steps(base / "pair" / checkpoint.FOLDER)) - {10}
    assert 13 <= step <= 16
    ends = pair(base, "pair")
    assert [code for code, _ in ends] == [0, 0], ends
    ours, theirs = (record.read(run) for run in (base / "pair", reference))
    assert [(x["kind"], x["step"]) for x in ours] == [(x["kind"], x["step"]) for x in theirs]
    for one, other in zip(ours, theirs, strict=True):
        one, other = record.reproducible(one), record.reproducible(other)
        assert one.keys() == other.keys()
        tolerance = 1e-5 if one["step"] <= 20 else 1e-4  # rounding grows with the steps
        for name in one.keys() - {"kind"}:
            expected = pytest.approx(other[name], rel=tolerance, abs=1e-7)
            assert one[name] == expected, (one["step"], name)
