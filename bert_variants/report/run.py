"""A run's directory as plain values: what the page is made of.

::

    config.json     the experiment (``config.to_dict``); the only file that must be there
    manifest.json   {"fingerprints": {...}, "starts": [{"time", "step", "origin", "command",
                    "versions", ...}]}: one entry each time that the run was started
    metrics.jsonl   an object a line: {"kind": "train", "step": 20, "mlm/loss": 7.2, ...,
                    "timing": {"tokens_per_second": ...}}
    views.json      corrupted rows and rates, see ``views.as_json``
    gallery.json    the same text under every corruption, see ``gallery.pictures``
    fill_mask.json  [{"text": ..., "guesses": [[{"token": ..., "probability": ...}]]}]
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

Points = list[tuple[float, float]]  # (step, value), steps ascending


class ReportError(ValueError):
    """A run's directory from which no page can be made."""

    exit_code = 3


@dataclasses.dataclass(frozen=True)
class Run:
    """What a run left behind.

    Attributes:
        folder: where.
        config: nested plain values.
        manifest: what the run says of itself; empty if it wrote none.
        starts: each start of the run, oldest first; from the manifest.
        train, held_out: step -> name -> number or None (not finite), from the metrics.
        views, gallery, fill_mask: parts that the run may lack.
        problems: what could not be read, in words.
    """

    folder: Path
    config: Mapping[str, Any]
    manifest: Mapping[str, Any]
    starts: Sequence[Mapping[str, Any]]
    train: Mapping[int, Mapping[str, float | None]]
    held_out: Mapping[int, Mapping[str, float | None]]
    views: Mapping[str, Any] | None
    gallery: Sequence[Mapping[str, Any]]
    fill_mask: Sequence[Mapping[str, Any]]
    problems: Sequence[str]

    def field(self, path: str) -> Any:
        """A field of the config by its dotted path; None where an older run had none."""
        found: Any = self.config
        for part in path.split("."):
            found = found[part] if isinstance(found, Mapping) and part in found else None
        return found

    def series(self, name: str) -> Points:
        """A training metric over steps; steps where it is not a finite number are left out."""
        return _points(self.train, name)

    def judged(self, name: str) -> Points:
        """A held-out result over steps."""
        return _points(self.held_out, name)

    def names(self) -> list[str]:
        """Training metrics, in the order in which they first appear."""
        return list(dict.fromkeys(name for line in self.train.values() for name in line))

    def last(self) -> tuple[int, Mapping[str, float | None]]:
        """The newest held-out results and their step; (0, {}) if there are none."""
        step = max(self.held_out, default=0)
        return step, self.held_out.get(step, {})


def read(folder: Path) -> Run:
    """Read a run's directory.

    Raises:
        ReportError: no such directory, no ``config.json``, or one that is no JSON object.
    """
    path = folder / "config.json"
    if not path.is_file():
        raise ReportError(
            f"{path} is missing: {folder} is no run's directory. Give the one named as run.dir."
        )
    problems: list[str] = []
    config = _json(path, dict, problems)
    if config is None:
        raise ReportError(f"{problems[0]}. Train again with the same run.dir, or restore the file.")
    manifest = _json(folder / "manifest.json", dict, problems) or {}
    starts = manifest.get("starts", [])
    if not isinstance(starts, list) or not all(isinstance(one, dict) for one in starts):
        problems.append("manifest.json: starts is not a list of objects")
        starts, manifest = [], {}
    lines = _lines(folder / "metrics.jsonl", problems)
    return Run(
        folder=folder,
        config=config,
        manifest=manifest,
        starts=starts,
        train=_by_step(line for line in lines if line.get("kind", "train") == "train"),
        held_out=_by_step(line for line in lines if line.get("kind", "train") != "train"),
        views=_json(folder / "views.json", dict, problems),
        gallery=_json(folder / "gallery.json", list, problems) or [],
        fill_mask=_json(folder / "fill_mask.json", list, problems) or [],
        problems=problems,
    )


def _json(path: Path, kind: type, problems: list[str]) -> Any:
    if not path.is_file():
        return None
    try:
        found = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        problems.append(f"{path.name} cannot be read: {error}")
        return None
    if not isinstance(found, kind):
        problems.append(f"{path.name} holds {type(found).__name__}, expected {kind.__name__}")
        return None
    return found


def _lines(path: Path, problems: list[str]) -> list[dict[str, Any]]:
    if not path.is_file():
        problems.append(f"{path.name} is missing: nothing was logged yet")
        return []
    found, damaged = [], []
    for number, line in enumerate(path.read_bytes().split(b"\n"), 1):
        if not line.strip():
            continue
        try:
            values = json.loads(line)
            found.append({**values, "step": int(values["step"])})
        except (ValueError, KeyError, TypeError):
            damaged.append(number)
    if damaged:
        shown = ", ".join(map(str, damaged[:5])) + (", ..." if len(damaged) > 5 else "")
        problems.append(f"{path.name}: {len(damaged)} unreadable lines were left out ({shown})")
    return found


def _by_step(lines: Iterable[Mapping[str, Any]]) -> dict[int, dict[str, float | None]]:
    """Numbers by step; what is timed stands beside the rest. A later line of a step counts."""
    found: dict[int, dict[str, float | None]] = {}
    for line in lines:
        timing = line.get("timing")
        flat = {**line, **(timing if isinstance(timing, Mapping) else {})}
        numbers = {
            name: None if value is None or not math.isfinite(value) else float(value)
            for name, value in flat.items()
            if value is None or (isinstance(value, (int, float)) and not isinstance(value, bool))
        }
        numbers.pop("step")
        found.setdefault(line["step"], {}).update(numbers)
    return dict(sorted(found.items()))


def _points(lines: Mapping[int, Mapping[str, float | None]], name: str) -> Points:
    return [(float(step), v) for step, line in lines.items() if (v := line.get(name)) is not None]


@dataclasses.dataclass(frozen=True)
class Judgement:
    """One line of the held-out table.

    Attributes:
        probe: ``held_out`` (the run's own rows), or the corruption of a fixed mask set.
        objective: its name.
        loss: in nats a target.
        accuracy: or None.
        baseline: loss of the unigram model on the same targets, or None.
    """

    probe: str
    objective: str
    loss: float
    accuracy: float | None
    baseline: float | None


def judgements(results: Mapping[str, float | None]) -> list[Judgement]:
    """The held-out table from results such as ``{"tokens(rate=0.15)/mlm/loss": 3.3, ...}``.

    Fixed mask sets first; the run's own rows after them.
    """
    found = []
    for name, loss in results.items():
        parts = name.rsplit("/", 2)  # a call-string may itself hold a slash
        if len(parts) < 3 or parts[2] != "loss" or parts[1] == "unigram" or loss is None:
            continue
        probe, objective = parts[:2]
        found.append(
            Judgement(
                probe=probe,
                objective=objective,
                loss=loss,
                accuracy=results.get(f"{probe}/{objective}/accuracy"),
                baseline=results.get(f"{probe}/unigram/loss") if objective == "mlm" else None,
            )
        )
    return sorted(found, key=lambda row: row.probe == "held_out")
