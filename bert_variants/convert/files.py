"""Files on disk: ranges of one that is there, and a new one that appears whole or not at all."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import os
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np

from bert_variants.convert.errors import ConvertError

_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


@dataclasses.dataclass(frozen=True)
class Source:
    """A file to read ranges of. Nothing is open or mapped between reads.

    Ranges are read and not mapped, because mapped pages count as memory of the process for as long
    as the system likes.

    Attributes:
        path: the file.
        size: in bytes, when it was first looked at.
        stamp: which file it was then, and when it had been written; one that changes is an error.
    """

    path: Path
    size: int
    stamp: tuple[int, ...]

    @classmethod
    def of(cls, path: Path) -> Source:
        """Look at a file.

        Raises:
            ConvertError: no such file, or not one of the disk.
        """
        with _opened(path) as descriptor:
            found = os.fstat(descriptor)
            return cls(path, found.st_size, _stamp(found))

    def read(self, offset: int, count: int) -> np.ndarray:
        """``count`` bytes from ``offset`` on, uint8, in memory that belongs to the caller.

        Raises:
            ConvertError: the range is not in the file, the file has changed since it was looked
                at, or there is not enough memory.
        """
        if offset < 0 or count < 0 or offset + count > self.size:
            raise ConvertError(
                f"{self.path} ends at byte {self.size:,}, but bytes {offset:,} to "
                f"{offset + count:,} are needed. It is cut short."
            )
        with _opened(self.path) as descriptor:
            if _stamp(os.fstat(descriptor)) != self.stamp:
                raise ConvertError(f"{self.path} was written to while it was being read.")
            try:
                data = np.empty(count, np.uint8)
            except MemoryError:
                raise ConvertError(f"no memory for {count:,} bytes of {self.path}.") from None
            done = 0
            while done < count:
                got = os.preadv(descriptor, [memoryview(data)[done:]], offset + done)
                if not got:
                    raise ConvertError(f"{self.path} became shorter while it was being read.")
                done += got
        return data


def _stamp(found: os.stat_result) -> tuple[int, ...]:
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[int]:
    try:
        # without O_NONBLOCK, opening a pipe waits for somebody to write to it
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        raise ConvertError(f"there is no file {path}.") from None
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        raise ConvertError(f"{path} cannot be opened: {error}.") from None
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise ConvertError(f"{path} is not a file.")
        yield descriptor
    except OSError as error:
        raise ConvertError(f"{path} cannot be read: {error}.") from None
    finally:
        os.close(descriptor)


def make_folder(folder: Path) -> None:
    """Make a folder that may be there already.

    Raises:
        ConvertError: it cannot be made.
    """
    with _told(folder):
        folder.mkdir(parents=True, exist_ok=True)


def check_room(folder: Path, size: int) -> None:
    """Make sure that a folder has room for ``size`` bytes more, before any is written.

    Raises:
        ConvertError: it has not.
    """
    free = shutil.disk_usage(folder).free
    if free < size:
        raise ConvertError(
            f"{folder} has {free / 1e6:,.1f} MB free, {size / 1e6:,.1f} MB are to be written. "
            "Make room, or write elsewhere."
        )


class Stage:
    """Files that appear under their names when all of them are whole. Use ``staged``."""

    def __init__(self) -> None:
        self._parts: list[tuple[Path, Path]] = []
        self._placed: list[Path] = []

    @contextlib.contextmanager
    def new(self, path: Path) -> Iterator[BinaryIO]:
        """A file to write; it is synced when the block ends, and stands beside its place.

        Raises:
            ConvertError: there is no room, or the folder cannot be written.
        """
        part = path.with_name(f".{path.name}.{os.getpid()}.part")
        self._parts.append((part, path))
        with _told(path), _created(part) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())

    def _place(self) -> None:
        for part, path in self._parts:
            with _told(path):
                part.rename(path)
                self._placed.append(path)
        for folder in {path.parent for _, path in self._parts}:
            with _told(folder):
                _sync_folder(folder)

    def _clear(self) -> None:
        for path in [part for part, _ in self._parts] + self._placed:
            path.unlink(missing_ok=True)


@contextlib.contextmanager
def staged() -> Iterator[Stage]:
    """A stage whose files get their names when the block ends, in the order they were written.

    So a file that names others is written last. If the block raises, nothing appears; a process
    that is killed leaves files named ``.NAME.PID.part`` behind, which nothing reads.

    ::

        with staged() as stage:
            with stage.new(folder / "data") as file:
                file.write(data)
            with stage.new(folder / "index") as file:
                file.write(index)
    """
    stage = Stage()
    try:
        yield stage
        stage._place()
    except BaseException:
        stage._clear()
        raise


@contextlib.contextmanager
def _told(path: Path) -> Iterator[None]:
    """Errors of the disk, in words."""
    try:
        yield
    except OSError as error:
        what = "there is no room" if error.errno in _NO_ROOM else str(error)
        raise ConvertError(
            f"{path} could not be written: {what}. Nothing of it is there."
        ) from error


def _created(part: Path) -> BinaryIO:
    part.unlink(missing_ok=True)  # left by a process of the same number that was killed
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    return os.fdopen(os.open(part, flags, 0o644), "wb")


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def check_absent(paths: list[Path]) -> None:
    """Refuse to write over what is there.

    Raises:
        ConvertError: names every one of ``paths`` that exists.
    """
    there = {path.name for path in paths if path.exists() or path.is_symlink()}
    if there:
        raise ConvertError(
            f"{paths[0].parent} holds {', '.join(sorted(there))} already. Nothing is overwritten: "
            "delete it, or write elsewhere."
        )


def write_file(path: Path, data: bytes) -> None:
    """Write a small file that is not there yet, whole or not at all.

    Raises:
        ConvertError: it is there, or cannot be written.
    """
    check_absent([path])
    with staged() as stage, stage.new(path) as file:
        file.write(data)
