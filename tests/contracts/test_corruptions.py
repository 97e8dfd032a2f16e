"""What every registered corruption keeps to. A new file in corruptions/ is covered by existing."""

from __future__ import annotations

import functools
import re

import jax
import numpy as np
import pytest
from contracts import rows as data

from bert_variants import config, keys, registry
from bert_variants.train import sharding
from bert_variants.types import Corrupted

NAMES = registry.names("corruption")
COLLECTIVES = re.compile(r"all-(reduce|gather|to-all)|reduce-scatter|collective-permute")
ARRAYS = ("inputs_BT", "at_BP", "targets_BP", "weights_BP")
each = pytest.mark.parametrize("name", NAMES)


@functools.cache
def compiled(call: str, copies: int = 0):
    """The corruption as the step runs it: ``(batch, seed, step) -> Corrupted``."""
    bound = registry.lookup("corruption", call)

    def run(batch, seed, step):
        row_keys = keys.corruption_keys(jax.random.key(seed), batch, step, copies)
        return bound(row_keys, batch, data.VOCAB)

    return jax.jit(run)


def run(call: str, batch, seed: int = 0, step: int = 0, copies: int = 0) -> Corrupted:
    return jax.tree.map(np.asarray, compiled(call, copies)(batch, np.uint32(seed), np.int32(step)))


def shuffles(call: str) -> bool:
    return "moved_BT" in registry.lookup("corruption", call).traits["gives"]


def hidden(found: Corrupted) -> np.ndarray:
    """bool [B, P]: the slots of tokens that were chosen to be hidden, not moved."""
    used = found.weights_BP > 0
    if found.moved_BT is None:
        return used
    return used & ~np.take_along_axis(found.moved_BT, found.at_BP, axis=1)


def decided(found: Corrupted) -> np.ndarray:
    """Everything that a corruption decides of a row, side by side: [B, ...]."""
    parts = [found.inputs_BT, found.at_BP, found.order_BT]
    return np.concatenate([part for part in parts if part is not None], axis=1)


def is_random(call: str) -> bool:
    return registry.lookup("corruption", call).traits["random"]


def on_average(call: str) -> bool:
    """Whether the rate of a corruption is a mean, so that a row may have more or nothing at all."""
    return registry.lookup("corruption", call).traits["budget"] == "mean"


# ------------------------------------------------------------- the laws, for any call-string


def check_randomness(call: str) -> None:
    """The key decides, all of it and nothing else; or it plays no part, as declared."""
    batch = data.rows(1, 8, 16, full=True)
    data.assert_equal(run(call, batch), run(call, batch))
    for other in (run(call, batch, seed=1), run(call, batch, step=1)):
        same = np.array_equal(decided(other), decided(run(call, batch)))
        assert same != is_random(call)


def check_rows_are_independent(call: str) -> None:
    """Neither the neighbours nor the place in the batch change a row."""
    batch = data.rows(2, 8, 16)
    found = run(call, batch)
    order = np.array([3, 1, 7, 0, 2, 6, 5, 4])
    data.assert_equal(run(call, data.take(batch, order)), data.take(found, order))
    others = data.rows(77, 8, 16, first_id=500)
    mixed = data.joined(data.take(others, slice(0, 5)), data.take(batch, slice(5, 8)))
    kept = data.take(run(call, mixed), slice(5, 8))
    data.assert_equal(kept, data.take(found, slice(5, 8)))


def check_fields(call: str, length: int) -> None:
    """Positions, targets and weights say what was done, and nothing else was done."""
    batch = data.rows(3, 8, length, empty=(4,)) if length > 4 else data.rows(3, 8, length)
    found = run(call, batch)
    used = found.weights_BP > 0
    assert set(np.unique(found.weights_BP)) <= {0.0, 1.0}
    assert used.any() or on_average(call)
    for b in range(8):
        at = found.at_BP[b][used[b]]
        assert (np.diff(at) > 0).all(), "ascending, each position once"
        assert batch.maskable_BT[b, at].all()
        np.testing.assert_array_equal(found.targets_BP[b][used[b]], batch.tokens_BT[b, at])
        if not shuffles(call):
            elsewhere = np.setdiff1d(np.arange(length), at)
            np.testing.assert_array_equal(
                found.inputs_BT[b, elsewhere], batch.tokens_BT[b, elsewhere]
            )
    fixed = ~batch.maskable_BT
    np.testing.assert_array_equal(found.inputs_BT[fixed], batch.tokens_BT[fixed])
    for slots in (found.at_BP, found.targets_BP):
        assert (slots[~used] == 0).all(), "unused slots hold 0"
    assert not used[~batch.maskable_BT.any(axis=1)].any(), "nothing to choose, nothing chosen"
    kept = ("tokens_BT", "valid_BT", "example_id_B", "words_BT", "labels")
    for name in kept:
        data.assert_equal(getattr(found, name), getattr(batch, name))


def check_shapes(call: str) -> None:
    """Static shapes and documented formats, and each declared field is there."""
    batch = data.rows(4, 8, 16)
    found = run(call, batch)
    assert found.inputs_BT.shape == (8, 16)
    assert found.at_BP.shape == found.targets_BP.shape == found.weights_BP.shape
    assert found.at_BP.shape[1] <= 16
    formats = {name: getattr(found, name).dtype for name in ARRAYS}
    assert formats == {
        "inputs_BT": np.int32,
        "at_BP": np.int32,
        "targets_BP": np.int32,
        "weights_BP": np.float32,
    }
    for given in registry.lookup("corruption", call).traits["gives"]:
        assert getattr(found, given) is not None, given
    assert found.inputs_BT.min() >= 0
    assert found.inputs_BT.max() < data.VOCAB.size
    other = run(call, data.rows(5, 8, 16, full=True))
    assert jax.tree.map(np.shape, other) == jax.tree.map(np.shape, found)


def check_budget(call: str) -> None:
    """Never more than the rate allows, and on long rows nearly that much."""
    bound = registry.lookup("corruption", call)
    if "rate" not in bound.entry.parameters:
        return
    rate = bound.argument("rate")
    if on_average(call):
        check_mean_budget(call, rate)
        return
    batch = data.rows(6, 64, 128, full=True)
    chosen = hidden(run(call, batch)).sum(axis=1)
    assert (chosen <= np.ceil(rate * 128)).all()
    if not bound.entry.parameters.keys() & {"max_predictions"} or not bound.argument(
        "max_predictions"
    ):
        assert abs(chosen.mean() / (rate * 128) - 1) < 0.1


def check_mean_budget(call: str, rate: float) -> None:
    """The rate of what may be chosen, over half a million tokens; and P is no limit in practice."""
    chosen = candidates = 0
    for seed in range(2):
        batch = data.rows(60 + seed, 2000, 128, full=True)
        found = hidden(run(call, batch, step=seed))
        assert not found.all(axis=1).any(), "every slot of a row is used"
        chosen, candidates = chosen + found.sum(), candidates + batch.maskable_BT.sum()
    assert candidates > 4e5
    assert abs(chosen / candidates - rate) < 0.005


def check_devices(call: str) -> None:
    """8 devices make the same rows, bit for bit, and do not talk about it."""
    batch = data.rows(7, 16, 16)
    alone = run(call, batch)
    mesh = sharding.make_mesh(config.Mesh(data=4, fsdp=2))
    placed = sharding.put_batch(batch, mesh)
    with jax.set_mesh(mesh):
        lowered = compiled(call).lower(placed, np.uint32(0), np.int32(0)).compile()
        spread = lowered(placed, np.uint32(0), np.int32(0))
    assert COLLECTIVES.search(lowered.as_text()) is None
    assert spread.inputs_BT.sharding.shard_shape(spread.inputs_BT.shape) == (2, 16)
    data.assert_equal(jax.tree.map(np.asarray, spread), alone)


def check_static_copies(call: str) -> None:
    """k copies: masks come again after k visits, differ within, and the step plays no part."""

    def masks(visit: int, step: int = 0) -> np.ndarray:
        batch = data.rows(8, 8, 64, full=True, visit=visit)
        return decided(run(call, batch, step=step, copies=3))

    np.testing.assert_array_equal(masks(1), masks(4))
    np.testing.assert_array_equal(masks(1, step=0), masks(1, step=9))
    if not is_random(call):
        return
    assert (masks(0) != masks(1)).any(axis=1).all()
    assert (masks(1) != masks(2)).any(axis=1).all()


@each
def test_the_key_decides(name):
    check_randomness(name)


@each
def test_rows_are_independent(name):
    check_rows_are_independent(name)


@each
@pytest.mark.parametrize(
    "length",
    [pytest.param(4, marks=pytest.mark.slow), 16, pytest.param(33, marks=pytest.mark.slow)],
)
def test_fields(name, length):
    check_fields(name, length)


@each
def test_shapes(name):
    check_shapes(name)


@each
def test_budget(name):
    check_budget(name)


@each
def test_devices(name):
    check_devices(name)


@each
def test_static_copies(name):
    check_static_copies(name)


# ------------------------------------------------------------- what the published ones promise


def budget(n: int, rate: float = 0.15, most: int = 10**9) -> int:
    """google-research/bert:create_pretraining_data.py, word for word."""
    return min(most, max(1, round(n * rate)))


def test_tokens_budget_vectors():
    """Lengths 128, 512, 10 and 30, specials counted; half goes to the even number."""
    lengths = (128, 512, 10, 30)
    found = [data.rows(9, 2, n, full=True) for n in lengths]
    wide = [
        jax.tree.map(lambda x: np.pad(x, ((0, 0), (0, 512 - x.shape[1]))) if x.ndim == 2 else x, b)
        for b in found
    ]
    chosen = run("tokens()", data.joined(*wide)).weights_BP.sum(axis=1)
    np.testing.assert_array_equal(chosen, np.repeat([19, 77, 2, 4], 2))


@pytest.mark.parametrize("most", [0, 3])
def test_tokens_budget_is_exact_for_every_row(most):
    batch = data.rows(10, 256, 48)
    found = run(f"tokens(max_predictions={most})", batch)
    expected = [
        min(budget(int(valid.sum()), most=most or 10**9), int(maskable.sum()))
        for valid, maskable in zip(batch.valid_BT, batch.maskable_BT, strict=True)
    ]
    np.testing.assert_array_equal(found.weights_BP.sum(axis=1), expected)


def test_random_rounding_is_fairseqs():
    """512 tokens at 15 %: 76.8 becomes 76 for one row in five and 77 for the others."""
    found = run("tokens(rounding='random')", data.rows(11, 1500, 512, full=True))
    numbers, counts = np.unique(found.weights_BP.sum(axis=1), return_counts=True)
    np.testing.assert_array_equal(numbers, [76, 77])
    sigma = (1500 * 0.2 * 0.8) ** 0.5
    assert abs(counts[0] - 300) < 4 * sigma


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=[] if n == "tokens" else pytest.mark.slow) for n in NAMES],
)
def test_eighty_ten_ten(name):
    """Over at least 1e5 chosen tokens; a random token may be any of V, the original too."""
    parameters = registry.entry("corruption", name).parameters.keys()
    if not {"mask", "random"} <= parameters:
        pytest.skip("does not replace by shares")
    call = registry.edit(name, random_ids="vocab") if "random_ids" in parameters else name
    masked = same = total = 0
    drawn = np.zeros(data.VOCAB.size, np.int64)
    for part in range(2):
        batch = data.rows(100 + part, 4000, 64, full=True, first_id=4000 * part)
        # several steps over the same rows draw afresh
        for step in range(2):
            found = run(call, batch, step=step)
            used = hidden(found)
            put = np.take_along_axis(found.inputs_BT, found.at_BP, axis=1)[used]
            was = found.targets_BP[used]
            total += used.sum()
            masked += (put == data.VOCAB.mask).sum()
            same += (put == was).sum()
            drawn += np.bincount(put[put != was], minlength=data.VOCAB.size)
    assert total > 1e5
    share = 0.1 / data.VOCAB.size
    assert abs(masked / total - (0.8 + share)) < 0.01
    assert abs(same / total - (0.1 + share)) < 0.01
    drawn[data.VOCAB.mask] = total * share  # hidden among the eighty per cent
    # every id of the vocabulary is drawn, special ones as often as the others
    assert abs(drawn[: len(data.VOCAB.specials)].mean() / (total * share) - 1) < 0.15
    assert drawn.min() > 0.7 * total * share


def test_tokens_are_chosen_uniformly():
    batch = data.rows(12, 1, 32, full=True)
    many = data.take(batch, np.zeros(20_000, np.int64)).replace(
        example_id_B=np.arange(20_000, dtype=np.uint32)
    )
    found = run("tokens()", many)
    times = np.bincount(found.at_BP[found.weights_BP > 0], minlength=32)
    candidates = batch.maskable_BT[0]
    expected = 20_000 * 5 / candidates.sum()
    assert (times[~candidates] == 0).all()
    assert np.abs(times[candidates] - expected).max() < 5 * expected**0.5


def test_whole_words_all_or_nothing_within_the_budget():
    batch = data.rows(13, 2000, 64)
    found = run("whole_words()", batch)
    chosen = np.zeros(batch.tokens_BT.shape, bool)
    for b in range(2000):
        chosen[b, found.at_BP[b][found.weights_BP[b] > 0]] = True
        for word in range(batch.words_BT[b].max() + 1):
            assert chosen[b, batch.words_BT[b] == word].mean() in (0, 1)
    counts = batch.valid_BT.sum(axis=1)
    allowed = np.array([budget(int(n)) for n in counts])
    assert (chosen.sum(axis=1) <= allowed).all()
    # what is left over is less than the shortest word that was not chosen
    for b in range(2000):
        left = allowed[b] - chosen[b].sum()
        rest = batch.words_BT[b][batch.maskable_BT[b] & ~chosen[b]]
        assert not rest.size or left < np.bincount(rest)[np.unique(rest)].min()
    assert chosen.sum() > 0.97 * allowed.sum()
