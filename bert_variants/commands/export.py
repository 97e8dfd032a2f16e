"""Write a model as programs that run with jax alone: StableHLO, parameters and vocabulary."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated, Literal

import tyro

from bert_variants.convert import export, pretrained


@dataclasses.dataclass(frozen=True)
class Options:
    """What to write.

    Attributes:
        run: the directory of a run, or anything that convert reads.
        batch: rows of a program, one program for each: 1,8; or any, for one that takes all.
        length: tokens of a row.
        out: the directory to write, made whole or not at all; empty: export/ in there.
        precision: of the matrix products.
    """

    run: Annotated[str, tyro.conf.Positional]
    batch: str = "any"
    length: int = 128
    out: str = ""
    precision: Literal["float32", "bfloat16"] = "float32"


def main(options: Options) -> int:
    """Export, and say what was written."""
    batches = export.read_batches(options.batch)
    folder = Path(options.out) if options.out else Path(options.run) / "export"
    model = pretrained.from_pretrained(options.run)
    written = export.export(
        model, folder, batches=batches, length=options.length, precision=options.precision
    )
    for path in written:
        print(f"{path} ({path.stat().st_size / 1e3:,.0f} kB)")
    print(f"{folder / export.PARAMETERS}: inputs and outputs are in {export.ABOUT} beside it")
    return 0
