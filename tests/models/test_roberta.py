"""What RoBERTa changes in BERT's network: where positions begin, and how weights start."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from contracts import rows as data
from contracts import test_models as battery

from bert_variants import keys


def build(**settings):
    return battery.build("bert", first_position=2, segments=0, **settings)


def test_positions_begin_at_two():
    """[0, 5, 6, 2, 1, 1], two of padding: rows 2 3 4 5 of the table, and 1 for what is not read."""
    net = build()
    ids = jnp.asarray([[0, 5, 6, 2, 1, 1]])
    rows = data.on_device(data.rows(0, 1, 6)).replace(
        tokens_BT=ids, valid_BT=ids != 1, positions_BT=jnp.arange(6)[None]
    )
    params = data.random_params(jax.eval_shape(net.init, keys.root(0), rows))
    table = params["embeddings"]["position"]["embedding"]
    assert table.shape == (64 + 2, 32)
    assert "segment" not in params["embeddings"]

    def loss(params, hide):
        hidden = net.apply(params, rows).hidden_BTD
        return jnp.sum(jnp.where(hide[:, :, None], 0, hidden) ** 3)

    def read(hide) -> list[int]:
        grads = data.quickly(jax.grad(loss))(params, hide)
        return np.flatnonzero(
            np.asarray(grads["embeddings"]["position"]["embedding"] != 0).any(1)
        ).tolist()

    assert read(~rows.valid_BT) == [2, 3, 4, 5]
    assert read(rows.valid_BT) == [1, 2, 3, 4, 5]


def test_initial_values_are_not_cut():
    """Normal of deviation 0.02: BERT's has nothing beyond 0.04."""
    made = data.quickly(build(width=128, ffn=256, initialiser="normal").init)(
        keys.root(0), battery.batch()
    )
    for path, leaf in data.leaves(made).items():
        if leaf.size > 5000:
            assert abs(leaf.std() - 0.02) < 0.0006, path
            assert abs((np.abs(leaf) > 0.04).mean() - 0.0455) < 0.01, path
