"""What moving a model costs: peak memory of a process that converts, and its time.

    python -m benchmarks.conversion                 BERT-large, about 5 GB of disk for a while
    python -m benchmarks.conversion --size base

A model of random parameters is written as a directory of transformers; one process makes a run of
it, another one a directory of that run. Peak memory is the largest resident set of the process,
with the interpreter and jax in it (``import`` says how much that is), over the parameters' float32
size.
"""

from __future__ import annotations

import argparse
import json
import math
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import machine
from bert_variants import config, loaded, registry
from bert_variants.convert import pretrained
from bert_variants.convert.family import shapes_of
from bert_variants.train import leaves

ROWS = 30522  # of the table of words; the vocabulary itself is a small one
TEXTS = ["the quick brown fox jumps over the lazy dog"] * 5


def model(size: str) -> loaded.Loaded:
    """A BERT of random parameters."""
    experiment = config.get_config("bert", size=size)
    rng = np.random.default_rng(0)
    params = {
        path: rng.standard_normal(shape, np.float32)
        for path, shape in shapes_of(experiment, ROWS).items()
    }
    tokenizer = registry.lookup("tokenizer", "wordpiece(size=60)")().build(TEXTS)
    return loaded.of(experiment, leaves.nested(params), tokenizer)


def parameters(size: str) -> int:
    """How many a BERT of that size has."""
    shapes = shapes_of(config.get_config("bert", size=size), ROWS)
    return sum(math.prod(shape) for shape in shapes.values())


def peak() -> int:
    """The largest resident set of this process so far, in bytes (Linux)."""
    for line in Path("/proc/self/status").read_text().split("\n"):
        if line.startswith("VmHWM:"):
            return 1024 * int(line.split()[1])
    raise RuntimeError("/proc/self/status has no line VmHWM.")


def alone(*arguments: str) -> dict[str, Any]:
    """One stage in a process of its own: its peak and seconds."""
    command = [sys.executable, "-m", "benchmarks.conversion", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr)
    return json.loads(done.stdout.strip().split("\n")[-1])


def stage(what: str, size: str, folder: Path) -> None:
    """Do one stage and print what it took."""
    begun = time.monotonic()
    if what == "write":
        pretrained.save_pretrained(model(size), folder / "hub", force=True)
    elif what == "in":
        pretrained.convert(folder / "hub", folder / "run", force=True)
    elif what == "out":
        pretrained.convert(folder / "run", folder / "back", force=True)
    print(json.dumps({"peak": peak(), "seconds": time.monotonic() - begun}))


def main(argv: list[str] | None = None) -> dict[str, Any]:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", default="large", help="of BERT")
    parser.add_argument("--dir", type=Path, default=Path("runs/conversion"))
    parser.add_argument("--json", default="", help="where to write the result")
    parser.add_argument("--stage", default="", help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    if options.stage:
        stage(options.stage, options.size, options.dir)
        return {}
    size = 4 * parameters(options.size)
    shared = ("--size", options.size, "--dir", str(options.dir))
    alone("--stage", "write", *shared)
    found = {what: alone("--stage", what, *shared) for what in ("import", "in", "out")}
    shutil.rmtree(options.dir)
    names = {
        "import": "nothing but importing",
        "in": "a directory of transformers becomes a run",
        "out": "a run becomes a directory of transformers",
    }
    print(f"BERT-{options.size}, {size / 1e9:.2f} GB of float32")
    print("| | peak memory | of its size | seconds |")
    print("| --- | --- | --- | --- |")
    for what, one in found.items():
        print(
            f"| {names[what]} | {one['peak'] / 1e9:.2f} GB | {one['peak'] / size:.2f} | "
            f"{one['seconds']:.0f} |"
        )
    machine.save(options.json, {"bytes": size, **found})
    return found


if __name__ == "__main__":
    main()
