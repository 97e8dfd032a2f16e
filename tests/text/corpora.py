"""Small invented text: windows for row builders, files for sources, settings for ``prepare``."""

from __future__ import annotations

import random
import re
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

from bert_variants.config import Data
from bert_variants.text import sharding
from bert_variants.text.plan import Plan, Window
from bert_variants.text.prepare import prepare
from bert_variants.text.store import Store
from bert_variants.types import Vocab

VOCAB = Vocab(size=1000, pad=0, unk=1, cls=2, sep=3, mask=4, specials=(0, 1, 2, 3, 4))
WORDS = re.findall(
    r"\w+",
    "the cat dog bird river old small green ran sat sings falls under over a tree house and then "
    "nobody knew whether winter would come again before morning light fell on water",
)


def window(documents: list[list[int]], *, seed: int = 0, units: bool = False) -> Window:
    """Documents given as the lengths of their sentences. Token i has id 5 + i % 995."""
    lengths = [n for document in documents for n in document]
    count = sum(lengths)
    rng = np.random.default_rng(seed)
    codes = np.where(rng.random(count) < 0.3, 0x81, rng.integers(0, 2, count)).astype(np.uint8)
    return Window(
        documents=np.cumsum([0, *map(len, documents)]).astype(np.int64),
        sentences=np.cumsum([0, *lengths]).astype(np.int64),
        tokens=(5 + np.arange(count) % 995).astype(np.uint16),
        word_starts=rng.random(count) < 0.7,
        units=codes if units else None,
    )


def random_documents(seed: int, count: int = 40, longest: int = 30) -> list[list[int]]:
    """Lengths of sentences: mostly short ones, some documents of one sentence, some long ones."""
    rng = random.Random(seed)
    return [
        [rng.randint(1, longest) for _ in range(rng.choice([1, 2, 3, 8, 20]))] for _ in range(count)
    ]


def row_tokens(plan: Plan, row: int, text: Window) -> list[int]:
    """The tokens of a planned row, read piece by piece: the slow truth about ``assemble``."""
    tokens: list[int] = []
    for piece in range(plan.rows[row], plan.rows[row + 1]):
        start, size = int(plan.start[piece]), int(plan.length[piece])
        if start < 0:
            tokens += [-start - 1] * size
        else:
            tokens += text.tokens[start : start + size].tolist()
    return tokens


def document(rng: random.Random, sentences: int) -> str:
    """A document of so many sentences."""
    return " ".join(
        " ".join(rng.choices(WORDS, k=rng.randint(3, 12))).capitalize() + "."
        for _ in range(sentences)
    )


def write_files(folder: Path, files: int = 6, documents: int = 15, seed: int = 0) -> str:
    """Text files with a blank line between documents; returns the call-string of the source."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = random.Random(seed)
    for n in range(files):
        text = "\n\n".join(document(rng, rng.randint(1, 9)) for _ in range(documents))
        (folder / f"{n}.txt").write_text(text + "\n", encoding="utf-8")
    return f"text('{folder}/*.txt', by='blank_line')"


def settings(folder: Path, source: str, **changes: Any) -> Data:
    """What ``prepare`` is asked for in these tests."""
    values = {
        "source": source,
        "held_out": 0.2,
        "tokenizer": "wordpiece(size=120)",
        "dir": str(folder),
        "workers": 1,
    }
    return Data(**{**values, **changes})


def small_store(folder: Path, *, shard_tokens: int = 400, **changes: Any) -> Store:
    """A store of a few shards of invented text."""
    source = write_files(folder / "text")
    with mock.patch.object(sharding, "SHARD_TOKENS", shard_tokens):
        return prepare(settings(folder / "data", source, **changes))
