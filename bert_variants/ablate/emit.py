"""Cells as commands for machines that this one only submits to. The shell's logic is in launch/."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from typing import Any, Literal

from bert_variants import config
from bert_variants.ablate.grid import Cell, Grid

CONFIG = "bert"  # what a cell's options are a difference from
Target = Literal["slurm", "tpu"]


def arguments(cell: Cell) -> list[str]:
    """What ``bert-variants train`` takes to make exactly this cell.

    ``["bert", "--corruption", "whole_words(rate=0.15)", ..., "--run.dir", "..."]``: every field
    that differs from the config ``bert``, the directory last.
    """
    base = config.get_config(CONFIG)
    options: list[str] = []
    for path in config.differences(base, cell.experiment):
        if path != "run.dir":
            options += _option(path, config.get_field(cell.experiment, path))
    return [CONFIG, *options, "--run.dir", cell.experiment.run.dir]


def _option(path: str, value: Any) -> list[str]:
    flag = "--" + path.replace("_", "-")
    if isinstance(value, bool):
        head, _, last = flag.removeprefix("--").rpartition(".")
        no = f"--{head}.no-{last}" if head else f"--no-{last}"
        return [flag if value else no]
    if isinstance(value, tuple):
        return [flag, *map(str, value)]
    return [flag, str(value)]


def script(grid: Grid, cells: Sequence[Cell], target: Target) -> str:
    """A script that trains ``cells`` elsewhere; afterwards ``--report-only`` gathers them.

    Args:
        grid: of the cells.
        cells: those that are wanted, in their order.
        target: ``slurm`` is an array with a task a cell, to be given to sbatch from the checkout;
            ``tpu`` is a command a cell that makes a TPU VM, trains and deletes it, to be run with
            the options of launch/tpu_vm.sh that say where (--zone, --type, --spot, --setup).
    """
    return _slurm(grid, cells) if target == "slurm" else _tpu(grid, cells)


def _slurm(grid: Grid, cells: Sequence[Cell]) -> str:
    lines = [
        "#!/usr/bin/env bash",
        f"#SBATCH --job-name={grid.name}",
        f"#SBATCH --array=0-{len(cells) - 1}",
        "#SBATCH --nodes=1",
        "#SBATCH --ntasks-per-node=1",
        "#SBATCH --signal=B:USR1@120",
        "#SBATCH --requeue",
        "#SBATCH --open-mode=append",
        "#SBATCH --output=slurm-%x-%A-%a.log",
        f"# The {len(cells)} cells of grid {grid.name}. From the checkout:",
        "#   sbatch --gpus-per-node=1 --time=4:00:00 THIS-FILE",
        "set -euo pipefail",
        'case "$SLURM_ARRAY_TASK_ID" in',
    ]
    for number, cell in enumerate(cells):
        lines.append(f"    {number}) set -- {shlex.join(arguments(cell))} ;;")
    lines += [
        '    *) echo "error: no cell $SLURM_ARRAY_TASK_ID" >&2; exit 2 ;;',
        "esac",
        'exec bash "${BERT_VARIANTS_ROOT:-$SLURM_SUBMIT_DIR}/launch/slurm.sbatch" "$@"',
    ]
    return "\n".join(lines) + "\n"


def _tpu(grid: Grid, cells: Sequence[Cell]) -> str:
    lines = [
        "#!/usr/bin/env bash",
        f"# The {len(cells)} cells of grid {grid.name}, one TPU VM each. From the checkout, with",
        "# the options of launch/tpu_vm.sh that say where, and a --setup that mounts the file",
        "# system of --run.dir. No line depends on another: start as many as the quota allows.",
        "#   bash THIS-FILE --zone us-central2-b --type v4-8 --spot --setup mount.sh",
        "set -euo pipefail",
    ]
    for number, cell in enumerate(cells):
        name = f"{_slug(grid.name)}-{number}"
        command = shlex.join(arguments(cell))
        lines += [
            f"# {cell}",
            f'bash launch/tpu_vm.sh watch {name} --delete-after "$@" -- {command}',
        ]
    return "\n".join(lines) + "\n"


def _slug(name: str) -> str:
    """A TPU's name: lower-case letters, digits and hyphens, a letter first."""
    return "a-" + re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
