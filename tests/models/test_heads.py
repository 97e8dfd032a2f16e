"""Heads against their formulas, written out in numpy."""

from __future__ import annotations

import math

import jax
import numpy as np
import pytest
from contracts import rows as data

from bert_variants import keys, registry
from bert_variants.models import network

ERF = np.vectorize(math.erf)
PLACES = 15


def layer(x, dense, norm):
    x = x @ np.float64(dense["kernel"]) + np.float64(dense["bias"])
    x = x * 0.5 * (1 + ERF(x / math.sqrt(2)))
    x = x - x.mean(-1, keepdims=True)
    x = x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-12)
    return x * np.float64(norm["scale"]) + np.float64(norm["bias"])


@pytest.mark.parametrize("model", ["bert", "albert"])
def test_span_head(model):
    """[left, right, place] -> dense, gelu, norm, twice -> tied table, and a bias of its own.

    The state at the predicted position itself plays no part. A place beyond the table reads its
    last row.
    """
    call = registry.lookup("model", registry.edit(data.small(model), activation="gelu_erf"))
    wanted = (("span_logits_BPV", PLACES), ("token_logits_BPV", 0))
    net = network.Network(call(vocab_size=data.VOCAB.size, wanted=wanted), call.traits["rules"])
    rows = jax.tree.map(
        np.asarray, data.corrupt("whole_words(rate=0.4)", data.rows(5, 4, 16, full=True))
    )
    offset = rows.offset_BP.copy()
    offset[0, 0] = 40
    rows = rows.replace(offset_BP=offset)
    params = data.random_params(jax.eval_shape(net.init, keys.root(0), rows))
    made = data.quickly(net.apply)(params, rows)
    head = params["heads"]["spans"]
    hidden = np.float64(made.hidden_BTD)
    places = np.float64(head["place"]["embedding"])
    assert places.shape == (PLACES, 200)
    there = (rows.left_BP >= 0) & (rows.weights_BP > 0)
    assert there.sum() > 4
    for b, p in np.argwhere(there):
        left, right = hidden[b, rows.left_BP[b, p]], hidden[b, rows.right_BP[b, p]]
        x = np.concatenate([left, right, places[min(offset[b, p], PLACES - 1)]])
        x = layer(x, head["first_dense"], head["first_norm"])
        x = layer(x, head["second_dense"], head["second_norm"])
        table = np.float64(params["embeddings"]["word"]["embedding"])
        expected = table @ x + np.float64(head["bias"])
        found = np.asarray(made.span_logits_BPV[b, p])
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())
