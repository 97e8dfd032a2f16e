"""Our networks against transformers, computed live: the stored arrays are what it says today."""

from __future__ import annotations

import numpy as np
import pytest
from golden import make
from models import parity

pytestmark = [
    pytest.mark.oracle,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]


@pytest.mark.parametrize("name", make.CASES)
def test_stored_arrays_are_todays(name):
    pytest.importorskip("transformers")
    live = make.compute(make.CASES[name], list(make.CASES).index(name))
    with np.load(make.FOLDER / f"{name}.npz") as stored:
        assert set(stored.files) == set(live)
        for key in stored.files:
            parity.assert_close(live[key], stored[key], key)


@pytest.mark.parametrize(
    ("network", "more"),
    [
        ("bert", {"segments": 2}),
        ("bert", {"segments": 2, "layers": 3}),
        ("roberta", {"segments": 1}),
        ("albert", {"segments": 2, "embedding": 9, "groups": 1}),
        ("albert", {"segments": 2, "embedding": 9, "groups": 3, "layers": 7}),
    ],
)
def test_other_weights_and_another_shape(network, more):
    pytest.importorskip("transformers")
    case = {
        "network": network,
        "layers": 2,
        "width": 28,
        "heads": 7,
        "ffn": 33,
        "positions": 16,
        "vocab": 53,
        "length": 9,
        **more,
    }
    parity.check(make.compute(case, 11), case)
