"""One process at a time works in a run's directory.

The lock is the kernel's (``flock``), so it ends with its holder however that dies; the file's text
only says who it is. The file is never deleted: a deleted file could be locked twice.
"""

from __future__ import annotations

import datetime
import fcntl
import json
import os
import socket
from pathlib import Path
from types import TracebackType

from bert_variants.train.errors import LockedError, RunDirError

NAME = "lock"


class Lock:
    """Holds the lock of ``run_dir`` from construction until ``release``; a context manager.

    Attributes:
        stale: who held it before and did not release it (killed, or the machine went down); empty
            if the last holder ended in order.

    Raises:
        LockedError: another process holds it; names host, pid and start time.
        RunDirError: the directory cannot be made or written.
    """

    def __init__(self, run_dir: Path) -> None:
        self.path = run_dir / NAME
        try:
            run_dir.mkdir(parents=True, exist_ok=True)
            self._file = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise RunDirError(
                f"run.dir {run_dir} cannot be written ({error.strerror}). Make it writable, or "
                "give another --run.dir."
            ) from None
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            holder = describe(self._read())
            os.close(self._file)
            raise LockedError(
                f"{run_dir} is in use by {holder}. Wait for it, stop it, or give another --run.dir."
            ) from None
        before = self._read()
        self.stale = describe(before) if before else ""
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        mine = {"host": socket.gethostname(), "pid": os.getpid(), "start": now}
        self._write(json.dumps(mine))

    def check(self) -> None:
        """See that the directory is still the one that was locked.

        Raises:
            RunDirError: it was deleted or moved away.
        """
        try:
            there = os.path.samestat(os.stat(self.path), os.fstat(self._file))
        except OSError:
            there = False
        if not there:
            raise RunDirError(
                f"{self.path.parent} was deleted or moved while the run was working in it. What "
                "was saved before is where it was moved to."
            )

    def release(self) -> None:
        """Give it back; a second call does nothing."""
        if self._file >= 0:
            self._write("")
            os.close(self._file)
            self._file = -1

    def __enter__(self) -> Lock:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.release()

    def _read(self) -> bytes:
        return os.pread(self._file, 4096, 0)

    def _write(self, text: str) -> None:
        os.ftruncate(self._file, 0)
        os.pwrite(self._file, text.encode(), 0)


def describe(text: bytes) -> str:
    """``process 123 on host (started 2024-05-01T10:00:00+00:00)``."""
    try:
        values = json.loads(text)
        return f"process {values['pid']} on {values['host']} (started {values['start']})"
    except (ValueError, KeyError, TypeError):
        return "a process that left no name"
