"""Judge a run on held-out text: its own objectives, and fixed masks beside the unigram baseline."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Annotated

import tyro

from bert_variants import loaded
from bert_variants.commands.prepare import prepared
from bert_variants.train import checkpoint, setup


@dataclasses.dataclass(frozen=True)
class Options:
    """What to judge.

    Attributes:
        run: the run's directory.
        json: print one JSON object instead of a table.
    """

    run: Annotated[str, tyro.conf.Positional]
    json: bool = False


def main(options: Options) -> int:
    """Print the results of the newest valid checkpoint."""
    found = checkpoint.load(Path(options.run))
    rows = loaded.rows_of(found.params)
    ready = setup.make(found.experiment, prepared(found.experiment), rows=rows)
    results = ready.evaluate(found.params)
    if options.json:
        print(json.dumps({"step": found.step, **results}))
    else:
        print(f"{options.run}, step {found.step:,}")
        print(table(results))
    return 0


def table(results: dict[str, float]) -> str:
    """Results as aligned lines: a probe a block, its measures below."""
    blocks: dict[str, list[str]] = {}
    for name, value in results.items():
        probe, _, measure = name.partition("/")
        blocks.setdefault(probe, []).append(f"  {measure:24} {value:10.4f}")
    return "\n".join(line for probe, lines in blocks.items() for line in (probe, *lines))
