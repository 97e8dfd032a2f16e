"""What may change between two starts of a run."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
import tiny_runs as tiny

from bert_variants import config
from bert_variants.text.pipeline import Position
from bert_variants.text.prepare import prepare
from bert_variants.train import branches, checkpoint, loop, manifest, record, resume, setup
from bert_variants.train.errors import CheckpointError, ResumeRefusedError
from bert_variants.train.meta import Meta, tokenizer_entry
from bert_variants.train.setup import Setup


def fields(value: Any, path: str = "") -> list[str]:
    """Dotted paths of all leaves of a config."""
    if not dataclasses.is_dataclass(value):
        return [path]
    inner = [(f.name, getattr(value, f.name)) for f in dataclasses.fields(value)]
    return [p for name, v in inner for p in fields(v, f"{path}.{name}" if path else name)]


def meta_of(ready: Setup, **changes: Any) -> Meta:
    return Meta(
        **{
            "step": 10,
            "position": 80,
            "tokens": 1,
            "branch": 0,
            "config": config.to_dict(ready.experiment),
            "tokenizer": tokenizer_entry(ready.tokenizer),
            "store": ready.store.fingerprint,
            "versions": resume.versions(),
            "held_out": {},
            **changes,
        }
    )


def judged(ready: Setup, experiment: config.Experiment, meta: Meta) -> list[str]:
    notes: list[str] = []
    judge = resume.accept(
        experiment, ready.store.fingerprint, ready.tokenizer.fingerprint, notes.append
    )
    judge(meta)
    return notes


def test_the_tables_name_fields_that_exist(ready: Setup) -> None:
    known = {*fields(ready.experiment), resume.STORE, resume.TOKENIZER}
    assert known >= resume.HARMLESS | resume.LAST_BITS | resume.ORDER
    assert not resume.HARMLESS & resume.ORDER


CHANGES = {
    "optim.lr": 0.5,
    "optim.optimizer": "lamb()",
    "optim.schedule": "linear()",
    "optim.warmup": 6,
    "run.batch": 16,
    "run.steps": 31,
    "run.seed": 1,
    "run.microbatches": 2,
    "data.length": 16,
    "data.copies": 3,
    "data.example": "single()",
    "model": "bert(layers=2, width=16, heads=2, ffn=32, positions=32)",
    "objectives": "mlm + 0.5*nsp",
    "corruption": "tokens(rate=0.2)",
}


@pytest.mark.parametrize("path", CHANGES)
def test_a_change_is_refused_with_both_values_and_opened_by_name(ready: Setup, path: str) -> None:
    old = config.get_field(ready.experiment, path)
    new = config.set_field(ready.experiment, path, CHANGES[path])
    with pytest.raises(ResumeRefusedError) as caught:
        judged(ready, new, meta_of(ready))
    text = str(caught.value)
    assert caught.value.exit_code == 2
    assert f"{path}: " in text
    assert f"{CHANGES[path]}" in text
    assert f"{old}"[:70] in text
    assert f"--run.allow-change {path}" in text
    opened = config.set_field(new, "run.allow_change", (path,))
    assert any(
        f"changed since step 10: {path} " in note for note in judged(ready, opened, meta_of(ready))
    )


def test_what_changes_the_numbers_is_in_no_table(ready: Setup) -> None:
    more = {"optim.weight_decay", "optim.no_decay", "optim.clip", "run.init_from", "run.init_map"}
    more |= {"optim.freeze", "optim.layer_decay", "optim.layer_decay_gap"}
    assert not {*CHANGES, *more} & (resume.HARMLESS | resume.LAST_BITS)
    assert {*CHANGES, *more} <= {*fields(ready.experiment)}


def test_harmless_changes_are_noted_and_spelling_is_none(ready: Setup) -> None:
    same = config.set_field(ready.experiment, "data.example", "nsp_pairs( )")
    assert judged(ready, same, meta_of(ready)) == []
    logged = config.set_field(ready.experiment, "run.log_every", 7)
    assert judged(ready, logged, meta_of(ready)) == [
        "changed since step 10: run.log_every from 1 to 7"
    ]
    faster = config.set_field(ready.experiment, "run.precision", "bfloat16")
    assert "not bit for bit" in judged(ready, faster, meta_of(ready))[1]


def test_other_software_is_noted(ready: Setup) -> None:
    older = meta_of(ready, versions={**resume.versions(), "jax": "0.0.1"})
    (note,) = judged(ready, ready.experiment, older)
    assert "jax 0.0.1 -> " in note


@pytest.mark.parametrize(
    ("name", "changes"),
    [("store", {"store": "f" * 64}), ("tokenizer", {"tokenizer": {"fingerprint": "f" * 64}})],
)
def test_other_text_or_tokenizer_is_refused(
    ready: Setup, name: str, changes: dict[str, Any]
) -> None:
    with pytest.raises(ResumeRefusedError, match=f"{name}: ffff"):
        judged(ready, ready.experiment, meta_of(ready, **changes))
    opened = config.set_field(ready.experiment, "run.allow_change", (name,))
    assert judged(ready, opened, meta_of(ready, **changes))


def test_metadata_know_when_they_were_changed(ready: Setup) -> None:
    written = meta_of(ready).write()
    assert Meta.read(written) == meta_of(ready)
    for key in ("position", "config", "store", "sha256"):
        with pytest.raises(manifest.DamagedError):
            Meta.read({**written, key: written[key] * 2 if key == "store" else 7})
    with pytest.raises(manifest.DamagedError):
        Meta.read([])


# ---- real runs


@pytest.fixture
def half(ready: Setup, reference: Path, tmp_path: Path) -> Callable[..., Path]:
    """A run directory that stands at step 10 of the reference."""
    import shutil

    folder = tmp_path / "half" / checkpoint.FOLDER
    shutil.copytree(reference / checkpoint.FOLDER / "10", folder / "10")
    return lambda: tmp_path / "half"


def test_another_batch_goes_on_from_the_rows_seen(
    base: Path, ready: Setup, half: Callable[[], Path]
) -> None:
    run = half()
    other = config.set_field(tiny.at(ready, run).experiment, "run.batch", 16)
    with pytest.raises(ResumeRefusedError, match=r"run\.batch: 8 there, 16 now"):
        loop.train(setup.make(other, ready.store), loop.Silent())
    other = config.set_field(other, "run.allow_change", ("run.batch", "run.steps"))
    other = config.set_field(other, "run.steps", 12)
    assert loop.train(setup.make(other, ready.store), loop.Silent()).exit_code == 0
    lines = {x["step"]: x for x in record.read(run) if x["kind"] == "train"}
    start = Position.of(Meta.of(run / checkpoint.FOLDER / "10").position)
    assert lines[11]["position"] == int(ready.rows.advance(start, 16))
    assert lines[12]["tokens"] == (10 * 8 + 2 * 16) * tiny.LENGTH


def test_another_tokenizer_of_the_same_text_is_refused(
    base: Path, ready: Setup, half: Callable[[], Path]
) -> None:
    run = half()
    other = config.set_field(tiny.at(ready, run).experiment, "data.tokenizer", "wordpiece(size=60)")
    with pytest.raises(ResumeRefusedError, match="tokenizer: "):
        loop.train(setup.make(other, prepare(other.data)), loop.Silent())
    assert manifest.steps(run / checkpoint.FOLDER) == [10]


def test_a_finished_run_is_left_alone(ready: Setup, reference: Path) -> None:
    lines = (reference / record.METRICS).read_bytes()
    steps = manifest.steps(reference / checkpoint.FOLDER)
    result = loop.train(tiny.at(ready, reference, keep=100), loop.Silent())
    assert (result.exit_code, result.step) == (0, tiny.STEPS)
    assert result.held_out["held_out/loss"] > 0
    assert (reference / record.METRICS).read_bytes() == lines
    assert manifest.steps(reference / checkpoint.FOLDER) == steps


def test_a_run_may_start_from_the_parameters_of_another(
    ready: Setup, reference: Path, tmp_path: Path
) -> None:
    run = tiny.at(ready, tmp_path / "new", init_from=str(reference))
    first: list[Any] = []

    class Stop(Exception):
        pass

    def look(state: Any, batch: Any) -> Any:
        first.append(jax.tree.map(np.asarray, state.params))
        raise Stop

    with pytest.raises(Stop):
        loop.train(dataclasses.replace(run, train_step=look), loop.Silent())
    theirs = checkpoint.load(reference).params
    assert jax.tree.all(jax.tree.map(lambda a, b: bool((a == b).all()), first[0], theirs))
    with pytest.raises(CheckpointError, match="holds no checkpoint"):
        loop.train(tiny.at(ready, tmp_path / "other", init_from=str(tmp_path)), loop.Silent())


# ---- branches


def test_roll_backs_say_what_is_abandoned_and_where_the_data_goes_on(
    ready: Setup, tmp_path: Path
) -> None:
    assert branches.read(tmp_path) == []
    rollbacks = branches.add(tmp_path, [], branches.Rollback(520, 400, 9000, 6))
    rollbacks = branches.add(tmp_path, rollbacks, branches.Rollback(450, 400, 9900, 6))
    assert branches.read(tmp_path) == rollbacks
    old = meta_of(ready, step=500, branch=0)
    new = meta_of(ready, step=500, branch=2)
    at = meta_of(ready, step=400, branch=0, position=7)
    assert branches.abandoned(old, rollbacks)
    assert not branches.abandoned(new, rollbacks)
    assert not branches.abandoned(at, rollbacks)
    assert branches.position_after(at, rollbacks) == 9900
    assert branches.position_after(new, rollbacks) == new.position
    (tmp_path / branches.NAME).write_text("[{")
    with pytest.raises(CheckpointError, match=r"rollbacks\.json is damaged"):
        branches.read(tmp_path)
