"""What a run will be, before anything is spent: one dict, and a screen of text made of it."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
from jax.sharding import AbstractMesh

from bert_variants import config
from bert_variants.models import network
from bert_variants.ops import precision as precisions
from bert_variants.plan import abstract, flops, memory, parameters, peaks

UTILISATION = 0.5  # of the peak, for the hours below; measured runs reach 0.3 to 0.6
USABLE = 0.92  # of a device's memory; the rest is the runtime's and fragmentation


def summary(
    experiment: config.Experiment,
    devices: int,
    vocab_size: int = 0,
    *,
    backend: str | None = None,
) -> dict[str, Any]:
    """Everything about a run that can be known on any machine. Plain values, ready for JSON.

    Args:
        experiment: any; its text need not exist.
        devices: how many there will be.
        vocab_size: V; 0: what the tokenizer's call-string says.
        backend: cpu, gpu or tpu, for precision and layer loop where the config says ``auto``;
            None: this machine's.

    Raises:
        ConfigError: parts that do not fit each other, the mesh or the batch.
    """
    found = abstract.of(experiment, vocab_size, backend=backend)
    mesh = memory.mesh_of(found, devices)
    operations = flops.of(found)
    needs = memory.of(found, mesh)
    run, data = experiment.run, experiment.data
    total = operations.training * run.steps
    return {
        "name": experiment.name,
        "model": experiment.model,
        "vocab": found.vocab_size,
        "precision": precisions.resolve(run.precision, backend),
        "layers_compiled": network.turns(experiment, backend),
        "parameters": {
            "total": parameters.count(found.state.params),
            "groups": parameters.by_group(found.state.params),
        },
        "rows": {
            "length": data.length,
            "predictions": found.predictions,
            "batch": run.batch,
            "microbatches": run.microbatches,
        },
        "recurrence": _recurrence(experiment, found),
        "flops": {
            "forward_per_token": operations.forward_per_token,
            "training_per_token": operations.training_per_token,
            "step": operations.training,
            "step_executed": operations.executed,
            "run": total,
            "parts": operations.parts,
            "formula": flops.FORMULA,
        },
        "memory": {
            **{f.name: getattr(needs, f.name) for f in dataclasses.fields(needs)},
            "total": needs.total,
            "formula": memory.FORMULA,
        },
        "mesh": {**mesh.shape, "devices": devices},
        "run": {
            "steps": run.steps,
            "tokens_per_step": operations.tokens,
            "tokens": operations.tokens * run.steps,
            "rows": run.batch * run.steps,
            "checkpoints": _checkpoints(experiment),
            "checkpoint_disk": needs.checkpoint * (_checkpoints(experiment) + 1),
        },
        "hours": _by_device(experiment, found.vocab_size, mesh, total),
    }


def _by_device(
    experiment: config.Experiment, vocab_size: int, mesh: AbstractMesh, operations: int
) -> dict[str, dict[str, Any]]:
    """For each known kind of device, how long the run takes and whether it fits."""
    # accelerators keep bfloat16 activations, whatever this machine would do
    needs = memory.of(abstract.of(experiment, vocab_size, backend="gpu"), mesh).total
    return {
        device.name: {
            "hours": operations / (device.flops * UTILISATION * mesh.size) / 3600,
            "fits": needs <= device.memory * USABLE,
        }
        for device in peaks.DEVICES
    }


def _recurrence(experiment: config.Experiment, found: abstract.Abstract) -> str:
    """What becomes of a model's memory between batches; empty for a model that has none."""
    if jax.eval_shape(lambda: found.net.carry(1)) is None:
        return ""
    if found.state.carry is None:
        return (
            f"none: rows of {experiment.data.example} come in random order; a memory needs "
            "an example of streams"
        )
    return "each row's memory goes on from batch to batch; it is saved with the run"


def _checkpoints(experiment: config.Experiment) -> int:
    """How many are kept at most: the newest, the best, and every ``keep_every``."""
    run = experiment.run
    return run.keep + 1 + (run.steps // run.keep_every if run.keep_every else 0)


def render(found: dict[str, Any]) -> str:
    """A summary as text for a terminal."""
    rows, run, mesh = found["rows"], found["run"], found["mesh"]
    heading = f"{found['name']}: {found['model']}"
    lines = [heading, *_parameters(found["parameters"]), *_operations(found["flops"])]
    lines += [
        _line(
            "a row",
            f"{rows['length']} tokens, {rows['predictions']} predicted at most (P); "
            f"vocabulary {found['vocab']:,}",
        ),
        _line(
            "a step",
            f"{rows['batch']:,} rows{_parts(rows['microbatches'])}, "
            f"{run['tokens_per_step']:,} tokens; products in {found['precision']}",
        ),
        _line(
            "the run",
            f"{run['steps']:,} steps, {run['rows']:,} rows, {amount(run['tokens'])} tokens, "
            f"{amount(found['flops']['run'])} operations",
        ),
        *([_line("recurrence", found["recurrence"])] if found["recurrence"] else []),
        _line("mesh", f"data {mesh['data']} x fsdp {mesh['fsdp']} x tensor {mesh['tensor']}"),
        *_memory(found["memory"]),
        _line(
            "checkpoint",
            f"{size(found['memory']['checkpoint'])}; {run['checkpoints']} kept and one being "
            f"written: {size(run['checkpoint_disk'])} of disk",
        ),
        *_hours(found["hours"], mesh["devices"]),
    ]
    return "\n".join(lines)


def _line(label: str, text: str) -> str:
    return f"  {label:12}{text}"


def _parts(number: int) -> str:
    return f" in {number} parts, one after the other" if number > 1 else ""


def _parameters(found: dict[str, Any]) -> list[str]:
    groups = ", ".join(f"{name} {amount(n)}" for name, n in found["groups"].items() if n > 0)
    return [_line("parameters", f"{found['total']:,}"), _line("", groups)]


def _operations(found: dict[str, Any]) -> list[str]:
    total = sum(found["parts"].values())
    shares = ", ".join(f"{name} {part / total:.0%}" for name, part in found["parts"].items())
    lines = [
        _line(
            "FLOPs",
            f"{amount(found['training_per_token'])} a token in training, "
            f"{amount(found['forward_per_token'])} forward; {amount(found['step'])} a step",
        ),
        _line("", shares),
    ]
    if found["step_executed"] != found["step"]:
        again = found["step_executed"] / found["step"] - 1
        lines.append(_line("", f"{again:.0%} more is computed again (run.remat)"))
    return [*lines, _line("", f"counted: {found['formula']}")]


def _memory(found: dict[str, Any]) -> list[str]:
    parts = ["parameters", "optimizer", "gradients", "activations", "transient"]
    if found["memory"]:
        parts.insert(3, "memory")
    each = ", ".join(f"{name} {size(found[name])}" for name in parts)
    return [
        _line("memory", f"{size(found['total'])} on each device (estimate)"),
        _line("", each),
        _line("", f"= {found['formula']}"),
    ]


def _hours(found: dict[str, Any], devices: int) -> list[str]:
    slowest = max(each["hours"] for each in found.values())
    if slowest < 0.1:
        return [_line("time", f"at most {_time(slowest)} on any of {', '.join(found)}")]
    told = [
        f"{name} {_time(each['hours'])}{'' if each['fits'] else ' (too large)'}"
        for name, each in found.items()
    ]
    lines = [_line("time", f"at {UTILISATION:.0%} of the bfloat16 peak of {devices} devices:")]
    for start in range(0, len(told), 4):
        lines.append(_line("", ", ".join(told[start : start + 4])))
    return lines


def _time(hours: int | float) -> str:
    if hours >= 48:
        return f"{hours / 24:,.1f} days"
    return f"{hours:.1f} h" if hours >= 1 else f"{max(hours * 60, 0.1):.1f} min"


def amount(value: int | float) -> str:
    """A count in thousands: ``109 M``, ``2.57 G``."""
    for scale, letter in (
        (1e18, "E"),
        (1e15, "P"),
        (1e12, "T"),
        (1e9, "G"),
        (1e6, "M"),
        (1e3, "k"),
    ):
        if value >= scale:
            return f"{value / scale:.3g} {letter}"
    return f"{value:.3g}"


def size(count: int | float) -> str:
    """Bytes in powers of 1024: ``1.2 GiB``."""
    for scale, unit in ((1 << 40, "TiB"), (1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")):
        if count >= scale:
            return f"{count / scale:.3g} {unit}"
    return f"{count:.0f} B"
