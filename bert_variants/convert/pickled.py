"""``pytorch_model.bin``: refused, or read by a reader that knows tensors and nothing else.

Such a file is a pickle, a program: loading it can run anything. So ``refuse`` names the one line
that turns it into safetensors. ``read_pickled`` is for those who ask for it by name; it unpickles
nothing. It walks over the program (``pickled_program``), which has to be the one that
``torch.save`` writes for a dictionary of tensors, and reads the tensors' bytes from the archive.

The archive is a zip file, not compressed (torch 1.6 and later, torch/serialization.py)::

    NAME/data.pkl       the program
    NAME/byteorder      "little" (not in older ones)
    NAME/version        "3"
    NAME/data/0, ...    the storages: bytes that tensors are views of
"""

from __future__ import annotations

import dataclasses
import math
import re
import struct
import zipfile
import zlib
from pathlib import Path

import numpy as np

from bert_variants.convert import pickled_program
from bert_variants.convert.errors import ConvertError, check
from bert_variants.convert.files import Source
from bert_variants.convert.pickled_program import Tensor
from bert_variants.convert.tensors import DTYPES, Stored, of_bytes, shape_problem

SUFFIXES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
MOST_PROGRAM = 4 << 20  # bytes: a model of 400 tensors has 60 kB
MOST_DIRECTORY = 2 << 20  # bytes of its list of files: 25,000 of them
_LOCAL = 30  # bytes of an entry's own header, before its name
_CHUNK = 1 << 20


def refuse(path: str | Path) -> ConvertError:
    """The error that says why a pickle is not read, and the one line that converts it."""
    name = Path(path).name
    return ConvertError(
        f"{path} is a pickle: loading it can run any program. Convert it once, where torch is "
        f"installed:\n  {one_line(name)}\nOr name the file itself, to have it read by a reader "
        "that admits tensors and nothing else."
    )


def one_line(name: str) -> str:
    """A command that makes ``model.safetensors`` of a pickle, with torch's own safe reader."""
    if not re.fullmatch(r"[\w.-]+", name):
        name = "FILE"  # a name that a shell or Python would read as more than a name
    return (
        'python -c "import torch, safetensors.torch as s; '
        f"w = torch.load('{name}', map_location='cpu', weights_only=True); "
        "s.save_file({k: v.clone().contiguous() for k, v in w.items()}, 'model.safetensors', "
        "metadata={'format': 'pt'})\""
    )


def read_pickled(path: str | Path) -> dict[str, Stored]:
    """The tensors of a file that ``torch.save`` wrote of a flat dictionary of tensors.

    No code of the file is run. Tensors may be views of one storage, of any strides. In the file's
    order.

    Raises:
        ConvertError: it is no such file; its program does anything but build tensors; it names
            files outside of its archive; or sizes do not agree. Says what.
    """
    source = Source.of(Path(path))
    archive = _Archive.of(source)
    program = archive.content("data.pkl", MOST_PROGRAM)
    if archive.has("byteorder") and archive.content("byteorder", 16) != b"little":
        raise ConvertError(f"{path}: the most significant byte is first, expected last.")
    try:
        tensors = pickled_program.run(program)
    except pickled_program.RefusedError as error:
        raise ConvertError(f"{path}: data.pkl {error}") from None
    problems = [f"{n[:200]} {p}." for n, t in tensors.items() if (p := _problem(t, archive))]
    check(f"{path} cannot be read", problems)
    return {name: _stored(name, tensor, archive) for name, tensor in tensors.items()}


# ---- the archive


@dataclasses.dataclass(frozen=True)
class _Member:
    """A file in the archive: where its own header begins, its size and its checksum."""

    header: int
    size: int
    crc: int


class _Archive:
    """A zip file whose files are stored as they are, one after another, in one folder."""

    def __init__(self, source: Source, root: str, members: dict[str, _Member]) -> None:
        self.source, self._root, self._members = source, root, members
        self._checked: set[str] = set()

    @classmethod
    def of(cls, source: Source) -> _Archive:
        """Read the list of files.

        Raises:
            ConvertError: no zip file, or one that ``torch.save`` does not write.
        """
        start = source.read(0, min(4, source.size)).tobytes()
        if start != b"PK\3\4":
            what = "is no archive of torch"
            if start[:1] == b"\x80":  # a pickle begins so
                what = "is in the format of torch before 1.6, or no file of torch"
            raise ConvertError(
                f"{source.path} {what}. Where torch is installed, convert it:\n"
                f"  {one_line(source.path.name)}"
            )
        _check_directory(source)
        try:
            with zipfile.ZipFile(source.path) as archive:
                infos = archive.infolist()
        # what the standard reader raises of damaged files, beside its own
        except (zipfile.BadZipFile, ValueError, OSError, RuntimeError, struct.error) as e:
            raise ConvertError(f"{source.path} is a damaged archive: {e}.") from None
        problems = [f"{i.filename[:100]!r} {p}." for i in infos if (p := _unfit(i, source.size))]
        names = [info.filename for info in infos]
        problems += ["it holds a name twice."] * (len(set(names)) < len(names))
        check(f"{source.path} is no archive of torch", problems)
        programs = [name for name in names if re.fullmatch(r"[^/]+/data\.pkl", name)]
        if len(programs) != 1:
            raise ConvertError(f"{source.path} is no archive of torch: it has no data.pkl.")
        members = {i.filename: _Member(i.header_offset, i.file_size, i.CRC) for i in infos}
        _check_apart(source, members)
        return cls(source, programs[0].removesuffix("data.pkl"), members)

    def has(self, name: str) -> bool:
        """Whether there is a file of that name."""
        return self._root + name in self._members

    def size(self, name: str) -> int:
        """Of a file that is there."""
        return self._members[self._root + name].size

    def content(self, name: str, most: int) -> bytes:
        """A small file that is there, whole."""
        if self.size(name) > most:
            raise ConvertError(
                f"{self.source.path}: {name} has {self.size(name):,} bytes, expected {most:,}."
            )
        data = self.read(name, 0, self.size(name))
        self.check(name)
        return data.tobytes()

    def read(self, name: str, offset: int, count: int) -> np.ndarray:
        """Bytes of a file that is there, uint8."""
        member = self._members[self._root + name]
        if offset + count > member.size:
            raise ConvertError(f"{self.source.path}: {name} has {member.size:,} bytes.")
        return self.source.read(self._start(member) + offset, count)

    def check(self, name: str) -> None:
        """Compare a file's checksum, once, in pieces.

        Raises:
            ConvertError: it is damaged.
        """
        if name in self._checked:
            return
        member, crc = self._members[self._root + name], 0
        start = self._start(member)
        for at in range(0, member.size, _CHUNK):
            crc = zlib.crc32(self.source.read(start + at, min(_CHUNK, member.size - at)), crc)
        if crc != member.crc:
            # torch.serialization.set_crc32_options(False) writes zeros
            why = "its checksum is another" if member.crc else "or was saved without checksums"
            raise ConvertError(f"{self.source.path}: {name} is damaged, {why}.")
        self._checked.add(name)

    def _start(self, member: _Member) -> int:
        """Where the bytes begin, behind a header whose length stands in it."""
        header = self.source.read(member.header, _LOCAL).tobytes()
        if header[:4] != b"PK\3\4":
            raise ConvertError(f"{self.source.path} is a damaged archive.")
        name, extra = header[26:28], header[28:30]
        return member.header + _LOCAL + sum(int.from_bytes(x, "little") for x in (name, extra))


def _check_directory(source: Source) -> None:
    """Bound the list of files, which the standard reader reads whole.

    Raises:
        ConvertError: there is none, or it is too long.
    """
    at = max(0, source.size - (1 << 16) - 200)  # a comment of 64 kB may stand behind its end
    tail = source.read(at, source.size - at).tobytes()
    end = len(tail) - 22 if tail[-22:-18] == b"PK\5\6" else tail.rfind(b"PK\5\6")
    if end < 0 or len(tail) < end + 22:
        raise ConvertError(f"{source.path} is cut short, or is no archive of torch.")
    size = tail[end + 12 : end + 16]
    # a larger record may stand in front, and in between where it is
    if end >= 76 and tail[end - 20 : end - 16] == b"PK\6\7" and tail[end - 76 :][:4] == b"PK\6\6":
        size = tail[end - 36 : end - 28]
    found = int.from_bytes(size, "little")
    if found > MOST_DIRECTORY:
        raise ConvertError(
            f"{source.path} has a list of files of {found:,} bytes, expected {MOST_DIRECTORY:,}."
        )


def _unfit(info: zipfile.ZipInfo, size: int) -> str | None:
    """What is wrong with what the list says of one file."""
    name = info.filename
    parts = name.split("/")
    if name != info.orig_filename or "\\" in name or ":" in name or {"", ".", ".."} & set(parts):
        return "is no name of a file in it"
    if info.compress_type != zipfile.ZIP_STORED or info.compress_size != info.file_size:
        return "is compressed, which torch never writes"
    if info.flag_bits & 1:
        return "is encrypted"
    if info.header_offset < 0 or info.header_offset + _LOCAL + info.file_size > size:
        return f"has {info.file_size:,} bytes, more than the archive"
    return None


def _check_apart(source: Source, members: dict[str, _Member]) -> None:
    """No two files of an archive may share bytes: it could hold more than its size then."""
    end = 0
    for name, member in sorted(members.items(), key=lambda item: item[1].header):
        if member.header < end:
            raise ConvertError(f"{source.path}: {name[:100]!r} shares bytes with another file.")
        end = member.header + _LOCAL + member.size


# ---- tensors


def _problem(tensor: Tensor, archive: _Archive) -> str | None:
    """What is wrong with one tensor, its storage and its strides."""
    wrong = shape_problem(tensor.shape)
    if wrong:
        return f"has no shape: {wrong}"
    strides = tensor.strides
    if len(strides) != len(tensor.shape):
        return f"has {len(strides)} strides for {len(tensor.shape)} dimensions"
    if tensor.offset < 0 or any(stride < 0 for stride in strides):
        return "has a negative offset or stride"
    name = f"data/{tensor.storage.key}"
    if not archive.has(name):
        return f"lies in {name}, which is not in the archive"
    item = DTYPES[tensor.storage.dtype].itemsize
    if archive.size(name) != tensor.storage.count * item:
        return (
            f"lies in {name}, which has {archive.size(name):,} bytes, "
            f"{tensor.storage.count:,} {tensor.storage.dtype} need {tensor.storage.count * item:,}"
        )
    if tensor.offset + _span(tensor) > tensor.storage.count:
        return f"goes beyond the end of {name}"
    if math.prod(tensor.shape) > tensor.storage.count:
        return f"repeats numbers of {name}, as no parameter does"
    return None


def _span(tensor: Tensor) -> int:
    """How many numbers lie from its first one to its last one."""
    if 0 in tensor.shape:
        return 0
    return 1 + sum((n - 1) * s for n, s in zip(tensor.shape, tensor.strides, strict=True))


def _stored(name: str, tensor: Tensor, archive: _Archive) -> Stored:
    dtype = tensor.storage.dtype
    where = f"data/{tensor.storage.key}"
    item = DTYPES[dtype].itemsize

    def load() -> np.ndarray:
        archive.check(where)
        count = _span(tensor)
        data = archive.read(where, tensor.offset * item, count * item)
        flat = of_bytes(data, f"{name} in {archive.source.path}", (count,), dtype)
        if not count:
            return flat.reshape(tensor.shape)
        sizes = zip(tensor.shape, tensor.strides, strict=True)
        strides = [stride * item if size > 1 else 0 for size, stride in sizes]
        view = np.lib.stride_tricks.as_strided(flat, tensor.shape, strides)
        return flat.reshape(tensor.shape) if view.flags.c_contiguous else view.copy(order="C")

    return Stored(name, tensor.shape, dtype, str(archive.source.path), load)
