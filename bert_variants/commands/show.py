"""Rows before and after corruption, in colour; as JSON lines to check a corruption from outside."""

from __future__ import annotations

import dataclasses
import json

from bert_variants import config
from bert_variants.commands.prepare import prepared
from bert_variants.commands.train import first_rows, sample
from bert_variants.report import views
from bert_variants.train import setup


@dataclasses.dataclass(frozen=True)
class Options:
    """What to show.

    Attributes:
        rows: how many, at most a batch; the rates below them are those of the whole batch.
        epoch: of which visit to the text.
        json: one JSON object a row: tokens, inputs, positions, targets, words, units, labels.
    """

    rows: int = 3
    epoch: int = 0
    json: bool = False


def main(experiment: config.Experiment, options: Options) -> int:
    """Print the first rows of training as the model reads them."""
    ready = setup.make(experiment, prepared(experiment))
    rows = first_rows(ready, options.epoch)
    if options.json:
        for row in views.as_dicts(rows, ready.tokenizer)[: options.rows]:
            print(json.dumps(row, ensure_ascii=False))
    else:
        print(sample(ready, rows, options.rows))
    return 0
