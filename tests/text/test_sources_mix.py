"""Several sources as one, and dialogues: from files to the rows of a pipeline."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections import Counter

import corpora
import numpy as np
import pytest

from bert_variants.registry import RegistryError, lookup, write
from bert_variants.text.pipeline import Pipeline, Position
from bert_variants.text.prepare import prepare
from bert_variants.text.sources import SourceError
from bert_variants.text.sources.dialogues import SOME_MARKED, spoken
from bert_variants.text.store import Store

TALK = """Q: Where is the cat? Is it in the house?
R: It sat under the tree.
R: Then it ran.

Q: Is the water cold?
Q: Did nobody know?
R: It was winter. Nobody knew.

the bird sings
it sings again before morning
"""


def source(call):
    return lookup("source", call)()


def folder_of(tmp_path):
    """Two kinds of text: prose in a folder, dialogues in a file."""
    prose = corpora.write_files(tmp_path / "prose")
    (tmp_path / "talk.txt").write_text(TALK, encoding="utf-8")
    return write("mix", {"parts": (prose, f"dialogues('{tmp_path}/talk.txt')")})


def test_documents_know_their_part(tmp_path):
    found = list(source(folder_of(tmp_path)).documents())
    parts = Counter(document.part for document in found)
    assert parts == {0: 6 * 15, 1: 3}
    assert len({document.id for document in found}) == len(found)
    assert all(document.id.startswith(f"{document.part}:") for document in found)
    assert [d.roles for d in found if d.part == 1] == [(0, 1, 1), (0, 0, 1), (0, 1)]
    assert all(d.roles is None for d in found if d.part == 0)


def test_parts_can_be_read_alone_and_counts_are_kept(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"one \x00 two\n")
    mix = source(f"mix(parts=('synthetic(documents=2)', \"text('{tmp_path}/a.txt')\"))")
    last = mix.parts()[-1]
    assert last.name == "1:a.txt"
    reading = mix.read(last)
    assert [d.text for d in reading] == ["one  two\n"]
    assert reading.dropped == {"control character removed": 1}


def test_the_fingerprint_is_that_of_the_parts_in_their_order(tmp_path):
    for name in "ab":
        (tmp_path / f"{name}.txt").write_text(f"This is {name}.\n")
    calls = [f"text('{tmp_path}/{name}.txt')" for name in "ab"]
    prints = {
        source(write("mix", {"parts": parts})).fingerprint()
        for parts in (calls, calls[::-1], calls[:1])
    }
    assert len(prints) == 3
    before = source(write("mix", {"parts": calls})).fingerprint()
    (tmp_path / "b.txt").write_text("This is c.\n")
    assert source(write("mix", {"parts": calls})).fingerprint() != before


def test_what_is_no_mix_is_refused(tmp_path):
    with pytest.raises(RegistryError, match="in source 'mix': unknown source 'txet'"):
        lookup("source", "mix(parts=('txet()',))")
    with pytest.raises(SourceError, match="a mix in a mix"):
        source("mix(parts=(\"mix(parts=('pydocs()',))\",))")
    with pytest.raises(SourceError, match="1 to 255"):
        source(write("mix", {"parts": ("pydocs()",) * 256}))
    with pytest.raises(RegistryError, match="expected call-strings"):
        lookup("source", "mix(parts=())")


@pytest.mark.parametrize(
    ("text", "turns", "roles"),
    [
        ("Q: a\nR: b", ["a", "b"], (0, 1)),
        (" R:b\n\nR\uff1a c", ["b", "c"], (1, 1)),
        ("a\nb\nc", ["a", "b", "c"], (0, 1, 0)),
        ("Q: a\nb", ["Q: a", "b"], (0, 1)),
        ("Q:\nR: b", ["b"], (1,)),
        ("  \n", [], ()),
    ],
)
def test_turns_and_who_speaks(text, turns, roles):
    dropped = Counter()
    assert spoken(text, dropped) == (turns, roles)
    assert dropped[SOME_MARKED] == (turns == ["Q: a", "b"])
    assert dropped["empty turn"] == (text == "Q:\nR: b")


def test_dialogues_as_json_lines(tmp_path):
    lines = [json.dumps({"talk": text}) for text in ("Q: a\nR: b", "c\nd")]
    (tmp_path / "a.jsonl").write_text("\n".join(lines))
    found = list(source(f"dialogues('{tmp_path}/*.jsonl', field='talk')").documents())
    assert [(d.text, d.roles) for d in found] == [("a\nb", (0, 1)), ("c\nd", (0, 1))]


def test_several_files_of_dialogues_hold_several_each(tmp_path):
    for name in "ab":
        (tmp_path / f"{name}.txt").write_text(f"{name} one\nanswer\n\n{name} two\nanswer\n")
    assert len(list(source(f"dialogues('{tmp_path}/*.txt')").documents())) == 4


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    folder = tmp_path_factory.mktemp("mix")
    data = corpora.settings(folder / "data", folder_of(folder), held_out=0.1)
    return prepare(data)


def windows(store, split="train"):
    return store.window(split, range(len(store.split(split).shards)))


def test_the_store_knows_parts_and_roles(store):
    both = [windows(store, split) for split in ("train", "held_out")]
    parts = np.concatenate([w.parts for w in both])
    assert np.bincount(parts).tolist() == [90, 3]
    tokenizer = store.tokenizer
    said = {}
    for w in both:
        for d in np.flatnonzero(w.parts == 1):
            turns = range(w.documents[d], w.documents[d + 1])
            texts = (tokenizer.decode(w.tokens[w.sentences[s] : w.sentences[s + 1]]) for s in turns)
            said[tuple(texts)] = w.roles[list(turns)].tolist()
        of_prose = np.repeat(w.parts == 0, np.diff(w.documents))
        assert (w.roles[of_prose] == 0).all()
    roles = sorted(said.values())
    assert roles == [[0, 0, 1], [0, 1], [0, 1, 1]]
    # A turn of two sentences is one turn.
    assert any("house" in turns[0] and "where" in turns[0] for turns in said)


def test_the_store_is_the_same_for_any_number_of_workers(store, tmp_path, monkeypatch):
    monkeypatch.setattr("bert_variants.text.prepare.JOB_BYTES", 1500)
    settings = corpora.settings(tmp_path, store.index.origin["source"], held_out=0.1, workers=2)
    other = prepare(settings)
    assert other.fingerprint == store.fingerprint
    assert Store.open(store.folder, verify="full").fingerprint == store.fingerprint


def test_a_text_of_one_source_has_neither_column(tmp_path):
    plain = corpora.small_store(tmp_path)
    shard = plain.split("train").shards[0]
    assert set(shard.files) == {"tokens", "words", "sentences", "documents"}
    window = windows(plain)
    assert window.parts is None
    assert window.roles is None


def test_batches_hold_rows_of_both_kinds_by_weight(store):
    example = write(
        "by_part", {"examples": ("nsp_pairs()", "dialogue(fakes=0.0)"), "weights": (3.0, 1.0)}
    )
    pipeline = Pipeline(store, "train", example=example, length=48, batch=16, seed=0)
    position, real, nexts = Position(), [], []
    while position.epoch == 0:
        batch, position = pipeline.batch(position)
        real += batch.labels["real"].tolist()
        nexts += batch.labels["next_sentence"].tolist()
    real, nexts = np.array(real), np.array(nexts)
    assert ((real >= 0) != (nexts >= 0)).all()
    assert abs((real >= 0).mean() - 0.25) < 0.05
    again, _ = Pipeline(store, "train", example=example, length=48, batch=16, seed=0).batch(
        Position()
    )
    first, _ = pipeline.batch(Position())
    for field in dataclasses.fields(first):
        value = getattr(first, field.name)
        if isinstance(value, np.ndarray):
            np.testing.assert_array_equal(value, getattr(again, field.name))


def test_damage_to_a_column_is_met_with_its_name(store, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(store.folder, copy)
    path = copy / "train-00000.roles"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ValueError, match=r"train-00000\.roles is cut off"):
        Store.open(copy)


def test_worker_processes_import_what_the_parts_need(tmp_path, monkeypatch):
    """A part may be registered outside the package, and other processes would not know it."""
    tasks = []

    def refuse(task, *rest):
        tasks.append(task)
        raise InterruptedError

    monkeypatch.setattr("bert_variants.text.prepare.run_jobs", refuse)
    monkeypatch.setattr("bert_variants.text.prepare.JOB_BYTES", 1500)
    with pytest.raises(InterruptedError):
        prepare(corpora.settings(tmp_path / "data", folder_of(tmp_path), workers=2))
    wanted = {f"bert_variants.text.sources.{name}" for name in ("mix", "text", "dialogues")}
    assert wanted <= set(tasks[0]["modules"])
