"""What is learned from replaced tokens, by hand; the laws stand in tests/contracts."""

from __future__ import annotations

import jax
import numpy as np
import pytest
from contracts import rows as data

from bert_variants.registry import RegistryError, lookup
from bert_variants.types import Corrupted, Outputs


def rows(tokens, valid, at, targets, weights) -> Corrupted:
    """Rows of these tokens."""
    tokens = np.asarray(tokens, np.int32)
    plain = data.rows(0, *tokens.shape)
    return Corrupted.of(
        plain.replace(tokens_BT=tokens, valid_BT=np.asarray(valid, bool)),
        inputs_BT=tokens,
        at_BP=np.asarray(at, np.int32),
        targets_BP=np.asarray(targets, np.int32),
        weights_BP=np.asarray(weights, np.float32),
    )


# [CLS] a b c [SEP] [PAD]; a, b and c chosen, b alone drawn wrong; one slot is not used
BATCH = rows([[2, 11, 12, 13, 3, 0]], [[1, 1, 1, 1, 1, 0]], [[1, 2, 3, 0]], [[11, 12, 13, 0]],
             [[1, 1, 1, 0]])  # fmt: skip
CHANGED = np.array([[False, False, True, False, False, False]])


def entropy(logit: float, label: int) -> float:
    return float(np.log1p(np.exp(-logit if label else logit)))


def test_replaced_token_by_hand():
    """Over [CLS], a, b, c and [SEP], not over padding; label 1 for b alone."""
    logits = np.array([[-2.0, -1.0, 0.5, 3.0, -4.0, np.nan]], np.float32)
    outputs = Outputs(replaced_logits_BT=logits, replaced_BT=CHANGED)
    terms = lookup("objective", "replaced_token")(outputs, BATCH)
    each = [entropy(logits[0, t], t == 2) for t in range(5)]
    np.testing.assert_allclose(terms.loss.total, sum(each), rtol=1e-5)
    assert float(terms.loss.weight) == 5
    assert {k: float(m.total) for k, m in terms.metrics.items()} == {
        "accuracy": 4,
        "replaced": 1,
        "found": 1,
    }


def test_replaced_token_on_predicted_positions():
    """ELECTRA 15 %: a, b and c alone, each as often as its weight says."""
    logits = np.array([[9.0, -1.0, 0.5, 3.0, 9.0, 0.0]], np.float32)
    outputs = Outputs(replaced_logits_BT=logits, replaced_BT=CHANGED)
    objective = lookup("objective", "replaced_token(on='predicted')")
    twice = BATCH.replace(weights_BP=np.float32([[1, 2, 1, 0]]))
    terms = objective(outputs, twice)
    expected = entropy(-1, 0) + 2 * entropy(0.5, 1) + entropy(3, 0)
    np.testing.assert_allclose(terms.loss.total, expected, rtol=1e-5)
    assert float(terms.loss.weight) == 4
    with pytest.raises(RegistryError, match="on"):
        lookup("objective", "replaced_token(on='some')")


def test_guessing_costs_log_2():
    outputs = Outputs(replaced_logits_BT=np.zeros((1, 6), np.float32), replaced_BT=CHANGED)
    terms = lookup("objective", "replaced_token")(outputs, BATCH)
    np.testing.assert_allclose(terms.loss.value(), np.log(2), rtol=1e-6)


def test_a_weight_of_two_is_the_slot_twice():
    """For all objectives over predicted positions: exactly the same loss and gradient."""
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(1, 3, 20)).astype(np.float32)
    twice = rows([[2, 11, 12, 3]], [[1] * 4], [[1, 2, 2]], [[11, 12, 12]], [[1, 1, 1]])
    once = rows([[2, 11, 12, 3]], [[1] * 4], [[1, 2, 0]], [[11, 12, 0]], [[1, 2, 0]])
    logits[0, 2] = logits[0, 1]
    for name, field in (("mlm", "token_logits_BPV"), ("corrected", "corrected_logits_BPV")):
        objective = lookup("objective", name)

        def mean(logits, batch, objective=objective, field=field):
            return objective(Outputs(**{field: logits}), batch).loss.value()

        (left, to_left), (right, to_right) = (
            jax.value_and_grad(mean)(logits, batch) for batch in (once, twice)
        )
        np.testing.assert_allclose(left, right, rtol=1e-6)
        np.testing.assert_allclose(to_left[0, 1], to_right[0, 1] + to_right[0, 2], rtol=1e-5)


def test_all_tokens_by_hand():
    """p = g for the input + (1 - g) softmax: the two worked costs, and a certain copy."""
    logits = np.zeros((1, 6, 20), np.float32)
    copy = np.array([[0.0, 0.0, 0.0, 20.0, -1.0, np.nan]], np.float32)
    outputs = Outputs(all_logits_BTV=logits, copy_logits_BT=copy, replaced_BT=CHANGED)
    terms = lookup("objective", "all_tokens")(outputs, BATCH)
    share, gate = 1 / 20, 1 / (1 + np.exp(1.0))
    kept = -np.log(0.5 + 0.5 * share)
    each = [kept, kept, -np.log(0.5 * share), 0.0, -np.log(gate + (1 - gate) * share)]
    np.testing.assert_allclose(terms.loss.total, sum(each), rtol=1e-5)
    assert float(terms.loss.weight) == 5
    np.testing.assert_allclose(terms.metrics["predicted_nats"].total, sum(each[1:4]), rtol=1e-5)
    assert float(terms.metrics["predicted_nats"].weight) == 3
    np.testing.assert_allclose(terms.metrics["copied"].total, 1.5 + 1 + gate, rtol=1e-5)


def test_a_closed_gate_is_masked_language_modelling_of_every_token():
    rng = np.random.default_rng(1)
    logits = rng.normal(size=(1, 6, 20)).astype(np.float32)
    outputs = Outputs(
        all_logits_BTV=logits,
        copy_logits_BT=np.full((1, 6), -40.0, np.float32),
        replaced_BT=CHANGED,
    )
    terms = lookup("objective", "all_tokens")(outputs, BATCH)
    log_p = np.asarray(jax.nn.log_softmax(logits))[0, np.arange(5), BATCH.tokens_BT[0, :5]]
    np.testing.assert_allclose(terms.loss.total, -log_p.sum(), rtol=1e-5)


def test_extreme_gates_are_safe():
    """No NaN where the softmax or the gate is certain, and wrong."""
    logits = np.full((1, 6, 20), -200.0, np.float32)
    logits[..., 7] = 200.0  # never the original
    for gate in (-300.0, 300.0):
        outputs = Outputs(
            all_logits_BTV=logits,
            copy_logits_BT=np.full((1, 6), gate, np.float32),
            replaced_BT=CHANGED,
        )

        def loss(logits, copy, outputs=outputs):
            made = Outputs(
                all_logits_BTV=logits, copy_logits_BT=copy, replaced_BT=outputs.replaced_BT
            )
            return lookup("objective", "all_tokens")(made, BATCH).loss.value()

        value, grads = jax.value_and_grad(loss, argnums=(0, 1))(logits, outputs.copy_logits_BT)
        assert np.isfinite(value)
        assert all(np.isfinite(g).all() for g in grads)


def test_corrected_by_hand():
    """Logits (0, 1, 2) everywhere, targets 1 and 2: log(1 + e + e^2) less the target's own."""
    logits = np.broadcast_to(np.arange(3, dtype=np.float32), (1, 3, 3))
    batch = rows([[2, 1, 2, 3]], [[1] * 4], [[1, 2, 0]], [[1, 2, 0]], [[1, 1, 0]])
    terms = lookup("objective", "corrected")(Outputs(corrected_logits_BPV=logits), batch)
    np.testing.assert_allclose(terms.loss.total, 2 * 2.4076059 - 3, rtol=1e-5)
    assert float(terms.metrics["accuracy"].total) == 1
