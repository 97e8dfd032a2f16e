"""Who works on which cell: files that are made in one step, beat while their maker lives.

A run's own lock (``train/lock.py``) keeps two processes of one machine out of one directory, and is
taken all the same. It does not say across machines that its holder died: many network file systems
do not share the kernel's locks. So a cell is claimed by a numbered file in its directory::

    claim-0001.json   {"host": "a", "machine": "...", "pid": 123, "start": "..."}
    claim-0002.json   the worker that took the cell over

A claim is made by exclusive creation, so exactly one worker gets each number. Its maker holds the
kernel's lock on it and touches it every few seconds; a claim that was given back has the time 0.
The newest claim is over if it was given back, if a worker on the same machine finds it unlocked
(its maker is dead, known at once), or if its time did not change for ``stale`` seconds *as watched
by the worker that wants it*, so clocks need not agree. Claims are never deleted.
"""

from __future__ import annotations

import contextlib
import datetime
import errno
import fcntl
import json
import os
import socket
import threading
import time
from pathlib import Path
from types import TracebackType

from bert_variants.train.errors import LockedError

BEAT, STALE = 15.0, 180.0  # seconds


class ClaimLostError(LockedError):
    """Another worker took the cell over, believing this one dead (it was stopped for long)."""


class Claims:
    """What one worker knows of the others' claims.

    Args:
        beat: seconds between two signs of life.
        stale: seconds without one after which a claim on another machine is over.
        machine: what tells machines apart; processes with the same one share a kernel.
    """

    def __init__(self, beat: float = BEAT, stale: float = STALE, machine: str = "") -> None:
        self._beat, self._stale, self._machine = beat, stale, machine or this_machine()
        self._seen: dict[Path, tuple[int, float]] = {}  # claim -> (its time, when first seen so)

    def take(self, folder: Path) -> Claim | None:
        """Claim the cell in ``folder``; None if another worker has it."""
        folder.mkdir(parents=True, exist_ok=True)
        newest = newest_claim(folder)
        if newest and self._alive(claim_path(folder, newest)):
            return None
        path = claim_path(folder, newest + 1)
        try:
            file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o644)
        except FileExistsError:
            return None
        with contextlib.suppress(OSError):  # a file system without locks: the beat decides
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        about = {"host": socket.gethostname(), "machine": self._machine, "pid": os.getpid()}
        # written after it is locked, so whoever can read it can trust the lock
        os.write(file, json.dumps({**about, "start": now}).encode())
        return Claim(folder, newest + 1, file, self._beat)

    def _alive(self, path: Path) -> bool:
        """Whether a claim's maker is at work, as far as this worker can know."""
        try:
            file = os.open(path, os.O_RDWR)
        except FileNotFoundError:
            return False
        try:
            touched = os.fstat(file).st_mtime_ns
            if touched == 0:
                return False
            if self._same_machine(os.pread(file, 4096, 0)):
                unlocked = _unlocked(file)
                if unlocked is not None:
                    return not unlocked
        finally:
            os.close(file)
        before = self._seen.get(path)
        if before is None or before[0] != touched:
            self._seen[path] = touched, time.monotonic()
            return True
        return time.monotonic() - before[1] < self._stale

    def _same_machine(self, text: bytes) -> bool:
        try:
            return json.loads(text)["machine"] == self._machine
        except (ValueError, KeyError, TypeError):
            return False  # being written now, or cut off


class Claim:
    """A cell that this worker has; a context manager that gives it back.

    Attributes:
        lost: another worker took it over.
        before: how many claims there were on the cell before this one.
    """

    def __init__(self, folder: Path, number: int, file: int, beat: float) -> None:
        self.lost, self.before = False, number - 1
        self._folder, self._path, self._number = folder, claim_path(folder, number), number
        self._file, self._beat, self._over = file, beat, threading.Event()
        self._thread = threading.Thread(target=self._live, name="claim", daemon=True)
        self._thread.start()

    def check(self) -> None:
        """See that the cell is still this worker's.

        Raises:
            ClaimLostError: it is not.
        """
        if self.lost:
            raise ClaimLostError(
                f"{self._folder} was taken over by another worker, which saw no sign of life of "
                "this one. It goes on there."
            )

    def release(self) -> None:
        """Give it back; a second call does nothing."""
        if self._file < 0:
            return
        self._over.set()
        self._thread.join()
        if not self.lost:
            _touch(self._path, 0)
        os.close(self._file)
        self._file = -1

    def _live(self) -> None:
        following = claim_path(self._folder, self._number + 1)
        while not self._over.wait(self._beat):
            if following.exists() or not _touch(self._path):
                self.lost = True
                return

    def __enter__(self) -> Claim:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.release()


def claim_path(folder: Path, number: int) -> Path:
    """The file of the n-th claim on a cell."""
    return folder / f"claim-{number:04}.json"


def newest_claim(folder: Path) -> int:
    """The number of the newest claim on a cell; 0 if there was none."""
    found = [p.stem.removeprefix("claim-") for p in folder.glob("claim-*.json")]
    return max((int(number) for number in found if number.isdecimal()), default=0)


def this_machine() -> str:
    """What processes with a common kernel have in common: the boot's id where there is one."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return socket.gethostname()


def _unlocked(file: int) -> bool | None:
    """Whether nobody holds the lock; None where there are no locks."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return False if error.errno in (errno.EWOULDBLOCK, errno.EACCES) else None
    return True


def _touch(path: Path, when: int | None = None) -> bool:
    """Set a file's time to now, or to ``when``; False if it is gone."""
    try:
        os.utime(path, None if when is None else (when, when))
    except OSError:
        return False
    return True
