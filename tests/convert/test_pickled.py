"""Pickles: what torch writes of tensors is read, and anything else is refused by name."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import tracemalloc
import zipfile
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from convert.hand_made import archive, measured, number, program, six, text
from convert.hand_made import tensor as pushed

from bert_variants.convert import pickled
from bert_variants.convert.errors import ConvertError
from bert_variants.convert.pickled import read_pickled
from bert_variants.convert.tensors import DTYPES


def saved(folder: Path, data: bytes, storages: dict[str, bytes] | None = None) -> Path:
    """A file of a program and one storage of six float32."""
    path = folder / "pytorch_model.bin"
    path.write_bytes(archive(data, {"0": six().tobytes()} if storages is None else storages))
    return path


# ---- what is read


@pytest.mark.parametrize(
    "dtype", ["float64", "float32", "float16", "int64", "int32", "int16", "int8", "uint8"]
)
def test_types(tmp_path, dtype):
    path = saved(
        tmp_path, program({"x": pushed(dtype, (2, 3), (3, 1))}), {"0": six(dtype).tobytes()}
    )
    found = read_pickled(path)["x"]
    assert (found.shape, found.dtype, found.nbytes) == ((2, 3), dtype, 6 * DTYPES[dtype].itemsize)
    np.testing.assert_array_equal(found.load(), six(dtype).reshape(2, 3))


def test_bfloat16_and_bool(tmp_path):
    floats, flags = np.array([1.5, -2], ml_dtypes.bfloat16), np.array([True, False])
    items = {
        "f": pushed("bfloat16", (2,), (1,), count=2),
        "b": pushed("bool", (2,), (1,), key="1", count=2),
    }
    path = saved(tmp_path, program(items), {"0": floats.tobytes(), "1": flags.tobytes()})
    found = read_pickled(path)
    assert found["f"].load().dtype == ml_dtypes.bfloat16
    assert found["f"].load().tolist() == [1.5, -2]
    assert found["b"].load().tolist() == [True, False]


@pytest.mark.parametrize(
    ("shape", "strides", "offset", "expected"),
    [
        ((2, 3), (3, 1), 0, [[0, 1, 2], [3, 4, 5]]),
        ((3, 2), (1, 3), 0, [[0, 3], [1, 4], [2, 5]]),  # transposed
        ((2,), (1,), 4, [4, 5]),
        ((2,), (2,), 1, [1, 3]),
        ((2, 2), (3, 2), 1, [[1, 3], [4, 6]]),
        ((), (), 5, 5),
        ((0,), (1,), 6, []),
        ((2, 0), (7, 1), 0, [[], []]),
        ((1, 2), (2**62, 1), 2, [[2, 3]]),  # the stride of a size of 1 does not matter
        ((3,), (0,), 2, [2, 2, 2]),  # expanded
    ],
)
def test_views(tmp_path, shape, strides, offset, expected):
    data = np.arange(7, dtype=np.float32).tobytes()
    view = pushed("float32", shape, strides, offset=offset, count=7)
    loaded = read_pickled(saved(tmp_path, program({"x": view}), {"0": data}))["x"].load()
    assert loaded.tolist() == expected
    assert loaded.shape == shape
    assert loaded.flags.c_contiguous


def test_shared_storage(tmp_path):
    items = {"a": pushed("float32", (6,), (1,)), "b": pushed("float32", (2, 3), (3, 1))}
    found = read_pickled(saved(tmp_path, program(items)))
    assert list(found) == ["a", "b"]
    np.testing.assert_array_equal(found["a"].load(), found["b"].load().reshape(-1))


def test_what_else_torch_writes(tmp_path):
    """Values kept and recalled, a plain dictionary, a parameter, versions of modules."""
    parameter = (
        b"ctorch._utils\n_rebuild_parameter\n(" + pushed("float32", (2,), (1,)) + b"\x88"
        b"ccollections\nOrderedDict\n)RtR"
    )
    versions = b"}" + text("_metadata") + b"}" + text("x") + b"}" + text("v") + number(1) + b"sss"
    data = b"\x80\x02}q\x00(" + text("p") + parameter + b"u" + versions + b"b."
    assert read_pickled(saved(tmp_path, data))["p"].load().tolist() == [0, 1]
    recalled = text("a") + pushed("float32", (2,), (1,)) + b"q\x05" + text("b") + b"h\x05"
    found = read_pickled(saved(tmp_path, b"\x80\x02}(" + recalled + b"u."))
    assert list(found) == ["a", "b"]
    framed = b"\x80\x04\x95" + (99).to_bytes(8, "little") + b"\x8c\x0bcollections\x94\x8c\x0b"
    framed += b"OrderedDict\x94\x93)R(\x8c\x01x" + pushed("float32", (1,), (1,)) + b"u."
    assert list(read_pickled(saved(tmp_path, framed))) == ["x"]


def test_reading_is_lazy_and_bounded(tmp_path):
    size = 8 << 20
    items = {f"x{i}": pushed("uint8", (size,), (1,), key=str(i), count=size) for i in range(4)}
    path = saved(tmp_path, program(items), {str(i): bytes([i]) * size for i in range(4)})
    tracemalloc.start()
    found = read_pickled(path)
    assert tracemalloc.get_traced_memory()[1] < 1 << 20
    for i, tensor in enumerate(found.values()):
        assert tensor.load()[-1] == i
    assert tracemalloc.get_traced_memory()[1] < 2.5 * size
    tracemalloc.stop()


# ---- refused by default


def test_the_refusal_names_the_one_line():
    said = str(pickled.refuse(Path("dir/pytorch_model.bin")))
    assert "dir/pytorch_model.bin is a pickle" in said
    assert "torch.load('pytorch_model.bin', map_location='cpu', weights_only=True)" in said
    assert "model.safetensors" in said


def test_a_name_is_no_part_of_the_command():
    assert "'FILE'" in str(pickled.refuse(Path("x'); import os; os.abort('.bin")))
    assert "$" not in pickled.one_line("$(reboot).bin")


@pytest.mark.parametrize(
    ("start", "what"),
    [
        (
            b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.",
            "format of torch before 1.6.*\n.*weights_only",
        ),
        (b"", "is no archive of torch"),
        (b"\x93NUMPY", "is no archive of torch"),
        (b"PK\3\4", "is cut short"),
        (b"PK\3\4" + b"PK\5\6" + b"\xff" * 18, "has a list of files of 4,294,967,295 bytes"),
        (b"PK\3\4" + b"PK\5\6".ljust(22, b"\0"), "has no data.pkl"),
    ],
)
def test_what_is_no_archive(tmp_path, start, what):
    path = tmp_path / "x.bin"
    path.write_bytes(start)
    with pytest.raises(ConvertError, match=what):
        read_pickled(path)


# ---- malicious programs

REDUCE_SYSTEM = b"cposix\nsystem\n" + b"(" + text("touch owned") + b"tR."
MALICIOUS = [
    (b"\x80\x02" + REDUCE_SYSTEM, r"names posix.system, which .* may be malicious"),
    (b"\x80\x02cos\nsystem\n.", "names os.system"),
    (b"\x80\x02cbuiltins\neval\n.", "names builtins.eval"),
    (b"\x80\x02ctorch\nload\n.", "names torch.load"),
    (b"\x80\x02ctorch.hub\nload\n.", "names torch.hub.load"),
    (b"\x80\x02ctorch\nFloatStorage.__init__\n.", "names torch.FloatStorage.__init__"),
    (b"\x80\x02ccollections\nOrderedDict.__reduce__\n.", "names collections.OrderedDict.__r"),
    (b"\x80\x04\x8c\x02os\x8c\x06system\x93.", "names os.system"),
    (b"\x80\x04K\x01K\x02\x93.", "names what is no text"),
    (b"\x80\x02(ios\nsystem\n.", r"has the instruction b'\('|has the instruction b'i'"),
    (b"\x80\x02(cos\nsystem\no.", "names os.system"),
    (b"\x80\x02]\x81.", r"instruction b'\\x81'"),  # NEWOBJ
    (b"\x80\x02\x82\x01.", r"instruction b'\\x82'"),  # EXT1
    (b"\x80\x02P0\n.", "instruction b'P'"),  # PERSID
    (b"\x80\x02I99999999\n.", "instruction b'I'"),  # INT
    (b"\x80\x00.", "is of protocol 0"),
    (b"\x80\x05.", "is of protocol 5"),
    (b"", "is cut short"),
    (b"\x80\x02", "is cut short"),
    (b"\x80\x02.", "takes a value from an empty stack"),
    (b"\x80\x02(.", "takes a value from an empty stack"),
    (b"\x80\x02}(.", "takes a value from an empty stack"),
    (b"\x80\x02t.", "has no mark"),
    (b"\x80\x02h\x00.", "recalls number 0"),
    (b"\x80\x02q\x00.", "takes a value from an empty stack"),
    (b"\x80\x02X\xff\xff\xff\xff.", "is cut short"),
    (b"\x80\x02X\x01\0\0\0\xff.", "has text that is not UTF-8"),
    (b"\x80\x02\x8a\xff" + b"\xff" * 255 + b".", "has a number of 255 bytes"),
    (b"\x80\x02c" + b"x" * 1000, "has a name without an end"),
    (b"\x80\x02]K\x01s.", "has a list where a dictionary is needed|empty stack"),
    (b"\x80\x02}]K\x01s.", "has a list as a key"),
    (b"\x80\x02}}K\x01s.", "has a dictionary as a key"),
    (b"\x80\x02}(K\x01u.", "has a key without a value"),
    (b"\x80\x02}(" + (text("a") + b"N") * 2 + b"u.", "has the key 'a' twice"),
    (b"\x80\x02K\x01.", "builds a number, expected a dictionary"),
    (b"\x80\x02].", "builds a list, expected a dictionary"),
    (b"\x80\x02}(" + text("a") + b"Nu.", "'a' is nothing"),
    (b"\x80\x02}(" + text("a") + b"}" + text("b") + b"\x88u.", "'a' is a dictionary; 'b' is a tr"),
    (b"\x80\x02}(K\x01" + pushed("float32", (1,), (1,)) + b"u.", "'1' is a tensor"),
    (b"\x80\x02}}" + text("__class__") + b"Nsb.", "sets attributes"),
    (b"\x80\x02K\x01}b.", "has a number where a dictionary is needed"),
    (b"\x80\x02ccollections\nOrderedDict\n(K\x01tR.", "calls collections.OrderedDict with"),
    (b"\x80\x02ctorch\nFloatStorage\n)R.", "calls torch.FloatStorage with"),
    (b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n)R.", "other parts than torch writes"),
    (b"\x80\x02ctorch._utils\n_rebuild_parameter\n(NNNtR.", "parameter that is no tensor"),
    (b"\x80\x02" + text("x") + b"Q.", "refers to something that is no storage"),
    (b"\x80\x02" + b"(" + text("module") + b"NNNNtQ.", "refers to something that is no storage"),
]


@pytest.mark.parametrize(("data", "what"), MALICIOUS)
def test_malicious_programs(tmp_path, monkeypatch, data, what):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConvertError, match=what) as caught:
        read_pickled(saved(tmp_path, data))
    assert "pytorch_model.bin" in str(caught.value)
    assert not Path("owned").exists()


# Python that makes a program that is too much.
BOMBS = [
    "b']' * 250_000",
    "b'(' * 250_000",
    "b'N' + b'\\x94' * 250_000",
    "b')' + b'\\x85' * 99_000 + b'.'",
    "b'N' + b''.join(b'r' + i.to_bytes(4, 'little') for i in range(110_000))",
    "b'}' * 99_000",
    "text('x' * 3_000_000) + b'q\\0' + b'h\\0' * 99_000 + b'.'",
    "b']q\\0h\\0a' + b'h\\0h\\0a' * 40_000 + b'.'",
    "b'}(' + b''.join(number(i << 40) + b'N' for i in range(55_000)) + b'u.'",
    # a tuple that holds itself 2^5000 times over
    "b'}' + text('_metadata') + b')' + b'q\\0h\\0\\x86' * 5000 + b's.'",
    "b'}(' + text('x') + b')' + b'q\\0h\\0\\x86' * 5000 + b'u.'",
]


@pytest.mark.slow
def test_bombs():
    prepare = (
        "import sys; sys.path.insert(0, {!r})\n"
        "from convert.hand_made import number, text\n"
        "from bert_variants.convert import pickled_program\n"
        "data = b'\\x80\\x02' + {}"
    )
    tests = str(Path(__file__).resolve().parent.parent)
    cases = [(prepare.format(tests, bomb), "pickled_program.run(data)") for bomb in BOMBS]
    for done, bomb in zip(measured(cases), BOMBS, strict=True):
        assert done.error, bomb
        assert len(done.error) < 5000, bomb
        assert done.bytes < 64e6, bomb
        assert done.seconds < 2, bomb


# ---- tensors and archives that lie


@pytest.mark.parametrize(
    ("view", "what"),
    [
        (pushed("float32", (7,), (1,)), "goes beyond the end of data/0"),
        (pushed("float32", (2,), (5,), offset=1), "goes beyond the end of data/0"),
        (pushed("float32", (1,), (1,), offset=6), "goes beyond the end of data/0"),
        (pushed("float32", (0,), (1,), offset=7), "goes beyond the end of data/0"),
        (pushed("float32", (2,), (-1,), offset=3), "negative offset or stride"),
        (pushed("float32", (2,), (1,), offset=-1), "negative offset or stride"),
        (pushed("float32", (2, 3), (1,)), "has 1 strides for 2 dimensions"),
        (pushed("float32", (-2,), (1,)), "the size -2 is no whole number"),
        (pushed("float32", (2**40, 2**40), (0, 0)), "more numbers than any machine"),
        (pushed("float32", (2**30,), (0,)), "repeats numbers of data/0"),
        (pushed("float32", (2,), (1,), count=5), "has 24 bytes, 5 float32 need 20"),
        (pushed("float64", (2,), (1,)), "has 24 bytes, 6 float64 need 48"),
        (pushed("float32", (2,), (1,), count=-6), "storage of a negative size"),
        (pushed("float32", (2,), (1,), key="1"), "lies in data/1, which is not in the archive"),
        (pushed("float32", (2,), (1,), key="../0"), "is no storage of the archive"),
        (pushed("float32", (2,), (1,), key="/etc/passwd"), "is no storage of the archive"),
        (pushed("float32", (2,), (1,), key="٣"), "is no storage of the archive"),
    ],
)
def test_tensors_that_lie(tmp_path, view, what):
    with pytest.raises(ConvertError, match=what):
        read_pickled(saved(tmp_path, program({"x": view})))


FINE = program({"x": pushed("float32", (6,), (1,))})


def members(**files: bytes) -> bytes:
    """An archive of any files."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as file:
        for name, data in files.items():
            file.writestr(zipfile.ZipInfo(name), data)
    return out.getvalue()


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (archive(FINE, {"0": six().tobytes()}, compress=True), "is compressed, which torch never"),
        (archive(b"\0" * 5_000_000, {}), "data.pkl has 5,000,000 bytes, expected 4,194,304"),
        (members(**{"../data.pkl": FINE}), "is no name of a file in it"),
        (members(**{"/x/data.pkl": FINE}), "is no name of a file in it"),
        (members(**{"m/../data.pkl": FINE}), "is no name of a file in it"),
        (members(**{"m/data.pkl": FINE, "m/a\\b": b""}), "is no name of a file in it"),
        (members(**{"m/data.pkl": FINE, "n/data.pkl": FINE}), "has no data.pkl"),
        (members(**{"data.pkl": FINE}), "has no data.pkl"),
        (members(**{"m/data.pkl": FINE, "m/byteorder": b"big"}), "most significant byte is first"),
        (members(**{"m/data.pkl": FINE}), "lies in data/0, which is not in the archive"),
    ],
)
def test_archives_that_lie(tmp_path, data, what):
    path = tmp_path / "x.bin"
    path.write_bytes(data)
    with pytest.raises(ConvertError, match=what):
        read_pickled(path)


def test_a_name_twice(tmp_path):
    path = tmp_path / "x.bin"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("m/data.pkl", FINE)
        with pytest.warns(UserWarning, match="Duplicate name"):
            file.writestr("m/data.pkl", FINE)
    with pytest.raises(ConvertError, match="holds a name twice"):
        read_pickled(path)


def test_files_that_share_bytes(tmp_path):
    """A list of files that names one place many times: a small archive of any size."""
    data = bytearray(archive(FINE, {"0": six().tobytes(), "1": six().tobytes()}))
    first = data.index(b"PK\1\2")
    entries = [i for i in range(first, len(data)) if data[i : i + 4] == b"PK\1\2"]
    where = {bytes(data[i + 46 : i + 46 + data[i + 28]]): i for i in entries}
    one, two = where[b"model/data/0"], where[b"model/data/1"]
    data[two + 42 : two + 46] = data[one + 42 : one + 46]
    path = tmp_path / "x.bin"
    path.write_bytes(data)
    with pytest.raises(ConvertError, match="shares bytes with another file"):
        read_pickled(path)


@pytest.mark.parametrize("name", [b"0", b"data.pkl"])
def test_damage_is_noticed(tmp_path, name):
    data = bytearray(archive(FINE, {"0": six().tobytes()}))
    at = data.index(six().tobytes() if name == b"0" else FINE) + 5
    data[at] ^= 1
    path = tmp_path / "x.bin"
    path.write_bytes(data)
    with pytest.raises(ConvertError, match=f"{name.decode()} is damaged"):
        read_pickled(path)["x"].load()


# ---- torch itself


@pytest.mark.oracle
@pytest.mark.parametrize("protocol", [2, 3, 4])
def test_we_read_what_torch_writes(tmp_path, protocol):
    torch = pytest.importorskip("torch")
    base = torch.arange(24).reshape(4, 6).float()
    tensors = {
        "plain": base.clone(),
        "turned": base.T,
        "part": base[1:3, ::2],
        "expanded": torch.ones(1, 5).expand(1, 5),
        "scalar": torch.tensor(2.5),
        "empty": torch.zeros(0, 3),
        "half": base.half(),
        "bfloat16": base.bfloat16(),
        "double": base.double(),
        **{str(d): base.to(d) for d in (torch.int64, torch.int32, torch.int16, torch.int8)},
        "uint8": base.to(torch.uint8),
        "bool": base > 3,
    }
    tensors["tied"] = tensors["plain"]
    path = tmp_path / "pytorch_model.bin"
    torch.save(tensors, path, pickle_protocol=protocol)
    found = read_pickled(path)
    assert list(found) == list(tensors)
    for name, tensor in tensors.items():
        expected = tensor.float().numpy() if name == "bfloat16" else tensor.numpy()
        loaded = found[name].load()
        assert loaded.shape == tuple(tensor.shape)
        np.testing.assert_array_equal(loaded.astype(expected.dtype), expected)
        assert found[name].dtype == str(tensor.dtype).removeprefix("torch.")


@pytest.mark.oracle
def test_we_read_a_state_dict(tmp_path):
    torch = pytest.importorskip("torch")
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.LayerNorm(4))
    torch.save(model.state_dict(), tmp_path / "a.bin")
    torch.save(dict(model.named_parameters()), tmp_path / "b.bin")
    for file in ("a.bin", "b.bin"):
        found = read_pickled(tmp_path / file)
        for name, tensor in model.state_dict().items():
            np.testing.assert_array_equal(found[name].load(), tensor.numpy())


@pytest.mark.oracle
def test_we_refuse_what_else_torch_writes(tmp_path):
    torch = pytest.importorskip("torch")
    path = tmp_path / "x.bin"
    torch.save(torch.nn.Linear(2, 2), path)
    with pytest.raises(ConvertError, match=r"instruction|names torch\.nn"):
        read_pickled(path)
    torch.save({"model": {"x": torch.ones(1)}, "epoch": 3}, path)
    with pytest.raises(ConvertError, match="'model' is a dictionary; 'epoch' is a number"):
        read_pickled(path)
    torch.save({"x": torch.ones(1)}, path, _use_new_zipfile_serialization=False)
    with pytest.raises(ConvertError, match=r"format of torch before 1\.6"):
        read_pickled(path)


@pytest.mark.oracle
def test_the_one_line_converts(tmp_path):
    torch = pytest.importorskip("torch")
    shared = torch.ones(3)
    torch.save({"a": shared, "b": shared, "c": torch.arange(6).reshape(2, 3).T}, tmp_path / "m.bin")
    command = pickled.one_line("m.bin")
    code = command.removeprefix('python -c "').removesuffix('"')
    assert f'python -c "{code}"' == command
    environment = {**os.environ, "PYTHONWARNINGS": "ignore"}
    subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, check=True, timeout=300, env=environment
    )
    from bert_variants.convert.safetensors_files import read_safetensors

    found = read_safetensors(tmp_path)
    assert set(found) == set("abc")
    assert found["c"].load().tolist() == [[0, 3], [1, 4], [2, 5]]
