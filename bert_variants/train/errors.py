"""What ends a run, as exceptions that know their exit code.

0 done; 2 usage or config; 3 data or checkpoint invalid; 4 diverged; 75 stopped and saved (start
again); 76 watchdog, or a peer was lost (start again). Anything else is a bug.
"""

from __future__ import annotations

DONE, USAGE, INVALID, DIVERGED, STOPPED, LOST = 0, 2, 3, 4, 75, 76


class RunError(Exception):
    """Ends a run for a reason that its user can understand and mend."""

    exit_code: int = 1


class ResumeRefusedError(RunError):
    """The run on disk was made with other settings, text or tokenizer than were given now."""

    exit_code = USAGE


class LockedError(RunError):
    """Another process is working in the run's directory."""

    exit_code = USAGE


class RunDirError(RunError):
    """The run's directory cannot be written, or went away."""

    exit_code = INVALID


class CheckpointError(RunError):
    """A checkpoint is missing, damaged or of another shape, or one could not be written."""

    exit_code = INVALID


class DivergedError(RunError):
    """Loss or gradient stay non-finite whatever is skipped."""

    exit_code = DIVERGED


class PeerLostError(RunError):
    """Another process of this run died or cannot be reached."""

    exit_code = LOST
