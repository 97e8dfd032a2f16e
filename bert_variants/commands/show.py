"""Rows before and after corruption, in colour; as JSON lines to check a corruption from outside."""

from __future__ import annotations

import dataclasses
import json

from bert_variants import config
from bert_variants.commands.prepare import prepared
from bert_variants.commands.train import all_corruptions, sample
from bert_variants.report import gallery, views
from bert_variants.train import setup


@dataclasses.dataclass(frozen=True)
class Options:
    """What to show.

    Attributes:
        rows: how many, at most a batch; the rates below them are those of the whole batch.
        epoch: of which visit to the text.
        all: the same row under every registered corruption, one below the other.
        json: one JSON object a row: tokens, inputs, positions, targets, words, units, labels.
    """

    rows: int = 3
    epoch: int = 0
    all: bool = False
    json: bool = False


def main(experiment: config.Experiment, options: Options) -> int:
    """Print the first rows of training as the model reads them."""
    ready = setup.make(experiment, prepared(experiment))
    if options.all:
        pictures = all_corruptions(ready, options.epoch)
        lines = [json.dumps(one, ensure_ascii=False) for one in pictures]
        print("\n".join(lines) if options.json else gallery.terminal(pictures))
        return 0
    rows = setup.first_rows(ready, options.epoch)
    if options.json:
        for row in views.as_dicts(rows, ready.tokenizer)[: options.rows]:
            print(json.dumps(row, ensure_ascii=False))
    else:
        print(sample(ready, rows, options.rows))
    return 0
