"""Damaged and hostile files of every format: an error in words, or the right tensors.

Files are damaged as a whole; and, where a checksum would notice that at once, inside: what a
message or a program says is changed, and the checksums are made right again, as somebody who means
harm would do.
"""

from __future__ import annotations

import json
import time
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from convert.hand_made import archive, measured, program, tensor

from bert_variants.convert import json_files
from bert_variants.convert.bundle import read_bundle, write_bundle
from bert_variants.convert.bundle_table import read_table, table_bytes
from bert_variants.convert.errors import ConvertError
from bert_variants.convert.files import Source
from bert_variants.convert.pickled import read_pickled
from bert_variants.convert.safetensors_files import INDEX, read_safetensors, write_safetensors
from bert_variants.convert.tensors import Stored, of_arrays

ARRAYS = {
    "bert/a": np.arange(12, dtype=np.float32).reshape(3, 4),
    "bert/b": np.arange(5, dtype=np.int64),
    "bert/flags": np.array([True, False, True]),
    "c": np.float16(2.5)[...],
}
SECONDS, BYTES = 2.0, 64e6  # at most, for one file

# Numbers that readers trip over, in four and eight bytes.
NUMBERS = [
    value.to_bytes(size, "little")
    for size in (4, 8)
    for value in (0, 1, 127, 128, 2**31 - 1, 2**31, 2**32 - 1)
] + [(2**63 - 1).to_bytes(8, "little"), b"\xff" * 8]
WORDS = [
    *(b"[", b"{", b'"', b"-1", b"1e9", b"true", b"null", b"NaN", b",", b"\\ud800", b"\0", b"\xff"),
    *(b"F64", b"BOOL", b"18446744073709551616", b"../", b"PK\5\6", b"\x80\x02", b"cos\nsystem\n"),
]


def damaged(data: bytes, rng: np.random.Generator) -> bytes:
    """One to three changes: bits, bytes, cuts, copies, numbers and words."""
    out = bytearray(data)
    for _ in range(rng.integers(1, 4)):
        if not out:
            break
        at, end = sorted(rng.integers(0, len(out) + 1, 2).tolist())
        at = min(at, len(out) - 1)
        end = min(end, at + 40)
        match int(rng.integers(0, 8)):
            case 0:
                out[at] ^= 1 << int(rng.integers(0, 8))
            case 1:
                out[at] = int(rng.integers(0, 256))
            case 2:
                del out[at:]
            case 3:
                del out[at:end]
            case 4:
                out[at:at] = out[at:end]
            case 5:
                number = NUMBERS[rng.integers(len(NUMBERS))]
                out[at : at + len(number)] = number
            case 6:
                word = WORDS[rng.integers(len(WORDS))]
                out[at : at + int(rng.integers(0, 2)) * len(word)] = word
            case 7:
                out[at:at] = rng.integers(0, 256, int(rng.integers(1, 20)), np.uint8).tobytes()
    return bytes(out)


# ---- a valid file of each kind; how it is damaged; how it is read


class Kind:
    """A kind of file: ``write`` puts a damaged one into a folder, ``read`` returns tensors."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.make()

    def make(self) -> None:
        raise NotImplementedError

    def write(self, rng: np.random.Generator) -> None:
        raise NotImplementedError

    def read(self) -> dict[str, Stored]:
        raise NotImplementedError

    # whether what is accepted must be the right tensors: there are checksums, which are not forged
    checked = True


class WholeFile(Kind):
    """Safetensors. There is no checksum: what is accepted has to fit its own header."""

    checked = False

    def make(self) -> None:
        (path,) = write_safetensors(self.folder, of_arrays(ARRAYS))
        self.path, self.data = path, path.read_bytes()

    def write(self, rng: np.random.Generator) -> None:
        self.path.write_bytes(damaged(self.data, rng))

    def read(self) -> dict[str, Stored]:
        return read_safetensors(self.folder)


class HeaderOnly(WholeFile):
    """Safetensors whose header is damaged and its length made right again."""

    def write(self, rng: np.random.Generator) -> None:
        length = int.from_bytes(self.data[:8], "little")
        header = damaged(self.data[8 : 8 + length], rng)
        self.path.write_bytes(len(header).to_bytes(8, "little") + header + self.data[8 + length :])


class Sharded(Kind):
    """The index of several safetensors files."""

    checked = False

    def make(self) -> None:
        self.path = write_safetensors(self.folder, of_arrays(ARRAYS), shard_bytes=50)[-1]
        assert self.path.name == INDEX
        self.data = self.path.read_bytes()

    def write(self, rng: np.random.Generator) -> None:
        self.path.write_bytes(damaged(self.data, rng))

    def read(self) -> dict[str, Stored]:
        return read_safetensors(self.folder)


class BundleIndex(Kind):
    """The index of a checkpoint."""

    def make(self) -> None:
        paths = write_bundle(self.folder / "m", of_arrays(ARRAYS))
        self.data_path, self.path = paths
        self.data = self.path.read_bytes()

    def write(self, rng: np.random.Generator) -> None:
        self.path.write_bytes(damaged(self.data, rng))

    def read(self) -> dict[str, Stored]:
        return read_bundle(self.folder / "m")


class BundleData(BundleIndex):
    """The data of a checkpoint."""

    def make(self) -> None:
        super().make()
        self.data = self.data_path.read_bytes()

    def write(self, rng: np.random.Generator) -> None:
        self.data_path.write_bytes(damaged(self.data, rng))


class BundleMessages(BundleIndex):
    """A message or a key in the index, and the blocks' checksums made right again."""

    checked = False

    def make(self) -> None:
        super().make()
        self.table = read_table(Source.of(self.path))

    def write(self, rng: np.random.Generator) -> None:
        table = dict(self.table)
        key = list(table)[rng.integers(len(table))]
        value = table.pop(key)
        if rng.integers(4):
            value = damaged(value, rng)
        else:
            key = damaged(key or b"x", rng)
        self.path.write_bytes(table_bytes({**table, key: value}))


class BundleBlocks(BundleIndex):
    """The first block of the index, and its checksum made right again."""

    checked = False

    def write(self, rng: np.random.Generator) -> None:
        from convert.test_bundle import one_block

        body = self.data[: self.data.index(b"\0\0\0\0\1\0\0\0") + 8]
        self.path.write_bytes(one_block(damaged(body, rng)))


def views() -> tuple[bytes, dict[str, bytes]]:
    """The same tensors as a program and storages."""
    items, storages = {}, {}
    for i, (name, x) in enumerate(ARRAYS.items()):
        strides = tuple(s // x.itemsize for s in x.strides)
        items[name] = tensor(x.dtype.name, x.shape, strides, key=str(i), count=x.size)
        storages[str(i)] = x.tobytes()
    return program(items), storages


class PickledArchive(Kind):
    """An archive of torch."""

    def make(self) -> None:
        self.program, self.storages = views()
        self.path = self.folder / "pytorch_model.bin"
        self.data = archive(self.program, self.storages)

    def write(self, rng: np.random.Generator) -> None:
        self.path.write_bytes(damaged(self.data, rng))

    def read(self) -> dict[str, Stored]:
        return read_pickled(self.path)


class PickledProgram(PickledArchive):
    """The program in an archive, and its checksum made right again."""

    checked = False

    def write(self, rng: np.random.Generator) -> None:
        self.path.write_bytes(archive(damaged(self.program, rng), self.storages))


KINDS = [
    *(WholeFile, HeaderOnly, Sharded, BundleIndex, BundleData, BundleMessages, BundleBlocks),
    *(PickledArchive, PickledProgram),
]


def same(found: dict[str, np.ndarray]) -> bool:
    """Whether these are the tensors that were written."""
    return set(found) == set(ARRAYS) and all(
        found[n].tobytes() == x.tobytes()
        and found[n].shape == x.shape
        and found[n].dtype == x.dtype
        for n, x in ARRAYS.items()
    )


@pytest.mark.parametrize("kind", KINDS)
def test_undamaged(tmp_path, kind):
    made = kind(tmp_path)
    if kind in (PickledArchive, PickledProgram):
        made.path.write_bytes(made.data)
    assert same({name: t.load() for name, t in made.read().items()})


def tried(made: Kind) -> dict[str, np.ndarray] | None:
    """All tensors; None where they are refused. Anything else that is raised is a failure."""
    try:
        return {name: stored.load() for name, stored in made.read().items()}
    except ConvertError:
        return None


def fuzz(made: Kind, count: int, seed: int) -> tuple[int, int]:
    """Damage and read ``count`` times; how many were accepted, and refused."""
    accepted = 0
    for i in range(count):
        rng = np.random.default_rng((seed, i))
        made.write(rng)
        started = time.monotonic()
        found = tried(made)
        assert time.monotonic() - started < SECONDS, f"case {seed}, {i}"
        if found is not None:
            accepted += 1
            assert not made.checked or same(found), f"case {seed}, {i}"
    return accepted, count - accepted


@pytest.mark.parametrize("kind", KINDS)
def test_damage(tmp_path, kind):
    made = kind(tmp_path)
    tracemalloc.start()
    _, refused = fuzz(made, 60, seed=1)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < BYTES
    assert refused > 15


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_much_damage(tmp_path, kind):
    _, refused = fuzz(kind(tmp_path), 10_000, seed=2)
    assert refused > 2000


def test_the_fuzz_would_notice(tmp_path, monkeypatch):
    """A reader that raises what it should not, or lets damage through, fails."""
    made = BundleData(tmp_path)
    monkeypatch.setattr("bert_variants.convert.bundle._same_checksum", lambda *_: lambda _: None)
    with pytest.raises(AssertionError, match="case 1, "):
        fuzz(made, 250, seed=1)
    made = WholeFile(tmp_path / "other")
    monkeypatch.setattr(json_files, "parse", lambda data, where: json.loads(data))
    with pytest.raises((ValueError, KeyError, AttributeError, TypeError)) as caught:
        fuzz(made, 250, seed=1)
    assert not isinstance(caught.value, ConvertError)


# ---- the worst that fits into the limits


@pytest.mark.slow
def test_as_many_tensors_as_fit(tmp_path):
    entries = [
        '"%d":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}',
        '"%d":{"dtype":"U8","shape":[-1],"data_offsets":[0,0]}',
        '"%d":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}',
        '"%d":[]',
    ]
    cases = []
    for i, entry in enumerate(entries):
        path = tmp_path / f"{i}.safetensors"
        count = 40_000
        header = ("{" + ",".join(entry % n for n in range(count)) + "}").encode()
        assert len(header) < 4 << 20
        path.write_bytes(len(header).to_bytes(8, "little") + header)
        prepare = "from bert_variants.convert.safetensors_files import read_safetensors"
        cases.append((prepare, f"assert len(read_safetensors({str(path)!r})) == {count}"))
    for done, entry in zip(measured(cases), entries, strict=True):
        assert bool(done.error) == (entry != entries[0]), entry
        assert len(done.error) < 100_000, entry
        assert done.bytes < BYTES, entry
        assert done.seconds < SECONDS, entry
