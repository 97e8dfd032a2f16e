"""The model card: what a run recorded stands in it, and what it did not says so."""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from bert_variants import config, keys, loaded, registry
from bert_variants.convert import card
from bert_variants.convert.errors import ConvertError
from bert_variants.models import network
from bert_variants.train import record, setup

MODEL = "bert(layers=1, width=16, heads=2, ffn=32, positions=32)"
START = {
    "time": "2024-05-06T07:08:09+00:00",
    "step": 0,
    "origin": "scratch",
    "host": "secret-host",
    "platform": "Linux",
    "command": ["train", "/private/secret"],
    "processes": 1,
    "devices": 8,
    "versions": {"python": "3.11", "jax": "0.10.2", "devices": "8 x tpu v4"},
    "revision": "abc123",
}


def model(**changes: Any) -> loaded.Loaded:
    """A model, not trained."""
    tokenizer = registry.lookup("tokenizer", "wordpiece(size=60)")().build(["the cat sat"] * 3)
    made = config.Experiment(
        name="tiny | one",
        data=config.Data(source="text('wiki/*.txt')", length=32),
        model=MODEL,
        objectives="mlm + 0.5*nsp",
        run=config.Run(steps=40, batch=8, dir="/private/secret/run", seed=3),
    )
    made = dataclasses.replace(made, **changes)
    net = network.build(made, tokenizer.vocab.size)
    rows = setup.example_rows(4, registry.lookup("example", made.data.example))
    shapes = jax.eval_shape(lambda: net.init(keys.root(0), rows))
    params = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes)
    return loaded.Loaded(made, net, params, tokenizer, 20)


def run_of(folder: Path, *lines: dict[str, Any], starts: Any = (START,)) -> Path:
    """The records of a run."""
    record.write_json(folder / "manifest.json", {"fingerprints": {}, "starts": list(starts)})
    record.write_bytes(
        folder / "metrics.jsonl", b"".join(json.dumps(line).encode() + b"\n" for line in lines)
    )
    return folder


def rows(text: str) -> dict[str, str]:
    """Rows of all tables."""
    cells = [line.strip("| ").split(" | ", 1) for line in text.split("\n") if line.startswith("| ")]
    return {cell[0]: cell[1] for cell in cells if len(cell) == 2}


def test_what_a_run_recorded(tmp_path: Path) -> None:
    timing = {"seconds": 1.0}
    folder = run_of(
        tmp_path,
        {"kind": "train", "step": 10, "tokens": 2560, "loss": 5.0, "timing": timing},
        {"kind": "held_out", "step": 10, "held_out/mlm/loss": 9.0, "timing": timing},
        {"kind": "train", "step": 20, "tokens": 5120, "loss": 4.0, "timing": timing},
        {"kind": "held_out", "step": 20, "tokens(rate=0.15)/mlm/loss": 3.25, "timing": timing},
        {"kind": "held_out", "step": 30, "held_out/mlm/loss": 1.0, "timing": timing},
        starts=[START, {**START, "step": 20, "revision": None}, {**START, "step": 30}],
    )
    text = card.card(model(), folder)
    found = rows(text)
    assert "`bert` model, trained by bert-variants for 20 of 40 steps" in text
    assert found["model"] == f"`{MODEL}`"
    assert found["text"] == "`text('wiki/*.txt')`"
    assert found["objectives"] == "1 x `mlm()`, 0.5 x `nsp()`"
    assert found["tokens seen"] == "5,120 (padding included)"
    assert found["steps"] == "20 of 40"
    assert found["optimizer"] == "`adamw(bias_correction=False)`"
    assert found["started from"] == "random parameters"
    assert found["seed"] == "3"
    assert found["hardware"] == "8 x tpu v4, 1 processes"
    assert found["packages in training"] == "python 3.11, jax 0.10.2"
    # The start that this step was made by, which recorded no commit.
    assert found["commit in training"] == "not recorded"
    assert found["`tokens(rate=0.15)/mlm/loss`"] == "3.2500"
    assert "9.0" not in text
    assert "secret" not in text
    assert "-page" not in text


def test_the_head_is_what_the_hub_reads(tmp_path: Path) -> None:
    text = card.card(model(), tmp_path)
    head = text.split("---\n")[1]
    assert head == (
        "library_name: transformers\npipeline_tag: fill-mask\ntags:\n- bert-variants\n- bert\n"
    )
    assert text.startswith("---\n")
    assert "license" not in head
    assert "language" not in head
    plain = card.card(model(objectives="nsp"), tmp_path)
    assert "pipeline_tag" not in plain
    assert "fill_mask" not in plain


@pytest.mark.parametrize("given", [None, "a folder without a manifest"])
def test_what_is_not_known_says_so(given: str | None, tmp_path: Path) -> None:
    """The experiment of a model that came from elsewhere is our shipped one: no record of it."""
    text = card.card(model(), None if given is None else tmp_path)
    found = rows(text)
    assert "How it was trained: not recorded." in text
    assert "Data, steps, objectives and optimizer: not recorded." in text
    assert "Held-out results at step 20: not recorded." in text
    assert found["hardware"] == found["commit in training"] == found["started"] == "not recorded"
    for secret in ("wiki", "adamw", "nsp_pairs", "40"):
        assert secret not in text
    assert found["model"] == f"`{MODEL}`"
    assert "licence" in text


def test_a_step_that_was_not_evaluated(tmp_path: Path) -> None:
    folder = run_of(tmp_path, {"kind": "held_out", "step": 19, "held_out/loss": 1.5})
    text = card.card(model(), folder)
    assert "Held-out results at step 20: not recorded." in text
    assert rows(text)["tokens seen"] == "not recorded"
    assert "1.5" not in text


def test_programs_of_a_pair_of_networks() -> None:
    two = model(
        model="electra(layers=1, width=16, heads=2, ffn=32, positions=32)",
        objectives="mlm + 50*replaced_token",
    )
    text = card.card(two)
    assert 'AutoModel.from_pretrained("DIR/discriminator")' in text
    assert 'AutoModel.from_pretrained("DIR/generator")' in text
    assert 'AutoModel.from_pretrained("DIR")' not in text


def test_cells_hold_what_would_end_them() -> None:
    assert card._quoted("a|b\nc") == "`a\\|b c`"
    assert card._quoted("a`b") == "`` a`b ``"
    assert card._quoted("") == ""


def test_a_damaged_record_is_refused(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text('{"starts": 3}')
    with pytest.raises(ConvertError, match=r"manifest\.json is no record of a run"):
        card.card(model(), tmp_path)


@pytest.mark.slow
def test_a_run_that_was_trained(tmp_path: Path) -> None:
    sys.path.insert(0, str(Path(__file__).parent.parent / "train"))
    import tiny_runs as tiny

    from bert_variants.text.prepare import prepare
    from bert_variants.train import loop

    (tmp_path / "text").mkdir()
    for i in range(20):
        words = ("the cat sat on a mat and", "a dog ran over it", "then it was on the mat")
        text = ". ".join(words[(i + k) % 3].capitalize() for k in range(12)) + f". Text {i}."
        (tmp_path / "text" / f"{i}.txt").write_text(text)
    made = tiny.experiment(tmp_path, "run", steps=4, eval_every=2, save_every=4)
    store = prepare(made.data)
    loop.train(setup.make(made, store), loop.Silent())
    run = tmp_path / "run"
    text = card.card(loaded.load(run), run)
    found = rows(text)
    lines = [line for line in record.read(run) if line["step"] == 4]
    held_out = next(line for line in lines if line["kind"] == "held_out")
    tokens = next(line["tokens"] for line in lines if line["kind"] == "train")
    assert found["tokens seen"] == f"{tokens:,} (padding included)"
    scores = [n for n in held_out if "/" in n]
    assert scores
    for name in scores:
        assert found[f"`{name}`"] == f"{held_out[name]:.4f}"
    assert "cpu" in found["hardware"]
    assert str(tmp_path) not in text.replace(made.data.source, "")
