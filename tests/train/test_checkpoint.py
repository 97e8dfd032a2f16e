"""Saves that are whole, verified and kept by rule."""

from __future__ import annotations

import dataclasses
import math
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from bert_variants import config
from bert_variants.train import checkpoint, digest, leaves, manifest, restore
from bert_variants.train.checkpoint import Checkpoints
from bert_variants.train.errors import CheckpointError, DivergedError
from bert_variants.train.meta import Meta, tokenizer_entry
from bert_variants.train.setup import Setup
from bert_variants.train.state import TrainState

# ---- digests


def arrays() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {
        "f": rng.normal(size=(16, 3, 5)).astype(np.float32),
        "i": rng.integers(-9, 9, size=(8, 2)).astype(np.int32),
        "b": rng.integers(0, 2, size=7).astype(bool),
        "h": np.asarray(jnp.asarray(rng.normal(size=(4, 4)), jnp.bfloat16)),
        "s": np.asarray(3, np.int32),
        "long": rng.normal(size=70_000).astype(np.float32),
    }


def test_host_and_device_and_every_mesh_give_the_same_digests() -> None:
    host = digest.host_digests(arrays())
    assert host.tolist() == np.asarray(jax.jit(digest.device_digests)(arrays())).tolist()
    mesh = jax.make_mesh((4, 2), ("data", "tensor"), axis_types=(AxisType.Auto,) * 2)
    spread = {**arrays()}
    spread["f"] = jax.device_put(
        spread["f"], NamedSharding(mesh, PartitionSpec(("tensor", "data")))
    )
    spread["i"] = jax.device_put(spread["i"], NamedSharding(mesh, PartitionSpec("data", "tensor")))
    assert host.tolist() == np.asarray(jax.jit(digest.device_digests)(spread)).tolist()


@given(st.integers(0, 239), st.integers(0, 31))
def test_every_single_flip_changes_both_numbers(element: int, bit: int) -> None:
    before = arrays()["f"]
    after = before.copy()
    after.reshape(-1).view(np.uint32)[element] ^= np.uint32(1 << bit)
    one, other = (digest.host_digests({"f": x})[0] for x in (before, after))
    assert one[0] != other[0]
    assert one[1] != other[1]


def test_swapped_elements_and_swapped_rows_change_the_digest() -> None:
    before = arrays()["f"]
    swapped = before[[1, 0, *range(2, 16)]]
    one, other = (digest.host_digests({"f": x})[0, :2] for x in (before, swapped))
    assert one.tolist() != other.tolist()


def test_non_finite_values_are_named_and_wide_types_refused() -> None:
    sick = {**arrays(), "f": np.full((2, 2), np.inf, np.float32)}
    assert digest.non_finite(sick, digest.host_digests(sick)) == ["f"]
    with pytest.raises(TypeError, match="wide is float64"):
        digest.host_digests({"wide": np.zeros(2)})


# ---- what stays

losses = st.dictionaries(
    st.integers(0, 50), st.one_of(st.none(), st.floats(0, 9), st.just(math.nan)), min_size=1
)


@given(losses, st.integers(1, 5), st.integers(0, 7))
def test_exactly_the_newest_the_best_and_the_periodic_stay(
    found: dict[int, float | None], keep: int, keep_every: int
) -> None:
    stay = manifest.retained(found, keep, keep_every)
    newest = sorted(found)[-keep:]
    measured = [v for v in found.values() if v is not None and math.isfinite(v)]
    assert {*newest} <= stay <= {*found}
    assert not measured or min(measured) in {found[s] for s in stay}
    periodic = {s for s in found if keep_every and s % keep_every == 0}
    assert periodic <= stay
    assert len(stay - periodic - {*newest}) <= 1  # the best


# ---- saving


@pytest.fixture(scope="module")
def state(ready: Setup) -> TrainState:
    return ready.init_state()


def meta(ready: Setup, step: int, loss: float | None = None) -> Meta:
    return Meta(
        step=step,
        position=step,
        tokens=step,
        branch=0,
        config=config.to_dict(ready.experiment),
        tokenizer=tokenizer_entry(ready.tokenizer),
        store=ready.store.fingerprint,
        versions={},
        held_out={} if loss is None else {"held_out/loss": loss},
    )


def opened(ready: Setup, run_dir: Path, **options: Any) -> Checkpoints:
    return Checkpoints(run_dir, ready.abstract_state, **{"keep": 2, "keep_every": 0, **options})


def test_retention_holds_across_a_restart(ready: Setup, state: TrainState, tmp_path: Path) -> None:
    given = {1: 5.0, 2: 3.0, 3: None, 4: 4.0, 5: math.nan, 6: 6.0, 7: 7.0, 8: None}
    for part in ((1, 2, 3, 4), (5, 6, 7, 8)):
        with opened(ready, tmp_path, keep_every=3) as checkpoints:
            for step in part:
                checkpoints.save(state, meta(ready, step, given[step]))
            assert checkpoints.finish() == part[-1]
            assert checkpoints.finish() is None
    # 2 is the best, 3 and 6 are periodic, 7 and 8 the newest
    assert manifest.steps(tmp_path / checkpoint.FOLDER) == [2, 3, 6, 7, 8]
    assert not list((tmp_path / checkpoint.FOLDER).glob(f"*{manifest.DELETED}"))


def test_a_save_that_is_not_accepted_is_an_error(
    ready: Setup, state: TrainState, tmp_path: Path
) -> None:
    with opened(ready, tmp_path) as checkpoints:
        checkpoints.save(state, meta(ready, 5))
        with pytest.raises(CheckpointError, match=r"step 4 was not saved: .* holds step 5"):
            checkpoints.save(state, meta(ready, 4))
        with pytest.raises(CheckpointError, match="step 5 "):
            checkpoints.save(state, meta(ready, 5))
        checkpoints.discard([5])
        checkpoints.save(state, meta(ready, 4))
        assert checkpoints.finish() == 4


def test_a_state_that_is_not_finite_is_not_saved(
    ready: Setup, state: TrainState, tmp_path: Path
) -> None:
    sick = dataclasses.replace(state, params=jax.tree.map(lambda p: p * jnp.nan, state.params))
    with opened(ready, tmp_path) as checkpoints, pytest.raises(DivergedError, match="params/"):
        checkpoints.save(sick, meta(ready, 1))
    assert manifest.steps(tmp_path / checkpoint.FOLDER) == []


def test_a_save_that_fails_in_the_background_is_noticed_at_the_next_poll(
    ready: Setup, state: TrainState, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from orbax.checkpoint._src.path import atomicity

    async def no_room(self: Any, *args: Any, **kwargs: Any) -> None:
        raise OSError(28, "No space left on device")

    with opened(ready, tmp_path) as checkpoints:
        checkpoints.save(state, meta(ready, 1))
        checkpoints.finish()
        for cls in vars(atomicity).values():
            if isinstance(cls, type) and "finalize" in vars(cls):
                monkeypatch.setattr(cls, "finalize", no_room)
        checkpoints.save(state, meta(ready, 2))
        with pytest.raises(
            CheckpointError, match=r"(?s)step 2 could not be saved.*Step 1 is there"
        ):
            polled_for(checkpoints, 20)
        assert checkpoints.steps() == [1]


def polled_for(checkpoints: Checkpoints, seconds: float) -> None:
    """As the loop does it, once a step."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        checkpoints.poll()
        time.sleep(0.01)


def test_a_checkpoint_restores_bit_for_bit_onto_another_mesh(
    ready: Setup, state: TrainState, tmp_path: Path
) -> None:
    with opened(ready, tmp_path) as checkpoints:
        checkpoints.save(state, meta(ready, 1))
        checkpoints.finish()
        checkpoints.verify(1)
    mesh = jax.make_mesh(
        (2, 1, 1),
        ("data", "fsdp", "tensor"),
        axis_types=(AxisType.Auto,) * 3,
        devices=jax.devices()[:2],
    )

    def split(leaf: Any) -> jax.ShapeDtypeStruct:
        first = "data" if leaf.ndim and leaf.shape[0] % 2 == 0 else None
        spec = PartitionSpec(first) if leaf.ndim else PartitionSpec()
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=NamedSharding(mesh, spec))

    elsewhere = jax.tree.map(split, ready.abstract_state)
    with Checkpoints(tmp_path, elsewhere, keep=2, keep_every=0) as checkpoints:
        found = restore.newest_valid(checkpoints, lambda meta: None)
    for one, other in zip(jax.tree.leaves(found.state), jax.tree.leaves(state), strict=True):
        np.testing.assert_array_equal(np.asarray(one), np.asarray(other))
        assert one.sharding.mesh.size == 2


def test_arrays_of_another_shape_are_named(ready: Setup, state: TrainState, tmp_path: Path) -> None:
    with opened(ready, tmp_path) as checkpoints:
        checkpoints.save(state, meta(ready, 1))
        checkpoints.finish()
    wider = jax.tree.map(
        lambda s: jax.ShapeDtypeStruct(
            (*s.shape, 2), s.dtype, sharding=NamedSharding(ready.mesh, PartitionSpec())
        ),
        ready.abstract_state,
    )
    with (
        Checkpoints(tmp_path, wider, keep=2, keep_every=0) as checkpoints,
        pytest.raises(CheckpointError, match=r"holds .* as .*this config makes it"),
    ):
        restore.newest_valid(checkpoints, lambda meta: None)
    assert manifest.steps(tmp_path / checkpoint.FOLDER) == [1]  # it is not damaged


def test_load_gives_what_a_model_needs(ready: Setup, state: TrainState, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="holds no checkpoint"):
        checkpoint.load(tmp_path)
    with opened(ready, tmp_path) as checkpoints:
        for step in (1, 2):
            checkpoints.save(state, meta(ready, step))
        checkpoints.finish()
    found = checkpoint.load(tmp_path)
    assert (found.step, found.experiment) == (2, ready.experiment)
    assert found.tokenizer.fingerprint == ready.tokenizer.fingerprint
    mine, _ = leaves.flatten(state.params)
    theirs, _ = leaves.flatten(found.params)
    assert mine.keys() == theirs.keys()
    for name, array in mine.items():
        np.testing.assert_array_equal(np.asarray(array), np.asarray(theirs[name]))
    # a damaged newest one is passed over, and left as it is
    (tmp_path / checkpoint.FOLDER / "2" / "params" / "_METADATA").unlink()
    assert checkpoint.load(tmp_path).step == 1
    assert manifest.steps(tmp_path / checkpoint.FOLDER) == [1, 2]
