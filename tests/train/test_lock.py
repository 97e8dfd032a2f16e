"""One process at a time in a run's directory."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from bert_variants.train.errors import LockedError, RunDirError
from bert_variants.train.lock import Lock

HOLD = """
import os, signal, sys
from pathlib import Path
from bert_variants.train.lock import Lock
lock = Lock(Path(sys.argv[1]))
print("held", flush=True)
sys.stdin.read()
"""


def test_a_second_holder_is_refused_and_told_who_the_first_is(tmp_path: Path) -> None:
    with Lock(tmp_path / "run") as lock:
        assert lock.stale == ""
        with pytest.raises(
            LockedError, match=rf"process {os.getpid()} on .* \(started 2"
        ) as caught:
            Lock(tmp_path / "run")
        assert caught.value.exit_code == 2
    with Lock(tmp_path / "run") as again:
        assert again.stale == ""  # the first one ended in order


def test_the_lock_of_a_killed_process_is_taken_over(tmp_path: Path) -> None:
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with holder:
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(LockedError, match=f"process {holder.pid} on "):
            Lock(tmp_path)
        holder.send_signal(signal.SIGKILL)
        holder.wait()
    with Lock(tmp_path) as lock:
        assert f"process {holder.pid} on " in lock.stale


def test_release_twice_and_a_damaged_file_do_no_harm(tmp_path: Path) -> None:
    (tmp_path / "lock").write_bytes(b"\xff{")
    lock = Lock(tmp_path)
    assert lock.stale == "a process that left no name"
    lock.release()
    lock.release()
    assert (tmp_path / "lock").read_bytes() == b""


def test_a_directory_that_went_away_is_noticed(tmp_path: Path) -> None:
    with Lock(tmp_path / "run") as lock:
        lock.check()
        shutil.rmtree(tmp_path / "run")
        with pytest.raises(RunDirError, match="deleted or moved"):
            lock.check()
        with Lock(tmp_path / "run"), pytest.raises(RunDirError):
            lock.check()  # another directory of the same name is not it
