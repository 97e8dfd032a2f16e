"""The parent's side of the worker processes: who gets which job, and what if one dies."""

from __future__ import annotations

import dataclasses
import json
import os
import queue
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Sequence
from typing import IO, Any

from bert_variants.text.encoding import Job

Done = Callable[[int, int, int, bool], None]  # job number, bytes of text, tokens, all of it


class WorkerError(RuntimeError):
    """A job that failed, or a worker process that died over it."""

    exit_code = 3  # the data, not the command, is at fault


def job_failed(job: Job, error: str) -> WorkerError:
    """The error of a job that could not be done."""
    return WorkerError(f"preparing {job.name} failed: {error}")


def run_jobs(
    task: dict[str, Any], jobs: Sequence[Job], count: int, done: Done
) -> list[dict[str, Any]]:
    """Run the jobs in ``count`` processes and return their records, in the order of the jobs.

    A worker takes the next job when it is through with one; large jobs first. All workers have
    ended when this returns or raises.

    Args:
        task: what every worker needs to know; see ``prepare_worker``.
        jobs: what is to be done.
        count: processes.
        done: told of progress.

    Raises:
        WorkerError: names the part, and the worker's last words.
    """
    order = sorted(range(len(jobs)), key=lambda n: -jobs[n].size)
    events: queue.SimpleQueue[tuple[_Worker, dict[str, Any] | None]] = queue.SimpleQueue()
    records: dict[int, dict[str, Any]] = {}
    workers: list[_Worker] = []
    try:
        for _ in range(min(count, len(jobs))):
            workers.append(_Worker(task, events))
            workers[-1].give(order.pop(0), jobs)
        while len(records) < len(jobs):
            worker, message = events.get()
            if message is None:
                raise WorkerError(worker.obituary(jobs))
            number = message["number"]
            if "error" in message:
                raise job_failed(jobs[number], message["error"])
            if "done" in message:
                done(number, *message["done"], False)
                continue
            record = records[number] = message["record"]
            done(number, record["bytes"], record["tokens"], True)
            if order:
                worker.give(order.pop(0), jobs)
            else:
                worker.job = None
    finally:
        for worker in workers:
            worker.end()
    return [records[n] for n in range(len(jobs))]


class _Worker:
    """One process, and a thread that hears what it says."""

    def __init__(
        self, task: dict[str, Any], events: queue.SimpleQueue[tuple[Any, dict[str, Any] | None]]
    ) -> None:
        self.job: int | None = None
        self._errors: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115
        # One process a core already: more threads in each would only get in each other's way.
        single = dict.fromkeys(("RAYON_NUM_THREADS", "OMP_NUM_THREADS"), "1")
        self._process = subprocess.Popen(
            [sys.executable, "-m", "bert_variants.text.prepare_worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            env={**os.environ, **single, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            text=True,
            encoding="utf-8",
        )
        self._send(task)
        self._thread = threading.Thread(target=self._listen, args=(events,), daemon=True)
        self._thread.start()

    def give(self, number: int, jobs: Sequence[Job]) -> None:
        self.job = number
        self._send({"number": number, **dataclasses.asdict(jobs[number])})

    def obituary(self, jobs: Sequence[Job]) -> str:
        code = self._process.wait()
        self._errors.seek(0)
        words = self._errors.read()[-2000:].decode("utf-8", "replace").strip()
        over = f"over {jobs[self.job].name}" if self.job is not None else "without work"
        how = f"by signal {-code}" if code < 0 else f"with exit code {code}"
        hint = " (killed: probably out of memory)" if code == -9 else ""
        said = f" Its last words: {words}" if words else ""
        return (
            f"a worker process ended {how}{hint} {over}. What is finished is kept: run it again, "
            f"with fewer data.workers if memory was short.{said}"
        )

    def end(self) -> None:
        self._process.kill()
        self._process.wait()
        self._thread.join()
        for pipe in (self._process.stdin, self._process.stdout, self._errors):
            try:
                pipe.close()
            except BrokenPipeError:  # something was still on its way to the killed process
                continue

    def _send(self, message: dict[str, Any]) -> None:
        try:
            self._process.stdin.write(json.dumps(message) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            return  # it died: its thread says so

    def _listen(self, events: queue.SimpleQueue[tuple[Any, dict[str, Any] | None]]) -> None:
        for line in self._process.stdout:
            if line.endswith("\n"):  # else it died in the middle of a word
                events.put((self, json.loads(line)))
        events.put((self, None))
