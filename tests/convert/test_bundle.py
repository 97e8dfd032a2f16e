"""TensorFlow checkpoints, against bytes written out by hand, another reader, and TensorFlow."""

from __future__ import annotations

import os
import struct
import tracemalloc
import warnings
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from bert_variants.convert import bundle, bundle_messages, bundle_table
from bert_variants.convert.bundle import find_bundle, read_bundle, write_bundle
from bert_variants.convert.crc32c import crc32c, masked
from bert_variants.convert.errors import ConvertError
from bert_variants.convert.files import Source
from bert_variants.convert.tensors import DTYPES, Stored, of_arrays

# ---- checksums, against one bit at a time


def slow_crc(data: bytes) -> int:
    """The definition: shift, and subtract the polynomial where a bit falls out."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = (crc >> 1) ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def slow_masked(data: bytes) -> bytes:
    """As it stands in files."""
    crc = slow_crc(data)
    rotated = (crc >> 15) | (crc << 17 & 0xFFFFFFFF)
    return struct.pack("<I", (rotated + 0xA282EAD8) % 2**32)


def numbers(data: bytes) -> np.ndarray:
    return np.frombuffer(data, np.uint8)


@pytest.mark.parametrize(
    ("data", "crc"),  # RFC 3720, B.4, and the usual check value
    [
        (b"", 0),
        (b"123456789", 0xE3069283),
        (b"\0" * 32, 0x8A9136AA),
        (b"\xff" * 32, 0x62A8AB43),
        (bytes(range(32)), 0x46DD794E),
        (bytes(range(31, -1, -1)), 0x113FDB5C),
    ],
)
def test_published_checksums(data, crc):
    assert crc32c(numbers(data)) == slow_crc(data) == crc


# around the widths at which it changes its way of working
@pytest.mark.parametrize("size", [1, 3, 4, 255, 256, 257, 511, 1024, 16383, 16384, 16385, 33123])
def test_checksums_of_any_length(size):
    data = np.random.default_rng(size).integers(0, 256, size, np.uint8)
    assert crc32c(data) == slow_crc(data.tobytes())
    cut = size // 3
    assert crc32c(data[cut:], crc32c(data[:cut])) == crc32c(data)


def test_every_bit_counts():
    data = np.zeros(20_000, np.uint8)
    before = crc32c(data)
    for at in (0, 1, 3_616, 3_617, 19_999):
        for bit in range(8):
            data[at] = 1 << bit
            assert crc32c(data) != before
        data[at] = 0


def test_masked():
    assert struct.pack("<I", masked(crc32c(numbers(b"123456789")))) == slow_masked(b"123456789")


# ---- a checkpoint by hand

FLOATS = np.array([[1.0, -2.0]], np.float32)
COUNT = np.array(7, np.int64)
EMPTY = np.zeros((0, 3), np.float32)
DATA = bytes.fromhex("0000803f 000000c0 0700000000000000")


def by_hand() -> dict[str, bytes]:
    """A checkpoint of three tensors, byte for byte as the format has it."""
    entries = [
        # key shares 0 bytes, adds 0; the value: one data file, version {producer 1}
        bytes([0, 0, 6]) + bytes.fromhex("0801 1a020801"),
        # shares 0, adds "a": float32 [1, 2], data file 0, offset 0 (both absent), size 8, checksum
        bytes([0, 1, 19]) + b"a" + bytes.fromhex("0801 1208 12020801 12020802 2808 35"),
        # shares "a", adds "/b": int64 [], offset 8, size 8, checksum
        bytes([1, 2, 13]) + b"/b" + bytes.fromhex("0809 1200 2008 2808 35"),
        # shares nothing, adds "c": float32 [0, 3]: a size of 0 is absent; offset 16, size absent
        bytes([0, 1, 17]) + b"c" + bytes.fromhex("0801 1206 1200 12020803 2010 35"),
    ]
    sums = [b"", slow_masked(DATA[:8]), slow_masked(DATA[8:]), slow_masked(b"")]
    block = b"".join(e + s for e, s in zip(entries, sums, strict=True))
    block += struct.pack("<II", 0, 1)  # one key stands whole, at 0
    out = block + b"\0" + slow_masked(block + b"\0")
    unread = struct.pack("<II", 0, 1)
    unread_at = len(out)
    out += unread + b"\0" + slow_masked(unread + b"\0")
    # a key above the last one, "c" + 1, then offset and size of the block
    index = bytes([0, 1, 2]) + b"d" + bytes([0, len(block)]) + struct.pack("<II", 0, 1)
    index_at = len(out)
    out += index + b"\0" + slow_masked(index + b"\0")
    assert index_at < 128  # so that each number is one byte
    footer = bytes([unread_at, len(unread), index_at, len(index)]).ljust(40, b"\0")
    out += footer + bytes.fromhex("57fb808b247547db")
    return {"x.ckpt.index": out, "x.ckpt.data-00000-of-00001": DATA}


def written(folder: Path, files: Mapping[str, bytes]) -> Path:
    for name, data in files.items():
        (folder / name).write_bytes(data)
    return folder / "x.ckpt"


ARRAYS = {"a": FLOATS, "a/b": COUNT, "c": EMPTY}


def test_reading_what_was_written_by_hand(tmp_path):
    found = read_bundle(written(tmp_path, by_hand()))
    assert list(found) == list(ARRAYS)
    for name, expected in ARRAYS.items():
        loaded = found[name].load()
        assert (loaded.shape, loaded.dtype) == (expected.shape, expected.dtype)
        assert (found[name].shape, found[name].dtype) == (expected.shape, expected.dtype.name)
        np.testing.assert_array_equal(loaded, expected)


def test_writing_gives_the_bytes_written_by_hand(tmp_path):
    write_bundle(tmp_path / "x.ckpt", of_arrays(dict(reversed(ARRAYS.items()))))
    for name, data in by_hand().items():
        assert (tmp_path / name).read_bytes() == data
    assert len(list(tmp_path.iterdir())) == 2


def test_what_names_a_checkpoint(tmp_path):
    prefix = written(tmp_path, by_hand())
    (tmp_path / "x.ckpt.meta").write_bytes(b"a graph")
    for path in (prefix, *sorted(tmp_path.iterdir()), tmp_path, str(prefix)):
        assert find_bundle(path) == prefix
    (tmp_path / "y.index").write_bytes(b"")
    with pytest.raises(ConvertError, match=r"holds several checkpoints: x.ckpt.index, y.index"):
        find_bundle(tmp_path)
    with pytest.raises(ConvertError, match=r"no z.index"):
        find_bundle(tmp_path / "z")


# ---- another reader, that trusts what it reads


def varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while data[at] & 0x80:
        value |= (data[at] & 0x7F) << shift
        shift, at = shift + 7, at + 1
    return value | data[at] << shift, at + 1


def block(data: bytes, at: int) -> list[tuple[bytes, bytes]]:
    """The entries of the block whose place is encoded at ``at``."""
    offset, at = varint(data, at)
    size, at = varint(data, at)
    body = data[offset : offset + size]
    assert data[offset + size] == 0
    assert data[offset + size + 1 : offset + size + 5] == slow_masked(body + b"\0")
    count = struct.unpack("<I", body[-4:])[0]
    restarts = struct.unpack(f"<{count}I", body[-4 - 4 * count : -4])
    entries, key, at = [], b"", 0
    while at < len(body) - 4 - 4 * count:
        start = at
        shared, at = varint(body, at)
        more, at = varint(body, at)
        length, at = varint(body, at)
        assert (shared == 0) >= (start in restarts)
        key = key[:shared] + body[at : at + more]
        entries.append((key, body[at + more : at + more + length]))
        at += more + length
    assert restarts[0] == 0
    return entries


def other_reader(prefix: Path) -> dict[bytes, bytes]:
    """Name -> the tensor's bytes, the checksums compared."""
    data = prefix.with_name(prefix.name + ".index").read_bytes()
    values = prefix.with_name(prefix.name + ".data-00000-of-00001").read_bytes()
    at = len(data) - 48
    for _ in range(2):
        _, at = varint(data, at)
    found = {}
    for last, place in block(data, at):
        entries = _at(data, place)
        assert all(key <= last for key, _ in entries)
        for key, message in entries:
            assert key not in found
            found[key] = message
    assert found.pop(b"") == bytes.fromhex("08011a020801")
    tensors = {}
    for key, message in found.items():
        said, at = {}, 0
        while at < len(message):
            tag, at = varint(message, at)
            if tag & 7 == 5:
                said[tag >> 3], at = message[at : at + 4], at + 4
            elif tag & 7 == 2:
                length, at = varint(message, at)
                said[tag >> 3], at = message[at : at + length], at + length
            else:
                said[tag >> 3], at = varint(message, at)
        begin, size = said.get(4, 0), said.get(5, 0)
        tensors[key] = values[begin : begin + size]
        assert said[6] == slow_masked(tensors[key])
    return tensors


def _at(data: bytes, place: bytes) -> list[tuple[bytes, bytes]]:
    """The entries of a block at an encoded place."""
    return block(data + place, len(data))


def many(count: int = 100) -> dict[str, np.ndarray]:
    """Tensors of all types, whose names share much."""
    rng = np.random.default_rng(0)
    kinds = [d for d in DTYPES if d != "bool"]
    return {
        f"bert/encoder/layer_{i % 12}/output/{i}": rng.integers(0, 100, (i % 5, 3)).astype(
            DTYPES[kinds[i % len(kinds)]]
        )
        for i in range(count)
    } | {"flags": np.array([True, False])}


def test_another_reader_reads_it(tmp_path):
    arrays = many()
    write_bundle(tmp_path / "m", of_arrays(arrays))
    found = other_reader(tmp_path / "m")
    assert found == {name.encode(): a.tobytes() for name, a in arrays.items()}
    assert list(found) == sorted(found)


def test_round_trip(tmp_path):
    arrays = many()
    paths = write_bundle(tmp_path / "new" / "m", of_arrays(arrays))
    found = read_bundle(tmp_path / "new" / "m")
    assert list(found) == sorted(arrays)
    for name, tensor in found.items():
        loaded = tensor.load()
        assert (loaded.shape, loaded.dtype) == (arrays[name].shape, arrays[name].dtype)
        assert loaded.tobytes() == arrays[name].tobytes()
    again = write_bundle(tmp_path / "again" / "m", found)
    assert [p.read_bytes() for p in paths] == [p.read_bytes() for p in again]


def test_several_blocks(tmp_path):
    """More entries than fit into one: 256 kB."""
    entries = {b"": b"\x08\x01"} | {b"layer_%06d/kernel" % i: b"v" * 50 for i in range(6000)}
    path = tmp_path / "t"
    path.write_bytes(bundle_table.table_bytes(entries))
    data = path.read_bytes()
    assert len(data) > 262_144
    at = len(data) - 48
    for _ in range(2):
        _, at = varint(data, at)
    index = block(data, at)
    assert len(index) > 1
    blocks = [_at(data, place) for _, place in index]
    assert [e for b in blocks for e in b] == sorted(entries.items())
    for (key, _), before, after in zip(index[:-1], blocks[:-1], blocks[1:], strict=True):
        assert before[-1][0] <= key < after[0][0]
    assert bundle_table.read_table(Source.of(path)) == entries


def test_data_in_several_files(tmp_path):
    """As TensorFlow writes from several devices."""
    entry = bundle_messages.Entry
    message = bundle_messages.entry_bytes
    one, two = b"\1\0\0\0", b"\2\0\0\0\3\0\0\0"
    table = {
        b"": bundle_messages.header_bytes(bundle_messages.Header(shards=2)),
        b"a": message(entry(3, (1,), 0, 0, 4, masked(crc32c(numbers(one))))),
        b"b": message(entry(3, (2,), 1, 0, 8, masked(crc32c(numbers(two))))),
    }
    files = {
        "x.ckpt.index": bundle_table.table_bytes(table),
        "x.ckpt.data-00000-of-00002": one,
        "x.ckpt.data-00001-of-00002": two,
    }
    prefix = written(tmp_path, files)
    assert {n: t.load().tolist() for n, t in read_bundle(prefix).items()} == {"a": [1], "b": [2, 3]}
    (tmp_path / "x.ckpt.data-00001-of-00002").unlink()
    with pytest.raises(ConvertError, match=r"data-00001-of-00002 \(named by .*is not there"):
        read_bundle(prefix)


# ---- damaged and hostile


def test_a_flipped_bit_in_the_data_is_noticed(tmp_path):
    arrays = {"a": np.arange(10_000, dtype=np.float32), "b": np.ones(3, np.float32)}
    _, index = write_bundle(tmp_path / "m", of_arrays(arrays))
    data = tmp_path / "m.data-00000-of-00001"
    damaged = bytearray(data.read_bytes())
    damaged[12_345] ^= 4
    data.write_bytes(damaged)
    found = read_bundle(tmp_path / "m")
    assert found["b"].load().tolist() == [1, 1, 1]
    with pytest.raises(ConvertError, match=f"a is damaged: {index.name} says"):
        found["a"].load()


def test_a_flipped_bit_in_the_index_is_noticed(tmp_path):
    files = by_hand()
    index = files["x.ckpt.index"]
    for at in range(len(index)):
        flipped = bytearray(index)
        flipped[at] ^= 1
        prefix = written(tmp_path, files | {"x.ckpt.index": bytes(flipped)})
        try:
            found = {n: t.load().tolist() for n, t in read_bundle(prefix).items()}
        except ConvertError:
            continue
        # it was in the block that nobody reads, its place, or the zeros before the last bytes
        assert found == {n: a.tolist() for n, a in ARRAYS.items()}


def test_data_cut_short(tmp_path):
    files = by_hand()
    prefix = written(tmp_path, files | {"x.ckpt.data-00000-of-00001": DATA[:-1]})
    with pytest.raises(ConvertError, match=r"a/b ends at byte 16 of .*, which has 15"):
        read_bundle(prefix)


HEADER = bytes.fromhex("08011a020801")


def table(**entries: bytes) -> dict[bytes, bytes]:
    return {b"": HEADER, **{name.encode(): data for name, data in entries.items()}}


def sealed(entries: Mapping[bytes, bytes], data: bytes = b"\0" * 64) -> dict[str, bytes]:
    """A checkpoint of any entries, with right checksums of blocks."""
    return {
        "x.ckpt.index": bundle_table.table_bytes(entries),
        "x.ckpt.data-00000-of-00001": data,
    }


def message(**changes: object) -> bytes:
    fields = {"dtype": 1, "shape": (2,), "shard": 0, "offset": 0, "size": 8, "crc": 1}
    return bundle_messages.entry_bytes(bundle_messages.Entry(**{**fields, **changes}))


NEGATIVE = b"\xff" * 9 + b"\1"
HOSTILE = [
    ({b"a": message()}, "has no header"),
    ({b"": b"\x08"}, "the header is damaged: it ends within a number"),
    ({b"": b"\x08\x00"}, "says that there are 0 data files"),
    ({b"": b"\x08" + NEGATIVE}, "says that there are -1 data files"),
    ({b"": b"\x08\xff\xff\xff\x7f"}, "says that there are 268435455 data files"),
    ({b"": b"\x08\x01\x10\x01"}, "the most significant byte is first"),
    ({b"": b"\x08\x01\x1a\x02\x10\x02"}, "of a newer version"),
    ({b"": b"\x08\x01\x1a\x02\x18\x01"}, "of a newer version"),
    ({b"": b"\x08\x01\x1a\x03\x1a\x01\x01"}, "of a newer version"),
    (table(a=message(dtype=7)), "a is of the type string, which no weight has"),
    (table(a=message(dtype=99)), "a is of the type number 99"),
    (table(a=message(shape=(2, 2))), r"a has 8 bytes, float32\[2, 2\] needs 16"),
    (table(a=message(shape=(2**40, 2**40))), "more numbers than any machine"),
    (table(a=message(shape=(1,) * 40)), "40 dimensions"),
    (table(a=b"\x08\x01\x12\x0d\x12\x0b\x08" + NEGATIVE), "the size -1 is no whole number"),
    (table(a=b"\x08\x01\x12\x02\x18\x01"), "the size -1 is no whole number"),
    (table(a=message(shard=1)), "a lies in data file 1 of 1"),
    (table(a=message(offset=60)), "a ends at byte 68 of"),
    (table(a=message(offset=2**63 - 1)), "a ends at byte"),
    (table(a=b"\x08\x01\x12\x04\x12\x02\x08\x02\x28\x08\x20" + NEGATIVE), "a ends at byte 7"),
    (table(a=message(), b=message(offset=4)), "b shares bytes with a"),
    (table(a=message() + b"\x3a\x00"), "a is stored in parts"),
    (table(a=b"\x0d\0\0\0\0"), "'a' cannot be read: field 1 is of kind 5, expected 0"),
    (table(a=b"\x12\x7f"), "'a' cannot be read: it ends within field 2"),
    (table(a=b"\x0b"), "field 1 is of the unknown kind 3"),
    (table(a=b"\x08" + b"\xff" * 10), "a number has more than 64 bits"),
    ({b"": HEADER, b"\xff": message()}, "cannot be read"),
    ({b"": HEADER, b"\0a": message()}, "1 parts belong to no tensor"),
]


@pytest.mark.parametrize(("entries", "what"), HOSTILE)
def test_hostile_entries(tmp_path, entries, what):
    prefix = written(tmp_path, sealed(entries))
    with pytest.raises(ConvertError, match=what) as caught:
        read_bundle(prefix)
    assert "x.ckpt" in str(caught.value)


def test_everything_that_is_wrong_is_listed(tmp_path):
    bad = {f"t{i}": message(dtype=7) for i in range(4)}
    prefix = written(tmp_path, sealed(table(fine=message(), **bad)))
    with pytest.raises(ConvertError) as caught:
        read_bundle(prefix)
    assert [line.split()[0] for line in str(caught.value).split("\n")[1:]] == list(bad)


def test_what_is_no_weight_is_left_out(tmp_path):
    entries = table(a=message(crc=masked(crc32c(numbers(b"\0" * 8)))))
    entries[b"_CHECKPOINTABLE_OBJECT_GRAPH"] = message(dtype=7)
    assert list(read_bundle(written(tmp_path, sealed(entries)))) == ["a"]


def seal(body: bytes, kind: int = 0) -> bytes:
    return body + bytes([kind]) + slow_masked(body + bytes([kind]))


def one_block(body: bytes, kind: int = 0, times: int = 1) -> bytes:
    """A table with one block of any content, which is named any number of times."""
    out = seal(body, kind)
    place = bundle_messages.varint(0) + bundle_messages.varint(len(body))
    entries = b"".join(bytes([0, 1, len(place)]) + bytes([98 + i]) + place for i in range(times))
    index = entries + struct.pack("<II", 0, 1)
    footer = b"\0\0" + bundle_messages.varint(len(out)) + bundle_messages.varint(len(index))
    return out + seal(index) + footer.ljust(40, b"\0") + bundle_table.MAGIC


FINE = bytes([0, 0, 6]) + HEADER + struct.pack("<II", 0, 1)


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (b"", "does not end as one does"),
        (b"\0" * 100, "does not end as one does"),
        (one_block(FINE, kind=1), r"is compressed \(kind 1\)"),
        (one_block(FINE, times=3), "not one after another"),
        (one_block(b"\0\0"), "shorter than it says"),
        (one_block(b"\xff\xff\xff\xff"), "shorter than it says"),
        (one_block(bytes([1, 0, 0]) + struct.pack("<II", 0, 1)), "does not fit into its block"),
        (one_block(bytes([0, 9, 0]) + struct.pack("<II", 0, 1)), "does not fit into its block"),
        (one_block(bytes([0, 0, 9]) + struct.pack("<II", 0, 1)), "does not fit into its block"),
        (one_block(FINE[:9] * 2 + FINE[9:]), "is not above the one before"),
        (one_block(b"\x80" * 9 + FINE[-8:]), "ends within a number|does not fit"),
        (bundle_table.MAGIC.rjust(48, b"\xff"), "more than 64 bits"),
        (b"\0\0\xff\xff\xff\xff\x0f\x01".ljust(40, b"\0") + bundle_table.MAGIC, "beyond its end"),
    ],
)
def test_hostile_tables(tmp_path, data, what):
    prefix = written(tmp_path, {"x.ckpt.index": data})
    with pytest.raises(ConvertError, match=f"x.ckpt.index is no index of a checkpoint: .*{what}"):
        read_bundle(prefix)


def test_a_table_of_too_many_or_too_much(tmp_path, monkeypatch):
    monkeypatch.setattr(bundle_table, "MOST_ENTRIES", 1000)
    path = tmp_path / "x.ckpt.index"
    for count, what in ((1001, "more than 1,000 entries"), (1000, "has no header")):
        path.write_bytes(bundle_table.table_bytes({b"%06d" % i: b"" for i in range(count)}))
        with pytest.raises(ConvertError, match=what):
            read_bundle(tmp_path / "x.ckpt")
    with path.open("wb") as file:
        file.truncate(17 << 20)
    with pytest.raises(ConvertError, match="has 17,825,792 bytes, expected 16,777,216"):
        read_bundle(tmp_path / "x.ckpt")


def test_links_and_pipes(tmp_path, tmp_path_factory):
    prefix = written(tmp_path, by_hand())
    data = tmp_path / "x.ckpt.data-00000-of-00001"
    outside = tmp_path_factory.mktemp("outside") / "data"
    outside.write_bytes(data.read_bytes())
    data.unlink()
    data.symlink_to(outside)
    with pytest.raises(ConvertError, match="leads out of its folder"):
        read_bundle(prefix)
    data.unlink()
    os.mkfifo(data)
    with pytest.raises(ConvertError, match="is not a file"):
        read_bundle(prefix)


# ---- writing


def test_one_tensor_in_memory_at_a_time(tmp_path):
    size = 4 << 20
    tensors = {
        str(i): Stored(str(i), (size,), "uint8", "here", lambda i=i: np.full(size, i, np.uint8))
        for i in range(8)
    }
    crc32c(np.zeros(1 << 16, np.uint8))  # its tables are made once
    tracemalloc.start()
    write_bundle(tmp_path / "m", tensors)
    for tensor in read_bundle(tmp_path / "m").values():
        assert tensor.load()[-1] == int(tensor.name)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2.5 * size


def test_nothing_half_written_appears(tmp_path):
    def fail() -> np.ndarray:
        raise ConvertError("the source is damaged")

    tensors = {**of_arrays({"a": np.ones(100)}), "b": Stored("b", (2,), "float64", "there", fail)}
    with pytest.raises(ConvertError, match="the source is damaged"):
        write_bundle(tmp_path / "m", tensors)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["m.index", "m.data-00000-of-00001"])
def test_nothing_is_overwritten(tmp_path, name):
    (tmp_path / name).write_bytes(b"mine")
    with pytest.raises(ConvertError, match=f"holds {name} already"):
        write_bundle(tmp_path / "m", of_arrays({"a": np.ones(2)}))
    assert (tmp_path / name).read_bytes() == b"mine"


@pytest.mark.parametrize("name", ["", "\0a", "x" * 4097, "\ud800", *bundle.NO_WEIGHTS])
def test_names_that_cannot_be_written(tmp_path, name):
    with pytest.raises(ConvertError, match="cannot be written as a checkpoint"):
        write_bundle(tmp_path / "m", of_arrays({name: np.ones(2)}))
    assert list(tmp_path.iterdir()) == []


# ---- TensorFlow itself


@pytest.fixture(scope="module")
def tensorflow():
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        why = "no TensorFlow: pip install -e '.[tensorflow]'"
        return pytest.importorskip("tensorflow", reason=why)


@pytest.mark.oracle
def test_tensorflow_reads_what_we_write(tensorflow, tmp_path):
    arrays = {n: a for n, a in many().items() if a.dtype.name not in ("uint32", "uint64")}
    write_bundle(tmp_path / "m.ckpt", of_arrays(arrays))
    reader = tensorflow.train.load_checkpoint(str(tmp_path / "m.ckpt"))
    shapes = reader.get_variable_to_shape_map()
    assert shapes == {name: list(a.shape) for name, a in arrays.items()}
    for name, expected in arrays.items():
        assert reader.get_tensor(name).tobytes() == expected.tobytes()


@pytest.mark.oracle
def test_we_read_what_tensorflow_writes(tensorflow, tmp_path):
    arrays = {n: a for n, a in many().items() if a.dtype.name not in ("uint32", "uint64")}
    tensorflow.raw_ops.SaveV2(
        prefix=str(tmp_path / "m.ckpt"),
        tensor_names=list(arrays),
        shape_and_slices=[""] * len(arrays),
        tensors=[tensorflow.constant(a) for a in arrays.values()],
    )
    found = read_bundle(tmp_path / "m.ckpt")
    assert {n: t.load().tobytes() for n, t in found.items()} == {
        n: a.tobytes() for n, a in arrays.items()
    }
    # and the very same index, where the tensors lie in the same order
    write_bundle(tmp_path / "ours" / "m.ckpt", of_arrays(arrays))
    assert list(read_bundle(tmp_path / "ours" / "m.ckpt")) == list(found)


@pytest.mark.oracle
def test_partitioned_variables_of_tensorflow(tensorflow, tmp_path):
    halves = [np.zeros((2, 3), np.float32), np.ones((2, 3), np.float32)]
    tensorflow.raw_ops.SaveV2(
        prefix=str(tmp_path / "m"),
        tensor_names=["w", "w", "b"],
        shape_and_slices=["4 3 0,2:0,3", "4 3 2,2:0,3", ""],
        tensors=[*map(tensorflow.constant, halves), tensorflow.constant([1.0])],
    )
    with pytest.raises(ConvertError, match="w is stored in parts"):
        read_bundle(tmp_path / "m")
