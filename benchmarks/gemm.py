"""What matrix products run at on this machine, at BERT's shapes: the ceiling of a training step.

    python -m benchmarks.gemm

GFLOP/s of (m, k) by (k, n) products, medians: numpy, jax and PyTorch in float32, jax and PyTorch on
bfloat16 factors. A step cannot be faster than its products: compare with the useful GFLOP/s that
``benchmarks.step`` prints.
"""

from __future__ import annotations

import argparse
import importlib.util
import time
from collections.abc import Callable
from statistics import median
from typing import Any

import numpy as np

from benchmarks import machine

# rows, inner, columns: the two of a feed-forward layer, a projection, the vocabulary; base's wide
SHAPES = (
    (4096, 256, 1024),
    (4096, 1024, 256),
    (4096, 256, 256),
    (640, 256, 30_522),
    (2048, 768, 3072),
)


def seconds(function: Callable[[], Any], times: int) -> float:
    """The median of ``times`` runs, after one that warms up."""
    function()
    taken = []
    for _ in range(times):
        begun = time.perf_counter()
        function()
        taken.append(time.perf_counter() - begun)
    return median(taken)


def products(m: int, k: int, n: int) -> dict[str, Callable[[], Any]]:
    """Name -> one product, waited for."""
    import jax
    import jax.numpy as jnp

    left, right = np.ones((m, k), np.float32), np.ones((k, n), np.float32)
    full = jax.jit(lambda a, b: a @ b)
    half = jax.jit(lambda a, b: jnp.matmul(a, b, preferred_element_type=jnp.float32))
    a, b = jnp.asarray(left), jnp.asarray(right)
    a16, b16 = a.astype(jnp.bfloat16), b.astype(jnp.bfloat16)
    found: dict[str, Callable[[], Any]] = {
        "numpy": lambda: left @ right,
        "jax": lambda: full(a, b).block_until_ready(),
        "jax bf16": lambda: half(a16, b16).block_until_ready(),
    }
    if importlib.util.find_spec("torch"):
        import torch

        x, y = torch.from_numpy(left), torch.from_numpy(right)
        x16, y16 = x.bfloat16(), y.bfloat16()
        found |= {"torch": lambda: x @ y, "torch bf16": lambda: x16 @ y16}
    return found


def main(argv: list[str] | None = None) -> dict[str, Any]:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--times", type=int, default=15)
    parser.add_argument("--shapes", type=int, default=len(SHAPES), help="how many of them")
    parser.add_argument("--json", default="", help="where to write the result")
    options = parser.parse_args(argv)
    about = machine.describe()
    print(machine.headline(about))
    result: dict[str, Any] = {"machine": about}
    for m, k, n in SHAPES[: options.shapes]:
        speeds = {
            name: 2 * m * k * n / seconds(function, options.times) / 1e9
            for name, function in products(m, k, n).items()
        }
        result[f"{m}x{k}x{n}"] = speeds
        shown = "  ".join(f"{name} {speed:5.0f}" for name, speed in speeds.items())
        print(f"{m:5} x {k:4} x {n:5}:  {shown}  GFLOP/s", flush=True)
    machine.save(options.json, result)
    return result


if __name__ == "__main__":
    main()
