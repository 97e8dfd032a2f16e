"""Find the words of a corpus that belong together (PMI-masking), and write them as a lexicon."""

from __future__ import annotations

import dataclasses
from collections import Counter
from pathlib import Path

from bert_variants import config, registry
from bert_variants.text.collocations import Found, collocations, write_lexicon

SHOWN = 5  # of each length


@dataclasses.dataclass(frozen=True)
class Options:
    """What counts as a collocation, and where the list goes.

    Attributes:
        out: the list: a collocation a line and, behind a tab, pmi2 to pmi5 by its length.
        longest: words of a collocation at most, 2 to 5.
        minimum: how often it must occur.
        most: how many of each length are kept, the best.
        score: least pointwise mutual information in nats; 3 is twenty times as often as chance.
    """

    out: str = "pmi.tsv"
    longest: int = 5
    minimum: int = 10
    most: int = 50_000
    score: float = 3.0


def main(experiment: config.Experiment, options: Options) -> int:
    """Count, write, and say how to use it."""
    path = Path(options.out)
    if not path.parent.is_dir():
        raise config.ConfigError(f"--out {path}: the folder {path.parent} does not exist.")
    found = collocations(
        experiment.data,
        longest=options.longest,
        minimum=options.minimum,
        most=options.most,
        score=options.score,
    )
    write_lexicon(found, path)
    print(describe(found))
    print(f"written: {path}")
    units = registry.write("lexicon", {"file": str(path), "ignore_case": True})
    print(f'use it:  --data.units "{units}" --corruption "whole_units()"')
    return 0


def describe(found: Found) -> str:
    """How many there are of each length, the best of them, and what was left out and why."""
    lines = [f"{found.words:,} words in {found.documents:,} documents"]
    for length, count in sorted(Counter(len(c.words) for c in found.collocations).items()):
        best = [c for c in found.collocations if len(c.words) == length][:SHOWN]
        shown = ", ".join(f"{' '.join(c.words)} ({c.score:.1f})" for c in best)
        lines.append(f"  {count:,} of {length} words: {shown}, ...")
    lines += [f"  left out  {count:,} x {why}" for why, count in found.dropped.items()]
    return "\n".join(lines)
