"""Safetensors: the official library reads what we write and we what it writes, byte for byte."""

from __future__ import annotations

import errno
import json
import os
import resource
import shutil
import tracemalloc
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
import safetensors
import safetensors.numpy

from bert_variants.convert import files
from bert_variants.convert import safetensors_files as st
from bert_variants.convert.errors import ConvertError
from bert_variants.convert.tensors import DTYPES, Stored, in_memory, of_arrays

SHAPES = [(), (0,), (1,), (3, 5), (2, 0, 3), (7, 1, 2)]


def array(dtype: str, shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    """Every bit pattern, NaN and infinities included."""
    rng = np.random.default_rng(seed)
    size = int(np.prod(shape))
    if dtype == "bool":
        return rng.integers(0, 2, size).astype(bool).reshape(shape)
    bits = rng.integers(0, 256, size * DTYPES[dtype].itemsize, np.uint8)
    return bits.view(DTYPES[dtype]).reshape(shape)


def every() -> dict[str, np.ndarray]:
    """A tensor of each type and shape."""
    return {
        f"{dtype}/{'x'.join(map(str, shape))}": array(dtype, shape, seed)
        for seed, (dtype, shape) in enumerate((d, s) for d in DTYPES for s in SHAPES)
    }


def same(found: dict[str, Stored], arrays: dict[str, np.ndarray]) -> None:
    """Equal, bit for bit, with equal types and shapes."""
    assert set(found) == set(arrays)
    for name, expected in arrays.items():
        loaded = found[name].load()
        assert (found[name].shape, found[name].dtype) == (expected.shape, expected.dtype.name)
        assert (loaded.shape, loaded.dtype) == (expected.shape, expected.dtype)
        assert loaded.tobytes() == expected.tobytes()
        assert loaded.flags.c_contiguous


def library(arrays: dict[str, np.ndarray], metadata: dict[str, str] | None) -> bytes:
    """What the official library writes."""
    entries = {
        name: safetensors.TensorSpec(
            dtype=a.dtype.name, shape=list(a.shape), data_ptr=a.ctypes.data, data_len=a.nbytes
        )
        for name, a in arrays.items()
    }
    return safetensors.serialize(entries, metadata=metadata)


def raw(header: object, data: bytes = b"") -> bytes:
    """A file of any header."""
    written = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(written).to_bytes(8, "little") + written + data


def entry(shape: list, begin: int, end: int, dtype: str = "F32") -> dict:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


# ---- with the official library


def test_same_bytes_as_the_library(tmp_path):
    arrays = every()
    st.write_safetensors(tmp_path, of_arrays(arrays), metadata={"format": "pt"})
    assert (tmp_path / st.FILE).read_bytes() == library(arrays, {"format": "pt"})


@pytest.mark.parametrize("metadata", [None, {}, {"format": "pt"}, {"é": '\u2028"\\\n\x01'}])
def test_same_bytes_whatever_the_names(tmp_path, metadata):
    arrays = {n: array("float32", (3,)) for n in ["b", "a", "é", "😀", 'q"\\', "a/b.c", "\x7f", ""]}
    st.write_safetensors(tmp_path, of_arrays(arrays), metadata=metadata or {})
    written = (tmp_path / st.FILE).read_bytes()
    assert written == library(arrays, metadata or None)
    assert st.read_metadata(tmp_path / st.FILE) == (metadata or {})
    same(st.read_safetensors(tmp_path), arrays)


def test_we_read_what_the_library_writes(tmp_path):
    arrays = every()
    (tmp_path / "x").write_bytes(library(arrays, None))
    same(st.read_safetensors(tmp_path / "x"), arrays)


def test_the_library_reads_what_we_write(tmp_path):
    arrays = {n: a for n, a in every().items() if not n.startswith("bfloat16")}
    st.write_safetensors(tmp_path, of_arrays(arrays))
    loaded = safetensors.numpy.load_file(tmp_path / st.FILE)
    assert set(loaded) == set(arrays)
    assert all(loaded[n].tobytes() == a.tobytes() for n, a in arrays.items())
    assert all(loaded[n].shape == a.shape for n, a in arrays.items())


# ---- ours


def test_bfloat16_is_numbers(tmp_path):
    numbers = np.array([1.5, -2.0, 3.140625], ml_dtypes.bfloat16)
    st.write_safetensors(tmp_path, {"x": in_memory("x", numbers)})
    assert st.read_safetensors(tmp_path)["x"].load().astype(np.float32).tolist() == [
        1.5,
        -2,
        3.140625,
    ]


def test_of_another_byte_order_or_layout(tmp_path):
    big = np.arange(6, dtype=">f4").reshape(2, 3)
    st.write_safetensors(tmp_path, of_arrays({"big": big, "turned": big.T}))
    found = st.read_safetensors(tmp_path)
    np.testing.assert_array_equal(found["big"].load(), big)
    np.testing.assert_array_equal(found["turned"].load(), big.T)


def test_mapped_and_cast(tmp_path):
    x = np.arange(6, dtype=np.float32).reshape(2, 3)
    tensor = in_memory("x", x)
    turned = tensor.mapped("y", (3, 2), np.transpose, "float16")
    assert (turned.name, turned.shape, turned.dtype, turned.nbytes) == ("y", (3, 2), "float16", 12)
    st.write_safetensors(tmp_path, {"y": turned, "z": tensor.cast("bfloat16"), "s": tensor})
    found = st.read_safetensors(tmp_path)
    np.testing.assert_array_equal(found["y"].load(), x.T.astype(np.float16))
    assert found["z"].load().dtype == ml_dtypes.bfloat16
    wrong = tensor.mapped("y", (6,), np.transpose)
    with pytest.raises(ConvertError, match=r"made of x \[2, 3\].* shape \[3, 2\], expected \[6\]"):
        wrong.load()


def test_scalars_stay_scalars():
    assert in_memory("x", np.float32(3)[...]).mapped("y", (), lambda a: a + 1).load().shape == ()


def test_only_what_is_asked_for_is_read(tmp_path, monkeypatch):
    st.write_safetensors(tmp_path, of_arrays({"a": np.zeros(1000), "b": np.ones(10)}))
    read: list[int] = []
    before = files.Source.read
    monkeypatch.setattr(
        files.Source, "read", lambda self, o, n: read.append(n) or before(self, o, n)
    )
    found = st.read_safetensors(tmp_path)
    header = sum(read)
    assert header < 300
    assert found["b"].load().tolist() == [1] * 10
    assert sum(read) == header + 80


def test_one_tensor_in_memory_at_a_time(tmp_path):
    size = 4 << 20
    tensors = {
        str(i): Stored(str(i), (size,), "uint8", "here", lambda i=i: np.full(size, i, np.uint8))
        for i in range(8)
    }
    tracemalloc.start()
    st.write_safetensors(tmp_path, tensors)
    for tensor in st.read_safetensors(tmp_path).values():
        assert tensor.load()[-1] == int(tensor.name)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2.5 * size


def test_shards_and_their_index(tmp_path):
    arrays = {n: array("float32", (s,), s) for n, s in zip("dcba", (10, 20, 60, 5), strict=True)}
    paths = st.write_safetensors(tmp_path, of_arrays(arrays), shard_bytes=120)
    assert [p.name for p in paths] == [
        "model-00001-of-00003.safetensors",
        "model-00002-of-00003.safetensors",
        "model-00003-of-00003.safetensors",
        "model.safetensors.index.json",
    ]
    assert sorted(p.name for p in tmp_path.iterdir()) == [p.name for p in paths]
    said = json.loads(paths[-1].read_text())
    places = {"a": paths[2], "b": paths[1], "c": paths[0], "d": paths[0]}
    assert said["metadata"] == {"total_size": 380}
    assert said["weight_map"] == {n: p.name for n, p in places.items()}
    assert list(said["weight_map"]) == sorted(arrays)
    same(st.read_safetensors(tmp_path), arrays)
    same(st.read_safetensors(paths[-1]), arrays)


def test_the_same_bytes_each_time(tmp_path):
    arrays = every()
    st.write_safetensors(tmp_path / "a", of_arrays(arrays))
    st.write_safetensors(tmp_path / "b", of_arrays(dict(reversed(arrays.items()))))
    assert (tmp_path / "a" / st.FILE).read_bytes() == (tmp_path / "b" / st.FILE).read_bytes()


def test_no_tensors(tmp_path):
    st.write_safetensors(tmp_path, {})
    assert st.read_safetensors(tmp_path) == {}


# ---- what is refused


F32_2 = entry([2], 0, 8)
HOSTILE = [
    (b"", "has 0 bytes"),
    (b"\1\0\0\0\0\0\0", "has 7 bytes"),
    (b"\xff" * 16, "says that its header has 18,446,744,073,709,551,615"),
    ((2**40).to_bytes(8, "little") + b"{}", "says that its header has 1,099,511,627,776"),
    ((5 << 20).to_bytes(8, "little") + b" " * (5 << 20), "header of 5,242,880 bytes, expected"),
    (raw(b"[]"), "the header of .* is a JSON list"),
    (raw(b"\xff\xfe"), "not UTF-8"),
    (raw(b'{"a":' * 5000), "deeper|not JSON"),
    (raw(b'{"a":%s,"a":%s}' % ((json.dumps(F32_2).encode(),) * 2), b"\0" * 8), "'a' stands in"),
    (raw({"__metadata__": {"a": 1}}), "__metadata__ is no object of strings"),
    (raw({"__metadata__": []}), "__metadata__ is no object of strings"),
    (raw({"a": 1}), "a is not said as"),
    (raw({"a": {**F32_2, "more": 1}}, b"\0" * 8), "a is not said as"),
    (raw({"a": {"dtype": "F32", "shape": [2]}}, b"\0" * 8), "a is not said as"),
    (raw({"a": entry([2], 0, 8, "F33")}, b"\0" * 8), "dtype 'F33', expected one of BOOL"),
    (raw({"a": {**F32_2, "dtype": ["F32"]}}, b"\0" * 8), "dtype"),
    (raw({"a": {**F32_2, "shape": 2}}, b"\0" * 8), "a shape that is no list"),
    (raw({"a": entry([-2], 0, 8)}, b"\0" * 8), "the size -2 is no whole number"),
    (raw({"a": entry([-2, -1], 0, 8)}, b"\0" * 8), "the size -2 is no whole number"),
    (raw({"a": entry([2.0], 0, 8)}, b"\0" * 8), "the size 2.0 is no whole number"),
    (raw({"a": entry([True, 2], 0, 8)}, b"\0" * 8), "the size True is no whole number"),
    (raw({"a": entry(["2"], 0, 8)}, b"\0" * 8), "the size 2 is no whole number"),
    (raw({"a": entry([2**32, 2**32], 0, 0)}), "more numbers than any machine"),
    (raw({"a": entry([0, 2**60], 0, 0)}), "more numbers than any machine"),
    (raw({"a": entry([1] * 33, 0, 4)}, b"\0" * 4), "33 dimensions"),
    (raw({"a": {**F32_2, "data_offsets": [0]}}, b"\0" * 8), r"not \[begin, end\]"),
    (raw({"a": {**F32_2, "data_offsets": [0, 8.0]}}, b"\0" * 8), r"not \[begin, end\]"),
    (raw({"a": {**F32_2, "data_offsets": [False, 8]}}, b"\0" * 8), r"not \[begin, end\]"),
    (raw({"a": {**F32_2, "data_offsets": {"0": 8}}}, b"\0" * 8), r"not \[begin, end\]"),
    (raw({"a": entry([2], 8, 0)}, b"\0" * 8), "has -8 bytes"),
    (raw({"a": entry([2], -8, 0)}, b"\0" * 8), "a begins at -8, expected 0"),
    (raw({"a": entry([2], 0, 7)}, b"\0" * 8), r"has 7 bytes, F32\[2\] needs 8"),
    (raw({"a": entry([2], 0, 8)}, b"\0" * 7), "tensors end at byte 8, the file at 7"),
    (raw({"a": entry([2], 0, 8)}, b"\0" * 9), "tensors end at byte 8, the file at 9"),
    (raw({"a": entry([2], 2**60, 2**60 + 8)}, b"\0" * 8), "a hole"),
    (raw({"a": entry([2], 4, 12)}, b"\0" * 12), "a begins at 4, expected 0: a hole"),
    (
        raw({"a": F32_2, "b": entry([2], 4, 12)}, b"\0" * 12),
        "b begins at 4, expected 8: an overlap",
    ),
    (raw({"a": F32_2, "b": F32_2}, b"\0" * 8), "b begins at 0, expected 8: an overlap"),
]


@pytest.mark.parametrize(("data", "what"), HOSTILE)
def test_hostile_headers(tmp_path, data, what):
    path = tmp_path / "x.safetensors"
    path.write_bytes(data)
    with pytest.raises(ConvertError, match=what) as caught:
        st.read_safetensors(path)
    assert str(path) in str(caught.value)


def test_everything_that_is_wrong_is_listed(tmp_path):
    path = tmp_path / "x"
    bad = {f"t{i}": entry([-1], 0, 8) for i in range(5)} | {"fine": F32_2}
    path.write_bytes(raw(bad, b"\0" * 8))
    with pytest.raises(ConvertError) as caught:
        st.read_safetensors(path)
    lines = str(caught.value).split("\n")
    assert [line.split()[0] for line in lines[1:]] == ["t0", "t1", "t2", "t3", "t4"]


def test_truth_values_are_0_or_1(tmp_path):
    path = tmp_path / "x"
    path.write_bytes(raw({"a": entry([2], 0, 2, "BOOL")}, b"\1\2"))
    found = st.read_safetensors(path)
    with pytest.raises(ConvertError, match="of type bool, but holds the byte 2"):
        found["a"].load()


def test_what_is_no_file(tmp_path):
    with pytest.raises(ConvertError, match="holds neither"):
        st.read_safetensors(tmp_path)
    with pytest.raises(ConvertError, match="there is no file"):
        st.read_safetensors(tmp_path / "absent")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ConvertError, match="is not a file"):
        st.read_safetensors(tmp_path / "pipe")


def test_a_file_that_changes_is_noticed(tmp_path):
    st.write_safetensors(tmp_path, of_arrays({"a": np.zeros(3)}))
    found = st.read_safetensors(tmp_path)
    path = tmp_path / st.FILE
    path.write_bytes(path.read_bytes())
    os.utime(path, ns=(1, 1))
    with pytest.raises(ConvertError, match="was written to while"):
        found["a"].load()
    path.write_bytes(b"")
    with pytest.raises(ConvertError, match="was written to while"):
        found["a"].load()


# ---- indexes


@pytest.fixture
def sharded(tmp_path) -> Path:
    arrays = {n: array("float32", (10,)) for n in "abc"}
    st.write_safetensors(tmp_path, of_arrays(arrays), shard_bytes=40)
    return tmp_path


def edited(folder: Path, **places: object) -> Path:
    """The index with some places changed; None takes one out."""
    said = json.loads((folder / st.INDEX).read_text())
    said["weight_map"].update(places)
    said["weight_map"] = {n: p for n, p in said["weight_map"].items() if p is not None}
    (folder / st.INDEX).write_text(json.dumps(said))
    return folder


FIRST = "model-00001-of-00003.safetensors"


@pytest.mark.parametrize(
    ("places", "what"),
    [
        ({"a": "../model-00001-of-00003.safetensors"}, "a lies in '../model"),
        ({"a": "/etc/passwd"}, "a lies in '/etc/passwd'"),
        ({"a": "sub/x.safetensors"}, "a lies in 'sub/x"),
        ({"a": ".."}, r"a lies in '\.\.'"),
        ({"a": ""}, "a lies in ''"),
        ({"a": 3}, "a lies in '3'"),
        ({"a": ["x"]}, "a lies in"),
        ({"a": "absent"}, r"absent \(named by .*index.json\) is not there"),
        ({"b": FIRST}, "b is in .*00002-of-00003.safetensors, not in .*00001|b is not in"),
        ({"d": FIRST}, f"d is not in {FIRST}"),
    ],
)
def test_indexes_that_lie(sharded, places, what):
    with pytest.raises(ConvertError, match=what):
        st.read_safetensors(edited(sharded, **places))


def test_a_tensor_in_two_files(sharded):
    shutil.copy(sharded / FIRST, sharded / "copy.safetensors")
    with pytest.raises(ConvertError, match=f"a is in copy.safetensors and {FIRST}|a is in"):
        st.read_safetensors(edited(sharded, d="copy.safetensors"))


def test_a_tensor_that_the_index_does_not_name(tmp_path):
    st.write_safetensors(
        tmp_path, of_arrays({n: array("int8", (4,)) for n in "abc"}), shard_bytes=8
    )
    with pytest.raises(ConvertError, match=r"a is in model-00001.*, but not in the weight_map"):
        st.read_safetensors(edited(tmp_path, a=None))


def test_an_index_without_a_map(sharded):
    (sharded / st.INDEX).write_text('{"metadata": {}}')
    with pytest.raises(ConvertError, match="has no field weight_map"):
        st.read_safetensors(sharded)


def test_a_link_out_of_the_folder(sharded, tmp_path_factory):
    outside = tmp_path_factory.mktemp("outside") / "x"
    shutil.move(sharded / FIRST, outside)
    (sharded / FIRST).symlink_to(outside)
    with pytest.raises(ConvertError, match="leads out of its folder"):
        st.read_safetensors(sharded)


def test_a_file_and_an_index(sharded):
    shutil.copy(sharded / FIRST, sharded / st.FILE)
    with pytest.raises(ConvertError, match="Name the one that is meant"):
        st.read_safetensors(sharded)
    assert set(st.read_safetensors(sharded / st.INDEX)) == set("abc")


# ---- writing fails


def broken() -> dict[str, Stored]:
    def fail() -> np.ndarray:
        raise ConvertError("the source is damaged")

    good = of_arrays({"a": np.ones(100)})
    return {**good, "b": Stored("b", (2,), "float64", "there", fail)}


@pytest.mark.parametrize("shard_bytes", [10**9, 800])
def test_nothing_half_written_appears(tmp_path, shard_bytes):
    with pytest.raises(ConvertError, match="the source is damaged"):
        st.write_safetensors(tmp_path, broken(), shard_bytes=shard_bytes)
    assert list(tmp_path.iterdir()) == []


def test_a_tensor_that_is_not_what_it_says(tmp_path):
    lie = Stored("a", (3,), "float32", "there", lambda: np.zeros(4, np.float32))
    with pytest.raises(ConvertError, match=r"loaded as float32\[4\], it said float32\[3\]"):
        st.write_safetensors(tmp_path, {"a": lie})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", [st.FILE, st.INDEX])
def test_nothing_is_overwritten(tmp_path, name):
    (tmp_path / name).write_bytes(b"mine")
    with pytest.raises(ConvertError, match=f"holds {name} already"):
        st.write_safetensors(tmp_path, of_arrays({"a": np.ones(2)}))
    assert (tmp_path / name).read_bytes() == b"mine"


def test_room_is_checked_first(tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    with pytest.raises(ConvertError, match=r"0\.0 MB free, 1\.6 MB are to be written"):
        st.write_safetensors(tmp_path, of_arrays({"a": np.ones(200_000)}))
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_fills_up(tmp_path):
    """The same error number as a full disk, by a limit on the size of files."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    try:
        with pytest.raises(
            ConvertError, match=r"there is no room\. Nothing of it is there"
        ) as caught:
            st.write_safetensors(tmp_path, of_arrays({"a": np.ones(200_000)}))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert caught.value.__cause__.errno == errno.EFBIG
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_written(tmp_path):
    good = in_memory("a", np.ones(2))
    with pytest.raises(ConvertError, match=r"is half a character[^$]*named __metadata__"):
        st.write_safetensors(tmp_path, {"\ud800": good, "__metadata__": good})
    with pytest.raises(ConvertError, match="of type complex64, expected one of"):
        in_memory("a", np.ones(2, np.complex64))
    assert list(tmp_path.iterdir()) == []
