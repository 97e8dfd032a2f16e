"""What this machine is, how busy it is, and how fast its plain matrix product runs."""

from __future__ import annotations

import json
import os
import platform
import time
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

_JIFFY = os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100
FEATURES = ("avx2", "avx512f", "avx512_bf16", "amx_bf16")


def busy_seconds() -> float | None:
    """Core-seconds that all cores together have been busy, stolen time too; None off Linux."""
    try:
        fields = Path("/proc/stat").read_text(encoding="ascii").partition("\n")[0].split()[1:]
    except OSError:
        return None
    user, nice, system, _, _, irq, softirq, steal = (int(f) for f in fields[:8])
    return (user + nice + system + irq + softirq + steal) / _JIFFY


def memory() -> int:
    """Bytes that are free to take; half of what there is where the system does not tell."""
    path = Path("/proc/meminfo")
    if not path.is_file():
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
    lines = path.read_text(encoding="ascii").split("\n")
    values = dict(line.split(":", 1) for line in lines if ":" in line)
    return int(values["MemAvailable"].split()[0]) << 10


class Meter:
    """Wall time, own CPU time and the share of the machine that others took, of a ``with`` block.

    Attributes:
        seconds: wall.
        cpu: core-seconds of this process, all threads.
        others: core-seconds of everybody else over wall * cores; 0 where it cannot be known.
    """

    def __enter__(self) -> Meter:
        self._busy, self._cpu = busy_seconds(), time.process_time()
        self._wall = time.perf_counter()
        return self

    def __exit__(self, *_: object) -> None:
        self.seconds = time.perf_counter() - self._wall
        self.cpu = time.process_time() - self._cpu
        busy = busy_seconds()
        if busy is None or self._busy is None:
            self.others = 0.0
        else:
            taken = busy - self._busy - self.cpu
            # the kernel counts in hundredths of a second, so a short block may show more than all
            self.others = min(1.0, max(0.0, taken) / max(self.seconds * cores(), 1e-9))


def others_now(seconds: float = 0.1) -> float:
    """The share of the machine that is in use while this process sleeps ``seconds``."""
    with Meter() as meter:
        time.sleep(seconds)
    return meter.others


def wait_until_quiet(limit: float, patience: float) -> float:
    """Sleep until others use less than ``limit`` of the machine; returns the seconds waited."""
    start = time.monotonic()
    while others_now() > limit and time.monotonic() - start < patience:
        time.sleep(0.1)
    return time.monotonic() - start


def cores() -> int:
    """Cores that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def gemm_gflops(n: int = 1024, repeats: int = 5) -> float:
    """Best float32 matrix product of numpy's BLAS here, 2 n^3 operations, in GFLOP/s."""
    a = np.ones((n, n), np.float32)
    best = float("inf")
    for _ in range(repeats):
        start = time.perf_counter()
        a @ a
        best = min(best, time.perf_counter() - start)
    return 2 * n**3 / best / 1e9


def describe() -> dict[str, Any]:
    """The machine in general terms, versions, and how loaded it is now."""
    versions = {}
    for package in ("jax", "flax", "torch", "transformers", "numpy"):
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            versions[package] = None
    try:
        flags = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").split()
    except OSError:
        flags = []
    return {
        "cores": cores(),
        "architecture": platform.machine(),
        "features": [f for f in FEATURES if f in flags],
        "python": platform.python_version(),
        "versions": versions,
        "gemm_gflops": round(gemm_gflops(), 1),
        "load": [round(x, 2) for x in os.getloadavg()] if hasattr(os, "getloadavg") else None,
        "others": round(others_now(0.5), 2),
    }


def headline(machine: dict[str, Any]) -> str:
    """One line for the top of a table."""
    versions = ", ".join(f"{k} {v}" for k, v in machine["versions"].items() if v)
    return (
        f"{machine['cores']} cores {machine['architecture']} ({' '.join(machine['features'])}), "
        f"python {machine['python']}, {versions}; float32 GEMM {machine['gemm_gflops']} GFLOP/s; "
        f"load {machine['load']}, others use {machine['others']:.0%} now"
    )


def save(path: str, result: dict[str, Any]) -> None:
    """Write a result as JSON, the folder made if need be; nothing where no path is given."""
    if path:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
