"""The quickstart as a new user runs it, also killed half-way."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest

from bert_variants.train import checkpoint, record


def start(folder: Path) -> subprocess.Popen[str]:
    """The verb in a process of its own, with one device as on a laptop."""
    command = [sys.executable, "-m", "bert_variants.cli", "quickstart", "--minutes", "0.1"]
    return subprocess.Popen(
        [*command, "--dir", str(folder)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "XLA_FLAGS": ""},
    )


def finish(process: subprocess.Popen[str]) -> str:
    """Its output, once it ended well."""
    out, _ = process.communicate(timeout=1200)
    assert process.returncode == 0, out
    return out


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_killed_half_way_it_ends_in_the_same_numbers(tmp_path):
    whole = tmp_path / "whole"
    out = finish(start(whole))
    page = Path(out.strip().split("\n")[-1])
    assert page.is_file()
    assert "unigram" in out
    results = json.loads(json.dumps(record.read(whole)[-1]))
    # better than the unigrams already, though there were only seconds
    assert results["tokens(rate=0.15)/mlm/loss"] < results["tokens(rate=0.15)/unigram/loss"]

    killed = tmp_path / "killed"
    process = start(killed)
    deadline = time.monotonic() + 900
    while not any(line["step"] >= 30 for line in record.read(killed)):
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.2)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    finish(start(killed))
    lines = [[record.reproducible(x) for x in record.read(run)] for run in (whole, killed)]
    assert lines[0] == lines[1]
    first, second = checkpoint.load(whole), checkpoint.load(killed)
    jax.tree.map(np.testing.assert_array_equal, first.params, second.params)

    again = finish(start(whole))
    assert again.strip().split("\n")[-1] == str(page)
