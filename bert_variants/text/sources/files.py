"""Opening text files, plain or compressed, without being fooled by what is in them."""

from __future__ import annotations

import bz2
import glob
import gzip
import hashlib
import itertools
import lzma
import os
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

from bert_variants.text.sources import SourceError

MAX_RATIO = 200  # text reaches about 10 with xz; a bomb reaches 1000 with gzip
RATIO_FREE = 1 << 20  # decompressed bytes below which the ratio does not matter
MAX_BYTES = 1 << 38  # of one decompressed file: 256 GiB

# suffix -> (first bytes, how to open)
_COMPRESSED: dict[str, tuple[bytes, Callable[[Any], BinaryIO]]] = {
    ".gz": (b"\x1f\x8b\x08", gzip.GzipFile),
    ".xz": (b"\xfd7zXZ\x00", lzma.LZMAFile),
    ".bz2": (b"BZh", bz2.BZ2File),
}
# first bytes -> what it is, and what to do about it
_REFUSED: dict[bytes, str] = {
    b"\x1f\x8b\x08": "gzip data; its name must end in .gz",
    b"\xfd7zXZ\x00": "xz data; its name must end in .xz",
    **{b"BZh%d1AY&SY" % n: "bzip2 data; its name must end in .bz2" for n in range(1, 10)},
    b"\x28\xb5\x2f\xfd": "zstandard data; decompress it (zstd -d) or use gz or xz",
    b"PK\x03\x04": "a zip archive; unpack it and name the files",
    b"7z\xbc\xaf\x27\x1c": "a 7z archive; unpack it and name the files",
    b"PAR1": "a Parquet file; export its text to JSON lines",
    b"%PDF-": "a PDF; extract its text first",
    b"\xff\xfe": "UTF-16 text; convert it: iconv -f utf-16 -t utf-8",
    b"\xfe\xff": "UTF-16 text; convert it: iconv -f utf-16 -t utf-8",
    b"\x00\x00\xfe\xff": "UTF-32 text; convert it: iconv -f utf-32 -t utf-8",
}
_HEAD = 512  # bytes that are looked at; a tar archive names itself at 257


def is_compressed(path: Path) -> bool:
    """Whether the name says that the file is gzip, xz or bzip2 data."""
    return path.suffix in _COMPRESSED


def find(pattern: str) -> tuple[Path, list[str]]:
    """The folder in front of the first wildcard, and the files below it that match, sorted.

    "**" stands for any number of folders, as in ``glob``; a relative pattern starts at the
    current directory and "~" is the home directory.

    Raises:
        SourceError: no file matches, a folder is named, or a match is not a regular file.
    """
    said = os.path.expanduser(pattern)
    literal = os.path.lexists(said)  # a name may hold brackets
    found = [said] if literal else sorted(glob.glob(said, recursive=True))
    folders = [p for p in found if os.path.isdir(p)]
    files = [Path(p) for p in found if not os.path.isdir(p)]
    if not files:
        why = f"matches no file (current directory: {os.getcwd()})"
        if folders:
            why = f'is a folder. For all files below it say "{pattern.rstrip("/")}/**/*"'
        raise SourceError(f"{pattern!r} {why}.")
    for file in files:
        if not file.is_file():
            raise SourceError(
                f"{file} matches {pattern!r} but is not a regular file (a broken link, pipe or "
                "device). Remove it or narrow the pattern."
            )
    fixed = Path(said).parts[:-1]
    if not literal:
        fixed = tuple(itertools.takewhile(lambda part: not glob.has_magic(part), fixed))
    below = [file.relative_to(Path(*fixed)).as_posix() for file in files]
    return Path(*fixed).absolute(), below


def size(path: Path) -> int:
    """Bytes of a file on the disk.

    Raises:
        SourceError: the file is gone.
    """
    try:
        return path.stat().st_size
    except OSError as error:
        raise SourceError(f"{path} cannot be read: {error.strerror or error}.") from None


def content_hash(path: Path) -> str:
    """sha256 of a file's bytes as they lie on the disk.

    Raises:
        SourceError: the file cannot be read.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise SourceError(f"{path} cannot be read: {error.strerror or error}.") from None


class Stream:
    """``with Stream(path) as stream``: the bytes of a text file, decompressed on the way.

    Raises (on entering and while reading):
        SourceError: a file that cannot be read; first bytes that belong to another kind of file
            than the name says (compressed twice, an archive, UTF-16); damaged or truncated
            compressed data; more than ``MAX_RATIO`` times or ``MAX_BYTES`` of decompressed data.
    """

    def __init__(self, path: Path, start: int = 0) -> None:
        self._path = path
        self._start = start
        self._out = 0
        self._limit = MAX_BYTES

    def __enter__(self) -> Stream:
        try:
            self._file: BinaryIO = self._path.open("rb")
        except OSError as error:
            raise SourceError(f"{self._path} cannot be read: {error.strerror or error}.") from None
        try:
            self._begin()
        except BaseException:
            self._file.close()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()

    def _begin(self) -> None:
        if is_compressed(self._path):
            magic, opener = _COMPRESSED[self._path.suffix]
            self._check_magic(self._file.read(len(magic)), magic)
            size = os.fstat(self._file.fileno()).st_size
            self._limit = min(MAX_BYTES, max(RATIO_FREE, MAX_RATIO * size))
            self._file.close()
            self._file = opener(self._path)
        if self._start:
            self._file.seek(self._start)
            return
        self._check_text(self.read(_HEAD))
        self._file.seek(0)
        self._out = 0

    def read(self, size: int) -> bytes:
        """At most ``size`` bytes; none at the end."""
        return self._checked(self._file.read, size)

    def readline(self, size: int) -> bytes:
        """Bytes up to and with the next newline, but at most ``size``; none at the end."""
        return self._checked(self._file.readline, size)

    def _checked(self, read: Callable[[int], bytes], size: int) -> bytes:
        try:
            data = read(size)
        except EOFError:
            raise SourceError(
                f"{self._path} is truncated: its compressed data end after {self._out} bytes of "
                "text without an end mark. Copy or download it again."
            ) from None
        except (OSError, lzma.LZMAError, zlib.error) as error:
            raise SourceError(
                f"{self._path} is damaged after {self._out} bytes of text: {error}."
            ) from None
        self._out += len(data)
        if self._out > self._limit:
            raise SourceError(
                f"{self._path} decompresses to more than {self._limit} bytes (the cap is "
                f"{MAX_RATIO} times the file and {MAX_BYTES} bytes): this is no ordinary text. "
                "Decompress it yourself if it is meant so."
            )
        return data

    def _check_magic(self, found: bytes, expected: bytes) -> None:
        if found != expected:
            raise SourceError(
                f"{self._path} is named {self._path.suffix} but begins with {found!r} instead of "
                f"{expected!r}. Rename it to what it is."
            )

    def _check_text(self, head: bytes) -> None:
        for magic, what in _REFUSED.items():
            if head.startswith(magic):
                inside = "holds " if is_compressed(self._path) else "is "
                raise SourceError(f"{self._path} {inside}{what}.")
        if head[257:262] == b"ustar":
            raise SourceError(f"{self._path} is a tar archive; unpack it and name the files.")
