"""Files of a checkpoint: what they must hold, which to keep, and removal without half states."""

from __future__ import annotations

import hashlib
import json
import math
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bert_variants.train import record

NAME = "manifest.json"
DELETED, INVALID, UNFINISHED = ".deleted", ".invalid", ".orbax-checkpoint-tmp"


class DamagedError(Exception):
    """A checkpoint does not hold what was saved. Never leaves train/: see CheckpointError."""


def sha256_of(values: Mapping[str, Any]) -> str:
    """sha256 of a JSON object, whatever the order of its keys."""
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def write(folder: Path) -> None:
    """List every file of a committed checkpoint with its size and sha256, in one step."""
    files = {
        name: {"bytes": path.stat().st_size, "sha256": _sha256(path)}
        for name, path in _files(folder).items()
    }
    record.write_json(folder / NAME, {"files": files, "sha256": sha256_of(files)})


def verify(folder: Path) -> bool:
    """Compare a checkpoint with its manifest.

    Returns:
        False if it has none: it was committed, and the process killed before the list was made.

    Raises:
        DamagedError: names the first file that is missing, cut off or changed.
    """
    if not (folder / NAME).is_file():
        return False
    try:
        values = json.loads((folder / NAME).read_bytes())
        said = values["files"]
        if sha256_of(said) != values["sha256"]:
            raise DamagedError(f"{NAME} is changed")
        found = _files(folder)
        for name, expected in said.items():
            if name not in found:
                raise DamagedError(f"{name} is missing")
            size = found[name].stat().st_size
            if size != expected["bytes"]:
                raise DamagedError(f"{name} has {size} bytes, {expected['bytes']} were written")
            if _sha256(found[name]) != expected["sha256"]:
                raise DamagedError(f"{name} is changed (its sha256 is not the one written)")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DamagedError(f"{NAME} cannot be read ({type(error).__name__}: {error})") from None
    return True


def steps(folder: Path) -> list[int]:
    """The committed checkpoints in a folder, ascending."""
    if not folder.is_dir():
        return []
    return sorted(int(p.name) for p in folder.iterdir() if p.is_dir() and p.name.isdecimal())


def retained(losses: Mapping[int, float | None], keep: int, keep_every: int) -> set[int]:
    """Which checkpoints stay: the newest ``keep``, the best, and every multiple of ``keep_every``.

    Args:
        losses: step -> held-out loss, None where it was not measured. One that is not finite is
            no measurement.
        keep: at least 1, so the newest always stays.
        keep_every: 0 for none.
    """
    stay = set(sorted(losses)[-keep:])
    measured = {s: v for s, v in losses.items() if v is not None and math.isfinite(v)}
    if measured:
        stay.add(min(measured, key=lambda s: (measured[s], -s)))
    if keep_every:
        stay |= {s for s in losses if s % keep_every == 0}
    return stay


def remove(folder: Path, step: int) -> None:
    """Delete a checkpoint. It is renamed first: a kill leaves it whole or unmistakably deleted."""
    gone = folder / f"{step}{DELETED}"
    shutil.rmtree(gone, ignore_errors=True)
    (folder / str(step)).rename(gone)
    shutil.rmtree(gone, ignore_errors=True)


def set_aside(folder: Path, step: int) -> Path:
    """Rename a damaged checkpoint so that nothing reads it again, and return its new path."""
    aside, number = folder / f"{step}{INVALID}", 1
    while aside.exists():
        number += 1
        aside = folder / f"{step}{INVALID}-{number}"
    (folder / str(step)).rename(aside)
    return aside


def clean(folder: Path) -> list[str]:
    """Delete what killed processes left: saves that were not committed, deletions not finished.

    Only the holder of the run's lock may call it. Returns the names.
    """
    left = [
        p
        for p in (folder.iterdir() if folder.is_dir() else ())
        if UNFINISHED in p.name or p.name.endswith(DELETED)
    ]
    for path in left:
        shutil.rmtree(path, ignore_errors=True)
    return sorted(p.name for p in left)


def _files(folder: Path) -> dict[str, Path]:
    """Relative name -> path of every file but the manifest itself."""
    found = {p.relative_to(folder).as_posix(): p for p in sorted(folder.rglob("*")) if p.is_file()}
    return {name: path for name, path in found.items() if not name.startswith(NAME)}


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
