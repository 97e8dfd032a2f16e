"""How long compiling a step and starting the program take.

    python -m benchmarks.compile [--shape base] [--json out.json]

Each number is a process of its own. ``cold`` starts with an empty compilation cache, ``cached`` is
the same process again. Goals: BERT-base below 15 s cold on 2 cores and 2 s from the cache; ``import
bert_variants`` below 1 s, ``--help`` below 0.5 s.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from typing import Any

from benchmarks import machine, step, turns

STARTS = {
    "import bert_variants": ["-c", "import bert_variants"],
    "bert-variants --help": ["-m", "bert_variants.cli", "--help"],
    "python alone": ["-c", "pass"],
}


def compiled(shape: step.Shape, scan: str, cache: str) -> dict[str, float]:
    """Tracing and compiling in a fresh process, in seconds."""
    arm = turns.Arm(
        f"scan {scan}",
        "ours",
        {"size": shape.size, "batch": shape.batch, "length": shape.length, "scan": scan},
        {
            "JAX_COMPILATION_CACHE_DIR": cache,
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        },
    )
    worker = turns.Worker(arm)
    try:
        worker.start()
    finally:
        worker.stop()
    return {key: worker.ready[key] for key in ("trace_s", "compile_s", "temporaries_mb")}


def started(arguments: list[str], repeats: int) -> float:
    """Median seconds of a process from start to end."""
    taken = []
    for _ in range(repeats):
        begun = time.perf_counter()
        subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)
        taken.append(time.perf_counter() - begun)
    return statistics.median(taken)


def main(argv: list[str] | None = None) -> dict[str, Any]:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shape", default="base", help="mini, base, toy")
    parser.add_argument("--scans", nargs="+", default=["off", "on"])
    parser.add_argument("--repeats", type=int, default=5, help="of the program's start")
    parser.add_argument("--json", default="", help="where to write the result")
    options = parser.parse_args(argv)
    shape = {**step.CPU, **step.TOY}[options.shape]
    about = machine.describe()
    print(machine.headline(about))
    result: dict[str, Any] = {"machine": about, "compile": {}, "start_s": {}}
    for scan in options.scans:
        with tempfile.TemporaryDirectory() as cache:
            for state in ("cold", "cached"):
                found = compiled(shape, scan, cache)
                result["compile"][f"scan {scan}, {state}"] = found
                print(
                    f"{shape.size} {shape.batch}x{shape.length}, scan {scan:3}, {state:6}: "
                    f"traced in {found['trace_s']:.1f} s, compiled in {found['compile_s']:.1f} s, "
                    f"{found['temporaries_mb']} MB of temporaries",
                    flush=True,
                )
    for name, arguments in STARTS.items():
        result["start_s"][name] = started(arguments, options.repeats)
        print(f"{name:24} {result['start_s'][name]:.2f} s")
    machine.save(options.json, result)
    return result


if __name__ == "__main__":
    main()
