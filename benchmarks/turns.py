"""Workers in processes of their own that take turns, one timed step at a time: A B A B ...

A worker is ``python -m benchmarks.WORKER SPEC``. It builds and warms up, says ``{"ready": ...}``,
and then for every line on its stdin runs one step and answers with one line: wall seconds, its own
core-seconds, and the share of the machine that everybody else took meanwhile. So all arms meet the
same weather, and a step during which the machine was not quiet can be left out.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any, TextIO

from benchmarks import machine

QUIET = 0.05  # of the machine; what others may take during a step that counts


@dataclasses.dataclass
class Arm:
    """One way of doing the work.

    Attributes:
        name: in the table.
        module: the worker's, below benchmarks.
        spec: what it is told, JSON.
        environment: variables set for it.
    """

    name: str
    module: str
    spec: Mapping[str, Any]
    environment: Mapping[str, str] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Turn:
    """One timed step; see ``machine.Meter``."""

    seconds: float
    cpu: float
    others: float

    @property
    def clean(self) -> bool:
        """Whether the rest of the machine was quiet."""
        return self.others <= QUIET


class WorkerError(RuntimeError):
    """A worker that died or said something else than expected."""


class Worker:
    """A running arm; what it took is in ``turns``, why it died in ``died``."""

    def __init__(self, arm: Arm) -> None:
        self.arm, self.turns, self.died, self.ready = arm, [], "", {}
        self._process = subprocess.Popen(
            [sys.executable, "-m", f"benchmarks.{arm.module}", json.dumps(arm.spec)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, **arm.environment},
            text=True,
        )

    def start(self) -> None:
        """Wait until it has warmed up."""
        self.ready = self._answer()

    def turn(self) -> None:
        """One step."""
        try:
            self._process.stdin.write("step\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise WorkerError(self._obituary()) from None
        self.turns.append(Turn(**self._answer()))

    def stop(self) -> None:
        """End it by closing its input, or by force."""
        with contextlib.suppress(BrokenPipeError):  # it died, and what was written waits for it
            self._process.stdin.close()
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()

    def _answer(self) -> dict[str, Any]:
        line = self._process.stdout.readline()
        if not line:
            raise WorkerError(self._obituary())
        return json.loads(line)

    def _obituary(self) -> str:
        code = self._process.wait()
        how = f"signal {-code}" if code < 0 else f"exit code {code}"
        return f"worker '{self.arm.name}' died with {how} after {len(self.turns)} steps"


def serve(build: Callable[[dict[str, Any]], tuple[Callable[[], Any], dict[str, Any]]]) -> None:
    """The worker's side. ``build(spec)`` returns a function that runs one step to its end, and
    facts about it. It is run twice before the worker says that it is ready."""
    answers = _claim_stdout()
    step, facts = build(json.loads(sys.argv[1]))
    step()
    step()
    _say(answers, facts)
    for _ in sys.stdin:
        with machine.Meter() as meter:
            step()
        _say(answers, {"seconds": meter.seconds, "cpu": meter.cpu, "others": meter.others})


def _claim_stdout() -> TextIO:
    """stdout for answers alone: what libraries print goes to stderr."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return answers


def _say(answers: TextIO, message: Mapping[str, Any]) -> None:
    answers.write(json.dumps(message) + "\n")
    answers.flush()


def run(arms: list[Arm], rounds: int, patience: float, say: Callable[[str], None]) -> list[Worker]:
    """All arms, ``rounds`` turns each. An arm that dies is reported and the rest go on.

    Args:
        arms: built one after the other, so that they do not slow each other's start.
        rounds: turns of each.
        patience: seconds in all to wait for a quiet machine.
        say: told of progress.
    """
    workers = []
    try:
        for arm in arms:
            workers.append(Worker(arm))
            begun = time.monotonic()
            _attempt(workers[-1], workers[-1].start, say)
            say(f"  {arm.name}: ready after {time.monotonic() - begun:.0f} s")
        for _ in range(rounds):
            for worker in workers:
                if not worker.died:
                    patience -= machine.wait_until_quiet(QUIET, max(0.0, patience))
                    _attempt(worker, worker.turn, say)
    finally:
        for worker in workers:
            worker.stop()
    return workers


def _attempt(worker: Worker, action: Callable[[], None], say: Callable[[str], None]) -> None:
    try:
        action()
    except WorkerError as error:
        worker.died = str(error)
        say(f"  {error}")


def in_turn(
    jobs: Mapping[Any, Callable[[], Any]], rounds: int, least: float, patience: float = 0.0
) -> dict[Any, list[Turn]]:
    """Jobs of this process, one after another, again and again: A B C A B C ...

    A turn of a job is as many calls of it as take ``least`` seconds, because the kernel counts
    what others do in hundredths of a second; its times are those of one call.

    Args:
        jobs: each returns when its work is done. Called twice before anything is timed.
        rounds: turns of each.
        least: seconds of a turn, about.
        patience: seconds in all to wait for a quiet machine.
    """
    calls = {}
    for name, job in jobs.items():
        job()
        job()
        begun = time.perf_counter()
        job()
        calls[name] = max(1, round(least / max(time.perf_counter() - begun, 1e-9)))
    taken: dict[Any, list[Turn]] = {name: [] for name in jobs}
    for _ in range(rounds):
        for name, job in jobs.items():
            patience -= machine.wait_until_quiet(QUIET, patience) if patience > 0 else 0
            with machine.Meter() as meter:
                for _ in range(calls[name]):
                    job()
            n = calls[name]
            taken[name].append(Turn(meter.seconds / n, meter.cpu / n, meter.others))
    return taken


def medians(found: list[Turn]) -> dict[str, Any]:
    """How many turns, how many clean ones, and in ms wall and core time: medians of the clean
    turns, or of all where fewer than three were clean."""
    clean = [turn for turn in found if turn.clean]
    result: dict[str, Any] = {"steps": len(found), "clean": len(clean)}
    counted = clean if len(clean) >= 3 else found
    if counted:
        result["ms"] = 1e3 * statistics.median(t.seconds for t in counted)
        result["cpu_ms"] = 1e3 * statistics.median(t.cpu for t in counted)
    return result


def summary(worker: Worker) -> dict[str, Any]:
    """What an arm took, with the facts that it told when it was ready."""
    found = {"arm": worker.arm.name, **medians(worker.turns), "died": worker.died}
    return {**found, **worker.ready}


def table(results: list[dict[str, Any]], baseline: int = 0) -> str:
    """One line an arm. Speed is relative to the first; ``core-ms`` is robust against load."""
    lines = [
        f"{'arm':34} {'ms':>8} {'speed':>6} {'core-ms':>8} {'speed':>6} {'clean':>7}  note",
    ]
    first = results[baseline]
    for r in results:
        clean = f"{r['clean']}/{r['steps']}"
        if "ms" not in r:
            lines.append(
                f"{r['arm']:34} {'-':>8} {'-':>6} {'-':>8} {'-':>6} {clean:>7}  {r['died']}"
            )
            continue
        wall = f"{first['ms'] / r['ms']:.2f}" if "ms" in first else "-"
        cpu = f"{first['cpu_ms'] / r['cpu_ms']:.2f}" if "ms" in first else "-"
        note = r["died"] or ("" if r["clean"] >= 3 else "loaded machine")
        lines.append(
            f"{r['arm']:34} {r['ms']:8.0f} {wall:>6} {r['cpu_ms']:8.0f} {cpu:>6} {clean:>7}  {note}"
        )
    return "\n".join(lines)
