"""Tables of names: stacks, fused tensors, copies; and errors that list everything."""

from __future__ import annotations

import numpy as np
import pytest

from bert_variants.convert.errors import ConvertError
from bert_variants.convert.matching import export, match
from bert_variants.convert.rules import SAME, TRANSPOSED, Change, Constant, Rule, Table, reshaped
from bert_variants.convert.tensors import of_arrays

RNG = np.random.default_rng(0)
CUT = Change(
    "fused",
    lambda a, b: (a[1] + b[1], a[0]),
    lambda a, b: np.concatenate([a.T, b.T]),
    lambda x: (x[:2].T, x[2:].T),
)
TABLE = Table(
    rules=(
        Rule("word", "net.word", SAME, also=("head.tied",)),
        Rule("layers/wide", "net.layer.{layer}.wide", TRANSPOSED),
        Rule(("layers/query", "layers/key"), "net.layer.{layer}.both", CUT),
        Rule("bias", "net.bias", reshaped((6,), (2, 3))),
        Rule("heads/pool", "net.pool", spare="nothing reads it"),
    ),
    ignored=((r"position_ids$", "a buffer"),),
    constants=(
        Constant("net.one", (1, 3), "Take segments=1."),
        Constant("net.map", (2, 2), "No such layer.", identity=True),
    ),
    prefix="net.",
)


def params() -> dict[str, np.ndarray]:
    shapes = {"word": (5, 3), "layers/wide": (2, 3, 4), "bias": (6,)}
    shapes |= {"layers/query": (2, 3, 2), "layers/key": (2, 3, 5)}
    return {k: RNG.standard_normal(s).astype(np.float32) for k, s in shapes.items()}


def shapes_of(arrays):
    return {name: array.shape for name, array in arrays.items()}


def arrays_of(tensors):
    return {name: stored.load() for name, stored in tensors.items()}


def test_layers_are_cut_transposed_and_joined_with_others():
    ours = params()
    theirs = arrays_of(export(TABLE, ours))
    assert theirs.keys() == {
        *("net.word", "net.bias", "net.one", "net.map"),
        *(f"net.layer.{i}.{name}" for i in range(2) for name in ("wide", "both")),
    }
    np.testing.assert_array_equal(theirs["net.layer.1.wide"], ours["layers/wide"][1].T)
    np.testing.assert_array_equal(theirs["net.layer.1.both"][:2], ours["layers/query"][1].T)
    np.testing.assert_array_equal(theirs["net.layer.0.both"][2:], ours["layers/key"][0].T)
    np.testing.assert_array_equal(theirs["net.bias"], ours["bias"].reshape(2, 3))
    np.testing.assert_array_equal(theirs["net.map"], np.eye(2))
    assert not theirs["net.one"].any()


@pytest.mark.parametrize("prefix", ["net.", ""])
def test_the_way_back_is_the_inverse_with_and_without_the_prefix(prefix):
    ours = params()
    theirs = {n.replace("net.", prefix): x for n, x in arrays_of(export(TABLE, ours)).items()}
    plan = match(TABLE, shapes_of(ours), of_arrays(theirs), "a folder")
    found = dict(plan.arrays())
    assert found.keys() == ours.keys()
    for name, array in ours.items():
        np.testing.assert_array_equal(found[name], array)


def test_tensors_that_are_knowingly_not_read_are_told_with_their_reason():
    ours = params()
    theirs = arrays_of(export(TABLE, ours))
    theirs |= {"net.pool": np.ones((9, 9), np.float32), "net.position_ids": np.arange(3)}
    plan = match(TABLE, shapes_of(ours), of_arrays(theirs), "a folder")
    assert plan.left == {"net.pool": "nothing reads it", "net.position_ids": "a buffer"}


def test_everything_that_is_wrong_is_listed():
    ours = params()
    theirs = arrays_of(export(TABLE, ours))
    del theirs["net.layer.1.wide"], theirs["net.word"]
    theirs["net.bias"] = np.ones((3, 2), np.float32)
    theirs["net.layer.0.both"] = np.ones((7, 3), np.int32)
    theirs["net.layer.2.wide"] = np.ones((4, 3), np.float32)
    theirs["classifier"] = np.ones(4, np.float32)
    theirs["net.one"] = np.ones((1, 3), np.float32)
    with pytest.raises(ConvertError) as error:
        match(TABLE, shapes_of(ours) | {"heads/new": (3,)}, of_arrays(theirs), "a folder")
    lines = str(error.value).split("\n")
    assert lines[0].startswith("a folder does not fit")
    assert [line.strip() for line in lines[1:]] == [
        "heads/new of ours has 0 rules in this form, expected one.",
        "net.word [5, 3] is missing.",
        "net.layer.1.wide [4, 3] is missing.",
        "net.layer.0.both is of type int32, expected one of float32, bfloat16, float16.",
        "net.bias has shape [3, 2], expected [2, 3].",
        "net.one is not zero, and ours has no parameter for it. Take segments=1.",
        "classifier [4] is unexpected: this model has no parameter for it.",
        "net.layer.2.wide [4, 3] is unexpected: this model has no parameter for it.",
    ]


def test_a_tied_copy_is_read_alone_and_compared_beside_its_original():
    ours = params()
    theirs = arrays_of(export(TABLE, ours))
    theirs["head.tied"] = theirs["net.word"]
    found = dict(match(TABLE, shapes_of(ours), of_arrays(theirs), "a folder").arrays())
    np.testing.assert_array_equal(found["word"], ours["word"])
    theirs["head.tied"] = theirs["net.word"] + 1
    plan = match(TABLE, shapes_of(ours), of_arrays(theirs), "a folder")
    with pytest.raises(ConvertError, match=r"head.tied in .* should be a copy of net.word"):
        list(plan.arrays())
    theirs["head.tied"] = theirs.pop("net.word")
    found = dict(match(TABLE, shapes_of(ours), of_arrays(theirs), "a folder").arrays())
    np.testing.assert_array_equal(found["word"], ours["word"])


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_narrow_types_round_once_and_are_read_as_they_are(dtype):
    ours = params()
    stored = export(TABLE, ours, dtype)
    assert {tensor.dtype for tensor in stored.values()} == {dtype}
    found = dict(match(TABLE, shapes_of(ours), stored, "a folder").arrays())
    for name, array in ours.items():
        assert found[name].dtype == np.float32
        expected = array.astype(stored["net.word"].load().dtype).astype(np.float32)
        np.testing.assert_array_equal(found[name], expected)
        assert (found[name] != array).any()


def test_numbers_that_a_type_cannot_hold_are_refused():
    ours = params()
    ours["bias"][2] = 7e4
    with pytest.raises(ConvertError, match="bias holds numbers up to 70000, which float16 cannot"):
        export(TABLE, ours, "float16")["net.bias"].load()
    export(TABLE, ours, "bfloat16")["net.bias"].load()
    with pytest.raises(ConvertError, match="dtype is 'int8'"):
        export(TABLE, ours, "int8")


def test_a_parameter_without_a_place_or_with_two_is_refused_on_the_way_out():
    with pytest.raises(ConvertError, match="other of ours has 0 rules"):
        export(TABLE, params() | {"other": np.ones(3, np.float32)})
    twice = Table(rules=(*TABLE.rules, Rule("word", "again")))
    with pytest.raises(ConvertError, match="word of ours has 2 rules"):
        export(twice, params())
    without = params()
    del without["layers/key"]
    with pytest.raises(ConvertError, match=r"net.layer.\{layer\}.both holds layers/key too"):
        export(TABLE, without)


def test_one_tensor_is_in_memory_at_a_time():
    """Nothing is loaded before it is asked for, and each tensor once."""
    ours = params()
    loads: list[str] = []

    def counted(name, stored):
        def load():
            loads.append(name)
            return stored.load()

        return type(stored)(name, stored.shape, stored.dtype, stored.where, load)

    theirs = {name: counted(name, stored) for name, stored in export(TABLE, ours).items()}
    plan = match(TABLE, shapes_of(ours), theirs, "a folder")
    assert loads == ["net.one", "net.map"]  # those whose value decides whether it fits
    reading = plan.arrays()
    assert next(reading)[0] == "layers/query"  # with its key the largest
    assert loads[2:] == ["net.layer.0.both", "net.layer.1.both"]
    assert [path for path, _ in reading] == ["layers/key", "layers/wide", "word", "bias"]
    assert loads[4:] == ["net.layer.0.wide", "net.layer.1.wide", "net.word", "net.bias"]
