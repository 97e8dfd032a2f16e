"""A grid whose cells train in a second, also by workers in processes of their own.

As a program (``python toy_grid.py BASE NAME FAULT``) it is a worker: it trains what is left of the
grid NAME below BASE. FAULT is ``none`` or ``kill@STEP``: SIGKILL once the metrics of that step of a
cell were read. Each line that it prints says what it does.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bert_variants import config
from bert_variants.ablate.grid import Grid

STEPS, LENGTH = 4, 16
ARMS = {"tokens": {}, "half": {"corruption.rate": 0.5}}
LOSS = "pll/mlm/loss"


def experiment(base: Path) -> config.Experiment:
    """One layer of 16, on one device."""
    return config.Experiment(
        name="toy",
        data=config.Data(
            source="synthetic(documents=40)",
            held_out=0.2,
            tokenizer="wordpiece(size=200)",
            example="single()",
            length=LENGTH,
            dir=str(base / "data"),
            workers=1,
        ),
        model=f"bert(layers=1, width=16, heads=2, ffn=32, positions={LENGTH}, dropout=0.0)",
        objectives="mlm",
        optim=config.Optim(lr=1e-2, warmup=1),
        run=config.Run(
            dir=str(base / "grid"),
            steps=STEPS,
            batch=8,
            precision="float32",
            log_every=1,
            eval_every=2,
            save_every=2,
            keep=1,
        ),
        evals=config.Evals(rows=8, batch=8, masks=("tokens(rate=0.15)",), pll=2),
    )


def grid(base: Path, name: str, **fields: Any) -> Grid:
    """Two arms with two seeds, in ``base / name``."""
    toy = config.set_field(experiment(base), "run.dir", str(base / name))
    given = {"arms": ARMS, "baseline": "tokens", "seeds": (0, 1), **fields}
    return Grid(name=name, base=toy, claim="C & C", number="1 < 2", compares="a", **given)


def made_up(
    grid: Grid, results: Mapping[tuple[str, int], float | str | None], **about: str
) -> None:
    """Write cells as training leaves them: a final loss; a text: why it failed; None: begun.

    ``about`` goes into the fingerprints.
    """
    steps = grid.base.run.steps
    for cell in grid.cells():
        found = results.get((cell.arm, cell.seed), "absent")
        if found == "absent":
            continue
        cell.dir.mkdir(parents=True, exist_ok=True)
        (cell.dir / "config.json").write_text(json.dumps(config.to_dict(cell.experiment)))
        prints = {"store": "s" * 64, "tokenizer": "t" * 64, "probes": "p" * 64, **about}
        start = {"time": "2024-01-01T00:00:00+00:00", "step": 0, "probes": prints["probes"]}
        manifest = {"fingerprints": prints, "starts": [start]}
        (cell.dir / "manifest.json").write_text(json.dumps(manifest))
        lines = []
        end = found if isinstance(found, float) else 3.0
        for step in range(1, steps + 1):
            train = {"kind": "train", "step": step, "tokens": 128 * step, "loss": 5.0}
            lines.append({**train, "timing": {"seconds": 0.5 * step}})
            if step % 2 == 0 and (step < steps or isinstance(found, float)):
                loss = None if end != end else end + (steps - step) * 0.2
                values = dict.fromkeys(grid.judged_by(), loss)
                lines.append({"kind": "held_out", "step": step, **values, "timing": {}})
        text = "".join(json.dumps(line) + "\n" for line in lines)
        (cell.dir / "metrics.jsonl").write_text(text)
        if isinstance(found, float):
            (cell.dir / "checkpoints" / str(steps)).mkdir(parents=True)
        elif isinstance(found, str):
            failed = {"error": "DivergedError", "message": found, "step": 3}
            (cell.dir / "failed.json").write_text(json.dumps(failed))


def start(
    base: Path, name: str, fault: str = "none", compiled: Path | None = None
) -> subprocess.Popen[str]:
    """A worker in a process of its own, with this process's compiled programs or others."""
    import jax

    cache = {
        "JAX_COMPILATION_CACHE_DIR": str(compiled or jax.config.jax_compilation_cache_dir),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }
    return subprocess.Popen(
        [sys.executable, __file__, str(base), name, fault],
        env={**os.environ, **cache},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def ended(process: subprocess.Popen[str], seconds: float = 300) -> tuple[int, list[str]]:
    """Wait for a worker: its exit code (negative: the signal that killed it) and its lines."""
    try:
        output, _ = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        output, _ = process.communicate()
        raise AssertionError(f"still running after {seconds} s:\n{output}") from None
    return process.returncode, output.split("\n")


def main(argv: list[str]) -> int:
    """Work on a grid, with a fault."""
    from bert_variants.ablate import cells
    from bert_variants.text.prepare import prepare
    from bert_variants.train.reporting import Silent

    base, name, fault = Path(argv[0]), argv[1], argv[2]

    class Faulty(Silent):
        def step(self, line: Mapping[str, Any]) -> None:
            print(f"{os.getpid()} step {line['step']}", flush=True)
            if fault == f"kill@{line['step']}":
                os.kill(os.getpid(), signal.SIGKILL)

    work = grid(base, name)
    store = prepare(work.base.data)

    def note(text: str) -> None:
        print(text, flush=True)

    return cells.work(work, store, reporter=lambda ready: Faulty(), note=note, poll=0.2)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
