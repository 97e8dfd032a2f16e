"""Whether this machine is ready: ten lines, each with a hint where something is wrong.

Nothing here crashes: a check that fails in a way nobody thought of is a failed line too. What
touches a device runs in a process of its own with a time limit, because a driver that does not fit
may abort the process, and a TPU that another process holds makes it wait for ever.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from bert_variants import runtime

PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")
LEAST_PYTHON, LEAST_JAX = (3, 11), (0, 10)
LEAST_MEMORY, LEAST_DISK = 2 << 30, 2 << 30
PATIENCE = 240.0  # seconds for importing jax, finding devices and compiling a step


@dataclasses.dataclass(frozen=True)
class Check:
    """One line: what was looked at, whether it is good, what was found, what to do if not."""

    name: str
    good: bool
    found: str
    hint: str = ""


def doctor() -> list[Check]:
    """All checks, in the order in which one would mend things. Takes some seconds; never raises."""
    checks = [_guarded(name, check) for name, check in _HOST.items()]
    probed = _probe()
    checks += [
        _guarded("devices", lambda: _devices(probed)),
        _guarded("step", lambda: _step(probed)),
        _guarded("speed", lambda: _speed(probed)),
    ]
    return checks


def render(checks: Sequence[Check]) -> str:
    """One line a check; a hint stands below the line that it belongs to."""
    lines = []
    for check in checks:
        lines.append(f"{'ok  ' if check.good else 'FAIL'}  {check.name:10}{check.found}")
        if check.hint:
            lines.append(f"{'':16}-> {check.hint}")
    bad = [check.name for check in checks if not check.good]
    lines.append(f"not ready: {', '.join(bad)}" if bad else "ready")
    return "\n".join(lines)


def _guarded(name: str, check: Callable[[], Check]) -> Check:
    try:
        return check()
    except Exception as error:  # a doctor that falls ill itself helps nobody
        return Check(name, False, f"the check failed: {type(error).__name__}: {error}")


def _python() -> Check:
    good = sys.version_info[:2] >= LEAST_PYTHON
    hint = "" if good else f"install Python {'.'.join(map(str, LEAST_PYTHON))} or newer"
    found = f"{platform.python_version()} on {platform.system()} {platform.machine()}"
    return Check("python", good, found, hint)


def version(package: str) -> str | None:
    """The installed version of a package, None if it is not installed."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _packages() -> Check:
    found = {name: version(name) for name in PACKAGES}
    missing = [name for name, installed in found.items() if installed is None]
    told = ", ".join(f"{name} {installed}" for name, installed in found.items() if installed)
    if missing:
        return Check("packages", False, told, f"pip install {' '.join(missing)}")
    jax, jaxlib = found["jax"], found["jaxlib"]
    if _numbers(jax) < LEAST_JAX:
        return Check("packages", False, told, 'pip install -U "jax>=0.10"')
    if _numbers(jax)[:2] != _numbers(jaxlib)[:2]:
        hint = f"jax {jax} and jaxlib {jaxlib} do not belong together: pip install -U jax jaxlib"
        return Check("packages", False, told, hint)
    return Check("packages", True, told)


def _numbers(text: str | None) -> tuple[int, ...]:
    parts = (text or "0").split(".")
    return tuple(int(p) for p in parts if p.isdigit())


def _accelerator() -> Check:
    """Hardware and the plugin that jax needs for it, by their traces on this machine."""
    tpu = any(Path("/dev").glob("accel*")) or "TPU_NAME" in os.environ
    cuda = Path("/proc/driver/nvidia/version").is_file() or shutil.which("nvidia-smi") is not None
    plugins = {
        name: v
        for name in ("libtpu", "jax-cuda12-plugin", "jax-cuda13-plugin", "jax-cuda12-pjrt")
        if (v := version(name))
    }
    told = ", ".join(f"{name} {v}" for name, v in plugins.items()) or "no plugin"
    hardware = "a TPU" if tpu else "an NVIDIA GPU" if cuda else "none seen"
    found = f"{hardware}; {told}"
    if tpu and "libtpu" not in plugins:
        return Check("hardware", False, found, 'pip install -U "jax[tpu]"')
    if cuda and not any("cuda" in name for name in plugins):
        return Check("hardware", False, found, 'pip install -U "jax[cuda12]"')
    for name, installed in plugins.items():
        if "cuda" in name and _numbers(installed)[:2] != _numbers(version("jaxlib"))[:2]:
            hint = f"{name} {installed} is not for jaxlib {version('jaxlib')}: "
            return Check("hardware", False, found, hint + 'pip install -U "jax[cuda12]"')
    return Check("hardware", True, found)


def _memory() -> Check:
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    free = total
    if Path("/proc/meminfo").is_file():
        lines = Path("/proc/meminfo").read_text(encoding="ascii").split("\n")
        values = dict(line.split(":", 1) for line in lines if ":" in line)
        free = int(values["MemAvailable"].split()[0]) << 10
    limit = Path("/sys/fs/cgroup/memory.max")
    if limit.is_file() and (text := limit.read_text(encoding="ascii").strip()).isdigit():
        total, free = min(total, int(text)), min(free, int(text))
    good = free >= LEAST_MEMORY
    hint = "" if good else "close other programs: a small run needs 2 GiB"
    found = f"{_gib(free)} free of {_gib(total)}, {_cores()} cores"
    return Check("memory", good, found, hint)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _disk() -> Check:
    folder = Path.cwd()
    free = shutil.disk_usage(folder).free
    hint = "" if free >= LEAST_DISK else "free some space, or set run.dir and data.dir elsewhere"
    if not _writable(folder):
        return Check("disk", False, f"{folder} cannot be written", "start from another directory")
    return Check("disk", not hint, f"{_gib(free)} free at {folder}", hint)


def _cache() -> Check:
    named = os.environ.get("JAX_COMPILATION_CACHE_DIR")
    if not named:
        hint = "export JAX_COMPILATION_CACHE_DIR=~/.cache/jax saves compiling on every start"
        return Check("cache", True, "compiled programs are not kept", hint)
    folder = Path(named).expanduser()
    folder.mkdir(parents=True, exist_ok=True)
    good = _writable(folder)
    hint = "" if good else "let JAX_COMPILATION_CACHE_DIR name a directory that can be written"
    return Check("cache", good, f"compiled programs are kept in {folder}", hint)


def _writable(folder: Path) -> bool:
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"x" * 4096)
    except OSError:
        return False
    return True


def _allocator() -> Check:
    made = runtime.tune()
    if made:
        return Check("allocator", True, "; ".join(made))
    why = f"{runtime.OFF}=off" if os.environ.get(runtime.OFF) == "off" else "not glibc"
    hint = "" if why == "not glibc" else f"unset {runtime.OFF}: steps on a CPU are faster tuned"
    return Check("allocator", True, f"left alone ({why})", hint)


_HOST: dict[str, Callable[[], Check]] = {
    "python": _python,
    "packages": _packages,
    "hardware": _accelerator,
    "memory": _memory,
    "disk": _disk,
    "cache": _cache,
    "allocator": _allocator,
}


def _gib(count: int | float) -> str:
    return f"{count / 2**30:.1f} GiB"


# --- what touches a device, in a process of its own -----------------------------------------------


def _probe() -> dict[str, Any]:
    """What ``python -m bert_variants.doctor`` could tell, and why it stopped if it did."""
    package = str(Path(__file__).resolve().parent.parent)
    paths = [package, *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    told: dict[str, Any] = {"stopped": ""}
    try:
        done = subprocess.run(
            [sys.executable, "-m", "bert_variants.doctor"],
            capture_output=True,
            timeout=PATIENCE,
            env=environment,
            check=False,
        )
        output, errors = done.stdout, done.stderr
        if done.returncode:
            last = errors.decode(errors="replace").strip().split("\n")[-1]
            told["stopped"] = f"exit code {done.returncode}: {last[:300]}"
    except subprocess.TimeoutExpired as expired:
        output = expired.stdout or b""
        told["stopped"] = f"no answer within {PATIENCE:.0f} s"
    except OSError as error:
        output, told["stopped"] = b"", str(error)
    for line in output.decode(errors="replace").split("\n"):
        if line.startswith("{"):
            told.update(json.loads(line))
    return told


def _devices(told: dict[str, Any]) -> Check:
    if "devices" not in told:
        hint = (
            "another process may hold the device, or driver and plugin do not fit; "
            "JAX_PLATFORMS=cpu works without"
        )
        return Check("devices", False, told["stopped"] or "jax found none", hint)
    kinds, memory = told["devices"], told["memory"]
    counted = ", ".join(f"{kinds.count(kind)} x {kind}" for kind in dict.fromkeys(kinds))
    more = f", {_gib(memory)} each" if memory else ""
    hint = ""
    if told["platform"] == "cpu" and not os.environ.get("JAX_PLATFORMS"):
        named = _accelerator()
        hint = "" if "none seen" in named.found else "jax does not use the hardware seen above"
    return Check("devices", not hint, f"{counted} ({told['platform']}){more}", hint)


def _step(told: dict[str, Any]) -> Check:
    if "step_seconds" not in told:
        hint = "python -m bert_variants.doctor shows the whole error"
        return Check("step", False, told["stopped"] or "no step was made", hint)
    good = bool(told["finite"])
    found = (
        f"BERT-tiny, {told['rows']}: compiled in {told['compile_seconds']:.1f} s, "
        f"{told['step_seconds'] * 1e3:,.1f} ms a step, {told['tokens_per_second']:,.0f} tokens/s"
    )
    return Check("step", good, found, "" if good else "the loss is not finite: reinstall jax")


def _speed(told: dict[str, Any]) -> Check:
    if "product_flops" not in told:
        return Check("speed", False, told["stopped"] or "nothing was measured")
    found = f"{told['product_flops'] / 1e12:.3g} TFLOP/s in {told['precision']} products"
    if told.get("published_flops"):
        found += f", {told['published_flops'] / 1e12:.0f} published"
    return Check("speed", True, found)


def probe() -> Iterator[dict[str, Any]]:
    """Devices, a compiled training step, the speed of products: each as soon as it is known."""
    import jax

    from bert_variants.ops import precision as precisions
    from bert_variants.plan import peaks

    devices = jax.devices()
    stats = devices[0].memory_stats() or {}
    yield {
        "devices": [d.device_kind for d in devices],
        "platform": devices[0].platform,
        "memory": stats.get("bytes_limit", 0),
    }
    yield _train()
    precision = precisions.resolve("auto")
    published = peaks.known(devices[0].device_kind)
    size = 1536 if devices[0].platform == "cpu" else 8192
    yield {
        "precision": precision,
        "product_flops": peaks.measured(precision, size=size),
        "published_flops": published.flops if published else 0,
    }


def _train() -> dict[str, Any]:
    """Compile and run a few steps of BERT-tiny on rows of zeros."""
    import jax
    import jax.numpy as jnp

    from bert_variants import config, keys
    from bert_variants.plan import abstract
    from bert_variants.train import optim
    from bert_variants.train.state import TrainState

    experiment = config.get_config("bert", size="tiny")
    found = abstract.of(experiment)
    batch = jax.tree.map(lambda leaf: jnp.ones(leaf.shape, leaf.dtype), found.batch)
    params = jax.jit(found.net.init)(keys.root(0), batch)
    optimizer, _ = optim.build(experiment.optim, experiment.run.steps)
    zero = jnp.zeros((), jnp.int32)
    state = TrainState(step=zero, params=params, opt_state=optimizer.init(params), skipped=zero)
    begun = time.perf_counter()
    step = jax.jit(found.step).lower(state, batch).compile()
    compiled = time.perf_counter() - begun
    state, metrics = step(state, batch)
    jax.block_until_ready(state)
    begun, times = time.perf_counter(), 5
    for _ in range(times):
        state, metrics = step(state, batch)
    jax.block_until_ready(state)
    seconds = (time.perf_counter() - begun) / times
    rows, length = batch.tokens_BT.shape
    return {
        "rows": f"{rows} rows of {length}",
        "compile_seconds": compiled,
        "step_seconds": seconds,
        "tokens_per_second": rows * length / seconds,
        "finite": math.isfinite(float(metrics["mlm/loss"].value())),
    }


if __name__ == "__main__":
    runtime.tune()  # before jax is imported, as the command line does
    for part in probe():
        print(json.dumps(part), flush=True)
