"""What every registered objective keeps to. A new file in objectives/ is covered by existing.

Inputs follow from its traits: outputs from ``reads``, labels and fields of the rows from ``needs``.
"""

from __future__ import annotations

import jax
import numpy as np
import pytest
from contracts import rows as data

from bert_variants import registry
from bert_variants.types import Corrupted, Outputs, Terms

NAMES = registry.names("objective")
each = pytest.mark.parametrize("name", NAMES)


def case(name: str, seed: int = 0, count: int = 6, empty: tuple[int, ...] = ()):
    """The objective, and outputs and rows for it."""
    objective = registry.lookup("objective", name)
    batch = data.corrupted(objective, seed=seed, count=count, empty=empty)
    made = data.outputs(objective.traits["reads"], count, batch.at_BP.shape[1], seed=seed)
    return objective, made, batch


def floats(outputs: Outputs) -> tuple[Outputs, Outputs]:
    """The outputs that gradients flow into, and the others, each with None elsewhere."""
    is_float = lambda x: np.issubdtype(np.asarray(x).dtype, np.floating)  # noqa: E731
    return (
        jax.tree.map(lambda x: x if is_float(x) else None, outputs),
        jax.tree.map(lambda x: None if is_float(x) else x, outputs),
    )


def gradient(objective, outputs: Outputs, batch: Corrupted) -> Outputs:
    moving, fixed = floats(outputs)

    def loss(moving):
        whole = jax.tree.map(
            lambda a, b: b if a is None else a, moving, fixed, is_leaf=lambda x: x is None
        )
        return objective(whole, batch).loss.total

    return jax.grad(loss)(moving)


def assert_terms_near(left: Terms, right: Terms) -> None:
    for path, value in data.leaves(left).items():
        np.testing.assert_allclose(
            value, data.leaves(right)[path], rtol=1e-5, atol=1e-5, err_msg=path
        )


def finite(tree) -> bool:
    return all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(tree))


# ------------------------------------------------------------- the laws, for any objective


def check_finite(name: str) -> None:
    objective, outputs, batch = case(name)
    terms = objective(outputs, batch)
    assert isinstance(terms, Terms)
    for mean in (terms.loss, *terms.metrics.values()):
        assert np.shape(mean.total) == np.shape(mean.weight) == ()
        assert mean.total.dtype == mean.weight.dtype == np.float32
    assert finite(terms)
    assert terms.loss.weight > 0
    grads = gradient(objective, outputs, batch)
    assert finite(grads)
    assert any((leaf != 0).any() for leaf in jax.tree.leaves(grads)), "nothing to learn from"


def check_nothing_to_learn(name: str) -> None:
    """A batch of nothing but padding: no loss, no weight, no NaN."""
    objective, outputs, batch = case(name, empty=tuple(range(6)))
    batch = batch.replace(weights_BP=np.zeros_like(batch.weights_BP))
    terms = objective(outputs, batch)
    assert all(leaf == 0 for leaf in jax.tree.leaves(terms))
    grads = gradient(objective, outputs, batch)
    assert all((leaf == 0).all() for leaf in jax.tree.leaves(grads))


def check_masked_is_filtered(name: str) -> None:
    """Rows of padding, whatever the model says of them, count as much as no rows."""
    objective, outputs, batch = case(name, seed=1, count=8, empty=(2, 5, 7))
    there = np.array([0, 1, 3, 4, 6])
    left_out = objective(data.take(outputs, there), data.take(batch, there))
    assert_terms_near(objective(outputs, batch), left_out)


def check_halves_add_up(name: str) -> None:
    """Unequal parts, as microbatches and hosts have them; and the sum divides once."""
    objective, outputs, batch = case(name, seed=2, count=7, empty=(1,))
    parts = [slice(0, 2), slice(2, 7)]
    terms = [objective(data.take(outputs, p), data.take(batch, p)) for p in parts]
    assert_terms_near(terms[0] + terms[1], objective(outputs, batch))


def check_order_of_rows(name: str) -> None:
    objective, outputs, batch = case(name, seed=3)
    order = np.array([4, 2, 0, 5, 1, 3])
    shuffled = objective(data.take(outputs, order), data.take(batch, order))
    assert_terms_near(shuffled, objective(outputs, batch))


def check_weight_is_the_batchs(name: str) -> None:
    """The denominator is known before the network has run; the step relies on it."""
    objective, outputs, batch = case(name, seed=4, empty=(0,))
    blank = jax.tree.map(np.zeros_like, outputs)
    np.testing.assert_array_equal(
        objective(blank, batch).loss.weight, objective(outputs, batch).loss.weight
    )


def check_nothing_leaks(name: str) -> None:
    """NaN in rows of padding and in unused slots reaches neither value nor gradient."""
    objective, outputs, batch = case(name, seed=5, empty=(1, 4))
    unused = batch.weights_BP == 0
    assert unused.any()

    def spoil(path, leaf):
        spoilt = np.array(leaf)
        if not np.issubdtype(spoilt.dtype, np.floating):
            return spoilt
        field = path[0].name
        axis = 1 if field == "scores" else 0
        np.moveaxis(spoilt, axis, 0)[[1, 4]] = np.nan
        if "_BP" in field:
            spoilt[unused] = np.nan
        return spoilt

    dirty = jax.tree_util.tree_map_with_path(spoil, outputs)
    data.assert_equal(objective(dirty, batch), objective(outputs, batch))
    data.assert_equal(gradient(objective, dirty, batch), gradient(objective, outputs, batch))


def check_under_jit(name: str) -> None:
    objective, outputs, batch = case(name, seed=6)
    assert_terms_near(
        jax.jit(objective.entry.fn)(outputs, batch), objective.entry.fn(outputs, batch)
    )


CHECKS = (
    check_finite,
    check_nothing_to_learn,
    check_masked_is_filtered,
    check_halves_add_up,
    check_order_of_rows,
    check_weight_is_the_batchs,
    check_nothing_leaks,
    check_under_jit,
)


@each
@pytest.mark.parametrize("check", CHECKS, ids=lambda c: c.__name__.removeprefix("check_"))
def test_law(name, check):
    check(name)


@each
def test_traits(name):
    """``reads`` names outputs that exist, ``needs`` fields that exist."""
    traits = registry.entry("objective", name).traits
    known = set(Outputs.__dataclass_fields__)
    assert set(traits["reads"]) <= known
    assert traits["reads"]
    for need in traits["needs"]:
        kind = need.split(".")[0]
        assert kind in Corrupted.__dataclass_fields__, need


# ------------------------------------------------------------- the published ones, by hand


def by_hand(outputs: Outputs, **changed) -> tuple[Outputs, Corrupted]:
    """Two rows of three positions, all chosen but the last of the second row."""
    batch = data.corrupted(registry.lookup("objective", "mlm"), count=2)
    fields = {
        "at_BP": np.array([[0, 1, 2], [0, 1, 0]], np.int32),
        "targets_BP": np.array([[0, 1, 2], [2, 2, 0]], np.int32),
        "weights_BP": np.array([[1, 1, 1], [1, 1, 0]], np.float32),
    }
    return outputs, batch.replace(**(fields | changed))


def test_mlm_by_hand():
    """Logits (0, 1, 2) everywhere: log(1 + e + e^2) less the target's own logit, five times."""
    logits = np.broadcast_to(np.arange(3, dtype=np.float32), (2, 3, 3))
    terms = registry.lookup("objective", "mlm")(*by_hand(Outputs(token_logits_BPV=logits)))
    log_sum = np.log(1 + np.e + np.e**2)  # 2.4076059
    expected = (log_sum - 0) + (log_sum - 1) + 3 * (log_sum - 2)
    np.testing.assert_allclose(terms.loss.total, expected, rtol=1e-5)
    assert float(terms.loss.weight) == 5
    np.testing.assert_allclose(terms.loss.value(), 1.0076059, rtol=1e-5)
    assert float(terms.metrics["accuracy"].total) == 3


def test_mlm_is_a_mean_over_tokens_not_rows():
    """One row with three tokens, one with one: each token counts alike."""
    logits = np.zeros((2, 3, 3), np.float32)
    logits[1, 0, 2] = 50  # right without a doubt
    weights = np.array([[1, 1, 1], [1, 0, 0]], np.float32)
    terms = registry.lookup("objective", "mlm")(
        *by_hand(Outputs(token_logits_BPV=logits), weights_BP=weights)
    )
    np.testing.assert_allclose(terms.loss.value(), 3 * np.log(3) / 4, rtol=1e-5)


def test_span_boundary_by_hand():
    """Logits (0, 1, 2): not counted are a token without a boundary and a span's sixteenth."""
    logits = np.broadcast_to(np.arange(3, dtype=np.float32), (2, 3, 3))
    terms = registry.lookup("objective", "span_boundary")(
        *by_hand(
            Outputs(span_logits_BPV=logits),
            targets_BP=np.array([[0, 1, 2], [2, 2, 0]], np.int32),
            left_BP=np.array([[3, 3, -1], [3, 3, -1]], np.int32),
            right_BP=np.array([[6, 6, -1], [9, 9, -1]], np.int32),
            offset_BP=np.array([[0, 1, 0], [14, 15, 0]], np.int32),
        )
    )
    # targets 0 and 1 of the first row, and 2 as the fifteenth of the second one's span
    np.testing.assert_allclose(terms.loss.total, 3 * 2.4076059 - (0 + 1 + 2), rtol=1e-5)
    assert float(terms.loss.weight) == 3
    assert float(terms.metrics["accuracy"].total) == 1


def test_nsp_by_hand():
    """Label 0 with logits (2, 0), label 1 with (1, 1): log(1 + e^-2) and log 2."""
    outputs = Outputs(pair_logits_BC=np.array([[2, 0], [1, 1]], np.float32))
    batch = by_hand(outputs)[1].replace(labels={"next_sentence": np.array([0, 1], np.int32)})
    terms = registry.lookup("objective", "nsp")(outputs, batch)
    np.testing.assert_allclose(terms.loss.total, 0.1269280 + 0.6931472, rtol=1e-5)
    assert float(terms.loss.weight) == 2
    assert float(terms.metrics["accuracy"].total) == 1


def row_labels(name: str, logits, label: str, values) -> Terms:
    """An objective over labels of rows; the batch is padded by nothing."""
    outputs = Outputs(pair_logits_BC=np.asarray(logits, np.float32))
    batch = data.corrupted(registry.lookup("objective", name), count=len(values))
    return registry.lookup("objective", name)(
        outputs, batch.replace(labels={label: np.asarray(values, np.int32)})
    )


def test_sop_by_hand():
    """Swapped (1) with logits (2, 0), in order (0) with (1, 1): 2 + log(1 + e^-2), log 2."""
    terms = row_labels("sop", [[2, 0], [1, 1]], "swapped", [1, 0])
    np.testing.assert_allclose(terms.loss.total, 2.1269280 + 0.6931472, rtol=1e-5)
    assert float(terms.loss.weight) == 2
    assert float(terms.metrics["accuracy"].total) == 1


def test_sentence_structure_by_hand():
    """Logits (0, 1, 2) for the classes 2, 1 and 0: log(1 + e + e^2) less 2, 1 and 0."""
    terms = row_labels("sentence_structure", [[0, 1, 2]] * 3, "sentence_order", [2, 1, 0])
    np.testing.assert_allclose(terms.loss.total, 3 * 2.4076059 - 3, rtol=1e-5)
    assert float(terms.metrics["accuracy"].total) == 1
    blank = row_labels("sentence_structure", [[0, 0, 0]], "sentence_order", [1])
    np.testing.assert_allclose(blank.loss.value(), np.log(3), rtol=1e-5)


def test_real_fake_by_hand():
    """Class 0 of the head is real, which is label 1: logits (2, 0) are right for label 1."""
    terms = row_labels("real_fake", [[2, 0], [2, 0]], "real", [1, 0])
    np.testing.assert_allclose(terms.loss.total, 0.1269280 + 2.1269280, rtol=1e-5)
    assert float(terms.metrics["accuracy"].total) == 1


OVER_ROWS = [
    name
    for name in NAMES
    if set(registry.entry("objective", name).traits["reads"]) == {"pair_logits_BC"}
    and any(n.startswith("labels.") for n in registry.entry("objective", name).traits["needs"])
]


@pytest.mark.parametrize("name", OVER_ROWS)
def test_a_label_below_zero_leaves_the_row_out(name):
    """Rows of another kind, in a run of several: as if they were not there, whatever the logits."""
    objective, outputs, batch = case(name, seed=7, count=6)
    (label,) = batch.labels
    values = batch.labels[label].copy()
    values[[1, 4]] = -1
    logits = outputs.pair_logits_BC.copy()
    logits[[1, 4]] = np.nan
    some, spoilt = batch.replace(labels={label: values}), Outputs(pair_logits_BC=logits)
    there = np.array([0, 2, 3, 5])
    assert_terms_near(
        objective(spoilt, some), objective(data.take(outputs, there), data.take(batch, there))
    )
    assert float(objective(spoilt, some).loss.weight) == 4
    assert finite(gradient(objective, spoilt, some))
    none = objective(spoilt, batch.replace(labels={label: np.full(6, -1, np.int32)}))
    assert all(leaf == 0 for leaf in jax.tree.leaves(none))


def test_word_order_by_hand():
    """One mean over masked and moved alike: of five tokens two were moved; metrics tell them apart.

    Logits (0, 1, 2) everywhere; the moved ones are the second of the first row (target 1, wrong)
    and the first of the second row (target 2, right).
    """
    logits = np.broadcast_to(np.arange(3, dtype=np.float32), (2, 3, 3))
    moved = np.zeros((2, 16), bool)
    moved[0, 1] = moved[1, 0] = True
    batch = by_hand(Outputs(token_logits_BPV=logits), moved_BT=moved)
    terms = registry.lookup("objective", "word_order")(*batch)
    mlm = registry.lookup("objective", "mlm")(*batch)
    np.testing.assert_allclose(terms.loss.total, mlm.loss.total, rtol=1e-6)
    np.testing.assert_allclose(terms.loss.value(), 1.0076059, rtol=1e-5)
    log_sum = np.log(1 + np.e + np.e**2)
    expected = {
        "masked_nats": (log_sum + 2 * (log_sum - 2), 3),
        "masked_accuracy": (2, 3),
        "moved_nats": ((log_sum - 1) + (log_sum - 2), 2),
        "moved_accuracy": (1, 2),
    }
    assert set(terms.metrics) == set(expected)
    for name, (total, weight) in expected.items():
        np.testing.assert_allclose(terms.metrics[name].total, total, rtol=1e-5, err_msg=name)
        assert float(terms.metrics[name].weight) == weight, name
