"""The fixed probes: pseudo-log-likelihood against the slow way; the digest of rows and masks."""

from __future__ import annotations

import dataclasses
import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_runs as tiny

from bert_variants import config, keys
from bert_variants.text.prepare import prepare
from bert_variants.train import fixed, loop, pll, setup
from bert_variants.types import Batch, Corrupted

ROWS = 12


def judged(base, run="none", **evals) -> config.Experiment:
    """Small, with probes."""
    some = {"rows": ROWS, "batch": 8, "masks": ("tokens(rate=0.15)",), "pll": 3, **evals}
    return dataclasses.replace(tiny.experiment(base, run), evals=config.Evals(**some))


def rows(experiment, store) -> Batch:
    """The held-out rows of the probes, joined."""
    found = list(fixed.rows_of(experiment, store, experiment.evals.example).fixed(ROWS))
    return jax.tree.map(lambda *leaves: np.concatenate(leaves), *found)


def hidden(batch: Batch, vocab, visit: int, visits: int) -> Corrupted:
    row_keys = keys.corruption_keys(keys.root(fixed.SEED), batch, 0, 1)
    return pll.one_hidden(
        row_keys,
        batch.replace(visit_B=np.full_like(batch.visit_B, visit)),
        vocab,
        visits=visits,
    )


def test_every_token_is_visited_once(base, store):
    batch = rows(judged(base), store)
    T = batch.tokens_BT.shape[1]
    seen, weight = np.zeros(batch.tokens_BT.shape, int), np.zeros(len(batch.tokens_BT))
    hide = jax.jit(lambda b, v: hidden_traced(b, v, store.vocab, T))
    for visit in range(T):
        made = hide(batch, jnp.uint32(visit))
        changed = np.asarray(made.inputs_BT) != batch.tokens_BT
        assert (changed.sum(1) <= 1).all()
        assert (np.asarray(made.inputs_BT)[changed] == store.vocab.mask).all()
        used = np.asarray(made.weights_BP)[:, 0] > 0
        at = np.asarray(made.at_BP)[used, 0]
        assert (np.asarray(made.targets_BP)[used, 0] == batch.tokens_BT[used, at]).all()
        seen[used, at] += 1
        weight += np.asarray(made.weights_BP)[:, 0]
    assert (seen == batch.maskable_BT).all()
    assert (weight == batch.maskable_BT.sum(1)).all()


def hidden_traced(batch: Batch, visit, vocab, visits: int) -> Corrupted:
    row_keys = keys.corruption_keys(keys.root(fixed.SEED), batch, 0, 1)
    again = batch.replace(visit_B=jnp.full(batch.visit_B.shape, visit))
    return pll.one_hidden(row_keys, again, vocab, visits=visits)


def test_few_visits_weigh_as_many_tokens_as_the_row_has(base, store):
    batch = rows(judged(base), store)
    made = [hidden(batch, store.vocab, v, 3) for v in range(3)]
    total = sum(np.asarray(m.weights_BP)[:, 0] for m in made)
    np.testing.assert_allclose(total, batch.maskable_BT.sum(1), rtol=1e-6)
    at = np.stack([np.asarray(m.at_BP)[:, 0] for m in made])
    full = batch.maskable_BT.sum(1) >= 3
    assert all(len(set(column)) == 3 for column in at[:, full].T)


def slow(experiment, store, params) -> tuple[float, float]:
    """-log p and accuracy of every token given the others: row by row, position by position."""
    ready = setup.make(experiment, store)
    batch = rows(experiment, store)
    nats, right = [], []

    @jax.jit
    def at(params, row, position):
        made = Corrupted.of(
            row,
            inputs_BT=row.tokens_BT.at[:, position].set(store.vocab.mask),
            at_BP=jnp.full((1, 1), position),
            targets_BP=row.tokens_BT[:, position][:, None],
            weights_BP=jnp.ones((1, 1)),
        )
        return jax.nn.log_softmax(ready.network.apply(params, made).token_logits_BPV[0, 0])

    for i in range(len(batch.tokens_BT)):
        row = jax.tree.map(lambda leaf, i=i: jnp.asarray(leaf[i : i + 1]), batch)
        for position in np.flatnonzero(batch.maskable_BT[i]):
            logs = np.asarray(at(params, row, int(position)))
            target = batch.tokens_BT[i, position]
            nats.append(-logs[target])
            right.append(logs.argmax() == target)
    return float(np.mean(nats)), float(np.mean(right))


@pytest.mark.slow
def test_the_probe_is_the_slow_loop_where_every_token_is_visited(base, store, compiled):
    experiment = judged(base, pll=tiny.LENGTH, masks=())
    ready = setup.make(experiment, store)
    params = ready.init_state().params
    # untrained logits are almost flat: larger parameters make the comparison tell
    params = jax.tree.map(lambda p: 3 * p, params)
    found = ready.evaluate(params)
    loss, accuracy = slow(experiment, store, params)
    np.testing.assert_allclose(found["pll/mlm/loss"], loss, rtol=1e-5)
    np.testing.assert_allclose(found["pll/mlm/accuracy"], accuracy, rtol=1e-6)
    few = setup.make(judged(base, pll=4, masks=()), store).evaluate(params)
    assert few["pll/mlm/loss"] != pytest.approx(loss, rel=1e-6)
    np.testing.assert_allclose(few["pll/mlm/loss"], loss, rtol=0.25)


def test_a_grid_calls_the_probe_by_its_name():
    from bert_variants.ablate import grid

    assert grid.PLL == pll.NAME


@pytest.mark.slow
def test_the_digest_is_of_rows_and_masks_and_of_nothing_else(base, store):
    first = fixed.digest(judged(base), store)
    assert len(first) == 64
    same = dataclasses.replace(
        judged(base, "elsewhere"), corruption="whole_words()", objectives="mlm"
    )
    same = config.set_field(same, "run.seed", 7)
    assert fixed.digest(same, store) == first
    for change in ({"rows": ROWS - 1}, {"pll": 2}, {"masks": ("tokens(rate=0.2)",)}):
        assert fixed.digest(judged(base, **change), store) != first, change
    assert fixed.digest(judged(base, masks=(), pll=0), store) == ""


def test_the_digest_sees_other_text(base, store, tmp_path):
    shutil.copytree(base / "text", tmp_path / "text")
    for path in (tmp_path / "text").glob("*.txt"):
        path.write_text(path.read_text().replace("moon", "tree"))
    other = judged(tmp_path)
    assert fixed.digest(other, prepare(other.data)) != fixed.digest(judged(base), store)


def test_a_run_says_what_it_was_judged_on(base, store, compiled, tmp_path):
    experiment = judged(base, str(tmp_path / "run"), masks=(), pll=2, rows=8)
    experiment = config.set_field(experiment, "run.steps", 2)
    experiment = config.set_field(experiment, "run.eval_every", 1)
    assert loop.train(setup.make(experiment, store), loop.Silent()).exit_code == 0
    told = json.loads((tmp_path / "run" / "manifest.json").read_bytes())
    assert told["fingerprints"]["probes"] == fixed.digest(experiment, store)
    assert told["starts"][0]["probes"] == told["fingerprints"]["probes"]
    lines = [
        json.loads(x) for x in (tmp_path / "run" / "metrics.jsonl").read_text().split("\n")[:-1]
    ]
    steps = [line["step"] for line in lines if "pll/mlm/loss" in line]
    assert steps == [1, 2], "a probe is judged at every checkpoint"
