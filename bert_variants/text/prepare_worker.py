"""A worker process of ``prepare``: jobs come in as JSON lines on stdin, results go out on stdout.

Started as ``python -m bert_variants.text.prepare_worker``, so that it works wherever ``prepare`` is
called from: a script without a main guard, a notebook, a test. When its parent goes away, however
that happens, stdin ends and the worker ends with it.
"""

from __future__ import annotations

import importlib
import json
import os
import queue
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any


def main() -> None:
    """Read the task, then jobs, until stdin ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides
    # Whatever a library prints must not get between the results.
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)

    def say(message: dict[str, Any]) -> None:
        out.write(json.dumps(message) + "\n")
        out.flush()

    lines: queue.SimpleQueue[str] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(lines,), daemon=True).start()
    work = _prepare_for(json.loads(lines.get()))
    while True:
        message = json.loads(lines.get())
        number = message["number"]
        try:
            record = work(message, lambda b, t, n=number: say({"number": n, "done": [b, t]}))
        except Exception as error:
            say({"number": number, "error": f"{type(error).__name__}: {error}"})
        else:
            say({"number": number, "record": record})


def _listen(lines: queue.SimpleQueue[str]) -> None:
    for line in sys.stdin:
        lines.put(line)
    os._exit(0)  # no more work will come, or the parent is dead: leave in the middle of anything


def _prepare_for(
    task: dict[str, Any],
) -> Callable[[dict[str, Any], Callable[[int, int], None]], dict[str, Any]]:
    sys.path[:] = task["path"]
    for module in task["modules"]:
        importlib.import_module(module)
    from bert_variants import registry
    from bert_variants.text.encoding import Job, encode
    from bert_variants.text.sources import Part

    folder = Path(task["tokenizer"])
    files = {p.name: p.read_bytes() for p in sorted(folder.iterdir())}
    tokenizer = registry.lookup("tokenizer", task["kind"])().restore(files)
    units = registry.lookup("units", task["units"]) if task["units"] else None

    def work(message: dict[str, Any], report: Callable[[int, int], None]) -> dict[str, Any]:
        parts = tuple(Part(**part) for part in message["parts"])
        job = Job(message["source"], parts, message["prefix"])
        source = registry.lookup("source", job.source)()
        return encode(source, job, tokenizer, units, report)

    return work


if __name__ == "__main__":
    main()
