"""Runs that take a second, also in processes of their own that die at a given moment.

As a program (``python tiny_runs.py BASE RUN FAULT [FIELD=VALUE ...]``) it trains through the real
loop and exits as the command line does. FAULT is ``none`` or ``WHAT@STEP``:

    kill        SIGKILL once the metrics of the step were read
    kill_save   SIGKILL as soon as the step's save has begun to write
    kill_list   SIGKILL between the commit of the step and its manifest
    term        SIGTERM once the metrics of the step were read; term0, term1: in that process only
"""

from __future__ import annotations

import ast
import dataclasses
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bert_variants import config

STEPS, SAVE, BATCH, LENGTH = 30, 10, 8, 32


def experiment(base: Path, run: str | Path, **fields: Any) -> config.Experiment:
    """BERT with one layer of 16 over the tiny text, dropout on; ``fields`` are those of run."""
    return config.Experiment(
        name="tiny",
        data=config.Data(
            source=f"text({str(base / 'text' / '*.txt')!r})",
            held_out=0.2,
            tokenizer="wordpiece(size=200)",
            example="nsp_pairs()",
            length=LENGTH,
            dir=str(base / "data"),
            workers=1,
        ),
        model="bert(layers=1, width=16, heads=2, ffn=32, positions=32, dropout=0.1)",
        optim=config.Optim(lr=1e-2, warmup=5),
        run=config.Run(
            **{
                "dir": str(base / run),
                "steps": STEPS,
                "batch": BATCH,
                "precision": "float32",
                "log_every": 1,
                "eval_every": 15,
                "save_every": SAVE,
                "keep": 2,
                **fields,
            }
        ),
        evals=config.Evals(rows=16, batch=8, masks=()),
    )


def at(ready: Any, run_dir: Path, **fields: Any) -> Any:
    """A copy of a set-up with another directory and other run fields that are not compiled in."""
    run = dataclasses.replace(ready.experiment.run, dir=str(run_dir), **fields)
    return dataclasses.replace(ready, experiment=dataclasses.replace(ready.experiment, run=run))


def start(
    base: Path,
    run: str,
    fault: str = "none",
    *,
    environment: Mapping[str, str] | None = None,
    **fields: Any,
) -> subprocess.Popen[str]:
    """A run in a process of its own, with as many devices as this one."""
    import jax

    command = [sys.executable, __file__, str(base), run, fault]
    command += [f"{name}={value!r}" for name, value in fields.items()]
    cache = {
        "JAX_COMPILATION_CACHE_DIR": str(jax.config.jax_compilation_cache_dir),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }
    return subprocess.Popen(
        command,
        env={**os.environ, **cache, **(environment or {})},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def ended(process: subprocess.Popen[str], seconds: float = 180) -> tuple[int, str]:
    """Wait for a process: its exit code (negative: the signal that killed it) and its output."""
    try:
        output, _ = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        output, _ = process.communicate()
        raise AssertionError(f"still running after {seconds} s:\n{output}") from None
    return process.returncode, output


def main(argv: list[str]) -> int:
    """Train, with a fault; the exit code is that of the command line."""
    from bert_variants import cli
    from bert_variants.text.prepare import prepare
    from bert_variants.train import loop, processes, setup

    base, run, fault = Path(argv[0]), argv[1], argv[2]
    fields = {k: ast.literal_eval(v) for k, _, v in (a.partition("=") for a in argv[3:])}
    processes.initialise()
    what, _, at_step = fault.partition("@")

    class Faulty(loop.Lines):
        def step(self, line: Mapping[str, Any]) -> None:
            super().step(line)
            if what in ("kill", "term", "term0") and line["step"] == int(at_step):
                os.kill(os.getpid(), signal.SIGKILL if what == "kill" else signal.SIGTERM)

    try:
        tiny = experiment(base, run, **fields)
        install(what, at_step, Path(tiny.run.dir))
        result = loop.train(setup.make(tiny, prepare(tiny.data)), Faulty(every=10))
    except Exception as error:
        code = cli.exit_code(error)
        if code is None:
            raise
        print(error)
        return code
    print(result.message)
    return result.exit_code


def install(what: str, at_step: str, run_dir: Path) -> None:
    """Set the trap for the faults that do not show in a step's metrics."""
    from bert_variants.train import loop, manifest

    def kill() -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    if what == "kill_list":
        write = manifest.write
        manifest.write = lambda folder: kill() if folder.name == at_step else write(folder)
    if what == "kill_save":
        save = loop.Checkpoints.save

        def watch() -> None:
            while not list((run_dir / "checkpoints").glob(f"{at_step}{manifest.UNFINISHED}*")):
                pass
            kill()

        def save_and_die(self: Any, state: Any, meta: Any) -> None:
            if str(meta.step) == at_step:
                threading.Thread(target=watch, daemon=True).start()
            save(self, state, meta)

        loop.Checkpoints.save = save_and_die
    if what == "term1":
        from bert_variants.train import processes, setup

        dispatched, put = [0], setup.Setup.put_batch

        def put_and_signal(self: Any, batch: Any) -> Any:
            dispatched[0] += 1
            if dispatched[0] == int(at_step) and not processes.is_primary():
                os.kill(os.getpid(), signal.SIGTERM)
            return put(self, batch)

        setup.Setup.put_batch = put_and_signal


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
