"""How much of a training step every registered corruption takes.

    python -m benchmarks.corruption [--shapes mini base] [--json out.json]

The corruption is compiled alone and timed in turn with the whole step, in one process. Alone it can
overlap with nothing and pays its own dispatch, so the share is an upper bound. Goal: below 5 % of a
step on a CPU, 3 % on an accelerator.
"""

from __future__ import annotations

import argparse
import dataclasses
import statistics
from collections.abc import Callable
from typing import Any

from benchmarks import machine, ours, step, turns
from bert_variants import registry, runtime

GOAL = 0.05


def corruptions(parts: ours.Parts) -> dict[str, Callable[[], Any]]:
    """Every registered corruption with its defaults, compiled."""
    import jax

    from bert_variants import keys
    from bert_variants.train import setup

    found = {}
    for name in registry.names("corruption"):
        bound = setup.bind(f"{name}()", ours.vocab())

        def corrupt(batch: Any, number: Any, bound: Any = bound) -> Any:
            return bound(keys.corruption_keys(keys.root(0), batch, number, 0), batch)

        with jax.set_mesh(parts.mesh):
            compiled = jax.jit(corrupt).lower(parts.batch, 0).compile()
        found[name] = lambda run=compiled: jax.block_until_ready(run(parts.batch, 0))
    return found


def measure(spec: ours.Spec, rounds: int) -> dict[str, Any]:
    """Medians in ms, and shares of the step."""
    take_step, parts = ours.prepare(spec)[:2]
    jobs = {"step": take_step, **corruptions(parts)}
    for job in jobs.values():
        job()
    taken: dict[str, list[turns.Turn]] = {name: [] for name in jobs}
    for _ in range(rounds):
        for name, job in jobs.items():
            repeats = 1 if name == "step" else 10
            with machine.Meter() as meter:
                for _ in range(repeats):
                    job()
            turn = turns.Turn(meter.seconds / repeats, meter.cpu / repeats, meter.others)
            taken[name].append(turn)
    result: dict[str, Any] = {}
    for name, found in taken.items():
        clean = [t for t in found if t.clean]
        counted = clean if len(clean) >= 3 else found
        result[name] = {
            "ms": 1e3 * statistics.median(t.seconds for t in counted),
            "cpu_ms": 1e3 * statistics.median(t.cpu for t in counted),
            "clean": len(clean),
        }
    for name in result:
        for key in ("ms", "cpu_ms"):
            result[name][key.replace("ms", "share")] = result[name][key] / result["step"][key]
    return result


def main(argv: list[str] | None = None) -> dict[str, Any]:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shapes", nargs="+", default=["mini"], help="mini, base, toy")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--json", default="", help="where to write the result")
    options = parser.parse_args(argv)
    runtime.tune()
    about = machine.describe()
    print(machine.headline(about))
    result: dict[str, Any] = {"machine": about}
    for name in options.shapes:
        shape = {**step.CPU, **step.TOY}[name]
        found = measure(ours.Spec(**dataclasses.asdict(shape)), options.rounds)
        result[name] = found
        print(f"{shape}: the step takes {found['step']['ms']:.1f} ms")
        for corruption, r in found.items():
            if corruption != "step":
                verdict = "" if r["cpu_share"] < GOAL else "  MISSES the goal"
                print(
                    f"  {corruption:20} {r['ms']:7.2f} ms  {r['share']:6.2%} of the time, "
                    f"{r['cpu_share']:6.2%} of the core time{verdict}"
                )
    machine.save(options.json, result)
    return result


if __name__ == "__main__":
    main()
