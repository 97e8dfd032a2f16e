"""Turn text into shards: train or load the tokenizer, tokenise, split. Doing it again resumes."""

from __future__ import annotations

import dataclasses

from bert_variants import config
from bert_variants.report.console import PrepareProgress
from bert_variants.text.prepare import prepare
from bert_variants.text.store import Store


@dataclasses.dataclass(frozen=True)
class Options:
    """Nothing but the experiment's data fields."""


def main(experiment: config.Experiment, options: Options) -> int:
    """Prepare and say what came of it."""
    del options
    store = prepared(experiment)
    print(describe(store))
    return 0


def prepared(experiment: config.Experiment) -> Store:
    """The store of an experiment, prepared now where it is not yet, with a progress bar."""
    with PrepareProgress() as progress:
        return prepare(experiment.data, report=progress.report)


def describe(store: Store) -> str:
    """Where the store is, what it holds, and what was left out and why."""
    index = store.index
    lines = [f"prepared text: {store.folder}"]
    for name, split in index.splits.items():
        lines.append(
            f"  {name:9} {split.documents:,} documents, {split.sentences:,} sentences, "
            f"{split.words:,} words, {split.tokens:,} tokens in {len(split.shards)} shards"
        )
    lines.append(f"  tokenizer {index.tokenizer['call']}, {index.vocab['size']:,} tokens")
    lines += [f"  left out  {count:,} x {why}" for why, count in sorted(index.dropped.items())]
    lines += [f"  altered   {count:,} x {why}" for why, count in sorted(index.altered.items())]
    return "\n".join(lines)
