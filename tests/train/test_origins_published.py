"""Runs that begin from weights of others: other heads, more tokens, a table with spare rows."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_runs as tiny

from bert_variants import config, registry
from bert_variants.convert import pretrained
from bert_variants.convert.family import shapes_of
from bert_variants.loaded import of
from bert_variants.text.prepare import prepare
from bert_variants.text.store import Store
from bert_variants.text.tokenizers.wordpiece import WordPiece
from bert_variants.train import leaves, loop, setup
from bert_variants.train.errors import ResumeRefusedError
from bert_variants.train.origins import params_of
from bert_variants.train.setup import Setup
from bert_variants.train.vocabulary import places


def named(params: Any) -> dict[str, np.ndarray]:
    return {n: np.asarray(x) for n, x in leaves.flatten(params)[0].items()}


def published(
    folder: Path, ready: Setup, rows: int = 0, objectives: str = "mlm + nsp", **model: Any
) -> dict[str, np.ndarray]:
    """A directory of transformers with random parameters."""
    experiment = dataclasses.replace(
        ready.experiment,
        model=registry.edit(ready.experiment.model, **model),
        objectives=objectives,
    )
    rng = np.random.default_rng(0)
    shapes = shapes_of(experiment, rows or ready.vocab.size)
    params = {n: rng.standard_normal(shape).astype(np.float32) for n, shape in shapes.items()}
    pretrained.save_pretrained(of(experiment, leaves.nested(params), ready.tokenizer), folder)
    (folder / "bert_variants.json").unlink()
    return params


def begun(ready: Setup, folder: Path, origin: Path, objectives: str = "mlm + nsp", store=None, **f):
    """The set-up of a run that begins from there."""
    run = dataclasses.replace(ready.experiment.run, dir=str(folder), init_from=str(origin), **f)
    experiment = dataclasses.replace(ready.experiment, run=run, objectives=objectives)
    return setup.make(experiment, store or ready.store, origin=pretrained.origin)


def test_a_run_begins_from_published_weights(ready, tmp_path):
    theirs = published(tmp_path / "hub", ready, activation="gelu_erf")
    run = begun(ready, tmp_path / "run", tmp_path / "hub", steps=2, eval_every=0)
    notes: list[str] = []
    found = named(params_of(run, run.init_state().params, notes.append))
    for name, array in found.items():
        np.testing.assert_array_equal(array, theirs[name], err_msg=name)
    assert notes[0] == f"parameters come from {tmp_path / 'hub'}, step 0"
    assert "activation is 'gelu_erf' there, 'gelu_tanh' here" in notes[1]
    assert len(notes) == 2
    assert loop.train(run, loop.Silent()).exit_code == 0


def test_a_converted_run_is_begun_from_likewise(ready, tmp_path):
    theirs = published(tmp_path / "hub", ready)
    pretrained.convert(tmp_path / "hub", tmp_path / "origin")
    run = begun(ready, tmp_path / "run", tmp_path / "origin")
    found = named(params_of(run, run.init_state().params, lambda note: None))
    for name, array in found.items():
        np.testing.assert_array_equal(array, theirs[name], err_msg=name)


@pytest.mark.parametrize(
    ("there", "here", "note"),
    [
        ("mlm", "mlm + nsp", "4 arrays start at random: heads/pair/output/bias, "),
        ("mlm + nsp", "mlm", "4 arrays are left there: heads/pair/output/bias, "),
    ],
)
def test_other_heads_start_fresh_and_it_is_said(ready, tmp_path, there, here, note):
    theirs = published(tmp_path / "hub", ready, objectives=there)
    run = begun(ready, tmp_path / "run", tmp_path / "hub", here)
    fresh = run.init_state().params
    notes: list[str] = []
    found, mine = named(params_of(run, fresh, notes.append)), named(fresh)
    for name, array in found.items():
        source = theirs if name in theirs else mine
        np.testing.assert_array_equal(array, source[name], err_msg=name)
    assert len(notes) == 2
    assert notes[1].startswith(note)


def test_what_is_no_head_must_fit(ready, tmp_path):
    published(tmp_path / "hub", ready)
    smaller = registry.edit(ready.experiment.model, ffn=16)
    other = dataclasses.replace(
        ready, experiment=dataclasses.replace(ready.experiment, model=smaller)
    )
    run = begun(other, tmp_path / "run", tmp_path / "hub")
    with pytest.raises(ResumeRefusedError, match=r"ffn/narrow/kernel .* \(3 arrays differ\)"):
        params_of(run, run.init_state().params, lambda note: None)


@pytest.fixture
def extended(ready: Setup, base: Path, tmp_path: Path) -> Store:
    """The same text with a vocabulary of two more tokens."""
    ready.tokenizer.save(tmp_path / "tokenizer")
    (tmp_path / "more.txt").write_text("moonlit\nriverbed\n")
    call = registry.write(
        "saved", {"dir": str(tmp_path / "tokenizer"), "more": str(tmp_path / "more.txt")}
    )
    return prepare(dataclasses.replace(tiny.experiment(base, "none").data, tokenizer=call))


def test_new_tokens_get_new_rows_and_old_ones_keep_theirs(ready, tmp_path, extended):
    theirs = published(tmp_path / "hub", ready)
    size = ready.vocab.size
    assert extended.vocab.size == size + 2
    run = begun(ready, tmp_path / "run", tmp_path / "hub", store=extended)
    fresh = run.init_state().params
    notes: list[str] = []
    found, mine = named(params_of(run, fresh, notes.append)), named(fresh)
    for name in ("embeddings/word/embedding", "heads/tokens/bias"):
        np.testing.assert_array_equal(found[name][:size], theirs[name])
        np.testing.assert_array_equal(found[name][size:], mine[name][size:])
    assert mine["embeddings/word/embedding"][size:].any()
    assert notes[0] == (
        f"the vocabulary: {size} tokens keep their rows, 2 are new and start as in a run from "
        "nothing"
    )
    assert [n for n in found if found[n].shape != theirs[n].shape] == [
        "embeddings/word/embedding",
        "heads/tokens/bias",
    ]


def test_rows_that_are_no_tokens_are_left(ready, tmp_path):
    size = ready.vocab.size
    theirs = published(tmp_path / "hub", ready, rows=size + 5)
    run = begun(ready, tmp_path / "run", tmp_path / "hub")
    notes: list[str] = []
    found = named(params_of(run, run.init_state().params, notes.append))
    name = "embeddings/word/embedding"
    np.testing.assert_array_equal(found[name], theirs[name][:size])
    assert notes[0].endswith(
        "0 are new and start as in a run from nothing; 5 rows there are no token's and are left"
    )


def test_another_vocabulary_is_refused(ready, tmp_path):
    published(tmp_path / "hub", ready)
    tokens = [*ready.tokenizer.tokens[:-1], "zzz"]
    other = WordPiece(tokens, lowercase=True, strip_accents=None)
    run = dataclasses.replace(begun(ready, tmp_path / "run", tmp_path / "hub"), tokenizer=other)
    with pytest.raises(ResumeRefusedError, match="was trained with another tokenizer"):
        params_of(run, run.init_state().params, lambda note: None)


def wordpiece(*tokens: str, lowercase: bool = True) -> WordPiece:
    specials = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
    return WordPiece((*specials, *tokens), lowercase=lowercase, strip_accents=None)


def test_places_by_hand():
    theirs = wordpiece("the", "cat")
    assert places(theirs, wordpiece("the", "cat")).tolist() == [0, 1, 2, 3, 4, 5, 6]
    assert places(theirs, wordpiece("dog", "cat", "the")).tolist() == [0, 1, 2, 3, 4, 7, 6]
    assert places(theirs, wordpiece("the", "dog")) is None
    assert places(theirs, wordpiece("the", "cat", "dog", lowercase=False)) is None


def test_an_origin_that_is_nothing_is_refused(ready, tmp_path):
    run = begun(ready, tmp_path / "run", tmp_path / "none")
    with pytest.raises(ValueError, match="none does not exist"):
        params_of(run, run.init_state().params, lambda note: None)
    config.check(run.experiment)
