"""What takes too long ends the process; what was stopped and goes on does not."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

from bert_variants.train import watchdog
from bert_variants.train.errors import LOST

WAITS = """
import sys, time
from bert_variants.train.watchdog import Watchdog

with Watchdog(shortest=0.4) as dog:
    dog.arm("step 7", float(sys.argv[1]))
    end = time.monotonic() + float(sys.argv[2])
    print("armed", flush=True)
    while time.monotonic() < end:
        time.sleep(0.05)
print("done")
"""


def waiting(limit: float, seconds: float) -> subprocess.Popen[str]:
    """A process that waits so long under a watchdog, and has begun to."""
    process = subprocess.Popen(
        [sys.executable, "-c", WAITS, str(limit), str(seconds)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "armed\n"
    return process


def test_what_takes_too_long_ends_with_all_stacks():
    process = waiting(limit=1.0, seconds=60.0)
    out, err = process.communicate(timeout=50)
    assert process.returncode == LOST
    assert out == ""
    assert "watchdog: step 7 took too long" in err
    assert "most recent call first" in err


def test_what_was_stopped_has_its_limit_before_it():
    """Stopped for longer than its limit; the time of the wait passes meanwhile."""
    process = waiting(limit=2.0, seconds=4.0)
    os.kill(process.pid, signal.SIGSTOP)
    time.sleep(5.0)
    os.kill(process.pid, signal.SIGCONT)
    out, err = process.communicate(timeout=50)
    assert (process.returncode, out) == (0, "done\n"), err


def test_the_limit_follows_the_steps():
    dog = watchdog.Watchdog(shortest=10.0)
    assert dog.limit == 10.0
    for seconds in (1.0, 2.0, 30.0):
        dog.took(seconds)
    assert dog.limit == watchdog.TIMES_MEDIAN * 2.0


@pytest.mark.parametrize("ended", ["off", "leaving"])
def test_nothing_is_waited_for_afterwards(ended):
    with watchdog.Watchdog(shortest=0.1) as dog:
        dog.arm("a wait", 0.2)
        if ended == "off":
            dog.off()
            time.sleep(0.5)
    time.sleep(0.3)
