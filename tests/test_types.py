"""The borders as pytrees: absent arrays, addition, and what a corrupted batch keeps."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from contracts import rows as data

from bert_variants.types import Batch, Corrupted, Mean, Outputs, Rows, Terms, Vocab


@pytest.mark.parametrize("cls", [Batch, Corrupted, Outputs, Mean, Terms])
def test_frozen_keyword_only_pytrees(cls):
    assert dataclasses.is_dataclass(cls)
    with pytest.raises(TypeError):
        cls(1)
    value = Outputs(hidden_BTD=jnp.ones(2))
    with pytest.raises(dataclasses.FrozenInstanceError):
        value.hidden_BTD = None


def test_absent_arrays_are_no_leaves():
    assert jax.tree.leaves(Outputs()) == []
    assert len(jax.tree.leaves(Outputs(hidden_BTD=jnp.ones(2), extras={"x": jnp.ones(1)}))) == 2
    back = jax.tree.map(lambda x: x, data.rows(labels={"a": 2}))
    assert back.packs_BT is None
    assert set(back.labels) == {"a"}


def test_through_jit_and_shapes():
    batch = data.rows()
    same = jax.jit(lambda b: b)(batch)
    data.assert_equal(jax.tree.map(np.asarray, same), batch)
    shapes = jax.eval_shape(lambda b: b, batch)
    assert shapes.tokens_BT.shape == (8, 16)


def test_a_plain_batch_reads_its_own_tokens():
    batch = data.rows()
    assert batch.inputs_BT is batch.tokens_BT
    assert batch.at_BP is None


def test_corrupted_keeps_everything_of_the_rows():
    filled = {f.name: np.ones(1) for f in dataclasses.fields(Rows)}
    filled |= {"labels": {"a": np.ones(1)}, "extras": {"b": np.ones(1)}}
    added = dict.fromkeys(("inputs_BT", "at_BP", "targets_BP", "weights_BP"), np.zeros(1))
    made = Corrupted.of(Batch(**filled), **added)
    for name, value in filled.items():
        assert getattr(made, name) is value
    with pytest.raises(TypeError):
        Corrupted.of(Batch(**filled), inputs_BT=np.ones(1))


def test_means_merge_and_divide_once():
    merged = Mean(total=6.0, weight=2.0) + Mean(total=1.0, weight=5.0)
    assert float(merged.value()) == 1.0  # a mean of means would be 1.6
    assert float(Mean(total=jnp.float32(0), weight=jnp.float32(0)).value()) == 0


def test_terms_merge_metric_by_metric():
    one = Terms(loss=Mean(total=1.0, weight=1.0), metrics={"a": Mean(total=2.0, weight=4.0)})
    both = one + one
    assert (both.loss.total, both.metrics["a"].weight) == (2.0, 8.0)
    with pytest.raises(ValueError, match=r"metrics|dict|keys|structure"):
        one + Terms(loss=one.loss, metrics={"b": one.loss})


def test_vocab_compares_without_counts():
    """It is a static argument: equal and hashable whatever the counts."""
    one = Vocab(size=5, pad=0, unk=1, cls=2, sep=3, mask=4, counts_V=np.ones(5))
    two = Vocab(size=5, pad=0, unk=1, cls=2, sep=3, mask=4)
    assert one == two
    assert hash(one) == hash(two)
    assert one != dataclasses.replace(two, mask=3)


def test_the_worked_row_of_the_glossary():
    """Our own rows keep to it: what is maskable has a word, specials and padding have none."""
    batch = data.rows(0, 64, 32, empty=(3,))
    np.testing.assert_array_equal(batch.words_BT >= 0, batch.maskable_BT)
    assert not (batch.maskable_BT & ~batch.valid_BT).any()
    assert (batch.segments_BT[~batch.valid_BT] == 0).all()
    assert (batch.tokens_BT[~batch.valid_BT] == data.VOCAB.pad).all()
    assert not np.isin(batch.tokens_BT[batch.maskable_BT], data.VOCAB.specials).any()
    assert (batch.units_BT >= 0).any()
