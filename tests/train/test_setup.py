"""What a set-up refuses once it has seen the text."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
import tiny_runs as tiny

from bert_variants import config
from bert_variants.config import ConfigError, Experiment
from bert_variants.text.pipeline import Position
from bert_variants.text.prepare import prepare
from bert_variants.train import setup
from bert_variants.train.setup import Setup


def over(folder: Path, documents: list[str], corruption: str) -> Experiment:
    """An experiment over other text."""
    (folder / "text").mkdir(exist_ok=True)
    for number, text in enumerate(documents):
        (folder / "text" / f"{number}.txt").write_text(text, encoding="utf-8")
    return config.set_field(tiny.experiment(folder, "none"), "corruption", corruption)


def test_first_rows_are_the_first_batch_corrupted(ready: Setup) -> None:
    rows = setup.first_rows(ready)
    batch, _ = ready.rows.batch(Position())
    np.testing.assert_array_equal(rows.tokens_BT, batch.tokens_BT)
    assert (rows.inputs_BT != rows.tokens_BT).any()
    setup.check_predicts(rows, ready.experiment)


def test_text_in_which_nothing_fits_the_budget_is_refused(tmp_path: Path) -> None:
    """Each document is one word of some twenty pieces, and a row may lose five tokens."""
    choose = random.Random(0)
    words = ["".join(choose.choices("abcdefghijklmnopqrstuvwxyz", k=40)) for _ in range(30)]
    long = over(tmp_path, words, "whole_words()")
    long = config.set_field(long, "data.example", "single()")
    long = config.set_field(long, "objectives", "mlm")
    rows = setup.first_rows(setup.make(long, prepare(long.data)))
    with pytest.raises(ConfigError, match=r"whole_words\(\)' chose no token in the first 8 rows"):
        setup.check_predicts(rows, long)
    tokens = config.set_field(long, "corruption", "tokens()")
    setup.check_predicts(setup.first_rows(setup.make(tokens, prepare(tokens.data))), tokens)


@pytest.mark.parametrize(
    "call", ["whole_words()", "stages(parts=['tokens()', 'whole_words()'], until=[5])"]
)
def test_whole_words_of_one_token_each_are_refused(tmp_path: Path, call: str) -> None:
    """Chinese characters are words by themselves as long as nothing says where words end."""
    documents = ["一二三。四五六七。八九十百千。" * 3 + f"{n}。" for n in "甲乙丙丁戊己庚辛壬癸"]
    chinese = over(tmp_path, documents, call)
    with pytest.raises(ConfigError, match=r"'whole_words\(\)' .*each of the \d+ tokens of this"):
        setup.make(chinese, prepare(chinese.data))
