"""BERT equals transformers' BertForPreTraining, by stored arrays; see tests/golden/make.py."""

from __future__ import annotations

import numpy as np
import pytest
from golden.make import CASES, FOLDER
from models import parity


@pytest.mark.parametrize(("name", "scan"), [("bert_3x18", "off"), ("bert_2x20", "on")])
def test_equals_the_stored_arrays(name, scan):
    """Hidden states of every layer, scores, logits, losses, gradients; unrolled and looped."""
    with np.load(FOLDER / f"{name}.npz") as arrays:
        parity.check(dict(arrays), CASES[name], scan=scan)


def test_files_are_small():
    sizes = [path.stat().st_size for path in FOLDER.glob("*.npz")]
    assert len(sizes) == len(CASES)
    assert sum(sizes) < 200_000


def test_a_wrong_weight_is_seen():
    """The comparison can fail: one number of one bias, moved by a hundredth."""
    with np.load(FOLDER / "bert_2x20.npz") as stored:
        arrays = dict(stored)
    name = "w/bert.encoder.layer.1.output.LayerNorm.bias"
    arrays[name] = arrays[name] + np.eye(20, dtype=np.float32)[3] * 0.01
    with pytest.raises(AssertionError, match="layer 2"):
        parity.check(arrays, CASES["bert_2x20"])
