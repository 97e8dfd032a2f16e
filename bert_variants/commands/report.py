"""Write a run's page: one HTML file with curves, masks, held-out table and config, for offline."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated

import tyro

from bert_variants.report import page


@dataclasses.dataclass(frozen=True)
class Options:
    """Of which run.

    Attributes:
        run: the run's directory.
    """

    run: Annotated[str, tyro.conf.Positional]


def main(options: Options) -> int:
    """Write the page and print its path."""
    print(page.write(Path(options.run)))
    return 0
