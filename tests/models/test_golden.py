"""BERT, RoBERTa and ALBERT equal transformers' by stored arrays; see tests/golden/make.py."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from golden.make import CASES, FOLDER
from models import parity

SCANS = ("off", "on", "on", "on", "off")


@pytest.mark.parametrize(
    ("name", "scan"),
    [  # unrolled layers are compiled one by one
        pytest.param(name, scan, marks=[] if scan == "on" else pytest.mark.slow)
        for name, scan in zip(CASES, SCANS, strict=True)
    ],
)
def test_equals_the_stored_arrays(name, scan):
    """Hidden states of every layer, scores, logits, losses, gradients; unrolled and looped."""
    with np.load(FOLDER / f"{name}.npz") as arrays:
        parity.check(dict(arrays), CASES[name], scan=scan)


def test_files_are_small():
    sizes = {path.stem: path.stat().st_size for path in FOLDER.glob("*.npz")}
    assert sizes.keys() == CASES.keys()
    assert max(sizes.values()) < 120_000


@pytest.mark.parametrize(
    ("name", "weight", "message"),
    [
        ("bert_2x20", "bert.encoder.layer.1.output.LayerNorm.bias", "layer 2"),
        ("roberta_2x18", "roberta.embeddings.token_type_embeddings.weight", "layer 0"),
        pytest.param(
            "albert_5x12_2_groups",
            "albert.encoder.albert_layer_groups.1.albert_layers.0.ffn_output.bias",
            "layer 4",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_a_wrong_weight_is_seen(name, weight, message):
    """The comparison can fail: one number of one parameter, moved by a hundredth."""
    with np.load(FOLDER / f"{name}.npz") as stored:
        arrays = dict(stored)
    width = arrays[f"w/{weight}"].shape[-1]
    arrays[f"w/{weight}"] = arrays[f"w/{weight}"] + np.eye(1, width, 3, dtype=np.float32).reshape(
        arrays[f"w/{weight}"].shape
    ) * np.float32(0.01)
    with pytest.raises(AssertionError, match=message):
        parity.check(arrays, CASES[name])


@pytest.mark.parametrize(
    ("wrong", "message"),
    [({"first_position": 1, "positions": 14}, "layer 0"), ({"activation": "gelu_tanh"}, "layer 1")],
)
def test_a_wrong_setting_of_roberta_is_seen(monkeypatch, wrong, message):
    """Positions that begin one row too early, and BERT's GELU."""
    ours = parity.OURS["roberta"]
    spoilt = dataclasses.replace(ours, settings={**ours.settings, **wrong})
    monkeypatch.setitem(parity.OURS, "roberta", spoilt)
    with (
        np.load(FOLDER / "roberta_2x18.npz") as arrays,
        pytest.raises(AssertionError, match=message),
    ):
        parity.check(dict(arrays), CASES["roberta_2x18"])
