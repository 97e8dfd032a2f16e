"""What a run writes for people: JSON files, one line of metrics a step, TensorBoard events.

``metrics.jsonl`` holds an object a line::

    {"kind": "train", "step": 20, "position": 640, "tokens": 81920, "loss": 7.9, "mlm/loss": 7.2,
     ..., "learning_rate": 1e-4, "gradient_norm": 2.1, "skipped": 0, "timing": {"seconds": ...}}
    {"kind": "held_out", "step": 100, "held_out/loss": 6.1, ..., "timing": {...}}

Everything outside ``timing`` is a function of the config: two runs of the same one write the same
numbers, interrupted or not. ``step`` is the number of steps done. A value that is not finite is
``null``. When a run resumes from step s, what was written beyond s is moved to
``metrics.jsonl.lost`` and written anew.
"""

from __future__ import annotations

import io
import json
import math
import os
import time
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bert_variants.train.errors import RunDirError

METRICS, LOST, TIMING = "metrics.jsonl", "metrics.jsonl.lost", "timing"


def write_bytes(path: Path, data: bytes) -> None:
    """Replace a file in one step: it is the old one or the new one, whenever power goes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    with part.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def write_json(path: Path, value: Any) -> None:
    """Write ``value`` as JSON for people, in one step."""
    write_bytes(path, (json.dumps(value, indent=1, ensure_ascii=False) + "\n").encode())


def read(run_dir: Path) -> list[dict[str, Any]]:
    """The lines of ``metrics.jsonl``; a last line that is not complete yet is left out."""
    path = run_dir / METRICS
    if not path.is_file():
        return []
    whole = [line for line in path.read_bytes().split(b"\n")[:-1] if line]
    return [json.loads(line) for line in whole]


def reproducible(line: Mapping[str, Any]) -> dict[str, Any]:
    """A line without what differs from machine to machine."""
    return {k: v for k, v in line.items() if k != TIMING}


def rewind(run_dir: Path, step: int, evaluated: bool) -> int:
    """Move what was written beyond ``step`` to ``metrics.jsonl.lost``.

    Args:
        run_dir: the run's directory.
        step: that the run goes on from.
        evaluated: whether the held-out results of ``step`` itself stand; if not they will be
            written again.

    Returns:
        How many lines were moved, torn ones included.
    """
    path = run_dir / METRICS
    if not path.is_file():
        return 0
    kept, lost = [], []
    for line in path.read_bytes().split(b"\n"):
        if line:
            (kept if _stands(line, step, evaluated) else lost).append(line + b"\n")
    if lost:
        with (run_dir / LOST).open("ab") as file:
            file.writelines(lost)
            file.flush()
            os.fsync(file.fileno())
        write_bytes(path, b"".join(kept))
    return len(lost)


def _stands(line: bytes, step: int, evaluated: bool) -> bool:
    try:
        values = json.loads(line)
        last = step if values["kind"] == "train" or evaluated else step - 1
        return values["step"] <= last
    except (ValueError, KeyError, TypeError):
        return False  # torn by a kill in the middle of the write


class Record:
    """Writes the metrics of a run; the processes that are not the first write nothing.

    TensorBoard events are a convenience: if they cannot be written there is one warning and the
    run goes on. Metrics that cannot be written end it.
    """

    def __init__(self, run_dir: Path, *, first_step: int, enabled: bool) -> None:
        self._enabled, self._start = enabled, time.monotonic()
        self._path = run_dir / METRICS
        self._file: io.BufferedWriter | None = None
        self._events: Any = None
        if enabled:
            self._file = self._path.open("ab")
            self._events = _events(run_dir, first_step)

    def line(
        self, kind: str, step: int, values: Mapping[str, Any], timing: Mapping[str, float]
    ) -> dict[str, Any]:
        """Write one line, and return it.

        Raises:
            RunDirError: the disk is full, or the directory went away.
        """
        finite = {k: _finite(v) for k, v in values.items()}
        now = {"seconds": time.monotonic() - self._start, "time": time.time(), **timing}
        made = {"kind": kind, "step": step, **finite, TIMING: now}
        if self._file is not None:
            try:
                self._file.write(json.dumps(made, allow_nan=False).encode() + b"\n")
                self._file.flush()
            except OSError as error:
                raise RunDirError(f"{self._path} cannot be written: {error.strerror}.") from None
            self._show(kind, step, made)
        return made

    def sync(self) -> None:
        """What was written survives a loss of power from here on."""
        if self._file is not None:
            os.fsync(self._file.fileno())

    def close(self) -> None:
        """Close the files; a second call does nothing."""
        if self._file is not None:
            self._file.close()
            self._file = None
        if self._events is not None:
            self._events.close()
            self._events = None

    def __enter__(self) -> Record:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _show(self, kind: str, step: int, made: Mapping[str, Any]) -> None:
        if self._events is None:
            return
        shown = {**made, **{f"timing/{k}": v for k, v in made[TIMING].items() if k != "time"}}
        try:
            for name, value in shown.items():
                if isinstance(value, (int, float)) and name != "step":
                    tag = f"{kind}/{name}" if kind == "train" else name
                    self._events.add_scalar(tag, value, step)
        except Exception as error:  # whatever a plotting aid does, training goes on
            warnings.warn(f"TensorBoard events are off from now on: {error}", stacklevel=2)
            self._events = None


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _events(run_dir: Path, first_step: int) -> Any:
    """A writer whose viewer hides what earlier starts of this run wrote from ``first_step`` on."""
    try:
        from tensorboardX import SummaryWriter

        return SummaryWriter(str(run_dir), purge_step=first_step, flush_secs=30)
    except Exception as error:  # not installed, or it cannot write
        warnings.warn(f"no TensorBoard events: {error}", stacklevel=2)
        return None
