"""Claims: one worker a cell, whatever dies; a stale one is taken over once."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time

import pytest

from bert_variants.ablate.claims import (
    ClaimLostError,
    Claims,
    claim_path,
    newest_claim,
    this_machine,
)

QUICK = {"beat": 0.02, "stale": 0.4}


def test_a_claimed_cell_is_not_given_twice(tmp_path):
    mine, yours = Claims(**QUICK), Claims(**QUICK)
    with mine.take(tmp_path / "cell") as claim:
        assert claim.before == 0
        assert mine.take(tmp_path / "cell") is None
        assert yours.take(tmp_path / "cell") is None
        assert yours.take(tmp_path / "other").release() is None
    with yours.take(tmp_path / "cell") as claim:
        assert claim.before == 1


def test_a_dead_worker_of_this_machine_is_seen_at_once(tmp_path):
    code = (
        "import os, sys\n"
        "from pathlib import Path\n"
        "from bert_variants.ablate.claims import Claims\n"
        "assert Claims().take(Path(sys.argv[1]))\n"
        "print('claimed', flush=True)\n"
        "os.kill(os.getpid(), 9)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, timeout=60
    )
    assert done.stdout == "claimed\n"
    started = time.monotonic()
    with Claims().take(tmp_path) as claim:
        assert claim.before == 1
    assert time.monotonic() - started < 5, "it waited for the beat"


def test_a_worker_of_another_machine_is_alive_while_it_beats(tmp_path):
    there, here = Claims(**QUICK, machine="there"), Claims(**QUICK, machine="here")
    with there.take(tmp_path):
        end = time.monotonic() + 3 * QUICK["stale"]
        while time.monotonic() < end:
            assert here.take(tmp_path) is None
            time.sleep(0.02)
    with here.take(tmp_path) as claim:  # given back: at once
        assert claim.before == 1


def test_a_silent_worker_of_another_machine_is_taken_over_once(tmp_path):
    there = Claims(beat=1000.0, stale=0.4, machine="there")
    claim = there.take(tmp_path)
    others = [Claims(**QUICK, machine=f"here{i}") for i in range(4)]
    assert [o.take(tmp_path) for o in others] == [None] * 4
    time.sleep(1.2 * QUICK["stale"])
    found, barrier = [], threading.Barrier(4)

    def try_it(claims: Claims) -> None:
        barrier.wait()
        found.append(claims.take(tmp_path))

    threads = [threading.Thread(target=try_it, args=(o,)) for o in others]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (taken,) = [one for one in found if one is not None]
    assert newest_claim(tmp_path) == 2
    taken.release()
    claim.release()


def test_a_worker_that_wakes_up_learns_that_its_cell_is_gone(tmp_path):
    claim = Claims(**QUICK, machine="there").take(tmp_path)
    claim.check()
    claim_path(tmp_path, 2).write_text("{}")  # another took it over
    end = time.monotonic() + 5
    while not claim.lost and time.monotonic() < end:
        time.sleep(0.01)
    with pytest.raises(ClaimLostError, match="taken over by another worker"):
        claim.check()
    claim.release()
    assert claim_path(tmp_path, 1).stat().st_mtime_ns > 0, "what is lost is not given back"


def test_a_claim_that_cannot_be_read_is_waited_for(tmp_path):
    claim_path(tmp_path, 1).write_text("{")  # cut off, or being written
    claims = Claims(**QUICK)
    assert claims.take(tmp_path) is None
    time.sleep(1.2 * QUICK["stale"])
    claims.take(tmp_path).release()


def test_machines_are_told_apart():
    assert this_machine() == this_machine() != ""
    assert os.sep not in this_machine()
