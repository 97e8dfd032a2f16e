"""Whole units and words: all of one or nothing, also where they are Chinese words."""

from __future__ import annotations

import lzma

import numpy as np
import pytest
from corruptions import blocks

from bert_variants import config, registry
from bert_variants.text.prepare import prepare
from bert_variants.text.rows import assemble

# Of the published Chinese vocabulary: the characters, and "##" in front of each of them
CHARACTERS, TWINS = range(671, 7992), range(13_728, 21_049)


def groups(batch, row):
    """The units of a row, and what its words have outside of units; lists of positions."""
    found = []
    for t in np.flatnonzero(batch.maskable_BT[row]):
        unit, word = int(batch.units_BT[row, t]), int(batch.words_BT[row, t])
        key = ("unit", unit) if unit >= 0 else ("word", word)
        if found and found[-1][0] == key and found[-1][1][-1] == t - 1:
            found[-1][1].append(t)
        else:
            found.append((key, [t]))
    return [at for _, at in found]


def check_all_or_nothing(batch, found):
    """And what is left over of the budget is less than any group that was not chosen."""
    chosen = blocks.chosen(found)
    for b in range(len(chosen)):
        left = max(1, round(0.15 * int(batch.valid_BT[b].sum()))) - chosen[b].sum()
        assert left >= 0
        for at in groups(batch, b):
            assert chosen[b, at].mean() in (0, 1)
            assert chosen[b, at[0]] or len(at) > left
    return chosen


def test_all_or_nothing():
    """Units of two words, some of them cut in two by a [SEP], among words of up to four tokens."""
    batch = blocks.text_rows(3, 500, 64)
    joined = np.isin(batch.words_BT % 5, (1, 2)) & batch.maskable_BT
    batch = batch.replace(units_BT=np.where(joined, batch.words_BT // 5, -1).astype(np.int32))
    chosen = check_all_or_nothing(batch, blocks.corrupt("whole_units()", batch))
    in_unit = batch.units_BT >= 0
    assert chosen[in_unit].mean() > 0.05
    assert chosen[batch.maskable_BT & ~in_unit].mean() > 0.05
    blocks.check_boundaries(blocks.corrupt("whole_units()", batch))


def test_a_unit_binds_words():
    """Words 0 | 1 | 2 3 of one token, the last two a unit: together on every row."""
    batch = blocks.block(3000, [1, 1, 1, 1])
    batch = batch.replace(units_BT=np.where(batch.words_BT >= 2, 0, -1).astype(np.int32))
    chosen = blocks.chosen(blocks.corrupt("whole_units(rate=0.34)", batch))[:, 1:-1]
    np.testing.assert_array_equal(chosen[:, 2], chosen[:, 3])
    assert (chosen.sum(axis=1) == 2).all()
    # one of three groups comes first: the unit, or a word and then the other, the unit not fitting
    assert abs(chosen[:, 2].mean() - 1 / 3) < 4 * (2 / 9 / 3000) ** 0.5


@pytest.mark.slow
def test_without_units_they_are_words():
    batch = blocks.text_rows(4, 200, 48)
    batch = batch.replace(units_BT=np.full_like(batch.units_BT, -1))
    units, words = (blocks.corrupt(call, batch) for call in ("whole_units()", "whole_words()"))
    check_all_or_nothing(batch, units)
    check_all_or_nothing(batch, words)


def test_whole_words_give_boundaries():
    blocks.check_boundaries(blocks.corrupt("whole_words()", blocks.text_rows(0, 300, 64)))


def test_needs_units_in_the_config():
    experiment = config.Experiment(corruption="whole_units()", objectives="mlm")
    with pytest.raises(config.ConfigError, match=r"needs data\.units, which is empty"):
        config.check(experiment)
    config.check(config.set_field(experiment, "data.units", "words()"))


@pytest.mark.parametrize("rate", [0.0, 1.0])
def test_rates_0_and_1(rate):
    batch = blocks.text_rows(1, 16, 32)
    chosen = blocks.chosen(blocks.corrupt(f"whole_units(rate={rate})", batch))
    np.testing.assert_array_equal(chosen, batch.maskable_BT & (rate == 1))


# ------------------------------------------------------------- Chinese


@pytest.fixture(scope="module")
def chinese(shared_data, tmp_path_factory):
    """Rows of Wikipedia in the published vocabulary, units as jieba finds them; and the tokens."""
    pytest.importorskip("rjieba")
    folder = tmp_path_factory.mktemp("zh")
    with lzma.open(shared_data / "wikipedia_zh" / "valid.jsonl.xz", "rb") as packed:
        (folder / "some.jsonl").write_bytes(b"".join(packed.readline() for _ in range(60)))
    vocabulary = str(shared_data / "vocab" / "bert_base_chinese_vocab.txt")
    store = prepare(
        config.Data(
            source=registry.write("text", {"pattern": str(folder / "some.jsonl")}),
            tokenizer=registry.write("wordpiece", {"file": vocabulary}),
            units="chinese_words()",
            dir=str(folder / "data"),
            workers=1,
        )
    )
    window = store.window("train", range(len(store.split("train").shards)))
    plan = registry.lookup("example", "single()")(
        window, np.random.default_rng(0), store.vocab, length=128
    )
    batch = assemble(plan, np.arange(len(plan)), window, store.vocab, 128)
    return batch, store.vocab, store.tokenizer.tokens


def test_the_vocabulary_holds_twins(chinese):
    _, _, tokens = chinese
    assert [tokens[twin] for twin in TWINS] == ["##" + tokens[c] for c in CHARACTERS]


def test_no_twin_of_a_chinese_character(chinese):
    """Neither a target nor what stays in its place; and words of several characters as one."""
    batch, vocab, _ = chinese
    assert batch.maskable_BT.sum() > 1e4
    found = blocks.corrupt("whole_units()", batch, vocab=vocab)
    chosen = check_all_or_nothing(batch, found)
    targets = found.targets_BP[found.weights_BP > 0]
    stays = ~chosen | (found.inputs_BT == found.tokens_BT)
    assert (stays & chosen).any()
    for ids in (targets, found.inputs_BT[stays]):
        assert not np.isin(ids, TWINS).any()
        assert np.isin(ids, CHARACTERS).mean() > 0.5
    sizes = [len(at) for b in range(len(chosen)) for at in groups(batch, b) if chosen[b, at[0]]]
    assert np.mean(sizes) > 1.3
